"""The rows a CRL is made of, numbered by and kept in. Knows SQL, not DER.

Events (revoke, hold, release) are never removed, so their count in a shard only grows and says exactly
whether a CRL has seen them all, in whatever order their transactions committed; a highest id would not.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from pki.model import Serial


@dataclass(frozen=True)
class Entries:
    """What one CRL will list: `joined` DER entries by serial, their `number`, the `events` they rest on."""

    events: int
    number: int
    joined: bytes


@dataclass(frozen=True)
class Reserved:
    """A numbered CRL as it was committed before any signature."""

    number: int
    this_update: datetime
    next_update: datetime
    entries: int
    watermark: int
    tbs: bytes
    tbs_sha256: bytes


@dataclass(frozen=True)
class Published:
    """A signed CRL; `sha256` is of `der`."""

    number: int
    this_update: datetime
    next_update: datetime
    watermark: int
    der: bytes
    sha256: bytes


_ISSUED_AUTHORITY = text(
    "SELECT der FROM authority WHERE issuer_id IS NOT NULL ORDER BY created_at, id LIMIT 1"
)
_SHARD = text(
    "INSERT INTO crl_shard (authority_id, shard) VALUES (:authority, :shard) ON CONFLICT DO NOTHING"
)
_NUMBER = text(
    "UPDATE crl_shard SET last_number = greatest(last_number, :floor) + 1"
    " WHERE authority_id = :authority AND shard = :shard RETURNING last_number"
)
# One statement, hence one snapshot: the count of events and the entries are of the same instant.
_ENTRIES = text("""
    WITH events AS MATERIALIZED (
        SELECT id, serial, not_after, entry FROM revocation WHERE authority_id = :authority AND shard = :shard
    ), listed AS (
        SELECT * FROM (SELECT DISTINCT ON (serial) * FROM events ORDER BY serial, id DESC) AS present
        WHERE entry IS NOT NULL AND (CAST(:kept AS timestamptz) IS NULL OR not_after >= :kept)
    )
    SELECT (SELECT count(*) FROM events), count(*), coalesce(string_agg(entry, ''::bytea ORDER BY serial), '')
    FROM listed
""")
_RESERVE = text("""
    INSERT INTO crl
        (authority_id, shard, number, this_update, next_update, entries, watermark, tbs, tbs_sha256)
    VALUES (:authority, :shard, :number, :this_update, :next_update, :entries, :watermark, :tbs, sha256(:tbs))
""")
_RESERVED = text("""
    SELECT number, this_update, next_update, entries, watermark, tbs, tbs_sha256 FROM crl
    WHERE authority_id = :authority AND shard = :shard AND number = :number AND der IS NULL
""")
_STORE = text("""
    UPDATE crl SET der = :der, sha256 = sha256(:der)
    WHERE authority_id = :authority AND shard = :shard AND number = :number
""")
_LATEST_NUMBER = text("""
    SELECT number FROM crl WHERE authority_id = :authority AND shard = :shard AND der IS NOT NULL
    ORDER BY number DESC LIMIT 1
""")
_LATEST = text("""
    SELECT number, this_update, next_update, watermark, der, sha256 FROM crl
    WHERE authority_id = :authority AND shard = :shard AND der IS NOT NULL ORDER BY number DESC LIMIT 1
""")
# An entry whose certificate expired before the previous CRL has been on a CRL after its end (RFC 5280 3.3).
_OWED = text("""
    SELECT v.serial FROM unnest(CAST(:vanished AS text[])) AS v (serial)
    LEFT JOIN LATERAL (
        SELECT action, not_after FROM revocation r WHERE r.serial = v.serial ORDER BY r.id DESC LIMIT 1
    ) AS last ON true
    WHERE last.action IS NULL OR (last.action <> 'release' AND last.not_after >= :previous)
