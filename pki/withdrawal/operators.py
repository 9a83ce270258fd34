"""The fate of operators' certificates when the trusted list says otherwise: held, released, revoked.

Looked at whole and by the present rows, like the consequences for mailboxes. A domain that is withdrawn, or
passed to another operator, revokes after its grace (`cessationOfOperation`). A suspension holds at once and
is lifted with it. Looking twice changes nothing.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection

from directory.attention import Concern, Matter, keep
from pki.impediments import standing as impediments
from pki.impediments.causes import RULES, Decision, WithdrawalCause, decide
from pki.model import RevocationAction, Serial
from pki.record import revocations
from pki.record.revocations import Revocable
from pki.registration import operators_store
from pki.registration.operators_store import OperatorStanding
from pki.revocation import revoke
from pki.revocation.revoke import RevocationOrder
from pki.revocation.rules import ACTOR
from pki.withdrawal import store as withdrawal_store
from pki.withdrawal.reconcile import Graces, Outcome

_LIFTED = "the suspension was lifted"


def settle(connection: Connection, *, graces: Graces, now: datetime) -> Outcome:
    """Make the living certificates of operators what the trusted list says they should be."""
    standing = {operator.serial: operator for operator in operators_store.standing(connection, now)}
    touched = list(standing)
    due = withdrawal_store.due(connection, touched) if touched else {}
    revocables = [
        revocations.revocable(connection, serial) for serial in _to_look_at(connection, standing, due)
    ]
    blocked = impediments.blocked_among(
        connection, [revocable.certificate.serial for revocable in revocables if revocable]
    )
    decided = [
        (
            revocable,
            _decision(
                revocable,
                standing[revocable.certificate.serial],
                due,
                blocked=blocked,
                graces=graces,
                now=now,
            ),
        )
        for revocable in revocables
        if revocable
    ]
    taken = revoke.revoke_or_suspend(
        connection, [_taking(*pair) for pair in decided if _takes(pair[1])], now=now, actor=ACTOR
    )
    released = [revocable for revocable, decision in decided if decision.release]
    revoke.release(connection, released, now=now, actor=ACTOR, comment=_LIFTED)
    pending = _pending(decided, due, graces, now)
    if touched:
        withdrawal_store.keep_due(connection, touched, pending)
        _list(connection, standing, pending, now)
    held = sum(event.action is RevocationAction.HOLD for event in taken)
    return Outcome(len(taken) - held, held, len(released))


def _to_look_at(
    connection: Connection, standing: Mapping[Serial, OperatorStanding], due: Mapping[Serial, object]
) -> list[Serial]:
    """Those with something against them, noted against them, or on hold: of thousands, hardly ever one."""
    acted = revocations.last_actions(connection, list(standing)) if standing else {}
    return sorted(
        serial
        for serial, operator in standing.items()
        if operator.suspended
        or operator.withdrawn
        or serial in due
        or acted.get(serial) is RevocationAction.HOLD
    )


def _decision(
    revocable: Revocable,
    standing: OperatorStanding,
    due: Mapping[Serial, Mapping[WithdrawalCause, datetime]],
    *,
    blocked: Mapping[Serial, str],
    graces: Graces,
    now: datetime,
) -> Decision:
    causes = [WithdrawalCause.DOMAIN_WITHDRAWN] * standing.withdrawn + [
        WithdrawalCause.SUSPENDED
    ] * standing.suspended
    serial = revocable.certificate.serial
    return decide(
        causes, graces=graces, due=due.get(serial, {}), last=revocable.last,
        ours=revocable.acted == ACTOR.name,
        impeded=bool(impediments.standing(causes, blocked=blocked.get(serial))), now=now,
    )  # fmt: skip


def _takes(decision: Decision) -> bool:
    return decision.revoke is not None or decision.hold


def _taking(revocable: Revocable, decision: Decision) -> RevocationOrder:
    if decision.revoke is None:
        return RevocationOrder(
            revocable, RULES[WithdrawalCause.SUSPENDED].reason, "the domain or its operator is suspended"
        )
    return RevocationOrder(revocable, RULES[decision.revoke].reason, RULES[decision.revoke].sentence)


def _pending(
    decided: Sequence[tuple[Revocable, Decision]],
    due: Mapping[Serial, Mapping[WithdrawalCause, datetime]],
    graces: Mapping[WithdrawalCause, timedelta],
    now: datetime,
) -> list[tuple[Serial, WithdrawalCause, datetime]]:
    return [
        (serial, cause, due.get(serial, {}).get(cause, now + graces[cause]))
        for revocable, decision in decided
        for serial in [revocable.certificate.serial]
        for cause in decision.pending
    ]


def _list(
    connection: Connection,
    standing: Mapping[Serial, OperatorStanding],
    pending: Sequence[tuple[Serial, WithdrawalCause, datetime]],
    now: datetime,
) -> None:
    matters = [
        Matter(
            serial, (), {"cause": cause.value, "due_at": due_at, "operator": standing[serial].operator,
                         "domains": list(standing[serial].domains)},
        )
        for serial, cause, due_at in pending
    ]  # fmt: skip
    keep(connection, Concern.WITHDRAWAL_PENDING, matters, among=list(standing), now=now, actor=ACTOR)
