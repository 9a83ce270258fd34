"""What a person should look at, as a list that pages: matters that no rule can settle."""

from typing import Any

from marshmallow import fields

from api.http import paging
from api.http.operation import Opens, Resource, Transacted, operation, resource
from api.http.schemas import Instant, Shape
from api.wiring import Container
from directory.access import Role
from directory.attention import Concern, matters_noted


class AttentionQuery(paging.NumberedQuery):
    """Which matters; the open ones of every kind when nothing is said."""

    kind = fields.Enum(
        Concern,
        by_value=True,
        metadata={"description": "Sorte — Kind", "example": "no-answerable-professional"},
    )
    closed = fields.Boolean(
        load_default=False, metadata={"description": "Aussi les affaires closes — Closed ones besides"}
    )


class MatterAnswer(Shape):
    """One matter; `subject` is an address, a national number, a serial or an enrolment, as its kind says."""

    id = fields.Integer(required=True)
    kind = fields.String(required=True, metadata={"example": "no-answerable-professional"})
    subject = fields.String(required=True)
    authorities = fields.List(fields.String(), required=True, metadata={"example": ["CNOM"]})
    since = Instant(required=True)
    detail = fields.Dict(required=True)
    resolved_at = Instant(required=True, allow_none=True)
    resolved_by = fields.String(required=True, allow_none=True)


class AttentionAnswer(Shape):
    """A page of matters, the oldest first; `next` is null on the last page, and only there."""

    items = fields.List(fields.Nested(MatterAnswer), required=True)
    next = fields.Integer(required=True, allow_none=True)


@operation(
    "GET",
    "/v1/attention",
    roles={Role.REGISTRAR, Role.ADMIN, Role.AUDITOR},
    opens=Opens.SNAPSHOT,
    while_behind=True,
    french="""Ce qui demande un regard.

    Boîtes d'établissement dont plus personne ne répond, certificats bientôt révoqués, boîtes que deux
    titulaires réclament. Numéros disparus sans successeur, enrôlements approuvés sous d'autres noms que ceux
    d'aujourd'hui (`differs` dit lesquels). Un agent voit ce qui touche son Ordre, administrateurs et
    auditeurs tout. Une affaire se ferme d'elle-même quand elle n'a plus lieu d'être.
    """,
    answer=AttentionAnswer,
    query=AttentionQuery,
)
def see_attention(call: Transacted, asked: dict[str, Any]) -> dict[str, Any]:
    """What needs a look.

    Mailboxes of establishments that nobody answers for any more, certificates about to be revoked, mailboxes
    that two holders claim. Numbers gone without a successor, enrolments approved under other names than the
    record shows now (`differs` says which). A registrar sees what touches his Ordre, administrators and
    auditors all. A matter closes by itself when it is gone.
    """
    limit: int = asked["limit"]
    matters = matters_noted(
        call.connection,
        authority=call.token.authority if call.token.role is Role.REGISTRAR else None,
        kind=None if (kind := asked.get("kind")) is None else kind.value,
        closed=asked["closed"],
        after=asked.get("after"),
        limit=limit + 1,
    )
    page, last = paging.cut(matters, limit)
    return {"items": page, "next": None if last is None else last.id}


def attention(container: Container) -> Resource:
    """The resource, served on `container`."""
    text = "Ce qui demande un regard — What needs a look"
    return resource("attention", text, container, see_attention)
