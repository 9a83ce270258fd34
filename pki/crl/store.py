"""The rows CRLs are made of, numbered by and kept in, complete ones and deltas. Knows SQL, not DER.

Events (revoke, hold, release) are never removed, so their count in a shard only grows. It says exactly
whether a CRL has seen them all, in whatever order their transactions committed. A highest id would not.
`crl_event` says of the events that some complete CRL in force has not seen which number saw them first. It
has a row for each statement and shard, so that a thousand revoked at once are marked as one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, select, text

from directory.feed.changes import PLACE_OF_CRL, crl_at
from pki.crl import distribution_points
from pki.crl.distribution_points import Points
from pki.model import Authority, CrlForm, Serial
from pki.record.tables import authority, crl_shard

# A mass revocation gives every run something for a delta, which goes first and takes the second for itself.
# No complete CRL would follow while it lasts. Longer than a run takes, and short within the minute that is
# promised: a complete CRL that fails holds no delta up beyond it.
_STEP_ASIDE = timedelta(seconds=30)


@dataclass(frozen=True)
class Entries:
    """What one CRL will list: `joined` DER entries by serial, their `number`, the `events` they rest on."""

    events: int
    number: int
    joined: bytes


@dataclass(frozen=True)
class Changed:
    """What changed since some CRL: `joined` entries of the certificates revoked or held, those `released`.

    `number` counts both; of what was released the instant is kept.
    """

    number: int
    joined: bytes
    released: Mapping[Serial, datetime]


@dataclass(frozen=True)
class Reserved:
    """A numbered CRL as it was committed before any signature; `base` is None for a complete one."""

    number: int
    this_update: datetime
    next_update: datetime
    entries: int
    watermark: int
    tbs_sha256: bytes
    base: int | None = None


@dataclass(frozen=True)
class Numbered:
    """A signed CRL without its bytes."""

    number: int
    this_update: datetime
    next_update: datetime
    watermark: int


@dataclass(frozen=True)
class Published(Numbered):
    """A signed CRL; `sha256` is of `der`."""

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
_LAST_NUMBER = text("SELECT last_number FROM crl_shard WHERE authority_id = :authority AND shard = :shard")
_RAISE = text("""
    INSERT INTO crl_shard (authority_id, shard, last_number)
    SELECT kept.authority_id, kept.shard, kept.number
    FROM unnest(CAST(:authorities AS text[]), CAST(:shards AS smallint[]), CAST(:numbers AS bigint[]))
        AS kept (authority_id, shard, number)
    JOIN authority a ON a.id = kept.authority_id
    ON CONFLICT (authority_id, shard) DO UPDATE SET last_number = excluded.last_number
    WHERE crl_shard.last_number < excluded.last_number
""")
_COUNTED = text(f"""
    SELECT {PLACE_OF_CRL.format(row="r")} AS place, count(*) AS events FROM revocation r GROUP BY 1
""")  # noqa: S608 - of our own
# One statement, hence one snapshot: what is marked is what is counted.
_SEE = text("""
    WITH seen AS (
        UPDATE crl_event SET number = :number
        WHERE authority_id = :authority AND shard = :shard AND number IS NULL
    )
    SELECT count(*) FROM revocation WHERE authority_id = :authority AND shard = :shard
""")
# What the last complete CRL has not seen is listed once whatever its age (RFC 5280 5.2.4).
# Not by the view `revocation_state`: it works out the last event of all serials, then leaves one shard's.
_ENTRIES = text("""
    WITH fresh AS MATERIALIZED (
        SELECT unnest(revocations) AS id FROM crl_event
        WHERE authority_id = :authority AND shard = :shard AND number > :previous
    ), present AS (
        SELECT DISTINCT ON (serial) id, serial, not_after, entry FROM revocation
        WHERE authority_id = :authority AND shard = :shard ORDER BY serial, id DESC
    )
    SELECT count(*), coalesce(string_agg(entry, ''::bytea ORDER BY serial), '') FROM present
    WHERE entry IS NOT NULL AND (CAST(:kept AS timestamptz) IS NULL OR not_after >= :kept
        OR id IN (SELECT id FROM fresh))
