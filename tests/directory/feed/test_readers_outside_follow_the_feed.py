"""A reader outside is told of every change, however transactions interleave, at once and as a rule once."""

import base64
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.feed import outside_cursor, places, retention
from directory.feed import readers as feed
from directory.feed.changes import BEGINNING, START, Cursor, Place, Seen
from directory.feed.outside_cursor import OutsideChanges
from tests.directory.feed.test_feed import write_at_random

ADD = text("INSERT INTO change (entity, key, urgent, at) VALUES ('mailbox', :key, :urgent, :at)")
NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)


def add(connection: Connection, key: str, *, urgent: bool = False, at: datetime = NOW) -> None:
    connection.execute(ADD, {"key": key, "urgent": urgent, "at": at})


def tell(engine: Engine, place: Place, limit: int = 1000) -> OutsideChanges:
    with transaction(engine, read_only=True) as connection:
        return outside_cursor.tell(connection, place, limit)


def keys(told: OutsideChanges) -> list[str]:
    return [change.key for change, _ in told.changes]


def ahead(told: OutsideChanges) -> list[str]:
    return [change.key for change in told.ahead]


def test_what_commits_behind_an_open_import_is_told_at_once_and_the_import_when_it_commits(
    engine: Engine,
) -> None:
    with engine.connect() as slow, slow.begin():
        add(slow, "import@one.example")
        with transaction(engine) as other:
            add(other, "revoked@one.example")
        first = tell(engine, BEGINNING)
        assert keys(first) == ["revoked@one.example"]
        assert keys(tell(engine, first.next)) == []
        between = tell(engine, first.next).next
    with transaction(engine) as other:
        add(other, "later@one.example")
    last = tell(engine, between)
    assert keys(last) == ["import@one.example", "later@one.example"]
    assert keys(tell(engine, last.next)) == []


def test_one_transaction_is_told_in_pages_that_say_there_is_more(engine: Engine) -> None:
    with transaction(engine) as connection:
        for number in range(25):
            add(connection, f"{number}@one.example")
    place, pages = BEGINNING, []
    while True:
        told = tell(engine, place, 10)
        pages.append(keys(told))
        place = told.next
        if not told.more:
            break
    assert [key for page in pages for key in page] == [f"{number}@one.example" for number in range(25)]
    assert max(map(len, pages)) == 10
    assert tell(engine, place).changes == ()


def test_after_any_line_one_can_go_on_and_miss_nothing(engine: Engine) -> None:
    with engine.connect() as slow, slow.begin():
        add(slow, "slow@one.example")
        for number in range(7):
            with transaction(engine) as connection:
                add(connection, f"{number}@one.example")
        lines = tell(engine, BEGINNING, 5).changes
    for number, (_, after) in enumerate(lines):
        found: list[str] = []
        place = after
        while True:
            told = tell(engine, place, 2)
            found += keys(told)
            place = told.next
            if not told.more and not told.changes:
                break
        assert set(found) == {f"{later}@one.example" for later in range(number + 1, 7)} | {"slow@one.example"}
        assert len(found) == len(set(found))


def test_what_takes_something_away_is_told_ahead_of_a_long_stretch(engine: Engine) -> None:
    with transaction(engine) as connection:
        for number in range(30):
            add(connection, f"{number}@one.example")
    first = tell(engine, BEGINNING, 10)
    with transaction(engine) as connection:
        add(connection, "gone@one.example", urgent=True)
    second = tell(engine, first.next, 10)
    assert ahead(first) == []
    assert ahead(second) == ["gone@one.example"]
    third = tell(engine, second.next, 10)
    assert ahead(third) == [], "once is enough"
    rest = keys(tell(engine, tell(engine, third.next, 10).next, 10))
    assert rest == ["gone@one.example"], "and again in its turn"


def test_four_writers_and_a_reader_that_never_waits_lose_no_row_and_tell_none_twice(engine: Engine) -> None:
    done = Event()

    def read() -> list[str]:
        found, place = [], BEGINNING
        while True:
            last = done.is_set()
            told = tell(engine, place, 7)
            found += keys(told)
            place = told.next
            if last and not told.more and not told.changes:
                return found

    with ThreadPoolExecutor(5) as pool:
        reading = pool.submit(read)
        list(pool.map(partial(write_at_random, engine), range(4)))
        done.set()
        found = reading.result(30)
    with engine.connect() as connection:
        written = connection.execute(text("SELECT key FROM change")).scalars().all()
    assert len(written) > 200
    assert sorted(found) == sorted(written)


