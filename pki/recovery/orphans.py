"""Certificates that a crash left signed and not stored: found in the signer's journal, stored and revoked."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine

from directory.base.audit import Actor
from directory.base.db import transaction
from pki.certificates.profiles import RESERVATION_LIFE
from pki.issuance import pipeline
from pki.issuance.pipeline import SignerMisbehaved
from pki.model import Reservation, RevocationReason, Serial
from pki.record import certificates, reservations
from pki.record.revocations import Revocable
from pki.revocation import revoke
from pki.revocation.revoke import RevocationOrder
from pki.signing.signer import Signer

# The job runs every two minutes: a week is a worker down over a long holiday, and bounds what it reads.
RECOVERY_REACH = timedelta(days=7)
_RECOVERY = Actor("job:recovery")


def recover(engine: Engine, signer: Signer, now: datetime) -> list[Serial]:
    """Find what was signed and never stored (a crash in between): store it and revoke it; gives the serials.

    Looks back over `RECOVERY_REACH`. What was reserved longer ago than the signer still signs and is not in
    its journal stays burnt. Safe to repeat and to run beside issuance. One that cannot be adopted holds up no
    other: what went wrong is raised at the end, as a group.
    """
    with transaction(engine, read_only=True) as connection:
        waiting = reservations.unstored(connection, now - RECOVERY_REACH, now - RESERVATION_LIFE)
    recovered, wrong = [], []
    for reserved in waiting:
        signed = signer.journal(reserved.serial)
        if signed is None:
            continue
        try:
            with transaction(engine) as connection:
                if _adopt(connection, reserved, signed, now):
                    recovered.append(reserved.serial)
        except SignerMisbehaved as error:
            wrong.append(error)
    if wrong:
        raise ExceptionGroup(f"{len(wrong)} signed reservations cannot be stored", wrong)
    return recovered


def _adopt(connection: Connection, reserved: Reservation, signed: bytes, now: datetime) -> bool:
    reservations.load_reservation(connection, reserved.serial, lock=True)
    if certificates.find_certificate(connection, reserved.serial) is not None:
        # A slow issuance stored it after all, and has handed it out.
        return False
    prepared = pipeline.resume(connection, reserved, _RECOVERY)
    pipeline.verify_signed(signed, reserved, prepared.authority)
    issued = pipeline.store_signed(connection, prepared, signed, now)
    comment = "signed, but never handed out"
    taking = RevocationOrder(Revocable(issued, None, None), RevocationReason.SUPERSEDED, comment)
    revoke.revoke_or_suspend(connection, [taking], now=now, actor=_RECOVERY)
    return True
