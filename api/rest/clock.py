"""Resets of the last instant signed, by two administrators. The rules are `pki/rollback/clock_reset.py`'s."""

from typing import Any

from marshmallow import fields

from api.http.operation import Opens, Resource, Transacted, operation, resource
from api.http.schemas import Instant, Line, Shape
from api.wiring import Container
from directory.access import Role
from directory.base.comments import LONGEST_REASON
from pki.rollback import clock_reset as use_cases
from pki.rollback.clock_reset import Reset


class ResetRequest(Shape):
    """Why what was signed in the future counts no more."""

    reason = Line(
        LONGEST_REASON, required=True, metadata={"example": "NTP server gave the year 2027 for an hour"}
    )


class ResetAnswer(Shape):
    """A reset as it stands; in force once `confirmed_at` is given."""

    id = fields.Integer(required=True, metadata={"example": 1})
    reason = fields.String(required=True)
    asked_by = fields.Integer(required=True, metadata={"description": "N° de jeton — Number of the token"})
    asked_at = Instant(required=True)
    confirmed_by = fields.Integer(required=True, allow_none=True)
    confirmed_at = Instant(required=True, allow_none=True)


class ResetsAnswer(Shape):
    """The last hundred resets, the newest first."""

    items = fields.List(fields.Nested(ResetAnswer), required=True)


@operation(
    "POST",
    "/v1/clock/resets",
    roles={Role.ADMIN},
    opens=Opens.WRITE,
    french="""Annuler le dernier instant signé.

    Quand une horloge avancée par erreur a fait signer à une date à venir, rien n'est plus signé avant elle.
    Un administrateur demande, un autre confirme dans la journée par le même appel ; CRL et OCSP reprennent
    aussitôt.
    """,
    answer=ResetAnswer,
    body=ResetRequest,
    problems=("self-approval", "reason-missing", "reason-too-long"),
)
def reset_clock(call: Transacted, asked: dict[str, Any]) -> Reset:
    """Void the last instant signed.

    Where a clock that jumped ahead signed under a date to come, nothing is signed before it any more. One
    administrator asks, another confirms within a day by the same call; CRLs and OCSP resume at once.
    """
    return use_cases.reset(call.connection, now=call.now, token=call.token, reason=asked["reason"])


@operation(
    "GET",
    "/v1/clock/resets",
    roles={Role.ADMIN, Role.AUDITOR},
    opens=Opens.SNAPSHOT,
    while_behind=True,
    french="""Les annulations du dernier instant signé.

    Les cent dernières, demandées ou confirmées, la plus récente d'abord.
    """,
    answer=ResetsAnswer,
)
def see_resets(call: Transacted) -> dict[str, Any]:
    """Resets of the last instant signed.

    The last hundred, asked for or confirmed, newest first.
    """
    return {"items": use_cases.resets(call.connection, token=call.token)}


def clock(container: Container) -> Resource:
    """The resource, served on `container`."""
    text = "Horloge — Clock"
    return resource("clock", text, container, reset_clock, see_resets)