SEEN = st.builds(
    lambda below, still_open: Seen(below, tuple(sorted(xid for xid in still_open if xid < below))),
    st.integers(1, 40),
    st.sets(st.integers(1, 40), max_size=6),
)


@given(SEEN, SEEN)
def test_the_runs_between_two_places_are_exactly_what_the_second_adds(before: Seen, after: Seen) -> None:
    told = [xid for low, high in before.missing(after) for xid in range(low, high + 1)]
    assert told == sorted(xid for xid in range(41) if xid in after and xid not in before and xid > 0)


@given(SEEN, st.none() | SEEN, st.none() | SEEN, st.integers(0, 2**63 - 1))
def test_a_cursor_comes_back_as_it_was_given(
    seen: Seen, until: Seen | None, looked: Seen | None, number: int
) -> None:
    place = Place(seen) if until is None else Place(seen, until, Cursor(17, number), looked)
    assert outside_cursor.place_of("1a2b", outside_cursor.cursor_of("1a2b", place)) == place


def test_a_cursor_of_nobody_is_refused_and_one_of_another_cluster_has_expired(engine: Engine) -> None:
    def encoded(told: str) -> str:
        return base64.urlsafe_b64encode(told.encode()).decode().rstrip("=")

    wrong = [
        "",
        "x",
        "!",
        "é",
        "AAAA",
        encoded("1a~0"),
        encoded("1a~5:7"),
        encoded("1a~9:5:5"),
        encoded("1a~9:5:3"),
        encoded("1a~5~6"),
        encoded("1a~5 "),
    ]
    for cursor in wrong:
        with pytest.raises(Refusal) as refused:
            outside_cursor.place_of("1a", cursor)
        assert (refused.value.kind, refused.value.code) == (Kind.MALFORMED, "bad-cursor"), cursor
    with pytest.raises(Refusal) as refused:
        outside_cursor.place_of("1a", outside_cursor.cursor_of("1b", BEGINNING))
    assert (refused.value.kind, refused.value.code) == (Kind.GONE, "cursor-expired")
    with pytest.raises(Refusal) as refused:
        tell(engine, Place(Seen(1 << 60)))
    assert refused.value.code == "cursor-expired", "the record was put back from a copy"


def test_a_place_is_never_beyond_the_last_change_on_disk(engine: Engine) -> None:
    """A transaction number that left no trace may be given again after a crash, to a change."""
    with transaction(engine) as connection:
        add(connection, "one@one.example")
    with engine.connect() as connection, connection.begin() as act:
        connection.execute(text("SELECT pg_current_xact_id()"))
        act.rollback()
    told = tell(engine, BEGINNING)
    assert told.next.seen.below == told.changes[-1][0].cursor.xid + 1


def test_the_floor_moves_with_whatever_is_removed_and_expires_who_stands_before_it(engine: Engine) -> None:
    with transaction(engine) as connection:
        add(connection, "old@one.example")
    early = tell(engine, BEGINNING).next
    with transaction(engine) as connection:
        add(connection, "older@one.example")
    late = tell(engine, early).next
    with transaction(engine) as connection:
        connection.execute(text("DELETE FROM change"))
    for place in (BEGINNING, early):
        with pytest.raises(Refusal) as refused:
            tell(engine, place)
        assert refused.value.code == "cursor-expired"
    assert tell(engine, late).changes == ()
    with transaction(engine) as connection:
        add(connection, "new@one.example")
    assert keys(tell(engine, late)) == ["new@one.example"]


def test_a_feed_without_a_row_left_still_has_a_place_to_go_on_from(engine: Engine) -> None:
    with transaction(engine) as connection:
        add(connection, "old@one.example")
    with transaction(engine) as connection:
        connection.execute(text("DELETE FROM change"))
    with transaction(engine, read_only=True) as connection:
        place = Place(outside_cursor.reached(connection))
    assert tell(engine, place).changes == ()
    with transaction(engine) as connection:
        add(connection, "new@one.example")
    assert keys(tell(engine, place)) == ["new@one.example"]


