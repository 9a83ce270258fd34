"""A revocation or suspension that a person asks for, by a token.

Acts in the caller's transaction, audit line included.
"""

from datetime import datetime

from sqlalchemy import Connection

from directory import withdrawal_limits
from directory.access import Token
from directory.base.audit import Actor
from directory.base.comments import check_comment
from directory.base.errors import Kind, Refusal
from directory.base.instant import present
from pki.model import Revocation, RevocationReason, Serial
from pki.record import revocations
from pki.record.revocations import Revocable
from pki.revocation import key_compromise
from pki.revocation import revoke as revoking
from pki.revocation.authorisation import check_may_revoke
from pki.revocation.revoke import RevocationOrder


def revoke(
    connection: Connection,
    *,
    now: datetime,
    actor: Actor,
    serial: Serial,
    reason: RevocationReason,
    comment: str = "",
) -> Revocation:
    """Revoke for good, or hold when the reason is certificateHold; in OCSP from the commit on.

    Refuses `unknown-certificate`, `already-revoked`, `already-on-hold`, `certificate-expired`,
    `comment-too-long`.
    """
    revocable = _revocable(connection, serial, reason)
    return _revoke_one(connection, revocable, now=now, actor=actor, reason=reason, comment=comment)


def revoke_as(
    connection: Connection,
    *,
    now: datetime,
    token: Token,
    serial: Serial,
    reason: RevocationReason,
    comment: str = "",
) -> Revocation:
    """As `revoke`, for whoever holds this token.

    A registrar revokes for people of his authority: those it registers now, or enrolled for this certificate.
    Refuses `not-a-registrar`, `wrong-authority` and `reserved-to-owner` besides: a certificate of the service
    itself, and saying that the CA's own key is lost, are for administrators. One act within the limits of the
    token, whatever falls with it: refuses `withdrawal-limit-reached` too.
    """
    revocable = _revocable(connection, serial, reason)
    check_may_revoke(connection, token, revocable, reason)
    done = _revoke_one(connection, revocable, now=now, actor=token.actor, reason=reason, comment=comment)
    withdrawal_limits.charge(connection, token, now=now)
    return done


def _revocable(connection: Connection, serial: Serial, reason: RevocationReason | None = None) -> Revocable:
    if reason is RevocationReason.KEY_COMPROMISE:
        key_compromise.lock_families(connection, [serial])
    revocable = revocations.revocable(connection, serial)
    if revocable is None:
        raise Refusal(Kind.NOT_FOUND, "unknown-certificate", f"There is no certificate {serial}.")
    return revocable


def _revoke_one(
    connection: Connection,
    revocable: Revocable,
    *,
    now: datetime,
    actor: Actor,
    reason: RevocationReason,
    comment: str,
) -> Revocation:
    check_comment(comment)
    if revocable.certificate.not_after < present(connection, now):
        text = "This certificate has expired: there is nothing left to revoke."
        raise Refusal(Kind.CONFLICT, "certificate-expired", text)
    # Others of the same key may have fallen with it.
    return revoking.revoke_or_suspend(
        connection, [RevocationOrder(revocable, reason, comment)], now=now, actor=actor
    )[0]