""")
_DUE = text("""
    SELECT a.id, s.shard FROM authority a
    CROSS JOIN LATERAL generate_series(0, a.shards - 1) AS s (shard)
    LEFT JOIN LATERAL (
        SELECT this_update, next_update, watermark FROM crl c
        WHERE c.authority_id = a.id AND c.shard = s.shard AND c.der IS NOT NULL ORDER BY c.number DESC LIMIT 1
    ) AS last ON true
    CROSS JOIN LATERAL (
        SELECT count(*) AS events FROM revocation r WHERE r.authority_id = a.id AND r.shard = s.shard
    ) AS seen
    WHERE last.watermark IS NULL OR seen.events <> last.watermark OR last.this_update <= :older
    OR :now > last.this_update + (last.next_update - last.this_update) / 2
    ORDER BY seen.events = coalesce(last.watermark, -1), last.next_update NULLS FIRST, a.id, s.shard
""")


def an_issued_authority(connection: Connection) -> bytes | None:
    """DER certificate of the first CA that has an issuer: it carries the URLs chosen at the ceremony."""
    return connection.execute(_ISSUED_AUTHORITY).scalar_one_or_none()


def take_number(connection: Connection, authority_id: str, shard: int, floor: int) -> int:
    """The shard's next number, above `floor`; its row stays locked until commit. Burnt if unused."""
    place = {"authority": authority_id, "shard": shard}
    connection.execute(_SHARD, place)
    return int(connection.execute(_NUMBER, place | {"floor": floor}).scalar_one())


def entries(connection: Connection, authority_id: str, shard: int, kept: datetime | None) -> Entries:
    """All that is revoked or on hold in the shard, less what expired before `kept`."""
    asked = {"authority": authority_id, "shard": shard, "kept": kept}
    return Entries(*connection.execute(_ENTRIES, asked).one())


def reserve(
    connection: Connection,
    authority_id: str,
    shard: int,
    number: int,
    *,
    tbs: bytes,
    listed: Entries,
    this_update: datetime,
    next_update: datetime,
) -> None:
    """Keep the bytes that the signer may sign under this number."""
    place = {"authority": authority_id, "shard": shard, "number": number, "tbs": tbs}
    seen = {"entries": listed.number, "watermark": listed.events}
    connection.execute(_RESERVE, place | seen | {"this_update": this_update, "next_update": next_update})


def reserved(connection: Connection, authority_id: str, shard: int, number: int) -> Reserved | None:
    """The unsigned CRL of that number."""
    place = {"authority": authority_id, "shard": shard, "number": number}
    row = connection.execute(_RESERVED, place).one_or_none()
    return None if row is None else Reserved(*row)


def store(connection: Connection, authority_id: str, shard: int, number: int, der: bytes) -> None:
    """Keep the signed bytes; the database refuses a second signature of the same number."""
    connection.execute(_STORE, {"authority": authority_id, "shard": shard, "number": number, "der": der})


def latest_number(connection: Connection, authority_id: str, shard: int) -> int | None:
    """The number of the last signed CRL, without its bytes."""
    place = {"authority": authority_id, "shard": shard}
    return connection.execute(_LATEST_NUMBER, place).scalar_one_or_none()


def latest(connection: Connection, authority_id: str, shard: int) -> Published | None:
    """The last signed CRL of the shard."""
    row = connection.execute(_LATEST, {"authority": authority_id, "shard": shard}).one_or_none()
    return None if row is None else Published(*row)


def still_owed(connection: Connection, vanished: Iterable[Serial], previous: datetime) -> list[Serial]:
    """Of serials no longer listed, those that had to be: neither released nor expired before `previous`."""
    asked = {"vanished": list(vanished), "previous": previous}
    return [Serial(row.serial) for row in connection.execute(_OWED, asked)]


def due(connection: Connection, now: datetime, older: datetime) -> list[tuple[str, int]]:
    """Shards with events their last CRL has not seen, first; then those made before `older`."""
    return [(row.id, row.shard) for row in connection.execute(_DUE, {"now": now, "older": older})]
