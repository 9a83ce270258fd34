"""Certificates that run out without a successor: a list for who has a token, a page of figures for anybody.

Which these are is `pki/monitoring/expiry_notices.py`'s.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import Blueprint, render_template
from marshmallow import fields

from api.http import paging
from api.http.operation import Opens, Resource, Transacted, operation, resource
from api.http.prices import SEARCH
from api.http.schemas import EXAMPLE_ADDRESS, EXAMPLE_SERIAL, Instant, Pattern, Shape
from api.wiring import Container
from api.words.registers import Said, instant, number
from directory.access import Role
from directory.base.db import transaction
from pki.monitoring import expiry_notices, service_expiry
from pki.monitoring.expiry_store import Asked, Ending
from pki.monitoring.service_expiry import Condition, Kind

# Counting passes over what ends within 60 days; anybody may ask.
_HELD = timedelta(seconds=5)
_CURSOR = re.compile(r"([0-9]{1,10})-([0-9a-f]{40})")

PROFILE_WORDS = {
    **{
        f"{kind}-smime{use}": Said(french + french_use, english + english_use)
        for kind, french, english in (
            ("practitioner", "messagerie personnelle", "personal mailbox"),
            ("organisation", "messagerie d'établissement", "establishment's mailbox"),
            ("application", "messagerie applicative", "application's mailbox"),
        )
        for use, french_use, english_use in (
            ("", "", ""),
            ("-sign", " (signature)", " (signature)"),
            ("-encrypt", " (chiffrement)", " (encryption)"),
        )
    },
    "operator-server": Said("serveur d'opérateur", "operator's server"),
    "operator-client": Said("client d'opérateur", "operator's client"),
    "operator-server-short-lived": Said(
        "serveur d'opérateur (courte durée)", "operator's server (short-lived)"
    ),
    "operator-client-short-lived": Said(
        "client d'opérateur (courte durée)", "operator's client (short-lived)"
    ),
}
KIND_WORDS = {
    Kind.ROOT: Said("autorité racine", "root CA"),
    Kind.ISSUING: Said("autorité émettrice", "issuing CA"),
    Kind.OCSP_SIGNER: Said("signataire OCSP", "OCSP signer"),
    Kind.LIST_SIGNER: Said("signataire des listes", "list signer"),
    Kind.SERVICE_TLS: Said("certificat LDAPS", "LDAPS certificate"),
    Kind.CRL: Said("liste de révocation", "CRL"),
}
CONDITION_WORDS = {
    Condition.OK: Said("valable", "holds"),
    Condition.SOON: Said("à prévoir", "to be planned"),
    Condition.DUE: Said("à renouveler", "to be renewed now"),
}
# As the house's style sheet names what is well, what waits and what is late.
CONDITION_STYLE = {Condition.OK: "fresh", Condition.SOON: "held", Condition.DUE: "late"}


class ExpiringQuery(paging.PageQuery):
    """Until when, and from where on."""

    within = fields.String(
        load_default="60d",
        validate=Pattern(r"([1-9][0-9]?|[123][0-9]{2})d", error="Days below 400 are expected, as in 60d."),
        metadata={"description": "Délai en jours — Within so many days", "example": "60d"},
    )
    after = fields.String(
        validate=Pattern(_CURSOR.pattern, error="A cursor of this list is expected."), metadata=paging.AFTER
    )


class ExpiringCertificate(Shape):
    """One certificate; `address` is null for an operator's own, whose `subject` says whose it is.

    `has_recipient` is false where nobody can be told: its operator keeps no contact.
    """

    serial = fields.String(required=True, metadata={"example": EXAMPLE_SERIAL})
    profile = fields.String(required=True, metadata={"example": "practitioner-smime"})
    address = fields.String(
        required=True, allow_none=True, attribute="mailbox", metadata={"example": EXAMPLE_ADDRESS}
    )
    subject = fields.String(required=True, allow_none=True)
    not_after = Instant(required=True)
    authority = fields.String(required=True, allow_none=True, metadata={"example": "CNOM"})
    has_recipient = fields.Boolean(required=True)


class ExpiringAnswer(Shape):
    """A page of certificates, the first to end first; `next` is null on the last page, and only there."""

    items = fields.List(fields.Nested(ExpiringCertificate), required=True)
    next = fields.String(required=True, allow_none=True)


@operation(
    "GET",
    "/v1/expiring",
    roles={Role.OPERATOR, Role.REGISTRAR, Role.AUDITOR, Role.ADMIN},
    opens=Opens.SNAPSHOT,
    price=SEARCH,
    french="""Certificats bientôt échus.

    Ceux qui prennent fin dans le délai et n'ont pas de successeur, les plus proches d'abord. Un agent voit
    ceux que son Ordre a enrôlés, un opérateur ceux des messageries visibles et de ses propres serveurs,
    auditeurs et administrateurs tous.
    """,
    answer=ExpiringAnswer,
    query=ExpiringQuery,
)
def expiring(call: Transacted, asked: dict[str, Any]) -> dict[str, Any]:
    """Certificates about to run out.

    Those that end within this time and have no successor, the nearest first. A registrar sees those that his
    Ordre enrolled, an operator those of mailboxes that show and of its own servers, auditors and
    administrators all.
    """
    role, limit = call.token.role, asked["limit"]
    wanted = Asked(
        call.now + timedelta(days=int(asked["within"].removesuffix("d"))),
        authority=call.token.authority if role is Role.REGISTRAR else None,
        to_operator=role is Role.OPERATOR,
        operator_id=call.token.operator_id,
    )
    found = expiry_notices.ending(call.connection, call.now, wanted, after=_place(asked), limit=limit + 1)
    page, last = paging.cut(found, limit)
    following = None if last is None else f"{int(last.not_after.timestamp())}-{last.serial}"
    return {"items": [_shown(one) for one in page], "next": following}


def expiring_certificates(container: Container) -> Resource:
    """The resource, served on `container`."""
    text = "Certificats bientôt échus — Certificates about to run out"
    return resource("expiring", text, container, expiring)


def expiring_page(container: Container) -> Blueprint:
    """/expiring on `container`: figures only, made anew at most every five seconds."""
    made = Blueprint("expiring_page", __name__)
    kept: list[tuple[datetime, str]] = []

    @made.get("/expiring")
    def page() -> str:
        now = container.clock()
        if not kept or not timedelta() <= now - kept[-1][0] < _HELD:
            kept[:] = [(now, _page(container, now))]
        return kept[-1][1]

    return made


def _page(container: Container, now: datetime) -> str:
    with transaction(container.engine, read_only=True) as connection:
        counted, untold = expiry_notices.counts(connection, now), expiry_notices.untold(connection, now)
        own = [(one, one.condition(now)) for one in service_expiry.ours(connection, now)]
    rows = [
        (PROFILE_WORDS.get(profile, Said(profile, profile)), authority, numbers)
        for (profile, authority), numbers in counted.items()
    ]
    return render_template(
        "expiring.html", rows=rows, own=own, untold=untold, kinds=KIND_WORDS, conditions=CONDITION_WORDS,
        styles=CONDITION_STYLE, instant=instant, number=number, now=now, steps=sorted(expiry_notices.STEPS),
    )  # fmt: skip


def _place(asked: dict[str, Any]) -> tuple[datetime, str] | None:
    match = _CURSOR.fullmatch(asked.get("after") or "")
    return None if match is None else (datetime.fromtimestamp(int(match[1]), UTC), match[2])


def _shown(one: Ending) -> dict[str, Any]:
    """A mailbox's certificate by its address; the subject, which names a person, is not needed for that."""
    return {**vars(one), "subject": None if one.mailbox else one.subject}
