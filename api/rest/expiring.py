"""Certificates that run out without a successor: a list for who has a token.

Which these are is `pki/monitoring/expiry_notices.py`'s; the page of figures for anybody is
`api/pages/expiring.py`.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from marshmallow import fields

from api.http import paging
from api.http.operation import Opens, Resource, Transacted, operation, resource
from api.http.prices import SEARCH
from api.http.schemas import EXAMPLE_ADDRESS, EXAMPLE_SERIAL, Instant, Pattern, Shape
from api.wiring import Container
from directory.access import Role
from pki.monitoring import expiry_notices
from pki.monitoring.expiry_store import Ending, ExpiryQuery

_CURSOR = re.compile(r"([0-9]{1,10})-([0-9a-f]{40})")


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
    wanted = ExpiryQuery(
        call.now + timedelta(days=int(asked["within"].removesuffix("d"))),
        authority=call.token.authority if role is Role.REGISTRAR else None,
        to_operator=role is Role.OPERATOR,
        operator_id=call.token.operator_id,
    )
    endings = expiry_notices.ending(call.connection, call.now, wanted, after=_place(asked), limit=limit + 1)
    page, last = paging.cut(endings, limit)
    following = None if last is None else f"{int(last.not_after.timestamp())}-{last.serial}"
    return {"items": [_shown(ending) for ending in page], "next": following}


def expiring_certificates(container: Container) -> Resource:
    """The resource, served on `container`."""
    text = "Certificats bientôt échus — Certificates about to run out"
    return resource("expiring", text, container, expiring)


def _place(asked: dict[str, Any]) -> tuple[datetime, str] | None:
    match = _CURSOR.fullmatch(asked.get("after") or "")
    return None if match is None else (datetime.fromtimestamp(int(match[1]), UTC), match[2])


def _shown(ending: Ending) -> dict[str, Any]:
    """A mailbox's certificate by its address; the subject, which names a person, is not needed for that."""
    return {**vars(ending), "subject": None if ending.mailbox else ending.subject}
