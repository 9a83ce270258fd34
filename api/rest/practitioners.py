"""Practitioners of the national register: search, and one person, with the mailboxes that may be shown.

Which mailboxes show is decided by `directory.rules.visible`, as for every other channel.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from marshmallow import fields, validate

from api.rest.operation import Opens, Resource, Transacted, operation, resource
from api.rest.shapes import EXAMPLE_ADDRESS, EXAMPLE_SERIAL, Instant, Line, Shape
from api.wiring import Container
from directory.access import Role
from directory.base.errors import Kind, Refusal
from directory.identifiers import parse_national_id
from directory.model import Practitioner
from directory.rules import visible
from directory.store import (
    addresses_of,
    mailbox_facts,
    search_practitioners,
    sources,
)
from directory.store import (
    practitioners as found_by_id,
)
from pki.exchange import verdicts
from pki.model import Verdict

MAY_SEARCH = {Role.OPERATOR, Role.REGISTRAR, Role.AUDITOR}
MOST_ON_A_PAGE = 100
EXAMPLE_NATIONAL_ID = "810099000019"


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


class MailboxAnswer(Shape):
    """A mailbox that may be shown; `certificates` are the serials good for use now."""

    address = fields.String(required=True, metadata={"example": EXAMPLE_ADDRESS})
    verdict = fields.String(required=True, validate=validate.OneOf(["allowed", "refused", "unknown"]))
    certificates = fields.List(fields.String(metadata={"example": EXAMPLE_SERIAL}), required=True)


class PractitionerAnswer(Shape):
    """A person of the national register."""

    national_id = fields.String(required=True, metadata={"example": EXAMPLE_NATIONAL_ID})
    title = fields.String(required=True)
    family_name = fields.String(required=True, metadata={"example": "MARTIN"})
    given_name = fields.String(required=True, metadata={"example": "Camille"})
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
    mailboxes = fields.List(
        fields.Nested(MailboxAnswer),
        required=True,
        metadata={"description": "Utilisables d'abord ; liste rouge absente — Usable first; unlisted absent"},
    )


class PractitionersAnswer(Shape):
    """A page of people; `next` is null on the last page, and only there."""

    items = fields.List(fields.Nested(PractitionerAnswer), required=True)
    next = fields.String(required=True, allow_none=True)
    sources = fields.Dict(keys=fields.String(), values=Instant(allow_none=True), required=True)


class PractitionersQuery(Shape):
    """What to look for; all that is given must hold."""

    name = Line(
        100,
        metadata={
            "description": "Débuts de mots du nom, sans égard aux accents — Beginnings of words of the name",
            "example": "martin camille",
        },
    )
    profession = fields.String(
        validate=validate.Regexp(r"^[0-9A-Z]{1,10}\Z", error="A code of TRE_G15 is expected, as in 10."),
        metadata={"description": "Code TRE_G15", "example": "10"},
    )
    department = fields.String(
        validate=validate.Regexp(
            r"^(0[1-9]|[1-8][0-9]|9[0-5]|2[AB]|9[78][0-9])\Z",
            error="The code of a department is expected, as in 01, 2A or 974.",
        ),
        metadata={"description": "Code du département — Code of the department", "example": "75"},
    )
    limit = fields.Integer(load_default=20, validate=validate.Range(1, MOST_ON_A_PAGE))
    after = fields.String(
        validate=validate.Length(1, 100),
        metadata={"description": "`next` de la page d'avant — `next` of the page before"},
    )


@dataclass(frozen=True)
class _Shown:
    """A mailbox as this resource gives it."""

    address: str
    verdict: str
    certificates: Sequence[str]


@operation(
    "GET",
    "/v1/practitioners",
    roles=MAY_SEARCH,
    opens=Opens.SNAPSHOT,
    french="""Chercher des professionnels.

    Par nom, profession et département. Rien n'est tronqué en silence : tant qu'il en reste, `next` le dit
    et donne la suite.
    """,
    answer=PractitionersAnswer,
    query=PractitionersQuery,
    problems=("bad-cursor",),
)
def search(call: Transacted, asked: dict[str, Any]) -> dict[str, Any]:
    """Search practitioners.

    By name, profession and department. Nothing is cut off silently: while there is more, `next` says so and
    leads on.
    """
    limit: int = asked["limit"]
    people = search_practitioners(
        call.connection,
        name=asked.get("name"),
        profession=asked.get("profession"),
        department=asked.get("department"),
        after=_cursor_read(asked["after"]) if "after" in asked else None,
        # One more than shown tells whether there is a next page.
        limit=limit + 1,
        now=call.now,
    )
    page = people[:limit]
    following = _cursor_written(page[-1]) if len(people) > limit else None
    return {"items": _answers(call, page), "next": following, "sources": sources(call.connection)}


@operation(
    "GET",
    "/v1/practitioners/<national_id>",
    roles=MAY_SEARCH,
    opens=Opens.SNAPSHOT,
    french="""Un professionnel.

    Par son numéro national, chiffre du type compris. Qui a quitté le registre est rendu avec la date de son
    départ, sans boîte.
    """,
    answer=PractitionerAnswer,
    problems=("malformed-national-id", "unknown-practitioner"),
    parameters={
        "national_id": {
            "schema": {"type": "string", "maxLength": 30},
            "description": "Chiffre du type, puis numéro — Digit of the type, then the number",
            "example": EXAMPLE_NATIONAL_ID,
        }
    },
)
def practitioner(call: Transacted, national_id: str) -> dict[str, Any]:
    """One practitioner.

    By national number, digit of its type included. Someone who left the register is given with the date of
    it, and without mailboxes.
    """
    wanted = parse_national_id(national_id, strict=call.container.settings.strict_rpps)
    person = found_by_id(call.connection, [wanted]).get(wanted)
    if person is None:
        raise Refusal(
            Kind.NOT_FOUND, "unknown-practitioner", "The national register holds nobody under this number."
        )
    return _answers(call, [person])[0]


def practitioners(container: Container) -> Resource:
    """The resource, served on `container`."""
    text = "Professionnels du registre national — Practitioners of the national register"
    return resource("practitioners", text, container, search, practitioner)


def _answers(call: Transacted, people: Sequence[Practitioner]) -> list[dict[str, Any]]:
    shown = _mailboxes(call, people)
    return [_answer(person, shown[person.national_id]) for person in people]


def _answer(person: Practitioner, mailboxes: Sequence[_Shown]) -> dict[str, Any]:
    professions = [{"code": code, "category": category} for code, category in person.professions]
    return {
        **vars(person),
        "professions": professions,
        "mailboxes": mailboxes,
    }


def _mailboxes(call: Transacted, people: Sequence[Practitioner]) -> Mapping[str, Sequence[_Shown]]:
    """For each person the mailboxes that may be shown, the usable first, then by address."""
    held = addresses_of(call.connection, [person.national_id for person in people])
    every = [address for addresses in held.values() for address in addresses]
    facts = mailbox_facts(call.connection, every)
    listed = [address for address in every if visible(facts[address], call.now)]
    decided = _verdicts(call, listed, call.now)
    return {
        national_id: sorted(
            (_shown(decided[address]) for address in addresses if address in decided),
            key=lambda mailbox: (not mailbox.certificates, mailbox.address),
        )
        for national_id, addresses in held.items()
    }


def _verdicts(call: Transacted, addresses: list[str], now: datetime) -> dict[str, Verdict]:
    lifetime = call.container.verdict_lifetime
    decided = verdicts(call.connection, addresses, sender=None, at=None, now=now, lifetime=lifetime)
    return {verdict.address: verdict for verdict in decided}


def _shown(verdict: Verdict) -> _Shown:
    return _Shown(verdict.address, verdict.answer.value, [one.serial for one in verdict.certificates])


def _cursor_written(last: Practitioner) -> str:
    return base64.urlsafe_b64encode(last.national_id.encode()).decode().rstrip("=")


def _cursor_read(cursor: str) -> str:
    """The last national id of the page before; it orders the next page and gives no right, so it is not
    signed.
    """
    try:
        return parse_national_id(
            base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode(), strict=False
        )
    except (binascii.Error, ValueError, Refusal) as error:
        raise Refusal(Kind.MALFORMED, "bad-cursor", "This cursor was not given by a search.") from error
