"""The act of taking certificates back, one or ten thousand: events, CRL entries and audit lines, as sets.

Who may, and why, is decided by the callers (`pki/revocation/requests.py`, `pki/withdrawal/reconcile.py`).
Revocables come from `pki.record.revocations`, which has locked their reservations: the instant of an act is
taken here, behind those locks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection

from directory.base.audit import Actor, Event, record, record_all
from directory.base.errors import Kind, Refusal
from directory.base.instant import not_before, present
from pki.crl.encoding import entry_der
from pki.impediments import standing as impediments
from pki.model import IssuedCertificate, Revocation, RevocationAction, RevocationReason, Serial
from pki.record import revocations
from pki.record.revocations import Revocable
from pki.revocation import key_compromise
from pki.revocation import rules as revocation_rules

_EVENTS = {
    RevocationAction.REVOKE: Event.CERTIFICATE_REVOKED,
    RevocationAction.HOLD: Event.CERTIFICATE_HELD,
    RevocationAction.RELEASE: Event.CERTIFICATE_RELEASED,
}


@dataclass(frozen=True)
class RevocationOrder:
    """One certificate to revoke, or to hold when the reason is certificateHold."""

    found: Revocable
    reason: RevocationReason
    comment: str


def revoke_or_suspend(
    connection: Connection, acts: Sequence[RevocationOrder], *, now: datetime, actor: Actor
) -> list[Revocation]:
    """Revoke or hold each, and with a lost key whatever else was certified for it.

    The events come in the order of the acts, those that followed from them after. A doubt of one's own stands
    beside another's hold. Refuses `already-revoked`, and `already-on-hold` to who holds it, for all when one
    is.
    """
    if not acts:
        return []
    now = present(connection, now)
    lost = [act.found.certificate for act in acts if act.reason is RevocationReason.KEY_COMPROMISE]
    acts = [*acts, *_siblings(connection, lost, now)]
    beside = _holders(connection, acts)
    events = [
        _event(
            act,
            revocation_rules.revoking_action(act.reason, _as_seen_by(actor, act.found, beside)),
            now,
            actor,
        )
        for act in acts
    ]
    _append(connection, [act.found for act in acts], events)
    _tell(connection, events, now, actor)
    if lost:
        key_compromise.follow(connection, lost, now=now, actor=actor)
    return events


def restate(connection: Connection, act: RevocationOrder, *, now: datetime, actor: Actor) -> Revocation:
    """Correct the reason of a revocation, never its date; refuses what `revocation_rules.check_restatement`
    refuses.
    """
    revocable, last = act.found, act.found.event
    revocation_rules.check_restatement(revocable.last, last.reason if last else None, act.reason)
    if last is None:
        raise TypeError("what is revoked has an event")
    now = not_before(present(connection, now), last.written_at)
    event = replace(
        _event(act, RevocationAction.REVOKE, now, actor), revoked_at=last.revoked_at, recorded_at=now,
        restates=last.id,
    )  # fmt: skip
    _append(connection, [revocable], [event])
    detail = {"from": last.reason.value, "to": act.reason.value, "comment": act.comment}
    record(
        connection, now=now, actor=actor, event=Event.REVOCATION_RESTATED, subject=event.serial, detail=detail
    )
    if act.reason is RevocationReason.KEY_COMPROMISE:
        lost = [revocable.certificate]
        revoke_or_suspend(connection, _siblings(connection, lost, now), now=now, actor=actor)
        key_compromise.follow(connection, lost, now=now, actor=actor)
    return event


def release(
    connection: Connection, held: Sequence[Revocable], *, now: datetime, actor: Actor, comment: str
) -> list[Revocation]:
    """Lift the hold on each; refuses `not-on-hold`, `reason-stands` for all when one is not to be given back.

    The caller holds the locks of those whom the certificates name (`impediments.lock_holder`).
    """
    if any(revocable.last is not RevocationAction.HOLD for revocable in held):
        raise Refusal(Kind.CONFLICT, "not-on-hold", "This certificate is not on hold.")
    if not held:
        return []
    now = present(connection, now)
    for reasons in impediments.of_certificates(connection, held, now).values():
        impediments.check(reasons)
    acts = [RevocationOrder(revocable, RevocationReason.CERTIFICATE_HOLD, comment) for revocable in held]
    events = [_event(act, RevocationAction.RELEASE, now, actor) for act in acts]
    revocations.add_revocations(
        connection, [(revocable, event, None) for revocable, event in zip(held, events, strict=True)]
    )
    _tell(connection, events, now, actor)
    return events


def _holders(connection: Connection, acts: Sequence[RevocationOrder]) -> dict[Serial, frozenset[str]]:
    """Who holds each of those that are to be held once more."""
    again = [
        act.found.certificate.serial
        for act in acts
        if act.reason is RevocationReason.CERTIFICATE_HOLD and act.found.last is RevocationAction.HOLD
    ]
    return revocations.holders(connection, again) if again else {}


def _as_seen_by(
    actor: Actor, revocable: Revocable, beside: Mapping[Serial, frozenset[str]]
) -> RevocationAction | None:
    """The last event as far as this actor is concerned: another's hold is none of his."""
    others = beside.get(revocable.certificate.serial)
    return None if others is not None and actor.name not in others else revocable.last