""")
# The last event of a serial is its last of all: those of one serial commit in the order of their ids.
_CHANGED = text("""
    WITH changed AS MATERIALIZED (
        SELECT DISTINCT ON (r.serial) r.serial, r.entry, r.revoked_at
        FROM crl_event e CROSS JOIN unnest(e.revocations) AS seen (id) JOIN revocation r ON r.id = seen.id
        WHERE e.authority_id = :authority AND e.shard = :shard AND e.number > :after AND e.number <= :number
        ORDER BY r.serial, r.id DESC
    )
    SELECT count(*), coalesce(string_agg(entry, ''::bytea ORDER BY serial), ''::bytea),
           coalesce(array_agg(serial) FILTER (WHERE entry IS NULL), '{}'),
           coalesce(array_agg(revoked_at) FILTER (WHERE entry IS NULL), '{}')
    FROM changed
""")
_LAST_LISTED = text("""
    SELECT max(r.revoked_at) FROM crl_event e
    CROSS JOIN unnest(e.revocations) AS seen (id) JOIN revocation r ON r.id = seen.id
    WHERE e.authority_id = :authority AND e.shard = :shard AND e.number > :after AND r.revoked_at <= :until
""")
_EVENTS = text("""
    SELECT coalesce(sum(cardinality(revocations)), 0) FROM crl_event
    WHERE authority_id = :authority AND shard = :shard AND number > :after AND number <= :number
""")
_FORGET = text("DELETE FROM crl_event WHERE authority_id = :authority AND shard = :shard AND number <= :base")
# The oldest that holds: whoever keeps a complete CRL until its end can use every delta. Not one of before a
# reset: while the clock was ahead, events since older ones were forgotten.
_BASE = text("""
    SELECT min(number) FROM crl_dated
    WHERE authority_id = :authority AND shard = :shard AND base IS NULL AND der IS NOT NULL
      AND next_update > :now AND NOT voided
""")
_RESERVE = text("""
    INSERT INTO crl
        (authority_id, shard, number, this_update, next_update, entries, watermark, tbs, tbs_sha256, base,
         made_at)
    VALUES (:authority, :shard, :number, :this_update, :next_update, :entries, :watermark, :tbs, sha256(:tbs),
            :base, :made_at)
""")
_RESERVED = text("""
    SELECT number, this_update, next_update, entries, watermark, tbs_sha256, base FROM crl
    WHERE authority_id = :authority AND shard = :shard AND number = :number AND der IS NULL
""")
_BYTES = text(
    "SELECT tbs, der FROM crl WHERE authority_id = :authority AND shard = :shard AND number = :number"
)
_STORE = text("""
    UPDATE crl SET der = :der, sha256 = sha256(:der), tbs = ''
    WHERE authority_id = :authority AND shard = :shard AND number = :number
""")
_LATEST_NUMBER = text("""
    SELECT number FROM crl
    WHERE authority_id = :authority AND shard = :shard AND der IS NOT NULL AND (base IS NOT NULL) = :delta
    ORDER BY number DESC LIMIT 1
""")
# By the dates that count: where a jump of the clock dated one ahead, `pki/rollback/clock_reset.py` voids the
# date.
_LATEST = text("""
    SELECT number, this_update, next_update, watermark, der, sha256 FROM crl_dated
    WHERE authority_id = :authority AND shard = :shard AND der IS NOT NULL AND (base IS NOT NULL) = :delta
    ORDER BY number DESC LIMIT 1
""")
# What a jump of the clock can bring back to the same second lies within these.
_SHORTLY = 1_000
_DATED_ALONE = text("""
    SELECT NOT EXISTS (
        SELECT FROM crl other JOIN crl this USING (authority_id, shard)
        WHERE this.authority_id = :authority AND this.shard = :shard AND this.number = :number
          AND other.number < :number AND other.number >= CAST(:number AS bigint) - :before
          AND other.der IS NOT NULL AND (other.base IS NOT NULL) = :delta
          AND date_trunc('second', other.this_update) = date_trunc('second', this.this_update))
""")
_LAST_MADE = text("""
    SELECT DISTINCT ON (authority_id, shard) authority_id, shard, coalesce(made_at, this_update)
    FROM crl_dated WHERE der IS NOT NULL ORDER BY authority_id, shard, number DESC
""")
_NEWEST = text("""
    SELECT number, this_update, next_update, watermark FROM crl_dated
    WHERE authority_id = :authority AND shard = :shard AND der IS NOT NULL ORDER BY number DESC LIMIT 1
