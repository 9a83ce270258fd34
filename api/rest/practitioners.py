"""Practitioners of the national register: search, and one person, with the mailboxes that may be shown."""

from collections.abc import Sequence
from typing import Any

from marshmallow import fields

from api.http import paging
from api.http.operation import Opens, Resource, Transacted, operation, resource
from api.http.prices import BY_NUMBER, SEARCH
from api.http.schemas import CODE_AS_SENT, Code, Instant, Line, Pattern, Shape
from api.rest.correction_schemas import corrected
from api.rest.mailboxes import PREFERRED, MailboxAnswer, Shown, shown
from api.wiring import Container
from directory import privacy
from directory.access import Role
from directory.base.errors import Kind, Refusal
from directory.corrections import Mark, marks
from directory.feed.changes import Entity
from directory.identifiers import read_national_id
from directory.model import Practitioner
from directory.search import PEOPLE, people_question, sites_of
from directory.store import addresses_of
from directory.store import practitioners as found_by_id

MAY_SEARCH = {Role.OPERATOR, Role.REGISTRAR, Role.AUDITOR}
EXAMPLE_NATIONAL_ID = "810099000019"
OF_A_PERSON = {
    "national_id": {
        "schema": {"type": "string", "maxLength": 30},
        "description": "Chiffre du type, puis numéro — Digit of the type, then the number",
        "example": EXAMPLE_NATIONAL_ID,
    }
}
MALFORMED_IDS = (
    "malformed-national-id", "malformed-rpps", "rpps-check-digit", "malformed-adeli", "adeli-check-digit",
    "malformed-finess", "finess-check-digit", "malformed-siret", "siret-check-digit",
)  # fmt: skip


class Profession(Shape):
    """A profession (TRE_G15) and its category (TRE_R09)."""

    code = fields.String(required=True, metadata={"example": "10"})
    category = fields.String(required=True, metadata={"example": "C"})


class PracticeAnswer(Shape):
    """One place and way of practising, as the register gives it."""

    profession_code = fields.String(required=True)
    category = fields.String(required=True)
    mode = fields.String(required=True)
    sector = fields.String(required=True)
    structure_id = fields.String(required=True)
    finess = fields.String(required=True)
    structure_name = fields.String(required=True)
    street = fields.String(required=True)
    postal_code = fields.String(required=True)
    town = fields.String(required=True)
    department = fields.String(required=True)
    registered_by = fields.String(required=True)


class NameAnswer(Shape):
    """A name that somebody practises under."""

    family_name = fields.String(required=True, metadata={"example": "DURAND"})
    given_name = fields.String(required=True, metadata={"example": "Camille"})


class PractitionerAnswer(Shape):
    """A person of the national register."""

    national_id = fields.String(required=True, metadata={"example": EXAMPLE_NATIONAL_ID})
    title = fields.String(required=True)
    family_name = fields.String(required=True, metadata={"example": "MARTIN"})
    given_name = fields.String(required=True, metadata={"example": "Camille"})
    other_names = fields.List(
        fields.Nested(NameAnswer),
        required=True,
        metadata={
            "description": "Autres noms d'exercice, par profession — Other names, of other professions of his"
        },
    )
    professions = fields.List(fields.Nested(Profession), required=True)
    skills = fields.List(fields.String(), required=True)
    practices = fields.List(fields.Nested(PracticeAnswer), required=True)
    suspended = fields.Boolean(required=True)
    struck_off = fields.Boolean(required=True)
    departed_at = Instant(
        required=True,
        allow_none=True,
        metadata={
            "description": "Depuis quand le registre ne le connaît plus — Since when the register lacks him"
        },
    )
    corrected = corrected()
    mailboxes = fields.List(
        fields.Nested(MailboxAnswer),
        required=True,
        metadata={"description": PREFERRED},
    )


class PractitionersAnswer(Shape):
    """A page of people; `next` is null on the last page, and only there."""

    items = fields.List(fields.Nested(PractitionerAnswer), required=True)
    next = fields.String(required=True, allow_none=True)
    total = fields.Nested(paging.TotalAnswer, required=True, allow_none=True)
    sources = fields.Dict(keys=fields.String(), values=Instant(allow_none=True), required=True)