def _siblings(
    connection: Connection, lost: Sequence[IssuedCertificate], now: datetime
) -> list[RevocationOrder]:
    """What falls with these keys, locked."""
    because = key_compromise.siblings(connection, lost, now) if lost else {}
    return [
        RevocationOrder(
            revocable, RevocationReason.KEY_COMPROMISE,
            f"on the key of {because[revocable.certificate.serial]}, reported compromised",
        )
        for revocable in revocations.revocable_of(connection, list(because))
        if revocable.last is not RevocationAction.REVOKE
    ]  # fmt: skip


def _append(connection: Connection, revocables: Sequence[Revocable], events: Sequence[Revocation]) -> None:
    entries = [entry_der(event.serial, event.revoked_at, event.reason) for event in events]
    revocations.add_revocations(connection, zip(revocables, events, entries, strict=True))


def _event(act: RevocationOrder, action: RevocationAction, now: datetime, actor: Actor) -> Revocation:
    certificate, last = act.found.certificate, act.found.event
    # Where a clock was ahead that dated what this follows, it is written down behind that, never refused.
    written = not_before(now, certificate.issued_at, last.written_at if last else None)
    counts = _counts_from(act.found, action, now, written)
    return Revocation(
        serial=certificate.serial, action=action, reason=act.reason, comment=act.comment, actor=actor.name,
        revoked_at=counts, not_after=certificate.not_after,
        recorded_at=None if counts == written else written,
    )  # fmt: skip


def _counts_from(
    revocable: Revocable, action: RevocationAction, now: datetime, written: datetime
) -> datetime:
    """The date that counts: of a release, when it is written down; of the others never a day to come."""
    if action is RevocationAction.RELEASE:
        return written
    last = revocable.event
    if last is not None and last.action is RevocationAction.HOLD:
        # X.509: made final, a hold keeps its date, or what was signed in doubt would count after all. So does
        # a second hold beside the first.
        now = min(last.revoked_at, now)
    # Some readers heed no revocation before its date comes (JDK), and none has one before the issuance.
    return max(now, revocable.certificate.issued_at)


def _tell(connection: Connection, events: Sequence[Revocation], now: datetime, actor: Actor) -> None:
    for action, told in _EVENTS.items():
        lines = [(event.serial, _told(event)) for event in events if event.action is action]
        record_all(connection, now=now, actor=actor, event=told, lines=lines)


def _told(event: Revocation) -> dict[str, str]:
    return {"action": event.action.value, "reason": event.reason.value, "comment": event.comment}
