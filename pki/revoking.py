"""The act of taking certificates back, one or ten thousand: events, CRL entries and audit lines, as sets.

Who may, and why, is decided by the callers (`pki/use_cases.py`, `pki/consequences.py`). Revocables come from
`pki.store`, which has locked their reservations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from directory.base.audit import Actor, Event, record_all
from directory.base.errors import Kind, Refusal
from pki import rules, store
from pki.crl import entry_der
from pki.model import Revocation, RevocationAction, RevocationReason
from pki.store import Revocable

_EVENTS = {
    RevocationAction.REVOKE: Event.CERTIFICATE_REVOKED,
    RevocationAction.HOLD: Event.CERTIFICATE_HELD,
    RevocationAction.RELEASE: Event.CERTIFICATE_RELEASED,
}


@dataclass(frozen=True)
class TakingBack:
    """One certificate to revoke, or to hold when the reason is certificateHold."""

    found: Revocable
    reason: RevocationReason
    comment: str


def take_back(
    connection: Connection, acts: Sequence[TakingBack], *, now: datetime, actor: Actor
) -> list[Revocation]:
    """Revoke or hold each; refuses `already-revoked`, `already-on-hold` for all when one is."""
    events = [_event(act, rules.revoking_action(act.reason, act.found.last), now, actor) for act in acts]
    entries = [entry_der(event.serial, now, event.reason) for event in events]
    store.add_revocations(connection, zip([act.found for act in acts], events, entries, strict=True))
    _tell(connection, events, now, actor)
    return events


def release(
    connection: Connection, held: Sequence[Revocable], *, now: datetime, actor: Actor, comment: str
) -> list[Revocation]:
    """Lift the hold on each; refuses `not-on-hold` for all when one is not."""
    if any(found.last is not RevocationAction.HOLD for found in held):
        raise Refusal(Kind.CONFLICT, "not-on-hold", "This certificate is not on hold.")
    acts = [TakingBack(found, RevocationReason.CERTIFICATE_HOLD, comment) for found in held]
    events = [_event(act, RevocationAction.RELEASE, now, actor) for act in acts]
    store.add_revocations(
        connection, [(found, event, None) for found, event in zip(held, events, strict=True)]
    )
    _tell(connection, events, now, actor)
    return events


def _event(act: TakingBack, action: RevocationAction, now: datetime, actor: Actor) -> Revocation:
    certificate = act.found.certificate
    return Revocation(
        serial=certificate.serial, action=action, reason=act.reason, comment=act.comment, actor=actor.name,
        revoked_at=now, not_after=certificate.not_after,
    )  # fmt: skip


def _tell(connection: Connection, events: Sequence[Revocation], now: datetime, actor: Actor) -> None:
    for action, told in _EVENTS.items():
        lines = [(event.serial, _told(event)) for event in events if event.action is action]
        record_all(connection, now=now, actor=actor, event=told, lines=lines)


def _told(event: Revocation) -> dict[str, str]:
    return {"action": event.action.value, "reason": event.reason.value, "comment": event.comment}