""")
_COMPLETE = text("""
    SELECT number, this_update, next_update, watermark FROM crl_dated
    WHERE authority_id = :authority AND shard = :shard AND number = :number AND der IS NOT NULL
      AND base IS NULL
""")
# An entry whose certificate expired before the previous CRL has been on a CRL after its end (RFC 5280 3.3).
_OWED = text("""
    SELECT v.serial FROM unnest(CAST(:vanished AS text[])) AS v (serial)
    LEFT JOIN LATERAL (
        SELECT action, not_after FROM revocation_state r WHERE r.serial = v.serial LIMIT 1
    ) AS last ON true
    WHERE last.action IS NULL OR (last.action <> 'release' AND last.not_after >= :previous)
""")
_DUE = text("""
    SELECT a.id, s.shard FROM authority a
    CROSS JOIN LATERAL generate_series(0, a.shards - 1) AS s (shard)
    LEFT JOIN LATERAL (
        SELECT number, made_at, this_update, next_update FROM crl_dated c
        WHERE c.authority_id = a.id AND c.shard = s.shard AND c.der IS NOT NULL
          AND (c.base IS NOT NULL) = :delta
        ORDER BY c.number DESC LIMIT 1
    ) AS last ON true
    LEFT JOIN LATERAL (
        SELECT made_at FROM crl_dated c
        WHERE c.authority_id = a.id AND c.shard = s.shard AND c.der IS NOT NULL
          AND (c.base IS NOT NULL) <> :delta
        ORDER BY c.number DESC LIMIT 1
    ) AS other ON true
    CROSS JOIN LATERAL (
        SELECT EXISTS (
            SELECT 1 FROM crl_event e
            WHERE e.authority_id = a.id AND e.shard = s.shard AND e.number IS NULL
        ) OR EXISTS (
            SELECT 1 FROM crl_event e
            WHERE e.authority_id = a.id AND e.shard = s.shard AND e.number > coalesce(last.number, 0)
        ) AS events
    ) AS waiting
    WHERE NOT a.offline AND (last.number IS NULL OR waiting.events OR last.made_at <= :older
           OR :now > last.made_at + (last.next_update - last.this_update) / 2)
      AND (other.made_at IS NULL OR other.made_at < :second)
      AND (NOT :delta OR last.number IS NULL OR other.made_at > :older OR last.made_at <= :lately)
      AND (NOT :delta OR a.crl_form = 'national' AND EXISTS (
          SELECT 1 FROM crl_dated c
          WHERE c.authority_id = a.id AND c.shard = s.shard AND c.der IS NOT NULL AND c.base IS NULL
            AND c.next_update > :now AND NOT c.voided
      ))
    ORDER BY NOT waiting.events, last.next_update NULLS FIRST, a.id, s.shard
""")
_LET_GO = text("""
    UPDATE crl SET tbs = '', der = CASE WHEN der IS NOT NULL THEN ''::bytea END
    WHERE (authority_id, shard, number) IN (
        SELECT c.authority_id, c.shard, c.number FROM crl c
        WHERE c.this_update < :before AND (c.der <> '' OR c.tbs <> '') AND EXISTS (
            SELECT 1 FROM crl newer
            WHERE newer.authority_id = c.authority_id AND newer.shard = c.shard AND newer.number > c.number
              AND (newer.base IS NULL) = (c.base IS NULL) AND newer.der <> '')
        ORDER BY c.this_update LIMIT :limit)
""")


def an_issued_authority(connection: Connection) -> bytes | None:
    """DER certificate of the first CA that has an issuer: it carries the URLs chosen at the ceremony."""
    return connection.execute(_ISSUED_AUTHORITY).scalar_one_or_none()


def points(connection: Connection, authority: Authority, shard: int) -> Points:
    """The URLs that the CRL of a shard must name, by the record; refuses as `distribution_points.points`."""
    issued = None if authority.crl_form is CrlForm.PLAIN else an_issued_authority(connection)
    return distribution_points.points(authority, shard, issued)


def take_number(connection: Connection, authority_id: str, shard: int, floor: int) -> int:
    """The shard's next number, above `floor`; its row stays locked until commit. Burnt if unused."""
    place = {"authority": authority_id, "shard": shard}
    connection.execute(_SHARD, place)
    return int(connection.execute(_NUMBER, place | {"floor": floor}).scalar_one())


