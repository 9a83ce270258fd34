"""Keys that a release before this one certified, once this one's migrations had run: they get their number.

A release that did not know the numbers of keys may serve on beside this one. What it certifies is read here
afterwards, and what is on a key that was reported in another form falls then. What is certified before the
migration is numbered by it; what numbers are is for `pki/revocation/blocked_keys.py`.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from sqlalchemy import Connection, text

from directory.base.audit import Actor
from pki.certificates.public_keys import PublicKey
from pki.model import RevocationReason, Serial
from pki.record import key_locks, revocations
from pki.revocation import blocked_keys, revoke
from pki.revocation.blocked_keys import BlockCause
from pki.revocation.revoke import RevocationOrder

AT_ONCE = 200
_ACTOR = Actor("job:earlier-keys")
# Both sides in the order of an index; certificates themselves are read of the few that lack a number.
_UNNUMBERED = text("""
    WITH lacking AS (
        SELECT c.spki_sha256 AS spki FROM certificate c
        WHERE NOT EXISTS (SELECT FROM key_number k WHERE k.spki_sha256 = c.spki_sha256)
        GROUP BY c.spki_sha256)
    SELECT lacking.spki, one.der FROM lacking CROSS JOIN LATERAL (
        SELECT c.der FROM certificate c WHERE c.spki_sha256 = lacking.spki AND c.der <> '' LIMIT 1) AS one
    LIMIT :most
""")
_ON_REPORTED_KEYS = text("""
    SELECT DISTINCT c.serial FROM unnest(CAST(:keys AS bytea[])) AS key (spki)
    CROSS JOIN LATERAL sceau_key_family(key.spki) AS family (spki)
    JOIN certificate c ON c.spki_sha256 = family.spki
    WHERE c.not_after >= :now
    AND EXISTS (SELECT FROM sceau_key_family(key.spki) AS form (spki)
                JOIN blocked_key b ON b.spki_sha256 = form.spki WHERE b.cause = :reported)
    AND NOT EXISTS (SELECT FROM revocation v WHERE v.serial = c.serial AND v.action = 'revoke')
    ORDER BY c.serial
""")


@dataclass(frozen=True)
class Numbered:
    """How many keys got their number, and what was revoked because one of them had been reported."""

    keys: int
    revoked: tuple[Serial, ...]


def number(connection: Connection, *, now: datetime, most: int = AT_ONCE) -> Numbered:
    """Number at most so many keys that lack it, and revoke what is on one that was reported in any form."""
    rows = connection.execute(_UNNUMBERED, {"most": most})
    # A row may name the digest of another key: that counts as a form of this one. Under its own digest alone
    # this key would be found again for ever.
    keys = {bytes(spki): _key(bytes(der)) for spki, der in rows}
    if not keys:
        return Numbered(0, ())
    # As for who reports them: nobody asks for a certificate for another form of them meanwhile.
    key_locks.hold_families(connection, keys.values(), keys)
    blocked_keys.note(connection, keys)
    return Numbered(len(keys), _revoke_all(connection, keys.keys(), now))


def _revoke_all(connection: Connection, keys: Collection[bytes], now: datetime) -> tuple[Serial, ...]:
    asked = {"keys": list(keys), "now": now, "reported": BlockCause.REPORTED_COMPROMISED.value}
    serials = [Serial(serial) for serial in connection.execute(_ON_REPORTED_KEYS, asked).scalars()]
    why = "on another form of a key that was reported compromised"
    acts = [
        RevocationOrder(revocable, RevocationReason.KEY_COMPROMISE, why)
        for revocable in revocations.revocable_of(connection, serials)
    ]
    revoke.revoke_or_suspend(connection, acts, now=now, actor=_ACTOR)
    return tuple(serials)


def _key(der: bytes) -> PublicKey:
    key = x509.load_der_x509_certificate(der).public_key()
    if not isinstance(key, EllipticCurvePublicKey | RSAPublicKey):
        raise TypeError("no other kind of key was ever certified")
    return key
