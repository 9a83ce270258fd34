"""No reader of the change feed misses a row, however transactions interleave."""

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Event

from sqlalchemy import Connection, Engine, text

from directory.base.db import transaction
from directory.feed.changes import START, Change, Cursor, Entity
from directory.feed.follower import Batch, Follower
from directory.feed.readers import (
    horizon,
    is_urgent_waiting,
    lag_seconds,
    load_cursor,
    read_changes,
    read_unsettled,
    read_urgent,
    save_cursor,
)

ADD = text("INSERT INTO change (entity, key, urgent) VALUES ('mailbox', :key, :urgent)")


def add(connection: Connection, key: str, *, urgent: bool = False) -> None:
    connection.execute(ADD, {"key": key, "urgent": urgent})


def keys(changes: list[Change]) -> list[str]:
    return [change.key for change in changes]


def test_a_change_that_commits_late_is_read_after_one_with_a_later_number(engine: Engine) -> None:
    with engine.connect() as early, engine.connect() as late:
        with early.begin(), late.begin() as second:
            add(early, "first@one.example")
            add(late, "second@one.example")
            second.commit()
            with transaction(engine) as reader:
                before = read_changes(reader, START)
                cursor = before[-1].cursor if before else START
        with transaction(engine) as reader:
            after = read_changes(reader, cursor)
    # The later one was committed and visible, yet reading it then would have jumped over the earlier one.
    assert keys(before) == []
    assert keys(after) == ["first@one.example", "second@one.example"]


def test_what_is_committed_behind_an_open_transaction_can_be_seen_early(engine: Engine) -> None:
    with engine.connect() as slow, slow.begin():
        add(slow, "import@one.example")
        with transaction(engine) as other:
            add(other, "revoked@one.example", urgent=True)
        with transaction(engine) as reader:
            assert keys(read_unsettled(reader)) == ["revoked@one.example"]
            assert keys(read_changes(reader, START)) == []
    with transaction(engine) as reader:
        assert keys(read_unsettled(reader)) == []
        assert keys(read_changes(reader, START)) == ["import@one.example", "revoked@one.example"]


def test_urgent_changes_can_be_read_ahead_of_a_queue(engine: Engine) -> None:
    with transaction(engine) as connection:
        for number in range(50):
            add(connection, f"ordinary-{number}@one.example")
        add(connection, "gone@one.example", urgent=True)
    with transaction(engine) as reader:
        assert keys(read_urgent(reader, START)) == ["gone@one.example"]


def write_at_random(engine: Engine, writer: int) -> None:
    """Sixty transactions of one to three changes, of lengths that interleave; some are rolled back."""
    chance = random.Random(writer)
    for number in range(60):
        with engine.connect() as connection, connection.begin() as act:
            for part in range(chance.randint(1, 3)):
                add(connection, f"{writer}-{number}-{part}")
            connection.execute(text("SELECT pg_sleep(:s)"), {"s": chance.random() / 200})
            if chance.random() < 0.2:
                act.rollback()


def test_four_writers_and_a_reader_that_never_waits_lose_no_row(engine: Engine) -> None:
    done = Event()

    def read() -> list[str]:
        cursor, seen, last_round = START, [], False
        while not last_round:
            last_round = done.is_set()
            with transaction(engine, read_only=True) as connection:
                batch = read_changes(connection, cursor, limit=7)
            seen += keys(batch)
            cursor = batch[-1].cursor if batch else cursor
            last_round = last_round and not batch
        return seen

    with ThreadPoolExecutor(5) as pool:
        reader = pool.submit(read)
        for written in [pool.submit(write_at_random, engine, writer) for writer in range(4)]:
            written.result()
        done.set()
        seen = reader.result()
    with transaction(engine) as connection:
        committed = connection.execute(text("SELECT key FROM change")).scalars().all()
    assert len(committed) > 200
    assert sorted(seen) == sorted(committed)


def test_a_saved_place_is_found_again(engine: Engine, now: datetime) -> None:
    with transaction(engine) as connection:
        assert load_cursor(connection, "someone") == START
        save_cursor(connection, "someone", Cursor(1 << 62, 7), now)
        save_cursor(connection, "someone", Cursor(1 << 61, 9), now)
    with transaction(engine) as connection:
        assert load_cursor(connection, "someone") == Cursor(1 << 61, 9)


