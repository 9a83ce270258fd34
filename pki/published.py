"""What of the PKI stands in the public directory: live certificates by address, CAs, the CRLs in force. SQL only."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, text

_CERTIFICATES = text("""
    SELECT c.mailbox, c.der FROM certificate c
    WHERE c.mailbox = ANY(:addresses) AND c.not_after > :now
      AND coalesce((SELECT r.action = 'release' FROM revocation r WHERE r.serial = c.serial ORDER BY r.id DESC LIMIT 1), true)
    ORDER BY c.mailbox, c.serial
""")
_AUTHORITIES = text("SELECT id, der FROM authority ORDER BY id")
_CRLS = text("""
    SELECT DISTINCT ON (authority_id, shard) authority_id, shard, der FROM crl
    WHERE der IS NOT NULL AND (CAST(:keys AS text[]) IS NULL OR authority_id || '/' || shard = ANY(:keys))
    ORDER BY authority_id, shard, number DESC
""")


def live_certificates(connection: Connection, addresses: Sequence[str], now: datetime) -> dict[str, list[bytes]]:
    """For each address that has any: its certificates in DER that are neither expired, revoked nor on hold."""
    found: dict[str, list[bytes]] = {}
    for address, der in connection.execute(_CERTIFICATES, {"addresses": list(addresses), "now": now}):
        found.setdefault(address, []).append(der)
    return found


def authorities(connection: Connection) -> list[tuple[str, bytes]]:
    """Every CA: its id and its certificate in DER."""
    return [(row.id, row.der) for row in connection.execute(_AUTHORITIES)]


def crls_in_force(connection: Connection, keys: Sequence[str] | None) -> list[tuple[str, int, bytes]]:
    """The newest CRL of these `CA/shard` keys, or of all shards for None: CA id, shard, DER."""
    given = None if keys is None else list(keys)
    return [(row.authority_id, row.shard, row.der) for row in connection.execute(_CRLS, {"keys": given})]
