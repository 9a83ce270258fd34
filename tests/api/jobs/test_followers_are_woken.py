"""The followers of the feed are woken by a commit, let changes gather, and outlive a record that is away."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from queue import Queue
from types import MappingProxyType
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from api.jobs import table as jobs
from api.jobs import worker as scheduler
from api.jobs.table import JOBS
from api.wiring import Container
from directory.base.clock import utc_now
from directory.base.db import transaction
from directory.feed.readers import horizon, save_cursor
from tests.factories import seed_practitioner


class Breaths(threading.Event):
    """Waits for nothing, counts how often it was asked to, and tells the time as if it had waited."""

    taken = 0
    passed = 0.0

    def wait(self, timeout: float | None = None) -> bool:
        self.taken += 1
        self.passed += timeout or 0.0
        return self.is_set()

    def monotonic(self) -> float:
        return self.passed


def change(engine: Engine, *, urgent: bool = False) -> None:
    with transaction(engine) as connection:
        query = text("INSERT INTO change (entity, key, urgent) VALUES ('mailbox', 'a@one.example', :urgent)")
        connection.execute(query, {"urgent": urgent})


@pytest.mark.parametrize(("urgent", "breaths"), [(False, 4), (True, 1)])
def test_what_takes_something_away_is_not_left_to_gather(
    container: Container,
    engine: Engine,
    now: datetime,
    monkeypatch: pytest.MonkeyPatch,
    *,
    urgent: bool,
    breaths: int,
) -> None:
    with transaction(engine) as connection:
        for follower in scheduler.FOLLOWERS:
            save_cursor(connection, follower, horizon(connection), now)
    change(engine, urgent=urgent)
    stop = Breaths()
    # Four breaths are a second: no clock of a slow machine ends them.
    monkeypatch.setattr(scheduler, "time", stop)
    scheduler._breathe(container, stop)
    assert stop.taken == breaths


@pytest.mark.parametrize(("due", "breaths"), [(0.0, 1), (0.4, 2)])
def test_a_measure_that_begins_meanwhile_ends_the_breath(
    container: Container, monkeypatch: pytest.MonkeyPatch, *, due: float, breaths: int
) -> None:
    stop = Breaths()
    monkeypatch.setattr(scheduler, "_until_due", lambda _: due)
    monkeypatch.setattr(scheduler, "time", stop)
    scheduler._breathe(container, stop)
    assert stop.taken == breaths


@contextmanager
def following(container: Container) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=scheduler._follow_feed, args=(container, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()


def test_the_feed_is_followed_again_after_the_record_was_away(
    container: Container, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: Queue[str] = Queue()
    table = {name: replace(job, work=lambda _, n=name: run.put(n) or "") for name, job in JOBS.items()}
    monkeypatch.setattr(jobs, "JOBS", MappingProxyType(table))
    asked: list[object] = []

    def away_at_first(*_: Any) -> bool:
        asked.append(None)
        if len(asked) == 1:
            raise OperationalError("SELECT", None, psycopg.OperationalError("away"))
        return False

    monkeypatch.setattr(scheduler, "is_urgent_waiting", away_at_first)
    with following(container):
        listener = 0
        for _ in range(2):
            listener = _listener(engine, but=listener)
            change(engine)
            assert {run.get(timeout=20), run.get(timeout=20)} == set(scheduler.WOKEN_BY_THE_FEED)
    assert asked


def _listener(engine: Engine, but: int) -> int:
    """Who listens, once somebody does and that other one no more: what is told before is told to nobody."""
    listening = text(
        "SELECT min(pid), count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    )
    deadline = time.monotonic() + 20
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as link:
        while True:
            pid, count = link.execute(listening).one()
            if count == 1 and pid != but:
                return int(pid)
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_measure_is_taken_up_when_its_instant_comes_though_nobody_writes(
    container: Container, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler stands still here: the instant itself wakes the followers."""
    run: Queue[tuple[str, str]] = Queue()

    def noted(name: str) -> Callable[[Container], str]:
        def work(running: Container) -> str:
            did = JOBS[name].work(running) if name in scheduler.WOKEN_BY_THE_CLOCK else ""
            run.put((name, did))
            return did

        return work

    table = {name: replace(job, work=noted(name)) for name, job in JOBS.items()}
    monkeypatch.setattr(jobs, "JOBS", MappingProxyType(table))
    person = seed_practitioner(engine).national_id
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO measure (national_id, kind, authority, reason, starts_at, recorded_by,"
                " recorded_at) VALUES (:id, 'suspended', 'CNOM', 'x', now() + interval '1500 ms', 'test',"
                " now())"
            ),
            {"id": person},
        )
    with following(replace(container, clock=utc_now)):
        heard = []
        while ("measures-due", "1 measures began or ended") not in heard:
            heard.append(run.get(timeout=20))
        assert {run.get(timeout=20)[0], run.get(timeout=20)[0]} <= {
            *scheduler.WOKEN_BY_THE_FEED,
            "measures-due",
        }
    with engine.connect() as connection:
        assert connection.execute(text("SELECT phase FROM measure_phase")).scalar_one() == "in-force"
        lines = connection.execute(
            text("SELECT at, subject FROM audit_pending WHERE event = 'measure.began'")
        )
        ((at, subject),) = lines.all()
        assert subject == person
        assert at >= connection.execute(text("SELECT starts_at FROM measure")).scalar_one()


def test_what_came_due_while_no_worker_ran_is_first_when_one_starts() -> None:
    assert scheduler.AT_THE_START[: len(scheduler.WOKEN_BY_THE_CLOCK)] == scheduler.WOKEN_BY_THE_CLOCK
    assert scheduler.AT_THE_START[len(scheduler.WOKEN_BY_THE_CLOCK)] == "consequences"
