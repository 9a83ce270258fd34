"""What of the PKI the public directory shows: live certificates by address, CAs, CRLs in force. SQL only."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from directory import privacy
from directory.feed.changes import PLACE_OF_CRL
from pki.certificates.profiles import served_by
from pki.model import Authority, Purpose
from pki.publication import intact
from pki.record import authorities as authority_rows

# A certificate that names the former holder of a person's mailbox, or another establishment than the mailbox
# belongs to, is another's key. It does not show.
_CERTIFICATES = text("""
    SELECT c.mailbox, c.der, c.profile, c.subject FROM certificate c JOIN mailbox m ON m.address = c.mailbox
    LEFT JOIN succession u ON u.national_id = c.practitioner
    WHERE c.mailbox = ANY(:addresses) AND c.not_after > :now
      AND CASE WHEN m.kind IN ('PER', 'CAB') THEN m.holder = coalesce(u.successor, c.practitioner)
               ELSE coalesce(sceau_establishment_of(c.subject) = m.structure_id, true) END
      AND coalesce((SELECT r.action = 'release' FROM revocation_state r WHERE r.serial = c.serial), true)
    ORDER BY c.mailbox, c.serial
""")
# What CAs certified of one another is theirs too (RFC 4523 2.3: cACertificate, of the same realm).
_AUTHORITIES = text(
    "SELECT id, der FROM authority UNION ALL SELECT id, der FROM cross_certificate ORDER BY id"
)
_AUTHORITY = text("""
    SELECT der, not_before FROM authority WHERE id = :id
    UNION ALL SELECT der, not_before FROM cross_certificate WHERE id = :id
""")
# From the shards to the newest of each: every CRL ever published is in the table.
_CRLS = text(f"""
    SELECT s.authority_id, s.shard, last.number, last.der, delta.number AS delta_number, delta.der AS delta
    FROM crl_shard s
    CROSS JOIN LATERAL (
        SELECT c.number, c.der FROM crl c
        WHERE c.authority_id = s.authority_id AND c.shard = s.shard AND c.der IS NOT NULL
          AND (c.base IS NOT NULL) = false
        ORDER BY c.number DESC LIMIT 1
    ) AS last
    LEFT JOIN LATERAL (
        SELECT c.number, c.der FROM crl c
        WHERE c.authority_id = s.authority_id AND c.shard = s.shard AND c.der IS NOT NULL
          AND (c.base IS NOT NULL) = true
        ORDER BY c.number DESC LIMIT 1
    ) AS delta ON true
    WHERE CAST(:keys AS text[]) IS NULL OR {PLACE_OF_CRL.format(row="s")} = ANY(:keys)
    ORDER BY s.authority_id, s.shard
""")  # noqa: S608 - of our own


def live_certificates(
    connection: Connection, addresses: Sequence[str], now: datetime
) -> dict[str, list[bytes]]:
    """For each address that has any: its holder's certificates in DER, not expired, revoked or on hold.

    Those to encrypt with come first: whoever takes one of several takes that.
    """
    known = live_with_purposes(connection, addresses, now)
    return {address: [der for der, _ in certificates] for address, certificates in known.items()}


def live_with_purposes(
    connection: Connection, addresses: Sequence[str], now: datetime
) -> dict[str, list[tuple[bytes, frozenset[Purpose]]]]:
    """The same certificates in the same order, each with what it serves."""
    by_address: dict[str, list[tuple[bytes, frozenset[Purpose]]]] = {}
    for address, der, profile, subject in connection.execute(
        _CERTIFICATES, {"addresses": list(addresses), "now": now}
    ):
        # What was certified before anybody looked is shown no more; whoever asks for a verdict is given it.
        if privacy.secrets_in_subject(subject, address):
            continue
        by_address.setdefault(address, []).append((der, served_by(profile)))
    for certificates in by_address.values():
        certificates.sort(key=lambda certificate: Purpose.ENCRYPTION not in certificate[1])
    return by_address


def authorities(connection: Connection) -> list[tuple[str, bytes]]:
    """Every CA and every certificate between CAs: id and DER."""
    return [(row.id, row.der) for row in connection.execute(_AUTHORITIES)]


def authority(connection: Connection, name: str) -> tuple[bytes, datetime] | None:
    """The certificate of that id, of a CA or between two, in DER, and its first day; None without one."""
    row = connection.execute(_AUTHORITY, {"id": name}).one_or_none()
    return None if row is None else (row.der, row.not_before)


def crls_in_force(
    connection: Connection, keys: Sequence[str] | None
) -> list[tuple[str, int, bytes, bytes | None]]:
    """The newest CRL of these `CA/shard` keys, or of all shards for None: CA id, shard, DER, its delta's.

    A shard is left out while either is not what was signed: an older list would un-revoke.
    """
    given = None if keys is None else list(keys)
    rows = connection.execute(_CRLS, {"keys": given})
    known = {ca.id: ca for ca in authority_rows.authorities(connection)}
    return [
        (row.authority_id, row.shard, row.der, row.delta)
        for row in rows
        if _are_intact(row, known[row.authority_id])
    ]


def _are_intact(row: Row[Any], authority: Authority) -> bool:
    """Whether the complete list of a shard is what was signed, and its delta, where it has one."""
    return intact.is_crl(row.der, authority, row.number, delta=False) and (
        row.delta is None or intact.is_crl(row.delta, authority, row.delta_number, delta=True)
    )