def last_number(connection: Connection, authority_id: str, shard: int) -> int:
    """The last number taken in the shard, signed or burnt; 0 when none was."""
    asked = {"authority": authority_id, "shard": shard}
    return int(connection.execute(_LAST_NUMBER, asked).scalar() or 0)


def raise_numbers(connection: Connection, numbers: Mapping[str, int]) -> None:
    """Let the next number of each place (`CA/shard`) be above these; one that is above already stays."""
    places = [crl_at(place) for place in numbers]
    asked = {"authorities": [authority_id for authority_id, _ in places],
             "shards": [shard for _, shard in places], "numbers": list(numbers.values())}  # fmt: skip
    connection.execute(_RAISE, asked)


def counted(connection: Connection) -> dict[str, int]:
    """How many events there are in each place that has any."""
    return {row.place: row.events for row in connection.execute(_COUNTED)}


def mark_events_listed(connection: Connection, authority_id: str, shard: int, number: int) -> int:
    """Mark every event that no CRL has seen as seen by this number; gives how many events there ever were."""
    place = {"authority": authority_id, "shard": shard, "number": number}
    return int(connection.execute(_SEE, place).scalar_one())


def entries(
    connection: Connection, authority_id: str, shard: int, kept: datetime | None, *, previous: int = 0
) -> tuple[int, bytes]:
    """All that is revoked or on hold, less what expired before `kept` and was there for number `previous`.

    How many, and their DER joined.
    """
    asked = {"authority": authority_id, "shard": shard, "kept": kept, "previous": previous}
    number, joined = connection.execute(_ENTRIES, asked).one()
    return number, joined


def changed(connection: Connection, authority_id: str, shard: int, after: int, number: int) -> Changed:
    """The certificates with events that CRLs from after `after` to `number` were the first to see."""
    asked = {"authority": authority_id, "shard": shard, "after": after, "number": number}
    count, joined, serials, instants = connection.execute(_CHANGED, asked).one()
    return Changed(count, joined, dict(zip(map(Serial, serials), instants, strict=True)))


def events_between(connection: Connection, authority_id: str, shard: int, after: int, number: int) -> int:
    """How many events those are: several of one certificate count each."""
    asked = {"authority": authority_id, "shard": shard, "after": after, "number": number}
    return int(connection.execute(_EVENTS, asked).scalar_one())


def last_listed(
    connection: Connection, authority_id: str, shard: int, after: int, until: datetime
) -> datetime | None:
    """The latest date, not after `until`, of the events that numbers above `after` were the first to see."""
    asked = {"authority": authority_id, "shard": shard, "after": after, "until": until}
    listed_at: datetime | None = connection.execute(_LAST_LISTED, asked).scalar_one()
    return listed_at


def base_of_delta(connection: Connection, authority_id: str, shard: int, now: datetime) -> int | None:
    """The number of the oldest complete CRL that holds at `now`; what it has seen is forgotten."""
    place = {"authority": authority_id, "shard": shard}
    base: int | None = connection.execute(_BASE, place | {"now": now}).scalar_one()
    if base is not None:
        forget(connection, authority_id, shard, base)
    return base


def forget(connection: Connection, authority_id: str, shard: int, seen: int) -> None:
    """Forget which events CRLs up to number `seen` were the first to see."""
    connection.execute(_FORGET, {"authority": authority_id, "shard": shard, "base": seen})


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
    base: int | None = None,
    made_at: datetime | None = None,
) -> None:
    """Keep the bytes that the signer may sign under this number; made when they begin unless said."""
    place = {"authority": authority_id, "shard": shard, "number": number, "tbs": tbs, "base": base}
    seen = {"entries": listed.number, "watermark": listed.events}
    span = {"this_update": this_update, "next_update": next_update, "made_at": made_at or this_update}
    connection.execute(_RESERVE, place | seen | span)


def bytes_of(
    connection: Connection, authority_id: str, shard: int, number: int
) -> tuple[bytes, bytes | None] | None:
    """The CRL of that number to be signed, and signed once it is; None when it was never reserved."""
    place = {"authority": authority_id, "shard": shard, "number": number}
    row = connection.execute(_BYTES, place).one_or_none()
    return None if row is None else (row.tbs, row.der)


