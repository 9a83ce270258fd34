"""Releasing a certificate from hold: by the person who put it, or by two persons; never while a reason
stands.

Holds that a measure put end with the measure (`pki/withdrawal/measures.py`, `pki/withdrawal/reconcile.py`).
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from directory import dual_control
from directory.access import Role, Token
from directory.base.audit import Event, record
from directory.base.comments import check_comment
from directory.base.errors import Kind, Refusal
from directory.base.instant import present
from pki.impediments import standing as impediments
from pki.model import RevocationAction, RevocationReason, Serial
from pki.record import certificates, revocations
from pki.record.revocations import LastEvent, Revocable
from pki.record.tables import hold_release
from pki.revocation import revoke, rules
from pki.revocation.authorisation import check_may_release


@dataclass(frozen=True)
class Release:
    """What a call for a release came to: the last event, which is the hold while a release is only asked for.

    `release_asked_at` is when the first of two persons asked, None when no second one is awaited.
    """

    serial: Serial
    action: RevocationAction
    reason: RevocationReason
    revoked_at: datetime
    release_asked_at: datetime | None = None


def release_as(
    connection: Connection, *, now: datetime, token: Token, serial: Serial, comment: str = ""
) -> Release:
    """Lift one's own hold; ask for the end of another's, or agree to what another asked within a week.

    Of whoever could have revoked; an operator lifts what it held itself. Refuses `unknown-certificate`,
    `comment-too-long`, `not-on-hold`, `held-by-measure`, `reason-stands`, `self-approval`, and what
    `check_may_release` refuses.
    """
    check_comment(comment)
    # 1. Whom it names and its key are held first: no measure and no report comes in between.
    revocable = _locked(connection, serial)
    now = present(connection, now)
    holders = revocations.holders(connection, [serial]).get(serial, frozenset())
    check_may_release(connection, token, revocable, holders)
    # 2. Is there a hold to lift, and does anything else stand?
    if revocable.event is None or revocable.event.action is not RevocationAction.HOLD:
        raise Refusal(Kind.CONFLICT, "not-on-hold", "This certificate is not on hold.")
    persons = holders - {rules.ACTOR.name}
    if not persons:
        text = "A measure of an Ordre holds this certificate: lift the measure, and it is released."
        raise Refusal(Kind.CONFLICT, "held-by-measure", text)
    impediments.check(impediments.of_certificates(connection, [revocable], now).get(serial, ()))
    # 3. One's own hold at once; another's when two persons want it.
    if token.role is Role.OPERATOR or persons == {token.actor.name}:
        return _release(connection, revocable, now=now, token=token, comment=comment)
    return _release_by_two(connection, revocable, revocable.event, now=now, token=token, comment=comment)


def _locked(connection: Connection, serial: Serial) -> Revocable:
    issued = certificates.find_certificate(connection, serial)
    if issued is not None:
        impediments.lock_holder(connection, issued)
    revocable = revocations.revocable(connection, serial)
    if revocable is None:
        raise Refusal(Kind.NOT_FOUND, "unknown-certificate", f"There is no certificate {serial}.")
    return revocable


def _release(
    connection: Connection, revocable: Revocable, *, now: datetime, token: Token, comment: str
) -> Release:
    (done,) = revoke.release(connection, [revocable], now=now, actor=token.actor, comment=comment)
    return Release(done.serial, done.action, done.reason, done.revoked_at)


def _release_by_two(
    connection: Connection,
    revocable: Revocable,
    hold: LastEvent,
    *,
    now: datetime,
    token: Token,
    comment: str,
) -> Release:
    """Bound to the hold that was seen: of a later one it must be asked anew."""
    asked = dual_control.waiting(connection, hold_release, hold.id, now)
    if asked is not None:
        dual_control.check_is_another(asked, token)
        dual_control.confirm(connection, hold_release, hold.id, token=token, now=now)
        return _release(connection, revocable, now=now, token=token, comment=asked.reason or comment)
    dual_control.ask(connection, hold_release, hold.id, token=token, reason=comment, now=now)
    serial = revocable.certificate.serial
    record(
        connection, now=now, actor=token.actor, event=Event.CERTIFICATE_RELEASE_ASKED, subject=serial,
        detail={"hold": hold.id, "comment": comment},
    )  # fmt: skip
    return Release(serial, hold.action, hold.reason, hold.revoked_at, now)