def cut(engine: Engine, before: datetime, limit: int = 1000) -> int:
    with transaction(engine) as connection:
        return retention.cut(connection, before, limit)


def test_housekeeping_removes_the_far_end_in_batches_and_nothing_younger(engine: Engine) -> None:
    for age in (100, 95, 40, 99, 1):
        with transaction(engine) as connection:
            add(connection, f"{age}@one.example", at=NOW - timedelta(days=age))
    before = NOW - timedelta(days=90)
    assert [cut(engine, before, 1) for _ in range(4)] == [1, 1, 0, 0]
    with engine.connect() as connection:
        kept = connection.execute(text("SELECT key FROM change ORDER BY xid, id")).scalars().all()
    assert kept == ["40@one.example", "99@one.example", "1@one.example"], "what stands behind younger stays"


def test_housekeeping_leaves_what_a_part_of_this_service_has_not_read(engine: Engine) -> None:
    for number in range(4):
        with transaction(engine) as connection:
            add(connection, f"{number}@one.example", at=NOW - timedelta(days=200))
    with transaction(engine) as connection:
        read = feed.read_changes(connection, Cursor(0, 0))
        feed.save_cursor(connection, "slow", read[1].cursor, NOW)
        feed.save_cursor(connection, "quick", read[3].cursor, NOW)
    assert cut(engine, NOW) == 2
    with transaction(engine) as connection:
        assert [c.key for c in feed.read_changes(connection, read[1].cursor)] == [
            "2@one.example",
            "3@one.example",
        ]


def test_housekeeping_waits_for_a_transaction_that_may_still_add_to_the_far_end(engine: Engine) -> None:
    with engine.connect() as slow, slow.begin():
        add(slow, "slow@one.example", at=NOW - timedelta(days=200))
        with transaction(engine) as connection:
            add(connection, "quick@one.example", at=NOW - timedelta(days=200))
        place = tell(engine, BEGINNING).next
        assert cut(engine, NOW) == 0
    assert keys(tell(engine, place)) == ["slow@one.example"]
    assert cut(engine, NOW) == 2


def test_a_feed_loaded_into_another_cluster_begins_anew_and_tells_what_was_not_read(engine: Engine) -> None:
    """Its numbers are of the old cluster: here far beyond all that is given out, as after long use there."""
    far = (
        "INSERT INTO change (xid, at, entity, key, urgent)"
        " VALUES (CAST(:xid AS xid8), :at, 'mailbox', :key, :urgent)"
    )
    rows = (("900001", "read", False), ("900002", "left", False), ("900003", "left", True))
    with transaction(engine) as connection:
        for xid, key, urgent in rows:
            told = {"xid": xid, "at": NOW, "key": f"{key}@one.example", "urgent": urgent}
            connection.execute(text(far), told)
        read = Cursor(900_001, places.LAST_ID)
        feed.save_cursor(connection, "consequences", read, NOW)
        feed.save_cursor(connection, "ldap", Cursor(900_002, places.LAST_ID), NOW)
        connection.execute(text("UPDATE feed_floor SET cluster = 7, xid = '900000'"))
    with transaction(engine) as connection:
        add(connection, "new@one.example", at=NOW + timedelta(minutes=10))
        assert feed.read_changes(connection, read) == [], "who stands there is told nothing more"
    with transaction(engine) as connection:
        assert retention.begin_anew_if_moved(connection) == 4
    with transaction(engine) as connection:
        assert retention.begin_anew_if_moved(connection) == 0
        assert feed.load_cursor(connection, "consequences") == START
        found = {change.key: change.urgent for change in feed.read_changes(connection, START)}
        assert found == {"left@one.example": True, "new@one.example": False}
        place = Place(outside_cursor.reached(connection))
        assert outside_cursor.leads_on(
            connection, outside_cursor.cursor_of(outside_cursor.origin(connection), place)
        )
        assert not outside_cursor.leads_on(
            connection, outside_cursor.cursor_of(outside_cursor.origin(connection), BEGINNING)
        )
    with transaction(engine) as connection:
        add(connection, "later@one.example")
    assert keys(tell(engine, place)) == ["later@one.example"]
