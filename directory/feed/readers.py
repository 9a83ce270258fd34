"""The change feed, read so that no row is ever missed: what changed, in order, from a reader's own place on.

Row numbers are given out before a transaction commits, so the highest number seen says nothing about lower
ones still to come. Rows are therefore read only below `pg_snapshot_xmin`: every transaction numbered below it
has ended, and none that begins later can get such a number. What lies at or above it may be looked at early
(`read_unsettled`), never counted as read.

That is how parts of this service read, which keep two numbers as their place. Readers outside carry a whole
snapshot in theirs (`Place`): they are told at once what commits behind a long import, without a second look.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, text

from directory.base.errors import Kind, Refusal
from directory.feed.changes import BEGINNING, START, Change, Cursor, Entity, Place, Seen

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
_URGENT_WAITING = text(
    f"SELECT count(*) FROM (SELECT FROM change WHERE {_AFTER} AND urgent LIMIT :limit) AS waiting"  # noqa: S608 - same
)
_IS_URGENT_WAITING = text("""
    SELECT EXISTS (
        SELECT FROM feed_cursor reader CROSS JOIN LATERAL (
            SELECT FROM change WHERE (change.xid, change.id) > (reader.xid, reader.id) AND urgent LIMIT 1
        ) AS waiting WHERE reader.consumer = ANY(CAST(:consumers AS text[])))
