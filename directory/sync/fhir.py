"""What FHIR resources of the Annuaire Santé say, as the rows that the registers' own files would give.

Reads a file of increments (`increment.py` writes it): a header, then one JSON object a line, each a person
with all current situations of practice, or an organisation. Only whom a line names is touched. What profiles
of ours do not know is counted (`ignored`), never guessed; a resource that cannot be read leaves its subject
to the next whole file.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

import orjson

from directory.base.errors import Refusal
from directory.identifiers import parse_finess, parse_national_id
from directory.sync.establishment import Establishment
from directory.sync.layout import Column, fault
from directory.sync.mailboxes import COLUMNS as MAILBOX_COLUMNS
from directory.sync.mailboxes import mailbox_row, owner_of
from directory.sync.register import Read, Reading
from directory.sync.rpps import (
    ACTIVITIES,
    IDENTITY,
    SKILL,
    activity_row,
    department_of,
    identity_check,
    know_how_row,
)
from directory.sync.source import Member, refused
from directory.sync.staging import Staging, copy_row

LAYOUT = "fhir-v2"
TABLES = """
CREATE TEMP TABLE IF NOT EXISTS touched (key text PRIMARY KEY);
CREATE TEMP TABLE learned (role_id text PRIMARY KEY, practitioner_id text);
"""
# A person with some hundreds of situations of practice.
LONGEST_ENTRY = 4 << 20
NATIONAL_ID, STRUCTURE = "urn:oid:1.2.250.1.71.4.2.1", "urn:oid:1.2.250.1.71.4.2.2"
# TRE_G07: the first digit of a structure's national identifier says which number follows.
_FINESS, _SIRET = "1", "3"
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


def entries(member: Member) -> tuple[Resource, Iterator[tuple[int, Resource]]]:
    """The header of an increment and its entries with their line numbers.

    Refusal `missing-header`, `truncated` or `line-too-long` for what is no whole increment.
    """
    lines = _lines(member)
    header = _entry(member.name, *next(lines, (1, b"{}")))
    if not {"since", "until"} <= set(header):
        raise refused("missing-header", f"{member.name} does not begin as an increment does.")
    return header, _whole(member.name, lines)


def _whole(name: str, lines: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, Resource]]:
    """The entries, of which the last line says how many there are."""
    entry: Resource = {}
    number = 1
    for number, line in lines:
        entry = _entry(name, number, line)
        if "entries" not in entry:
            yield number, entry
    if entry.get("entries") != number - 2:
        raise refused("truncated", f"{name} does not end as an increment does.")


def _lines(member: Member) -> Iterator[tuple[int, bytes]]:
    number, rest = 0, b""
    for block in member.blocks():
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            number += 1
            yield number, line
        if len(rest) > LONGEST_ENTRY:
            raise refused("line-too-long", f"{member.name}: a line is longer than {LONGEST_ENTRY >> 20} MB.")
    if rest:
        raise refused("truncated", f"{member.name}: the last line has no end; the file was cut.")


def _entry(name: str, number: int, line: bytes) -> Resource:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise refused("missing-header", f"{name}: line {number} is no JSON.") from error
    if not isinstance(found, dict):
        raise refused("missing-header", f"{name}: line {number} is no JSON object.")
    return found


class _Increment:
    """The entries of one file on their way into the temporary tables."""

    def __init__(self, members: Mapping[str, Member], staging: Staging) -> None:
        header, self.entries = entries(next(iter(members.values())))
        try:
            since, until = (datetime.fromisoformat(header[name]) for name in ("since", "until"))
        except (ValueError, TypeError) as error:
            raise refused("missing-header", "The increment does not say of which time it tells.") from error
        if since.tzinfo is None or until.tzinfo is None or since > until:
            raise refused("missing-header", "The increment does not say of which time it tells.")
        self.reading = Reading(LAYOUT, until, since)
        self._staging = staging
        self._touched: set[str] = set()

    def take(self, kind: str, row: Callable[[int, Resource], None]) -> None:
        """Let `row` stage each entry of this kind; its Refusal is the reason of a rejection.

        Whom the API named and then did not know, and situations that ended and are nobody's whom we know,
        are told with the people.
        """
        for number, entry in self.entries:
            if kind == "person" and "missing" in entry:
                self.reject(number, "person-not-found", f"{entry['missing']}", entry)
            if kind == "person" and "role" in entry:
                self._staging.ignored += 1
            if kind not in entry:
                continue
            try:
                row(number, entry)
            except Refusal as refusal:
                self.reject(number, refusal.code, refusal.text, entry)

    def reject(self, number: int, reason: str, detail: str, entry: Resource, key: str = "") -> None:
        """Leave whom the entry names, or the `key`, as the record has him."""
        key = key or _named(entry)
        self._staging.reject(number, reason, f"{key}: {detail}", orjson.dumps(entry).decode(), spared=key)

    def touch(self, key: str) -> None:
        """What the file says of this key is all that there is."""
        self._touched.add(key)

    def end(self) -> Reading:
        """Hand over which keys were touched."""
        self._staging.hand_over(("COPY touched FROM STDIN", [copy_row((key,)) for key in self._touched]))
        return self.reading


def read_people(members: Mapping[str, Member], staging: Staging, *, strict: bool) -> Reading:
    """Stage the activities and skills of each person named; one who is inactive has none left."""
    increment = _Increment(members, staging)
    check = identity_check(strict=strict)
    learned: dict[str, str] = {}

    def person(number: int, entry: Resource) -> None:
        resource = _one(entry, "person")
        national_id = parse_national_id(national_id_of(resource), strict=strict)
        if resource.get("active") is not False:
            roles = [role for role in _many(entry, "roles") if role.get("active") is not False]
            cells = list(_activities(national_id, resource, roles, _one(entry, "organisations")))
            skills = list(_skills(cells[0], resource))
            for row in (*cells, *skills):
                _check(check, row)
            for row in cells:
                staging.stage(activity_row(number, _picked(ACTIVITIES, row)))
            for row in skills:
                staging.stage(know_how_row(number, _picked((*IDENTITY, *SKILL), row)))
            staging.ignored += _unknown(resource, roles)
            learned.update((str(role["id"]), str(resource["id"])) for role in roles)
        increment.touch(national_id)

    increment.take("person", person)
    staging.hand_over(("COPY learned FROM STDIN", [copy_row(pair) for pair in learned.items()]))
    return increment.end()


def _check(check: Callable[[tuple[str, ...]], str], row: Mapping[str, str]) -> None:
    """Refuse what no line of the extraction could say."""
    if reason := check(_picked(IDENTITY, row)) or _fault(row.values()):
        raise refused(reason, "This person cannot be read.")


def _fault(cells: Iterable[str]) -> str:
    joined = "".join(cells)
    return fault(joined) or ("separator-in-cell" if "|" in joined else "")


def _picked(columns: Iterable[Column], row: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(row.get(column.field, "") for column in columns)


def _activities(
    national_id: str, person: Resource, roles: list[Resource], organisations: Resource
) -> Iterator[dict[str, str]]:
    """The cells of each line that the extraction would hold of this person; never none."""
    name = next(iter(_many(person, "name")), {})
    told = {
        "id_type": national_id[0],
        "id_number": national_id[1:],
        "national_id": national_id,
        "family_name": _said(name, "family"),
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
    told = [_codes(one.get("code")) for one in _many(person, "qualification")]
    return list(dict.fromkeys((c[_PROFESSION], c.get(_CATEGORY, "")) for c in told if _PROFESSION in c))


def _exercise_of(role: Resource, exercises: list[tuple[str, str]]) -> tuple[str, str]:
    """The profession of a situation of practice: told by it, or the only one there is."""
    codes = _codes(*_many(role, "code"))
    fitting = [
        one
        for one in exercises
        if codes.get(_PROFESSION, one[0]) == one[0] and codes.get(_CATEGORY, one[1]) == one[1]
    ]
    if len(fitting) != 1:
        raise refused("profession-unclear", "Which of the professions is practised there is not told.")
    return fitting[0]


def _skills(identity: Mapping[str, str], person: Resource) -> Iterator[dict[str, str]]:
    """Skills stand beside the profession, which only a person with one profession tells."""
    professions = _exercises(person)
    for one in _many(person, "qualification"):
        codes = _codes(one.get("code"))
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
    codes = _codes(*_many(role, "code"))
    organisation = _structure(role, organisations)
    numbers = _numbers(organisation)
    return {
        "mode": codes.get("R23", ""),
        "role": codes.get("R21", "") or codes.get("R96", "") or codes.get("R85", ""),
        "activity_genre": codes.get("R22", ""),
        "pharmacist_table": codes.get("G05", "") or codes.get("R06", ""),
        "sector": _codes(*_many(organisation, "type")).get("R02", ""),
        "structure_id": numbers.get("INTRN", "") or numbers.get("RPPSRG", ""),
        "finess": numbers.get("FINEG", ""),
        "legal_finess": _legal_entity(organisation, organisations),
        "siret": numbers.get("SIRET", ""),
        "name": _said(organisation, "name"),
        "sign": next(iter(_texts(organisation, "alias")), ""),
        "telephone": _telephone(organisation),
        "registered_by": _authority(role) or _authority(organisation),
        **_place(organisation),
    }


def _structure(role: Resource, organisations: Resource) -> Resource:
    """The organisation of a situation of practice; empty when it names none."""
    reference = _said(_one(role, "organization"), "reference").rpartition("/")[2]
    if reference and reference not in organisations:
        raise refused("organisation-not-found", "The organisation of a situation of practice is not told.")
    return _one(organisations, reference)


def _legal_entity(organisation: Resource, organisations: Resource) -> str:
    """The FINESS number of the legal entity: its own, or that of what it is part of."""
    own = _numbers(organisation).get("FINEJ", "")
    above = _said(_one(organisation, "partOf"), "reference").rpartition("/")[2]
    return own or _numbers(_one(organisations, above)).get("FINEJ", "")


def _place(organisation: Resource) -> dict[str, str]:
    address = next(iter(_many(organisation, "address")), {})
    parts: dict[str, str] = {}
    for line in _many(address, "_line"):
        for extension in _many(line, "extension"):
            parts[_said(extension, "url").removeprefix(_STREET)] = _said(extension, "valueString")
    commune = ""
    for extension in _many(address, "extension"):
        if "R13" in (coded := _coding(extension.get("valueCoding"))):
            commune = coded["R13"]
    city = _said(address, "city").lstrip("0123456789 ")
    return {
        "number": parts.get("houseNumber", ""),
        "repetition": parts.get("buildingNumberSuffix", ""),
        "street_code": parts.get("streetNameType", ""),
        "street": parts.get("streetNameBase", ""),
        "postal_code": _said(address, "postalCode"),
        "commune": commune,
        "town": city,
        "country": _said(address, "country"),
    }


def _authority(resource: Resource) -> str:
    for extension in _many(_one(resource, "meta"), "extension"):
        if extension.get("url") == _TRACE:
            for part in _many(extension, "extension"):
                if part.get("url") == "autorite-enregistrement":
                    concept = _one(part, "valueCodeableConcept")
                    return _said(part, "valueString") or next(iter(_codes(concept).values()), "")
    return ""


def _telephone(resource: Resource) -> str:
    numbers = (one for one in _many(resource, "telecom") if one.get("system") == "phone")
    return next((_said(one, "value") for one in numbers), "")


def read_establishments(members: Mapping[str, Member], staging: Staging, *, strict: bool) -> Reading:
    """Stage what is new of establishments: an arrival, a closure, a departure.

    FINESS itself tells the rest every day, and in more detail than the API.
    """
    del strict  # about numbers of persons
    increment = _Increment(members, staging)
    known = _known_establishments(staging, members)

    def establishment(number: int, entry: Resource) -> None:
        organisation = _one(entry, "organisation")
        given = _numbers(organisation).get("FINEG", "")
        if not given:
            return
        finess = parse_finess(given)
        if organisation.get("active") is not False:
            closed_on = _said(_period(organisation), "end")[:10]
            before, departed = known.get(finess, (None, False))
            told = replace(before, closed_on=closed_on or before.closed_on) if before else None
            if told == before and before is not None and not departed:
                staging.agreed += 1
                return
            staging.stage(
                (told or _establishment(finess, organisation, _one(entry, "organisations"))).row(number)
            )
        increment.touch(finess)

    increment.take("organisation", establishment)
    return increment.end()


def _known_establishments(
    staging: Staging, members: Mapping[str, Member]
) -> dict[str, tuple[Establishment, bool]]:
    """Those whom the increment names, as the record has them, and whether they are gone."""
    columns = ", ".join(f"coalesce({one.name}::text, '')" for one in fields(Establishment))
    query = (
        f"SELECT {columns}, departed_at IS NOT NULL FROM organisation"  # noqa: S608 - names of a dataclass
        " WHERE finess = ANY(CAST(:keys AS text[]))"
    )
    _, told = entries(next(iter(members.values())))
    keys = {
        _finess(entry["organisation"]) for _, entry in told if isinstance(entry.get("organisation"), dict)
    }
    found = staging.ask(query, keys=sorted(keys))
    return {row[0]: (Establishment(*row[:-1]), row[-1]) for row in found}


def _finess(organisation: Resource) -> str:
    try:
        return parse_finess(_numbers(organisation).get("FINEG", ""))
    except Refusal:
        return ""


def _period(organisation: Resource) -> Resource:
    for extension in _many(organisation, "extension"):
        if "valuePeriod" in extension:
            return _one(extension, "valuePeriod")
    return {}


def _establishment(finess: str, organisation: Resource, organisations: Resource) -> Establishment:
    numbers, place = _numbers(organisation), _place(organisation)
    parts = (place["number"], place["repetition"], place["street_code"], place["street"])
    return Establishment(
        finess=finess,
        legal_finess=_legal_entity(organisation, organisations),
        siret=numbers.get("SIRET", ""),
        name=_said(organisation, "name"),
        long_name=_said(organisation, "name"),
        category_code=_codes(*_many(organisation, "type")).get("R66", ""),
        category_label="",
        street=" ".join(part for part in parts if part),
        postal_line=f"{place['postal_code']} {place['town']}".strip(),
        commune=place["commune"],
        department=department_of(place["commune"], place["postal_code"]),
        telephone=_telephone(organisation),
        opened_on=_said(_period(organisation), "start")[:10],
        closed_on=_said(_period(organisation), "end")[:10],
    )


_KNOWN_MAILBOXES = """
    SELECT address, kind, coalesce(holder, ''), structure_type, structure_id FROM mailbox
    WHERE departed_at IS NULL AND address = ANY(CAST(:keys AS text[]))
