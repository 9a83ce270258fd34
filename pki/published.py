"""What of the PKI the public directory shows: live certificates by address, CAs, CRLs in force. SQL only."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, text

# A certificate that names the former holder of a person's mailbox, or another establishment than the mailbox
# belongs to, is another's key: it does not show.
_CERTIFICATES = text("""
    SELECT c.mailbox, c.der FROM certificate c JOIN mailbox m ON m.address = c.mailbox
    LEFT JOIN succession u ON u.national_id = c.practitioner
    WHERE c.mailbox = ANY(:addresses) AND c.not_after > :now
      AND CASE WHEN m.kind IN ('PER', 'CAB') THEN m.holder = coalesce(u.successor, c.practitioner)
               ELSE coalesce(sceau_establishment_of(c.subject) = m.finess, true) END
      AND coalesce((
          SELECT r.action = 'release' FROM revocation r WHERE r.serial = c.serial ORDER BY r.id DESC LIMIT 1
      ), true)
    ORDER BY c.mailbox, c.serial
""")
_AUTHORITIES = text("SELECT id, der FROM authority ORDER BY id")
# From the shards to the newest of each: every CRL ever published is in the table.
_CRLS = text("""
    SELECT s.authority_id, s.shard, last.der FROM crl_shard s
    CROSS JOIN LATERAL (
        SELECT c.der FROM crl c
        WHERE c.authority_id = s.authority_id AND c.shard = s.shard AND c.der IS NOT NULL
        ORDER BY c.number DESC LIMIT 1
    ) AS last
    WHERE CAST(:keys AS text[]) IS NULL OR s.authority_id || '/' || s.shard = ANY(:keys)
    ORDER BY s.authority_id, s.shard
""")


def live_certificates(
    connection: Connection, addresses: Sequence[str], now: datetime
) -> dict[str, list[bytes]]:
    """For each address that has any: its holder's certificates in DER, not expired, revoked or on hold."""
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
