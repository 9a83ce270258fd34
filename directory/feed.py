"""The change feed, read so that no row is ever missed: what changed, in order, from a reader's own place on.

Row numbers are given out before a transaction commits, so the highest number seen says nothing about lower
ones still to come. Rows are therefore read only below `pg_snapshot_xmin`: every transaction numbered below it
has ended, and none that begins later can get such a number. What lies at or above it may be looked at early
(`read_unsettled`), never counted as read.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from directory.changes import START, Change, Cursor, Entity

# The largest row number there can be: a cursor with it stands behind every row of its transaction.
LAST_ID = (1 << 63) - 1
# Readers of the change decide by clocks of their own: told before it holds there, it is told in vain.
CLOCKS_AGREE_WITHIN = timedelta(seconds=30)

_COLUMNS = "SELECT CAST(xid AS text), id, at, entity, key, urgent FROM change"
_AFTER = "(xid, id) > (CAST(CAST(:xid AS text) AS xid8), :id)"
_SETTLED = "xid < pg_snapshot_xmin(pg_current_snapshot())"
_UNSETTLED = "xid >= pg_snapshot_xmin(pg_current_snapshot())"
# `change.xid`, since plain `xid` would name the text in the answer and sort "10" before "9".
_IN_ORDER = "ORDER BY change.xid, id LIMIT :limit"

_CHANGES = text(f"{_COLUMNS} WHERE {_AFTER} AND {_SETTLED} {_IN_ORDER}")
_URGENT = text(f"{_COLUMNS} WHERE {_AFTER} AND {_SETTLED} AND urgent {_IN_ORDER}")
_EARLY = text(
    f"{_COLUMNS} WHERE {_UNSETTLED} AND id <> ALL(CAST(:seen AS bigint[]))"
    " ORDER BY urgent DESC, change.xid, id LIMIT :limit"
)
_OLDEST = text(f"SELECT at FROM change WHERE {_AFTER} ORDER BY xid, id LIMIT 1")  # noqa: S608 - constants of this module


def read_changes(connection: Connection, after: Cursor, limit: int = 1000) -> list[Change]:
    """Settled changes after `after`, in the order of (xid, id): to save the last cursor loses nothing."""
    return [_change(row) for row in connection.execute(_CHANGES, _asked(after, limit))]


def read_urgent(connection: Connection, after: Cursor, limit: int = 1000) -> list[Change]:
    """Like `read_changes`, urgent changes only: what takes something away can overtake a long queue."""
    return [_change(row) for row in connection.execute(_URGENT, _asked(after, limit))]


def read_unsettled(connection: Connection, seen: Iterable[Cursor] = (), limit: int = 1000) -> list[Change]:
    """Committed changes that cannot be counted as read yet, because an older transaction is still open.

    Urgent ones first, those at `seen` left out. A register import may stay open for minutes; a revocation
    must not wait for it. Whoever acts on these must expect them again from `read_changes`.
    """
    asked = {"seen": [cursor.id for cursor in seen], "limit": limit}
    return [_change(row) for row in connection.execute(_EARLY, asked)]


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


def tell_of_time(connection: Connection, now: datetime) -> int:
    """Write into the feed what time alone changed since the last call; how many rows.

    Certificates that ran out, establishments whose closing day has come, measures that began or ended. Looks
    at what came due up to half a minute ago.
    """
    until = now - CLOCKS_AGREE_WITHIN
    told: int = connection.execute(text("SELECT sceau_feed_time(:until)"), {"until": until}).scalar_one()
    return told


def lag_seconds(connection: Connection, consumer: str, now: datetime) -> float:
    """The age of the oldest change `consumer` has not dealt with, in seconds; 0.0 when it is up to date."""
    oldest = connection.execute(_OLDEST, _asked(load_cursor(connection, consumer), 1)).scalar_one_or_none()
    return 0.0 if oldest is None else max(0.0, (now - oldest).total_seconds())


def _asked(after: Cursor, limit: int) -> dict[str, str | int]:
    return {"xid": str(after.xid), "id": after.id, "limit": limit}


def _change(row: Sequence[Any]) -> Change:
    xid, number, at, entity, key, urgent = row
    return Change(Cursor(int(xid), number), at, Entity(entity), key, urgent)
