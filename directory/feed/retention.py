"""What the feed forgets, what time alone adds to it, and how it begins anew."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, text

# Readers of the change decide by clocks of their own: told before it holds there, it is told in vain.
CLOCKS_AGREE_WITHIN = timedelta(seconds=30)
_CUT = text("SELECT sceau_forget_changes(:before, :limit)")


def begin_anew_if_moved(connection: Connection) -> int:
    """Number the feed anew when the record was loaded into another cluster; how many rows were removed.

    Every part of this service then reads from the start, where all that one of them had not read is written
    again. Readers outside begin from an export.
    """
    removed: int = connection.execute(text("SELECT sceau_feed_anew()")).scalar_one()
    return removed


def cut(connection: Connection, before: datetime, limit: int) -> int:
    """Remove up to `limit` rows from the feed's far end; how many.

    Only what began before `before` and 90 days ago, what no transaction can still add to, and what every part
    of this service has dealt with. The floor moves in the same transaction, by trigger.
    """
    removed: int = connection.execute(_CUT, {"before": before, "limit": limit}).scalar_one()
    return removed


def tell_of_time(connection: Connection, now: datetime) -> int:
    """Write into the feed what time alone changed since the last call; how many rows.

    Certificates that ran out, establishments whose closing day has come, measures that began or ended. Looks
    at what came due up to half a minute ago.
    """
    until = now - CLOCKS_AGREE_WITHIN
    told: int = connection.execute(text("SELECT sceau_feed_time(:until)"), {"until": until}).scalar_one()
    return told
