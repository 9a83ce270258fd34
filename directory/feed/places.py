"""How rows behind a place in the feed are asked for, and where the feed begins."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from directory.feed.changes import Change, Cursor, Entity

# The largest row number there can be: a cursor with it stands behind every row of its transaction.
LAST_ID = (1 << 63) - 1

COLUMNS = "SELECT CAST(xid AS text), id, at, entity, key, urgent FROM change"
AFTER = "(xid, id) > (CAST(CAST(:xid AS text) AS xid8), :id)"
SETTLED = "xid < pg_snapshot_xmin(pg_current_snapshot())"
# `change.xid`, since plain `xid` would name the text in the answer and sort "10" before "9".
IN_ORDER = "ORDER BY change.xid, id LIMIT :limit"
_FLOOR = text("SELECT CAST(xid AS text), id FROM feed_floor")


def floor(connection: Connection) -> Cursor:
    """The place up to which rows may have been removed; all behind it are there."""
    xid, number = connection.execute(_FLOOR).one()
    return Cursor(int(xid), number)


def asked_after(after: Cursor, limit: int) -> dict[str, str | int]:
    """What a query for the rows behind a place is asked with."""
    return {"xid": str(after.xid), "id": after.id, "limit": limit}


def change_of(row: Sequence[Any]) -> Change:
    """A row as the change it tells of."""
    xid, number, at, entity, key, urgent = row
    return Change(Cursor(int(xid), number), at, Entity(entity), key, urgent)