def test_the_horizon_stands_behind_all_that_is_settled_and_before_all_that_is_not(engine: Engine) -> None:
    with transaction(engine) as connection:
        add(connection, "settled@one.example")
    with engine.connect() as slow, slow.begin():
        add(slow, "open@one.example")
        with transaction(engine) as reader:
            place = horizon(reader)
    with transaction(engine) as reader:
        assert keys(read_changes(reader, place)) == ["open@one.example"]


def test_lag_is_the_age_of_the_oldest_change_not_dealt_with(engine: Engine) -> None:
    with transaction(engine) as connection:
        add(connection, "a@one.example")
    with transaction(engine) as connection:
        (change,) = read_changes(connection, START)
        later = change.at + timedelta(seconds=42)
        assert lag_seconds(connection, "someone", later) == 42.0
        save_cursor(connection, "someone", change.cursor, later)
        assert lag_seconds(connection, "someone", later) == 0.0


def test_a_record_written_through_its_tables_shows_in_the_feed(engine: Engine) -> None:
    with transaction(engine) as connection:
        connection.execute(
            text("INSERT INTO organisation (finess, name, row_hash) VALUES ('750990012', 'CLINIQUE', '')")
        )
    with transaction(engine) as connection:
        (change,) = read_changes(connection, START)
    assert (change.entity, change.key, change.urgent) == (Entity.ORGANISATION, "750990012", False)


def test_what_takes_away_is_known_to_wait_until_its_reader_has_passed_it(engine: Engine) -> None:
    now = datetime(2026, 9, 1, tzinfo=UTC)
    with engine.begin() as connection:
        add(connection, "before@one.example", urgent=True)
    with engine.begin() as connection:
        for consumer in ("one", "two"):
            save_cursor(connection, consumer, horizon(connection), now)
        add(connection, "ordinary@one.example")
    with engine.begin() as connection:
        assert not is_urgent_waiting(connection, ["one", "two"])
        add(connection, "gone@one.example", urgent=True)
    with engine.begin() as connection:
        assert is_urgent_waiting(connection, ["one"])
        save_cursor(connection, "one", horizon(connection), now)
        assert not is_urgent_waiting(connection, ["one"])
        assert is_urgent_waiting(connection, ["one", "two"])


def step(engine: Engine, follower: Follower, now: datetime) -> list[str]:
    """What a follower looks at next; its place is saved, as by whoever acts on it."""
    with transaction(engine) as connection:
        batch: Batch = follower.read(connection)
        save_cursor(connection, "reader", batch.reached, now)
    follower.finish(batch)
    return keys(list(batch.changes))


def test_a_follower_looks_ahead_once_and_still_passes_everything(engine: Engine, now: datetime) -> None:
    follower = Follower("reader", 2)
    with transaction(engine) as connection:
        for number in range(4):
            add(connection, f"ordinary-{number}")
        add(connection, "gone", urgent=True)
    with engine.connect() as slow, slow.begin():
        add(slow, "import")
        with transaction(engine) as other:
            add(other, "early")
        assert step(engine, follower, now) == ["gone", "early", "ordinary-0", "ordinary-1"]
        assert step(engine, follower, now) == ["ordinary-2", "ordinary-3"]
    assert step(engine, follower, now) == ["gone", "import"]
    assert step(engine, follower, now) == ["early"]


def test_a_follower_whose_place_is_put_back_looks_ahead_anew(engine: Engine, now: datetime) -> None:
    follower = Follower("reader", 1)
    with transaction(engine) as connection:
        add(connection, "ordinary-0")
        add(connection, "ordinary-1")
        add(connection, "gone", urgent=True)
    assert step(engine, follower, now) == ["gone", "ordinary-0"]
    assert step(engine, follower, now) == ["ordinary-1"]
    with transaction(engine) as connection:
        save_cursor(connection, "reader", START, now)
    assert step(engine, follower, now) == ["gone", "ordinary-0"]
