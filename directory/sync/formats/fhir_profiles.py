"""What the profiles of the Annuaire Santé say, as cells of the columns that the registers' own files have.

Pure: FHIR resources in, cells out, a Refusal with the reason of a rejection where one cannot be read. Nothing
is guessed: a code counts by the list it stands on, and what our lists do not know is counted.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from directory.sync.formats.cells import code, plain, spaced
from directory.sync.formats.departments import department_of
from directory.sync.formats.establishment import Establishment
from directory.sync.formats.files import refused

_LISTS = re.compile(r"TRE[_-]([RG][0-9]+)")
_PROFESSION, _CATEGORY, _SKILL_TYPE = "G15", "R09", "R04"
_SKILLS = frozenset({"R38", "R39", "R40", "R42", "R43", "R44", "R45", "R97", "G13"})
_DIPLOMAS = frozenset({"R48", "R14", "R47", "R51", "R52", "R53", "R54", "R55", "R56", "R57", "R58"})
_ROLE_LISTS = frozenset({"R22", "R23", "R21", "R96", "R85", "R06", "G05", _PROFESSION, _CATEGORY})
_EXTENSIONS = "https://interop.esante.gouv.fr/ig/fhir/annuaire/StructureDefinition/"
_EMAIL_TYPE = "https://hl7.fr/ig/fhir/core/StructureDefinition/fr-core-contact-point-email-type"
_MAILBOX, _TRACE = f"{_EXTENSIONS}as-ext-mailbox-mss-metadata", f"{_EXTENSIONS}as-ext-data-trace"
_STREET = "http://hl7.org/fhir/StructureDefinition/iso21090-ADXP-"

Resource = Mapping[str, Any]


def activities_of(
    national_id: str, person: Resource, roles: list[Resource], organisations: Resource
) -> Iterator[dict[str, str]]:
    """The cells of each line that the extraction would hold of this person; never none."""
    name = next(iter(elements(person, "name")), {})
    told = {
        "id_type": national_id[0],
        "id_number": national_id[1:],
        "national_id": national_id,
        "family_name": said(name, "family"),
        "given_name": " ".join(_texts(name, "given")),
        "civility": " ".join(_texts(name, "prefix")),
        "title": " ".join(_texts(name, "suffix")),
    }
    exercises = _exercises(person)
    if not exercises:
        raise refused("no-profession", "No profession is told.")
    practised = set()
    for role in roles:
        profession = _exercise_of(role, exercises)
        practised.add(profession)
        yield {**told, **_profession(profession), **_practice(role, organisations)}
    for profession in exercises:
        if profession not in practised:
            yield {**told, **_profession(profession)}


def _profession(exercise: tuple[str, str]) -> dict[str, str]:
    return {"profession": exercise[0], "category": exercise[1]}


def _exercises(person: Resource) -> list[tuple[str, str]]:
    """Professions with their category, each once, in the order told."""
    told = [codes_of(qualification.get("code")) for qualification in elements(person, "qualification")]
    return list(dict.fromkeys((c[_PROFESSION], c.get(_CATEGORY, "")) for c in told if _PROFESSION in c))


def _exercise_of(role: Resource, exercises: list[tuple[str, str]]) -> tuple[str, str]:
    """The profession of a situation of practice: told by it, or the only one there is."""
    codes = codes_of(*elements(role, "code"))
    fitting = [
        exercise
        for exercise in exercises
        if codes.get(_PROFESSION, exercise[0]) == exercise[0]
        and codes.get(_CATEGORY, exercise[1]) == exercise[1]
    ]
    if len(fitting) != 1:
        raise refused("profession-unclear", "Which of the professions is practised there is not told.")
    return fitting[0]


def skills_of(identity: Mapping[str, str], person: Resource) -> Iterator[dict[str, str]]:
    """Skills stand beside the profession, which only a person with one profession tells."""
    professions = _exercises(person)
    for qualification in elements(person, "qualification"):
        codes = codes_of(qualification.get("code"))
        skill = next((codes[name] for name in sorted(_SKILLS & set(codes))), "")
        if not skill:
            continue
        own = (codes[_PROFESSION], codes.get(_CATEGORY, "")) if _PROFESSION in codes else None
        if own is None and len(professions) != 1:
            raise refused("profession-unclear", "Of which of the professions a skill is, is not told.")
        skill_type = codes.get(_SKILL_TYPE, "")
        told = _profession(own or professions[0])
        yield {**identity, **told, "skill_type": skill_type, "skill_code": skill}


def _practice(role: Resource, organisations: Resource) -> dict[str, str]:
    codes = codes_of(*elements(role, "code"))
    organisation = structure_of(role, organisations)
    numbers = numbers_of(organisation)
    return {
        "mode": codes.get("R23", ""),
        "role": codes.get("R21", "") or codes.get("R96", "") or codes.get("R85", ""),
        "activity_genre": codes.get("R22", ""),
        "pharmacist_table": codes.get("G05", "") or codes.get("R06", ""),
        "sector": codes_of(*elements(organisation, "type")).get("R02", ""),
        "structure_id": numbers.get("INTRN", "") or numbers.get("RPPSRG", ""),
        "finess": numbers.get("FINEG", ""),
        "legal_finess": _legal_entity(organisation, organisations),
        "siret": numbers.get("SIRET", ""),
        "name": said(organisation, "name"),
        "sign": next(iter(_texts(organisation, "alias")), ""),
        "telephone": _telephone(organisation),
        "registered_by": _authority(role) or _authority(organisation),
        **_place(organisation),
    }


def structure_of(role: Resource, organisations: Resource) -> Resource:
    """The organisation of a situation of practice; empty when it names none."""
    reference = said(element(role, "organization"), "reference").rpartition("/")[2]
    if reference and reference not in organisations:
        raise refused("organisation-not-found", "The organisation of a situation of practice is not told.")
    return element(organisations, reference)


def _legal_entity(organisation: Resource, organisations: Resource) -> str:
    """The FINESS number of the legal entity: its own, or that of what it is part of."""
    own = numbers_of(organisation).get("FINEJ", "")
    above = said(element(organisation, "partOf"), "reference").rpartition("/")[2]
    return own or numbers_of(element(organisations, above)).get("FINEJ", "")


def _place(organisation: Resource) -> dict[str, str]:
    address = next(iter(elements(organisation, "address")), {})
    parts: dict[str, str] = {}
    for line in elements(address, "_line"):
        for extension in elements(line, "extension"):
            parts[said(extension, "url").removeprefix(_STREET)] = said(extension, "valueString")
    commune = ""
    for extension in elements(address, "extension"):
        if "R13" in (coded := coding_of(extension.get("valueCoding"))):
            commune = coded["R13"]
    city = said(address, "city").lstrip("0123456789 ")
    return {
        "number": parts.get("houseNumber", ""),
        "repetition": parts.get("buildingNumberSuffix", ""),
        "street_code": parts.get("streetNameType", ""),
        "street": parts.get("streetNameBase", ""),
        "postal_code": said(address, "postalCode"),
        "commune": commune,
        "town": city,
        "country": code(said(address, "country")),
    }


def _authority(resource: Resource) -> str:
    for extension in elements(element(resource, "meta"), "extension"):
        if extension.get("url") == _TRACE:
            for part in elements(extension, "extension"):
                if part.get("url") == "autorite-enregistrement":
                    concept = element(part, "valueCodeableConcept")
                    return said(part, "valueString") or next(iter(codes_of(concept).values()), "")
    return ""


def _telephone(resource: Resource) -> str:
    numbers = (contact for contact in elements(resource, "telecom") if contact.get("system") == "phone")
    return next((said(contact, "value") for contact in numbers), "")


def period_of(organisation: Resource) -> Resource:
    """When an organisation opened and closed, as far as it says."""
    for extension in elements(organisation, "extension"):
        if "valuePeriod" in extension:
            return element(extension, "valuePeriod")
    return {}


def establishment_of(finess: str, organisation: Resource, organisations: Resource) -> Establishment:
    """An establishment that FINESS has not told of yet; `organisations` hold what it is part of."""
    numbers, place = numbers_of(organisation), _place(organisation)
    parts = (place["number"], place["repetition"], place["street_code"], place["street"])
    return Establishment(
        finess=finess,
        legal_finess=_legal_entity(organisation, organisations),
        siret=numbers.get("SIRET", ""),
        name=said(organisation, "name"),
        long_name=said(organisation, "name"),
        category_code=codes_of(*elements(organisation, "type")).get("R66", ""),
        category_label="",
        street=" ".join(part for part in parts if part),
        postal_line=f"{place['postal_code']} {place['town']}".strip(),
        commune=place["commune"],
        department=department_of(place["commune"], place["postal_code"], country=place["country"]),
        telephone=_telephone(organisation),
        opened_on=said(period_of(organisation), "start")[:10],
        closed_on=said(period_of(organisation), "end")[:10],
    )


def mailboxes_of(resource: Resource, structure: Resource, holder: str) -> Iterator[dict[str, str]]:
    """The cells of each mailbox that a resource lists, of this holder, in this structure; none of what is
    inactive.
    """
    if resource.get("active") is False:
        return
    identity = numbers_of(structure).get("IDNST", "")
    for telecom in elements(resource, "telecom"):
        extensions = {said(extension, "url"): extension for extension in elements(telecom, "extension")}
        kind = coding_of(element(extensions.get(_EMAIL_TYPE, {}), "valueCoding"))
        if telecom.get("system") != "email" or "MSSANTE" not in kind.values():
            continue
        told = {
            said(extension, "url"): extension
            for extension in elements(extensions.get(_MAILBOX, {}), "extension")
        }
        paperless = told.get("digitization", {}).get("valueBoolean")
        yield {
            "kind": next(iter(codes_of(element(told.get("type", {}), "valueCodeableConcept")).values()), ""),
            "address": exactly_said(telecom, "value"),
            "id_type": holder[:1],
            "id_number": holder[1:],
            "holder": holder,
            # TRE_G07: the first digit of a structure's national identifier says which number follows.
            "structure_type": identity[:1],
            "structure_id": identity[1:],
            "service": said(told.get("service", {}), "valueString"),
            "paperless": "" if paperless is None else "O" if paperless is True else "N",
            "structure_name": said(structure, "name") if identity else "",
        }


def national_id_of(person: Resource) -> str:
    """The national identifier a Practitioner states; Refusal `no-national-id`."""
    national_id = numbers_of(person).get("IDNPS", "")
    if not national_id:
        raise refused("no-national-id", "This person has no national identifier.")
    return national_id


def numbers_of(resource: Resource) -> dict[str, str]:
    """Identifiers by the code of their type, those that were replaced left out."""
    numbers: dict[str, str] = {}
    for identifier in elements(resource, "identifier"):
        codings = elements(element(identifier, "type"), "coding")
        kind = said(codings[0], "code") if codings else ""
        if identifier.get("use") != "old":
            numbers.setdefault(kind, code(said(identifier, "value")))
    return numbers


def codes_of(*concepts: Any) -> dict[str, str]:
    """The codes of CodeableConcepts by the number of their national list (TRE), such as `R23`."""
    codes: dict[str, str] = {}
    for concept in concepts:
        for coding in elements(_mapping(concept), "coding"):
            codes.update(coding_of(coding))
    return codes


def coding_of(coding: Any) -> dict[str, str]:
    """The code by the number of its national list, empty where it stands on none."""
    listed = _LISTS.search(said(_mapping(coding), "system"))
    return {listed[1]: code(said(coding, "code"))} if listed else {}


def unknown_codes(person: Resource, roles: list[Resource]) -> int:
    """How many codes of these resources stand on lists that we do not know there."""
    told = [
        list_number
        for qualification in elements(person, "qualification")
        for list_number in codes_of(qualification.get("code"))
    ]
    known = {_PROFESSION, _CATEGORY, _SKILL_TYPE} | _SKILLS | _DIPLOMAS
    practised = [list_number for role in roles for list_number in codes_of(*elements(role, "code"))]
    return sum(list_number not in known for list_number in told) + sum(
        list_number not in _ROLE_LISTS for list_number in practised
    )


def _mapping(part: Any) -> Resource:
    if part is None:
        return {}
    if not isinstance(part, dict):
        raise refused("malformed-resource", "An element of a resource is not of its kind.")
    return part


def element(resource: Resource, name: str) -> Resource:
    """A part of a resource, empty where it is missing; Refusal `malformed-resource` for what is none."""
    return _mapping(resource.get(name))


def elements(resource: Resource, name: str) -> list[Resource]:
    """The parts of a resource under this name; Refusal `malformed-resource`."""
    parts = resource.get(name) or []
    if not isinstance(parts, list):
        raise refused("malformed-resource", f"{name} of a resource is no list.")
    # JSON's null stands where a list of extensions says nothing of one element.
    return [_mapping(part) for part in parts]


def _texts(resource: Resource, name: str) -> list[str]:
    texts = resource.get(name) or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise refused("malformed-resource", f"{name} of a resource is no list of texts.")
    return [plain(text) for text in texts]


def said(resource: Resource, name: str) -> str:
    """A text of a resource, normalised, empty where it is missing; Refusal `malformed-resource`."""
    return plain(exactly_said(resource, name))


def exactly_said(resource: Resource, name: str) -> str:
    """The same as it is written, its white space aside."""
    text = resource.get(name, "")
    if not isinstance(text, str):
        raise refused("malformed-resource", f"{name} of a resource is no text.")
    return spaced(text)
