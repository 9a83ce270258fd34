"""What the feed forgets, what time alone adds to it, and how it begins anew."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from directory.feed.changes import Cursor
from directory.feed.places import AFTER, IN_ORDER, SETTLED, asked_after, floor

# Readers of the change decide by clocks of their own: told before it holds there, it is told in vain.
CLOCKS_AGREE_WITHIN = timedelta(seconds=30)
_OLD = text(f"SELECT CAST(xid AS text), id, at FROM change WHERE {AFTER} AND {SETTLED} {IN_ORDER}")  # noqa: S608 - same
_CURSORS = text("SELECT CAST(xid AS text), id FROM feed_cursor")
# From the floor on: below it lie the entries of what former batches removed, to be stepped over each time.
_CUT = text(f"""DELETE FROM change WHERE {AFTER}
    AND (xid, id) <= (CAST(CAST(:last_xid AS text) AS xid8), :last_id)""")  # noqa: S608 - same


def begin_anew_if_moved(connection: Connection) -> int:
    """Number the feed anew when the record was loaded into another cluster; how many rows were removed.

    Every part of this service then reads from the start, where all that one of them had not read is written
    again. Readers outside begin from an export.
    """
    removed: int = connection.execute(text("SELECT sceau_feed_anew()")).scalar_one()
    return removed


def cut(connection: Connection, before: datetime, limit: int) -> int:
    """Remove up to `limit` rows from the feed's far end; how many.

    Only what began before `before`, what no transaction can still add to, and what every part of this service
    has dealt with. The floor moves in the same transaction, by trigger.
    """
    stop = min((Cursor(int(xid), number) for xid, number in connection.execute(_CURSORS)), default=None)
    asked = asked_after(floor(connection), limit)
    last, count = None, 0
    for xid, number, at in connection.execute(_OLD, asked):
        place = Cursor(int(xid), number)
        if at >= before or (stop is not None and place > stop):
            break
        last, count = place, count + 1
    if last is not None:
        connection.execute(_CUT, asked | {"last_xid": str(last.xid), "last_id": last.id})
    return count


def tell_of_time(connection: Connection, now: datetime) -> int:
    """Write into the feed what time alone changed since the last call; how many rows.

    Certificates that ran out, establishments whose closing day has come, measures that began or ended. Looks
    at what came due up to half a minute ago.
    """
    until = now - CLOCKS_AGREE_WITHIN
    told: int = connection.execute(text("SELECT sceau_feed_time(:until)"), {"until": until}).scalar_one()
    return told
