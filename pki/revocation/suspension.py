"""Holds that nobody lifted: after fourteen days a certificate on hold is revoked for good.

A hold is for a doubt, and a doubt that lasts is an answer; 14 days are the German health network's (gematik
GS-A_4237). A hold by a measure of an Ordre lasts as long as the measure, which has a term of its own.
"""

from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from directory.base.audit import Actor
from pki.model import Revocation, RevocationAction, RevocationReason, Serial
from pki.record import revocations
from pki.revocation import key_compromise, revoke, rules
from pki.revocation.revoke import RevocationOrder

LASTS = timedelta(days=14)
ACTOR = Actor("job:holds-end")
# Nothing was proved in time, and the certificate serves no more; a registrar may say better why (`restate`).
REASON = RevocationReason.CESSATION_OF_OPERATION
_BATCH = 2000
_ENDED = text("""
    SELECT serial FROM standing_hold WHERE since <= :before AND actor <> :measures
    ORDER BY since, serial LIMIT :limit
""")


def end_holds(connection: Connection, now: datetime, limit: int = _BATCH) -> list[Revocation]:
    """Revoke up to `limit` of what was held for `LASTS`, dated by the hold; [] when there is nothing left."""
    asked = {"before": now - LASTS, "measures": rules.ACTOR.name, "limit": limit}
    ended = [Serial(serial) for serial in connection.execute(_ENDED, asked).scalars()]
    comment = f"on hold for {LASTS.days} days and never released"
    acts = [
        RevocationOrder(revocable, REASON, comment)
        # Looked at again under lock: it may have been released since.
        for revocable in revocations.revocable_of(connection, ended)
        if revocable.last is RevocationAction.HOLD
    ]
    done = revoke.revoke_or_suspend(connection, acts, now=now, actor=ACTOR)
    if not ended:
        key_compromise.settle_matters(connection, now)
    return done
