"""How readers outside carry their place: a whole snapshot, so that none waits for a long import.

They are told at once what commits behind one, without a second look. A cursor is opaque to them and holds no
right.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, text

from directory.base.errors import Kind, Refusal
from directory.feed.changes import BEGINNING, START, Change, Cursor, Place, Seen
from directory.feed.places import AFTER, LAST_ID, asked_after, change_of, floor
from directory.feed.unheard import snapshot_of

_SNAPSHOT = text("SELECT CAST(pg_current_snapshot() AS text)")
# Numbers of transactions mean nothing in another cluster, where a dump of this one may have been loaded. They
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
        SELECT * FROM change WHERE xid >= run.low AND xid <= run.high AND {AFTER} {{and_urgent}}
        ORDER BY xid, id LIMIT :limit) AS told
    ORDER BY told.xid, told.id LIMIT :limit"""  # noqa: S608 - constants of this wing
_IN_RUNS = text(_WALK.format(and_urgent=""))
_URGENT_IN_RUNS = text(_WALK.format(and_urgent="AND urgent"))
_LAST_IN_RUNS = text(f"""SELECT CAST(last.xid AS text) FROM {_RUNS} CROSS JOIN LATERAL (
        SELECT xid FROM change WHERE xid >= run.low AND xid <= run.high ORDER BY xid DESC, id DESC LIMIT 1
    ) AS last ORDER BY last.xid DESC LIMIT 1""")  # noqa: S608 - same

_SEEN = r"([0-9]{1,19})((?::[0-9]{1,19}){0,1000})"
_CURSOR = re.compile(
    rf"([0-9a-fA-F.]{{1,25}})~{_SEEN}(?:~{_SEEN}~([0-9]{{1,19}})\.([0-9]{{1,19}})(?:~{_SEEN})?)?"
)
LONGEST_CURSOR = 8_000


@dataclass(frozen=True)
class OutsideChanges:
    """Some changes for a reader outside, and his place after each and after all of them.

    `ahead`: urgent ones before their turn, which come again; they move nobody's place. `more`: at once.
    """

    ahead: tuple[Change, ...]
    changes: tuple[tuple[Change, Place], ...]
    next: Place
    more: bool


def tell(connection: Connection, place: Place, limit: int) -> OutsideChanges:
    """Up to `limit` changes that a reader at `place` has not been told of, by transaction and row number.

    Wants one snapshot (REPEATABLE READ). Nothing is missed. Told twice are the changes in `ahead`, or those
    between the last line a reader kept and the end of its page. Refusal: GONE `cursor-expired`.
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
    return OutsideChanges(tuple(ahead), walked, following, cut_short or place.until is not None)


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
    match = _CURSOR.fullmatch(told)
    if match is None:
        raise _bad_cursor()
    theirs, *seen = match.groups()
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


def leads_on(connection: Connection, cursor: str) -> bool:
    """Whether the feed goes on from this cursor."""
    try:
        place = place_of(origin(connection), cursor)
        _refuse_unless_whole(connection, place, _snapshot(connection))
    except Refusal:
        return False
    return True


def _snapshot(connection: Connection) -> Seen:
    return snapshot_of(connection.execute(_SNAPSHOT).scalar_one())


def _refuse_unless_whole(connection: Connection, place: Place, now: Seen) -> None:
    if any(seen.below > now.below for seen in (place.seen, place.until, place.ahead) if seen is not None):
        raise _expired("The record was put back since this cursor was given.")
    if floor(connection).xid >= place.seen.first_unseen:
        raise _expired("What changed since this cursor is not kept any more.")


def _in_runs(
    connection: Connection, query: Any, runs: Sequence[tuple[int, int]], after: Cursor, limit: int
) -> list[Change]:
    ahead = [(low, high) for low, high in runs if high >= after.xid]
    return [change_of(row) for row in connection.execute(query, _bounds(ahead) | asked_after(after, limit))]


def _bounds(runs: Sequence[tuple[int, int]]) -> dict[str, Any]:
    return {"lows": [str(low) for low, _ in runs], "highs": [str(high) for _, high in runs]}


def _seen_written(seen: Seen) -> str:
    return ":".join(str(number) for number in (seen.below, *seen.open))


def _seen_read(below: str, still_open: str) -> Seen:
    seen = Seen(int(below), tuple(int(xid) for xid in still_open.split(":")[1:]))
    # Named many times, one large transaction would be walked as often.
    ascending = all(xid < next_xid for xid, next_xid in pairwise((*seen.open, seen.below)))
    if not seen.below or not ascending:
        raise _bad_cursor()
    return seen


def _bad_cursor() -> Refusal:
    return Refusal(Kind.MALFORMED, "bad-cursor", "This cursor was not given by the change feed.")


def _expired(reason: str) -> Refusal:
    return Refusal(Kind.GONE, "cursor-expired", f"{reason} Begin again from an export.")
