"""The consequences of a lost key. The key is blocked, every other certificate of it falls, its holder's
others are listed for a person to look at.

Certificates of the same key fall in the same transaction as the first. Those on other keys do not, because a
stolen card says nothing of a token in a drawer. Whether it does is for a registrar (decision 109).
"""

from collections.abc import Collection, Iterable
from datetime import datetime

from sqlalchemy import Connection, text

from directory.attention import Concern, Matter, keep
from directory.base.audit import Actor
from pki.model import IssuedCertificate, Serial
from pki.record import key_locks
from pki.revocation import blocked_keys

_ACTOR = Actor("job:holds-end")
_KEYS = text("SELECT DISTINCT spki_sha256 FROM certificate WHERE serial = ANY(CAST(:serials AS text[]))")
# In the order of serials, which is the order in which reservations are locked everywhere.
_LOCK_FAMILIES = text("""
    SELECT 1 FROM reservation WHERE serial IN (
        SELECT s.serial FROM unnest(CAST(:keys AS bytea[])) AS lost (spki)
        JOIN certificate s ON s.spki_sha256 = lost.spki)
    ORDER BY serial FOR UPDATE
""")
_SIBLINGS = text("""
    SELECT DISTINCT ON (c.serial) c.serial, lost.serial AS because
    FROM unnest(CAST(:keys AS bytea[]), CAST(:known AS text[])) AS lost (spki, serial)
    CROSS JOIN LATERAL sceau_key_family(lost.spki) AS family (spki)
    JOIN certificate c ON c.spki_sha256 = family.spki
    WHERE c.serial <> ALL(CAST(:known AS text[])) AND c.not_after >= :now AND NOT EXISTS (
        SELECT FROM revocation v WHERE v.serial = c.serial AND v.action = 'revoke')
    ORDER BY c.serial, lost.serial
""")
_OTHERS = text("""
    SELECT DISTINCT ON (c.serial) c.serial, lost.serial AS because, e.authority
    FROM (SELECT min(serial) AS serial, holder
        FROM unnest(CAST(:serials AS text[]), CAST(:holders AS text[])) AS one (serial, holder)
        GROUP BY holder) AS lost
    JOIN certificate c ON c.practitioner = lost.holder
    JOIN reservation r ON r.serial = c.serial LEFT JOIN enrolment e ON e.id = r.enrolment_id
    WHERE c.serial <> ALL(CAST(:serials AS text[])) AND c.not_after >= :now AND NOT EXISTS (
        SELECT FROM revocation v WHERE v.serial = c.serial AND v.action = 'revoke')
    ORDER BY c.serial
""")
_SETTLED = text("""
    SELECT a.subject FROM attention a JOIN certificate c ON c.serial = a.subject
    WHERE a.kind = :kind AND a.resolved_at IS NULL AND (c.not_after < :now OR EXISTS (
        SELECT FROM revocation v WHERE v.serial = c.serial AND v.action = 'revoke'))
""")


def lock_families(connection: Connection, serials: Collection[Serial]) -> None:
    """Lock the keys of these certificates, then all that was certified for them: who reports one queues here.

    A certificate that is being stored for such a key meanwhile is stored before, and falls, or after, and
    finds its key blocked.
    """
    keys = [bytes(spki) for spki in connection.execute(_KEYS, {"serials": list(serials)}).scalars()]
    forms = key_locks.hold_families(connection, (), keys)
    connection.execute(_LOCK_FAMILIES, {"keys": forms})


def siblings(
    connection: Connection, lost: Collection[IssuedCertificate], now: datetime
) -> dict[Serial, Serial]:
    """Others of these keys in any form, not expired nor revoked for good, each with the one it falls with."""
    asked = {
        "keys": [certificate.spki_sha256 for certificate in lost],
        "known": [certificate.serial for certificate in lost],
        "now": now,
    }
    rows = connection.execute(_SIBLINGS, asked)
    return {Serial(row.serial): Serial(row.because) for row in rows}


def follow(connection: Connection, lost: Iterable[IssuedCertificate], *, now: datetime, actor: Actor) -> None:
    """See that no certificate is ever made for these keys again, and that their holders' others are seen."""
    lost = list(lost)
    for certificate in lost:
        blocked_keys.block(
            connection, now=now, actor=actor, spki_sha256=certificate.spki_sha256,
            cause=blocked_keys.BlockCause.REPORTED_COMPROMISED.value, serial=certificate.serial,
        )  # fmt: skip
    _list_others(connection, lost, now, actor)


def settle_matters(connection: Connection, now: datetime) -> None:
    """Take off the list what has been revoked or has expired since."""
    concern = Concern.KEY_OF_HOLDER_COMPROMISED
    gone = connection.execute(_SETTLED, {"kind": concern.value, "now": now}).scalars().all()
    keep(connection, concern, [], among=gone, now=now, actor=_ACTOR)


def _list_others(connection: Connection, lost: list[IssuedCertificate], now: datetime, actor: Actor) -> None:
    held = [certificate for certificate in lost if certificate.practitioner is not None]
    asked = {
        "serials": [certificate.serial for certificate in held],
        "holders": [certificate.practitioner for certificate in held],
        "now": now,
    }
    matters = [
        Matter(row.serial, [row.authority] if row.authority else [], {"compromised": row.because})
        for row in connection.execute(_OTHERS, asked)
    ]
    keep(connection, Concern.KEY_OF_HOLDER_COMPROMISED, matters, among=[], now=now, actor=actor)