def reserved(connection: Connection, authority_id: str, shard: int, number: int) -> Reserved | None:
    """The unsigned CRL of that number, without its bytes (`bytes_of`)."""
    place = {"authority": authority_id, "shard": shard, "number": number}
    row = connection.execute(_RESERVED, place).one_or_none()
    return None if row is None else Reserved(*row)


def store(connection: Connection, authority_id: str, shard: int, number: int, der: bytes) -> None:
    """Keep the signed bytes; the database refuses a second signature of the same number."""
    connection.execute(_STORE, {"authority": authority_id, "shard": shard, "number": number, "der": der})


def latest_number(
    connection: Connection, authority_id: str, shard: int, *, delta: bool = False
) -> int | None:
    """The number of the last signed CRL of its kind, without its bytes."""
    asked = {"authority": authority_id, "shard": shard, "delta": delta}
    return connection.execute(_LATEST_NUMBER, asked).scalar_one_or_none()


def is_dated_alone(
    connection: Connection, authority_id: str, shard: int, number: int, *, delta: bool = False
) -> bool:
    """Whether no CRL of its kind shortly before this one has the same thisUpdate, to the second."""
    asked = {"authority": authority_id, "shard": shard, "delta": delta, "number": number}
    return bool(connection.execute(_DATED_ALONE, asked | {"before": _SHORTLY}).scalar_one())


def latest(connection: Connection, authority_id: str, shard: int, *, delta: bool = False) -> Published | None:
    """The last signed CRL of its kind in the shard."""
    asked = {"authority": authority_id, "shard": shard, "delta": delta}
    row = connection.execute(_LATEST, asked).one_or_none()
    return None if row is None else Published(*row)


def last_made(connection: Connection) -> dict[tuple[str, int], datetime]:
    """When the last CRL or delta of each shard was made, by CA and shard; its thisUpdate is earlier."""
    return {(authority, shard): made for authority, shard, made in connection.execute(_LAST_MADE)}


def newest(connection: Connection, authority_id: str, shard: int) -> Numbered | None:
    """The last signed CRL of the shard, of whichever kind."""
    row = connection.execute(_NEWEST, {"authority": authority_id, "shard": shard}).one_or_none()
    return None if row is None else Numbered(*row)


def newest_complete(connection: Connection, authority_id: str, shard: int) -> Numbered | None:
    """The last signed complete CRL, without its bytes."""
    number = latest_number(connection, authority_id, shard)
    return None if number is None else complete(connection, authority_id, shard, number)


def complete(connection: Connection, authority_id: str, shard: int, number: int) -> Numbered | None:
    """The signed complete CRL of that number."""
    place = {"authority": authority_id, "shard": shard, "number": number}
    row = connection.execute(_COMPLETE, place).one_or_none()
    return None if row is None else Numbered(*row)


def still_owed(connection: Connection, vanished: Iterable[Serial], previous: datetime) -> list[Serial]:
    """Of serials no longer listed, those that had to be: neither released nor expired before `previous`."""
    asked = {"vanished": list(vanished), "previous": previous}
    return [Serial(row.serial) for row in connection.execute(_OWED, asked)]


def due(
    connection: Connection, now: datetime, older: datetime, *, delta: bool = False
) -> list[tuple[str, int]]:
    """Shards with events their last CRL of the kind has not seen, first; then those made before `older`.

    Never a shard whose last CRL of the other kind is of this very second: those would have to share a number
    (RFC 5280 5.2.3). Deltas only of CAs of the national form, and where a complete CRL holds. Where that is
    as old as `older`, a delta made a moment ago steps aside for the next complete one.
    """
    asked = {"now": now, "older": older, "second": now.replace(microsecond=0), "lately": now - _STEP_ASIDE}
    return [(row.id, row.shard) for row in connection.execute(_DUE, asked | {"delta": delta})]


def online_shards(connection: Connection) -> list[tuple[str, int]]:
    """Every shard whose CA's key the signer has; an offline root's CRL comes by hand (`sceau ca crl`)."""
    query = select(crl_shard.c.authority_id, crl_shard.c.shard).join(authority).where(~authority.c.offline)
    return [(row.authority_id, row.shard) for row in connection.execute(query)]


def delete_superseded_bytes(connection: Connection, before: datetime, limit: int) -> int:
    """Empty the bytes of at most `limit` CRLs made before then that later ones followed; gives how many.

    Their numbers, times and digests stay.
    """
    return connection.execute(_LET_GO, {"before": before, "limit": limit}).rowcount
