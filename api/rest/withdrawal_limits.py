"""How much trust was taken away within the hour, and the word of a second person that lets more be taken."""

from typing import Any

from marshmallow import fields, validate

from api.front.roads import TAKES_AWAY
from api.http.operation import Opens, Resource, Transacted, operation, resource
from api.http.schemas import LARGEST_ID, Instant, Line, Shape
from api.wiring import Container
from directory import withdrawal_limits as use_cases
from directory.access import Role
from directory.base.comments import LONGEST_REASON
from directory.withdrawal_limits import Agreement

WITHDRAWING = {Role.REGISTRAR, Role.ADMIN, Role.OPERATOR}


class WithdrawalAgreementRequest(Shape):
    """Whose token may go on, and why: what one was shown, or what one checked."""

    token = fields.Integer(
        required=True,
        validate=validate.Range(1, LARGEST_ID),
        metadata={"example": 12, "description": "`token` du refus — `token` of the refusal"},
    )
    reason = Line(LONGEST_REASON, required=True, metadata={"example": "Incident 2026-31, liste relue"})


class WithdrawalAgreementAnswer(Shape):
    """One more allotment: `number` acts until `until`, for that token, beside its limit and its body's."""

    token = fields.Integer(required=True, metadata={"example": 12})
    scopes = fields.List(fields.String(), required=True, metadata={"example": ["token:12", "authority:CNOM"]})
    number = fields.Integer(required=True, metadata={"example": 60})
    agreed_by = fields.String(required=True, metadata={"example": "token:13"})
    agreed_at = Instant(required=True)
    until = Instant(required=True)


class StandingAnswer(Shape):
    """What a token or a body used within 60 minutes, of its limit and of what was agreed beside it."""

    scope = fields.String(required=True, metadata={"example": "authority:CNOM"})
    used = fields.Integer(required=True)
    limit = fields.Integer(required=True)
    agreed = fields.Integer(required=True)
    left = fields.Integer(required=True)


class StandingsAnswer(Shape):
    """Every token and body that took trust away within 60 minutes."""

    items = fields.List(fields.Nested(StandingAnswer), required=True)


@operation(
    "GET",
    "/v1/withdrawal-limits",
    roles=set(Role),
    opens=Opens.SNAPSHOT,
    while_behind=True,
    french="""Ce qui a été retiré dans l'heure.

    Par jeton et par Ordre ou opérateur, toutes voies ensemble : mesures, suspensions, révocations,
    corrections. Un agent ou un opérateur voit les siens, administrateurs et auditeurs tout.
    """,
    answer=StandingsAnswer,
)
def see_withdrawal_limits(call: Transacted) -> dict[str, Any]:
    """What was taken away within the hour.

    By token and by Ordre or operator, all roads together: measures, holds, revocations, corrections. A
    registrar or an operator sees their own, administrators and auditors all.
    """
    uses = use_cases.standings_seen(call.connection, token=call.token, now=call.now)
    return {"items": uses}


@operation(
    "POST",
    "/v1/withdrawal-limits/agreements",
    roles=WITHDRAWING,
    opens=Opens.WRITE,
    while_behind=True,
    road=TAKES_AWAY,
    french="""Accepter qu'un collègue retire davantage.

    Un jeton arrivé à sa limite (`withdrawal-limit-reached`) continue avec l'accord d'une seconde personne.
    C'est un second agent du même Ordre, un second administrateur, ou un second jeton du même opérateur.
    Chaque accord ouvre une tranche de plus pendant une heure, pour ce jeton et son Ordre.
    """,
    answer=WithdrawalAgreementAnswer,
    status=201,
    body=WithdrawalAgreementRequest,
    problems=("unknown-token", "self-approval", "allotment-open", "reason-missing", "reason-too-long"),
)
def agree_to_withdrawals(call: Transacted, asked: dict[str, Any]) -> Agreement:
    """Agree that a colleague takes more away.

    A token that has reached its limit (`withdrawal-limit-reached`) goes on when a second person agrees. That
    is a second registrar of the same Ordre, a second administrator, or a second token of the same operator.
    Each agreement opens one more allotment for an hour, for that token and its Ordre.
    """
    return use_cases.agree(
        call.connection, now=call.now, token=call.token, token_id=asked["token"], reason=asked["reason"]
    )


def withdrawal_limits(container: Container) -> Resource:
    """The resource, served on `container`."""
    text = "Limites de retrait — Limits on taking trust away"
    return resource("withdrawal-limits", text, container, see_withdrawal_limits, agree_to_withdrawals)
