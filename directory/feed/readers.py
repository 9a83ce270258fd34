"""The change feed, read so that no row is ever missed: what changed, in order, from a reader's own place on.

Row numbers are given out before a transaction commits, so the highest number seen says nothing about lower
ones still to come. Rows are therefore read only below `pg_snapshot_xmin`: every transaction numbered below it
has ended, and none that begins later can get such a number. A change at or above it may be looked at early
(`read_unsettled`), never counted as read.

That is how parts of this service read, which keep two numbers as their place. Readers outside have
`outside_cursor`.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import Connection, text

from directory.feed.changes import START, Change, Cursor
from directory.feed.places import AFTER, COLUMNS, IN_ORDER, LAST_ID, SETTLED, asked_after, change_of

_UNSETTLED = "xid >= pg_snapshot_xmin(pg_current_snapshot())"

_CHANGES = text(f"{COLUMNS} WHERE {AFTER} AND {SETTLED} {IN_ORDER}")
_URGENT = text(f"{COLUMNS} WHERE {AFTER} AND {SETTLED} AND urgent {IN_ORDER}")
_URGENT_WAITING = text(
    f"SELECT count(*) FROM (SELECT FROM change WHERE {AFTER} AND urgent LIMIT :limit) AS waiting"  # noqa: S608 - same
)
_IS_URGENT_WAITING = text("""
    SELECT EXISTS (
        SELECT FROM feed_cursor reader CROSS JOIN LATERAL (
            SELECT FROM change WHERE (change.xid, change.id) > (reader.xid, reader.id) AND urgent LIMIT 1
        ) AS waiting WHERE reader.consumer = ANY(CAST(:consumers AS text[])))
""")
_EARLY = text(
    f"{COLUMNS} WHERE {_UNSETTLED} AND id <> ALL(CAST(:seen AS bigint[]))"
    " ORDER BY urgent DESC, change.xid, id LIMIT :limit"
)
_OLDEST = text(f"SELECT at FROM change WHERE {AFTER} ORDER BY xid, id LIMIT 1")  # noqa: S608 - constants of this wing

_OLDEST_URGENT = text(f"SELECT at FROM change WHERE {AFTER} AND urgent ORDER BY xid, id LIMIT 1")  # noqa: S608 - same


def read_changes(connection: Connection, after: Cursor, limit: int = 1000) -> list[Change]:
    """Settled changes after `after`, in the order of (xid, id): to save the last cursor loses nothing."""
    return [change_of(row) for row in connection.execute(_CHANGES, asked_after(after, limit))]


def read_urgent(connection: Connection, after: Cursor, limit: int = 1000) -> list[Change]:
    """Like `read_changes`, urgent changes only: what takes something away can overtake a long queue."""
    return [change_of(row) for row in connection.execute(_URGENT, asked_after(after, limit))]


def urgent_waiting(connection: Connection, after: Cursor, most: int) -> int:
    """How many urgent changes are behind `after`, settled or not; `most` when there are more."""
    return int(connection.execute(_URGENT_WAITING, asked_after(after, most)).scalar_one())


def is_urgent_waiting(connection: Connection, consumers: Sequence[str]) -> bool:
    """Whether an urgent change, settled or not, lies behind the saved place of one of these readers."""
    return bool(connection.execute(_IS_URGENT_WAITING, {"consumers": list(consumers)}).scalar_one())


def read_unsettled(connection: Connection, seen: Iterable[Cursor] = (), limit: int = 1000) -> list[Change]:
    """Committed changes that cannot be counted as read yet, because an older transaction is still open.

    Urgent ones first, those at `seen` left out. A register import may stay open for minutes; a revocation
    must not wait for it. Whoever acts on these must expect them again from `read_changes`.
    """
    asked = {"seen": [cursor.id for cursor in seen], "limit": limit}
    return [change_of(row) for row in connection.execute(_EARLY, asked)]


def horizon(connection: Connection) -> Cursor:
    """The place behind everything settled in this snapshot: where a reader of the whole record goes on."""
    settled = connection.execute(
        text("SELECT CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text)")
    ).scalar_one()
    return Cursor(int(settled) - 1, LAST_ID)


def load_cursor(connection: Connection, consumer: str) -> Cursor:
    """Where `consumer` stands; the start of the feed when it never saved a place."""
    row = connection.execute(
        text("SELECT CAST(xid AS text), id FROM feed_cursor WHERE consumer = :consumer"),
        {"consumer": consumer},
    ).one_or_none()
    return START if row is None else Cursor(int(row[0]), row[1])


def save_cursor(connection: Connection, consumer: str, cursor: Cursor, now: datetime) -> None:
    """Remember that `consumer` has dealt with all up to `cursor`; going back is allowed and harmless."""
    connection.execute(
        text(
            "INSERT INTO feed_cursor (consumer, xid, id, updated_at)"
            " VALUES (:consumer, CAST(CAST(:xid AS text) AS xid8), :id, :now)"
            " ON CONFLICT (consumer) DO UPDATE"
            " SET xid = excluded.xid, id = excluded.id, updated_at = excluded.updated_at"
        ),
        {"consumer": consumer, "xid": str(cursor.xid), "id": cursor.id, "now": now},
    )


def lag_seconds(connection: Connection, consumer: str, now: datetime) -> float:
    """The age of the oldest change `consumer` has not dealt with, in seconds; 0.0 when it is up to date."""
    oldest = connection.execute(
        _OLDEST, asked_after(load_cursor(connection, consumer), 1)
    ).scalar_one_or_none()
    return 0.0 if oldest is None else max(0.0, (now - oldest).total_seconds())


def urgent_lag_seconds(connection: Connection, consumer: str, now: datetime) -> float:
    """The same of what takes something away: for how long `consumer` has gone on without it."""
    place = asked_after(load_cursor(connection, consumer), 1)
    oldest = connection.execute(_OLDEST_URGENT, place).scalar_one_or_none()
    return 0.0 if oldest is None else max(0.0, (now - oldest).total_seconds())