class PractitionersQuery(paging.SearchQuery):
    """What to look for; all that is given must hold."""

    name = Line(
        100,
        metadata={
            "description": "Débuts de mots du nom, sans égard aux accents — Beginnings of words of the name",
            "example": "martin camille",
        },
    )
    profession = Code(
        validate=Pattern(
            r"[0-9A-Z]{1,10}", error="A code of TRE_G15 is expected, as in 10.", as_sent=CODE_AS_SENT
        ),
        metadata={"description": "Code TRE_G15", "example": "10"},
    )
    skill = Code(
        validate=Pattern(
            r"[0-9A-Z]{1,10}", error="The code of a skill is expected, as in SM04.", as_sent=CODE_AS_SENT
        ),
        metadata={"description": "Code du savoir-faire — Code of the skill (TRE_R38…)", "example": "SM04"},
    )
    organisation = Line(
        100,
        metadata={
            "description": "Numéro FINESS ou mots du nom d'un lieu d'exercice — FINESS number, or words of "
            "the name, of a place of practice",
            "example": "chu besancon",
        },
    )


@operation(
    "GET",
    "/v1/practitioners",
    roles=MAY_SEARCH,
    opens=Opens.SNAPSHOT,
    price=SEARCH,
    french="""Chercher des professionnels.

    Par nom, profession, savoir-faire, département, commune et lieu d'exercice. Rien n'est tronqué en
    silence : tant qu'il en reste, `next` le dit et donne la suite.
    """,
    answer=PractitionersAnswer,
    query=PractitionersQuery,
    problems=("bad-cursor", "too-little-to-search"),
)
def search(call: Transacted, asked: dict[str, Any]) -> dict[str, Any]:
    """Search practitioners.

    By name, profession, skill, department, town and place of practice. Nothing is cut off silently: while
    there is more, `next` says so and leads on.
    """
    criteria = ("name", "profession", "skill", "department", "town", "organisation")
    sites = sites_of(call.connection, asked["organisation"]) if "organisation" in asked else ()
    question = people_question(
        **{criterion: asked[criterion] for criterion in criteria if criterion in asked}, sites=sites
    )
    return paging.page_of(call, PEOPLE, question, asked, _answers)


@operation(
    "GET",
    "/v1/practitioners/<national_id>",
    roles=MAY_SEARCH,
    opens=Opens.SNAPSHOT,
    price=BY_NUMBER,
    french="""Un professionnel.

    Par son numéro national, chiffre du type compris. Qui a quitté le registre est rendu avec la date de son
    départ, sans boîte.
    """,
    answer=PractitionerAnswer,
    problems=(*MALFORMED_IDS, "unknown-practitioner"),
    parameters=OF_A_PERSON,
)
def practitioner(call: Transacted, national_id: str) -> dict[str, Any]:
    """One practitioner.

    By national number, digit of its type included. Someone who left the register is given with the date of
    it, and without mailboxes.
    """
    wanted = read_national_id(national_id, strict=call.container.settings.strict_rpps)
    for answer in _answers(call, [wanted]):
        return answer
    raise Refusal(
        Kind.NOT_FOUND, "unknown-practitioner", "The national register holds nobody under this number."
    )


def practitioners(container: Container) -> Resource:
    """The resource, served on `container`."""
    text = "Professionnels du registre national — Practitioners of the national register"
    return resource("practitioners", text, container, search, practitioner)


def _answers(call: Transacted, keys: Sequence[str]) -> list[dict[str, Any]]:
    people = found_by_id(call.connection, keys)
    mailboxes = shown(call, addresses_of(call.connection, keys))
    marked = marks(call.connection, Entity.PRACTITIONER, keys)
    return [
        _answer(people[key], mailboxes[key], marked.get(key, ()))
        for key in keys
        if key in people and privacy.is_shown(people[key])
    ]


def _answer(person: Practitioner, mailboxes: Sequence[Shown], marked: Sequence[Mark]) -> dict[str, Any]:
    professions = [{"code": code, "category": category} for code, category in person.professions]
    return {
        **vars(person),
        "professions": professions,
        "other_names": [{"family_name": name, "given_name": given} for name, given in person.other_names],
        "mailboxes": mailboxes,
        "corrected": marked,
    }