""")
_EARLY = text(
    f"{_COLUMNS} WHERE {_UNSETTLED} AND id <> ALL(CAST(:seen AS bigint[]))"
    " ORDER BY urgent DESC, change.xid, id LIMIT :limit"
)
_OLDEST = text(f"SELECT at FROM change WHERE {_AFTER} ORDER BY xid, id LIMIT 1")  # noqa: S608 - constants of this module

_OLDEST_URGENT = text(f"SELECT at FROM change WHERE {_AFTER} AND urgent ORDER BY xid, id LIMIT 1")  # noqa: S608 - same

_SNAPSHOT = text("SELECT CAST(pg_current_snapshot() AS text)")
# Numbers of transactions mean nothing in another cluster, where a dump of this one may have been loaded, and
# come again on another timeline, which begins where a physical copy was taken up.
_ORIGIN = text(
    "SELECT to_hex(sceau_cluster()) || '.' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)"
)
_RUNS = (
    "unnest(CAST(CAST(:lows AS text[]) AS xid8[]), CAST(CAST(:highs AS text[]) AS xid8[])) AS run (low, high)"
)
# Run by run: between them lies what an open import has written so far, millions of rows to step over.
_WALK = f"""SELECT CAST(told.xid AS text), told.id, told.at, told.entity, told.key, told.urgent
    FROM {_RUNS} CROSS JOIN LATERAL (
        SELECT * FROM change WHERE xid >= run.low AND xid <= run.high AND {_AFTER} {{and_urgent}}
        ORDER BY xid, id LIMIT :limit) AS told
    ORDER BY told.xid, told.id LIMIT :limit"""  # noqa: S608 - constants of this module
_IN_RUNS = text(_WALK.format(and_urgent=""))
_URGENT_IN_RUNS = text(_WALK.format(and_urgent="AND urgent"))
_LAST_IN_RUNS = text(f"""SELECT CAST(last.xid AS text) FROM {_RUNS} CROSS JOIN LATERAL (
        SELECT xid FROM change WHERE xid >= run.low AND xid <= run.high ORDER BY xid DESC, id DESC LIMIT 1
    ) AS last ORDER BY last.xid DESC LIMIT 1""")  # noqa: S608 - same
_FLOOR = text("SELECT CAST(xid AS text), id FROM feed_floor")
_OLD = text(f"SELECT CAST(xid AS text), id, at FROM change WHERE {_AFTER} AND {_SETTLED} {_IN_ORDER}")  # noqa: S608 - same
_CURSORS = text("SELECT CAST(xid AS text), id FROM feed_cursor")
# From the floor on: below it lie the entries of what former batches removed, to be stepped over each time.
_CUT = text(f"""DELETE FROM change WHERE {_AFTER}
    AND (xid, id) <= (CAST(CAST(:last_xid AS text) AS xid8), :last_id)""")  # noqa: S608 - same

_SEEN = r"([0-9]{1,19})((?::[0-9]{1,19}){0,1000})"
_CURSOR = re.compile(
    rf"([0-9a-fA-F.]{{1,25}})~{_SEEN}(?:~{_SEEN}~([0-9]{{1,19}})\.([0-9]{{1,19}})(?:~{_SEEN})?)?"
)
LONGEST_CURSOR = 8_000


@dataclass(frozen=True)
class Told:
    """Some changes for a reader outside, and his place after each and after all of them.

    `ahead`: urgent ones before their turn, which come again; they move nobody's place. `more`: at once.
    """

    ahead: tuple[Change, ...]
    changes: tuple[tuple[Change, Place], ...]
    next: Place
    more: bool


def read_changes(connection: Connection, after: Cursor, limit: int = 1000) -> list[Change]:
    """Settled changes after `after`, in the order of (xid, id): to save the last cursor loses nothing."""
    return [_change(row) for row in connection.execute(_CHANGES, _asked(after, limit))]


def read_urgent(connection: Connection, after: Cursor, limit: int = 1000) -> list[Change]:
    """Like `read_changes`, urgent changes only: what takes something away can overtake a long queue."""
    return [_change(row) for row in connection.execute(_URGENT, _asked(after, limit))]


def urgent_waiting(connection: Connection, after: Cursor, most: int) -> int:
    """How many urgent changes are behind `after`, settled or not; `most` when there are more."""
    return int(connection.execute(_URGENT_WAITING, _asked(after, most)).scalar_one())


def is_urgent_waiting(connection: Connection, consumers: Sequence[str]) -> bool:
    """Whether an urgent change, settled or not, lies behind the saved place of one of these readers."""
    return bool(connection.execute(_IS_URGENT_WAITING, {"consumers": list(consumers)}).scalar_one())


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


def tell(connection: Connection, place: Place, limit: int) -> Told:
    """Up to `limit` changes that a reader at `place` has not been told of, by transaction and row number.

    Wants one snapshot (REPEATABLE READ). Nothing is missed; what is told twice is what `ahead` held, or what
    lay between the last line a reader kept and the end of its page. Refusal: GONE `cursor-expired`.
    """
    now = _snapshot(connection)
    _refuse_unless_whole(connection, place, now)
    until = place.until or reached(connection, place.seen)
    rows = _in_runs(connection, _IN_RUNS, place.seen.missing(until), place.at, limit)
    cut_short = len(rows) == limit
    if not cut_short and place.until is None:
        ahead, looked = [], None
    else:
        before = place.ahead or place.seen
        looked = reached(connection, before)
        ahead = _in_runs(connection, _URGENT_IN_RUNS, before.missing(looked), START, limit)
    walked = tuple((row, Place(place.seen, until, row.cursor, looked)) for row in rows)
    following = walked[-1][1] if cut_short else Place(until)
    return Told(tuple(ahead), walked, following, cut_short or place.until is not None)


def reached(connection: Connection, since: Seen = BEGINNING.seen) -> Seen:
    """All that this snapshot shows, for a reader who knows `since`.

    Not beyond the last change there is: its commit is on disk, so that no crash can give a number below it to
    another transaction. A number that left no trace could come again.
    """
    now = _snapshot(connection)
    last = connection.execute(_LAST_IN_RUNS, _bounds(since.missing(now))).scalar_one_or_none()
    # What was removed since it was written was on disk as well.
    return now.clamped(max(since.below, floor(connection).xid + 1, int(last or 0) + 1))


def cursor_of(origin: str, place: Place) -> str:
    """A place as readers carry it: opaque to them, without any right in it, hence not signed."""
    parts = [origin, _seen_written(place.seen)]
    if place.until is not None:
        parts += [_seen_written(place.until), f"{place.at.xid}.{place.at.id}"]
        parts += [] if place.ahead is None else [_seen_written(place.ahead)]
    return base64.urlsafe_b64encode("~".join(parts).encode()).decode().rstrip("=")


def place_of(origin: str, cursor: str) -> Place:
    """The place a cursor stands for.

    Refusals: MALFORMED `bad-cursor` for what never was one; GONE `cursor-expired` for one of another origin.
    """
    try:
        told = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode(
            "ascii"
        )
    except (binascii.Error, ValueError) as error:
        raise _bad_cursor() from error
    found = _CURSOR.fullmatch(told)
    if found is None:
        raise _bad_cursor()
    theirs, *seen = found.groups()
    if theirs != origin:
        raise _expired("The record was moved since this cursor was given.")
    known = _seen_read(*seen[:2])
    if seen[2] is None:
        return Place(known)
    ahead = None if seen[6] is None else _seen_read(*seen[6:])
    return Place(known, _seen_read(*seen[2:4]), Cursor(int(seen[4]), min(int(seen[5]), LAST_ID)), ahead)


def origin(connection: Connection) -> str:
    """What names the cluster that numbers the transactions, and its timeline: the same until a restore."""
    name: str = connection.execute(_ORIGIN).scalar_one()
    return name


def floor(connection: Connection) -> Cursor:
    """The place up to which rows may have been removed; all behind it are there."""
    xid, number = connection.execute(_FLOOR).one()
    return Cursor(int(xid), number)


def leads_on(connection: Connection, cursor: str) -> bool:
    """Whether the feed goes on from this cursor."""
    try:
        place = place_of(origin(connection), cursor)
        _refuse_unless_whole(connection, place, _snapshot(connection))
    except Refusal:
        return False
    return True


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
    asked = _asked(floor(connection), limit)
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


def lag_seconds(connection: Connection, consumer: str, now: datetime) -> float:
    """The age of the oldest change `consumer` has not dealt with, in seconds; 0.0 when it is up to date."""
    oldest = connection.execute(_OLDEST, _asked(load_cursor(connection, consumer), 1)).scalar_one_or_none()
    return 0.0 if oldest is None else max(0.0, (now - oldest).total_seconds())


def urgent_lag_seconds(connection: Connection, consumer: str, now: datetime) -> float:
    """The same of what takes something away: for how long `consumer` has gone on without it."""
    place = _asked(load_cursor(connection, consumer), 1)
    oldest = connection.execute(_OLDEST_URGENT, place).scalar_one_or_none()
    return 0.0 if oldest is None else max(0.0, (now - oldest).total_seconds())


def _asked(after: Cursor, limit: int) -> dict[str, str | int]:
    return {"xid": str(after.xid), "id": after.id, "limit": limit}


def _change(row: Sequence[Any]) -> Change:
    xid, number, at, entity, key, urgent = row
    return Change(Cursor(int(xid), number), at, Entity(entity), key, urgent)


def _snapshot(connection: Connection) -> Seen:
    _, below, still_open = connection.execute(_SNAPSHOT).scalar_one().split(":")
    return Seen(int(below), tuple(int(xid) for xid in still_open.split(",") if xid))


def _refuse_unless_whole(connection: Connection, place: Place, now: Seen) -> None:
    if any(seen.below > now.below for seen in (place.seen, place.until, place.ahead) if seen is not None):
        raise _expired("The record was put back since this cursor was given.")
    if floor(connection).xid >= place.seen.first_unseen:
        raise _expired("What changed since this cursor is not kept any more.")


def _in_runs(
    connection: Connection, query: Any, runs: Sequence[tuple[int, int]], after: Cursor, limit: int
) -> list[Change]:
    ahead = [(low, high) for low, high in runs if high >= after.xid]
    return [_change(row) for row in connection.execute(query, _bounds(ahead) | _asked(after, limit))]


def _bounds(runs: Sequence[tuple[int, int]]) -> dict[str, Any]:
    return {"lows": [str(low) for low, _ in runs], "highs": [str(high) for _, high in runs]}


def _seen_written(seen: Seen) -> str:
    return ":".join(str(number) for number in (seen.below, *seen.open))


def _seen_read(below: str, still_open: str) -> Seen:
    seen = Seen(int(below), tuple(int(xid) for xid in still_open.split(":")[1:]))
    # Named many times, one large transaction would be walked as often.
    ascending = all(one < next_one for one, next_one in pairwise((*seen.open, seen.below)))
    if not seen.below or not ascending:
        raise _bad_cursor()
    return seen


def _bad_cursor() -> Refusal:
    return Refusal(Kind.MALFORMED, "bad-cursor", "This cursor was not given by the change feed.")


def _expired(reason: str) -> Refusal:
    return Refusal(Kind.GONE, "cursor-expired", f"{reason} Begin again from an export.")
