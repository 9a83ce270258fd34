"""The worker's sign of life rests on its work: none while a job hangs, and one however long a job works."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from sqlalchemy import Engine, text

from api.jobs import table as jobs
from api.jobs.table import JOBS, due_within, run_job
from api.process.work import Work
from api.wiring import Container
from directory.base.beats import WORKER, last_beat
from directory.base.db import transaction
from directory.base.errors import Refusal
from directory.base.pools import Pool

ROOT = Path(__file__).resolve().parents[3]


class Ticks:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


@pytest.fixture
def work(ticks: Ticks) -> Work:
    return Work(ticks)


@pytest.fixture
def watched(container: Container, work: Work) -> Container:
    work.follow(container.engine)
    return replace(container, work=work)


def beats(engine: Engine) -> int:
    with engine.connect() as connection:
        found = last_beat(connection, WORKER)
        return 0 if found is None else found.number


def test_a_silent_run_hangs_and_one_that_gets_on_does_not(work: Work, ticks: Ticks) -> None:
    with work.running("crl", 120):
        ticks.now += 119
        assert work.hung() == []
        work.progressed()
        ticks.now += 119
        assert work.hung() == []
        ticks.now += 2
        assert work.hung() == ["crl is silent for 121 s"]
    assert work.hung() == []


def test_a_job_that_nobody_runs_any_more_hangs_the_worker(work: Work, ticks: Ticks) -> None:
    work.expect({"crl": 130, "ldap-publication": 122})
    for _ in range(4):
        ticks.now += 100
        with work.running("ldap-publication", 300):
            pass
    assert work.hung() == ["crl has not been run for 400 s"]


def test_every_job_that_comes_due_by_an_interval_is_expected() -> None:
    within = due_within()
    assert set(JOBS) - set(within) == {"registers", "ldap-reconciliation"}
    assert within["ldap-publication"] == 122


def test_each_answer_of_the_record_is_progress(watched: Container, work: Work, ticks: Ticks) -> None:
    with work.running("held-runs", 60):
        for _ in range(10):
            ticks.now += 50
            with transaction(watched.engine) as connection:
                connection.execute(text("SELECT 1"))
        assert work.hung() == []


def test_each_answer_of_the_record_to_a_thread_of_its_pool_is_progress(
    watched: Container, work: Work, ticks: Ticks
) -> None:
    def ask(_: int) -> None:
        with transaction(watched.engine) as connection:
            connection.execute(text("SELECT 1"))
        assert work.hung() == []
        ticks.now += 50

    with work.running("crl", 60):
        with Pool(1) as pool:
            list(pool.map(ask, range(10)))
        pool = Pool(1)
        pool.submit(ask, 0).result()
        pool.shutdown()
        ticks.now += 11
        assert work.hung() == ["crl is silent for 61 s"]


def test_no_pool_forgets_for_whom_it_works() -> None:
    bare = {
        path.relative_to(ROOT).as_posix()
        for package in ("directory", "pki", "api")
        for path in (ROOT / package).rglob("*.py")
        if "ThreadPoolExecutor(" in path.read_text()
    }
    # The scheduler's seats: each begins a run of its own.
    assert bare == {"api/jobs/worker.py"}


@pytest.fixture
def stuck(watched: Container, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Thread]:
    """A job that waits for ever: it got on until a moment ago, and others go on beside it."""
    let_go, begun = threading.Event(), threading.Event()

    def wait(_: Container) -> str:
        begun.set()
        let_go.wait(60)
        return ""

    table = {**JOBS, "consequences": replace(JOBS["consequences"], work=wait)}
    monkeypatch.setattr(jobs, "JOBS", MappingProxyType(table))
    thread = threading.Thread(target=run_job, args=(watched, "consequences"))
    thread.start()
    assert begun.wait(30)
    yield thread
    let_go.set()
    thread.join()


def test_no_sign_is_given_while_a_job_hangs(
    watched: Container, stuck: threading.Thread, ticks: Ticks, engine: Engine
) -> None:
    run_job(watched, "heartbeat", forced=True)
    assert beats(engine) == 1
    ticks.now += 121
    with pytest.raises(Refusal, match="consequences is silent for 121 s") as refused:
        run_job(watched, "heartbeat", forced=True)
    assert refused.value.code == "job-hangs"
    assert beats(engine) == 1
    assert stuck.is_alive()


def test_a_job_that_waits_for_a_lock_gives_no_progress(
    watched: Container, work: Work, ticks: Ticks, engine: Engine
) -> None:
    asked = threading.Event()

    def want() -> None:
        with work.running("crl", 60), transaction(watched.engine) as connection:
            asked.set()
            connection.execute(text("LOCK TABLE crl_shard"))

    with transaction(engine) as holder:
        holder.execute(text("LOCK TABLE crl_shard"))
        thread = threading.Thread(target=want)
        thread.start()
        assert asked.wait(10)
        ticks.now += 61
        assert work.hung() == ["crl is silent for 61 s"]
    thread.join()
    assert work.hung() == []