"""


def read_mailboxes(members: Mapping[str, Member], staging: Staging, *, strict: bool) -> Reading:
    """Stage the mailboxes that the record does not have; no increment closes one or hands it over.

    The API does not list all that the extraction does, and it tells of one holder at a time.
    """
    increment = _Increment(members, staging)
    rows: list[tuple[int, Resource, tuple[str, ...]]] = []
    for number, entry in increment.entries:
        if "person" not in entry and "organisation" not in entry:
            continue
        try:
            rows.extend((number, entry, row) for row in _mailboxes(number, entry, strict=strict))
        except Refusal as refusal:
            increment.reject(number, refusal.code, refusal.text, entry)
    known = {
        address: owner_of(kind, holder, structure_type, structure_id)
        for address, kind, holder, structure_type, structure_id in staging.ask(
            _KNOWN_MAILBOXES, keys=sorted({row[1] for _, _, row in rows})
        )
    }
    for number, entry, row in rows:
        address, owner = row[1], row[3]
        if address not in known:
            staging.stage(row)
            increment.touch(address)
        elif known[address] == owner:
            staging.agreed += 1
        else:
            increment.reject(number, "address-held-by-another", owner, entry, key=address)
    return increment.end()


def _mailboxes(number: int, entry: Resource, *, strict: bool) -> Iterator[tuple[str, ...]]:
    """The rows of the mailboxes that this person, with his situations, or this organisation has."""
    if "organisation" in entry:
        organisation = _one(entry, "organisation")
        yield from _boxes_of(number, organisation, organisation, "")
        return
    person = _one(entry, "person")
    holder = parse_national_id(national_id_of(person), strict=strict)
    yield from _boxes_of(number, person, {}, holder)
    for role in _many(entry, "roles"):
        organisation = _structure(role, _one(entry, "organisations"))
        yield from _boxes_of(number, role, organisation, holder)


def _boxes_of(number: int, resource: Resource, structure: Resource, holder: str) -> Iterator[tuple[str, ...]]:
    if resource.get("active") is False:
        return
    identity = _numbers(structure).get("IDNST", "")
    for telecom in _many(resource, "telecom"):
        extensions = {_said(one, "url"): one for one in _many(telecom, "extension")}
        if (
            telecom.get("system") != "email"
            or "MSSANTE" not in _coding(_one(extensions.get(_EMAIL_TYPE, {}), "valueCoding")).values()
        ):
            continue
        told = {_said(one, "url"): one for one in _many(extensions.get(_MAILBOX, {}), "extension")}
        paperless = told.get("digitization", {}).get("valueBoolean")
        row = {
            "kind": next(iter(_codes(_one(told.get("type", {}), "valueCodeableConcept")).values()), ""),
            "address": _said(telecom, "value"),
            "id_type": holder[:1],
            "id_number": holder[1:],
            "holder": holder,
            "structure_type": identity[:1],
            "structure_id": identity[1:],
            "service": _said(told.get("service", {}), "valueString"),
            "paperless": "" if paperless is None else "O" if paperless is True else "N",
            "structure_name": _said(structure, "name") if identity else "",
        }
        if reason := _fault(row.values()):
            raise refused(reason, "A mailbox holds characters that no register has.")
        yield mailbox_row(number, _picked(MAILBOX_COLUMNS, row), holder)


INCREMENTS: Mapping[str, Read] = MappingProxyType(
    {"rpps": read_people, "finess": read_establishments, "mailboxes": read_mailboxes}
)


def national_id_of(person: Resource) -> str:
    """The national identifier a Practitioner states; Refusal `no-national-id`."""
    found = _numbers(person).get("IDNPS", "")
    if not found:
        raise refused("no-national-id", "This person has no national identifier.")
    return found


def _named(entry: Resource) -> str:
    """The key of whom an entry names, as far as it can be told."""
    try:
        if "person" in entry:
            return national_id_of(_one(entry, "person")).strip().upper()
        return _numbers(_one(entry, "organisation")).get("FINEG", "").strip().upper()
    except Refusal:
        return ""


def _numbers(resource: Resource) -> dict[str, str]:
    """Identifiers by the code of their type, those that were replaced left out."""
    found: dict[str, str] = {}
    for identifier in _many(resource, "identifier"):
        codings = _many(_one(identifier, "type"), "coding")
        code = _said(codings[0], "code") if codings else ""
        if identifier.get("use") != "old":
            found.setdefault(code, _said(identifier, "value"))
    return found


def _codes(*concepts: Any) -> dict[str, str]:
    """The codes of CodeableConcepts by the number of their national list (TRE), such as `R23`."""
    found: dict[str, str] = {}
    for concept in concepts:
        for coding in _many(_mapping(concept), "coding"):
            found.update(_coding(coding))
    return found


def _coding(coding: Any) -> dict[str, str]:
    listed = _LISTS.search(_said(_mapping(coding), "system"))
    return {listed[1]: _said(coding, "code")} if listed else {}


def _unknown(person: Resource, roles: list[Resource]) -> int:
    """How many codes of these resources stand on lists that we do not know there."""
    told = [code for one in _many(person, "qualification") for code in _codes(one.get("code"))]
    known = {_PROFESSION, _CATEGORY, _SKILL_TYPE} | _SKILLS | _DIPLOMAS
    practised = [code for role in roles for code in _codes(*_many(role, "code"))]
    return sum(code not in known for code in told) + sum(code not in _ROLE_LISTS for code in practised)


def _mapping(found: Any) -> Resource:
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise refused("malformed-resource", "An element of a resource is not of its kind.")
    return found


def _one(resource: Resource, name: str) -> Resource:
    return _mapping(resource.get(name))


def _many(resource: Resource, name: str) -> list[Resource]:
    found = resource.get(name) or []
    if not isinstance(found, list):
        raise refused("malformed-resource", f"{name} of a resource is no list.")
    # JSON's null stands where a list of extensions says nothing of one element.
    return [_mapping(one) for one in found]


def _texts(resource: Resource, name: str) -> list[str]:
    found = resource.get(name) or []
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise refused("malformed-resource", f"{name} of a resource is no list of texts.")
    return found


def _said(resource: Resource, name: str) -> str:
    found = resource.get(name, "")
    if not isinstance(found, str):
        raise refused("malformed-resource", f"{name} of a resource is no text.")
    return found
