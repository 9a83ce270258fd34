"""Each job is done once, however many workers there are; one that fails or dies holds up no other."""

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from threading import Barrier
from types import MappingProxyType
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from api.jobs import table as jobs
from api.jobs.table import JOBS, Job, run_job
from api.jobs.worker import AT_A_TIME, CONNECTIONS, DEEPEST
from api.settings import save_settings
from api.wiring import Container
from directory.base.db import connect_engine, transaction
from directory.base.errors import Refusal
from directory.base.locks import try_lock
from tests.factories import seed_practitioner

ROOT = Path(__file__).resolve().parents[3]
SCEAU = [sys.executable, "-m", "api.cli.main"]
HOLDER = """
import sys, time
from dataclasses import replace
from pathlib import Path
from api.jobs import table
from api.settings import Settings
from api.wiring import build

def hold(container):
    print("holding", flush=True)
    time.sleep(600)

table.JOBS = {"crl": replace(table.JOBS["crl"], work=hold)}
table.run_job(build(Settings(state=Path(sys.argv[1]), database_url=sys.argv[2])), "crl")
"""


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], str]], None]:
    """Put other work in every line of the table; it is told the job's name."""

    def fill(work: Callable[[str], str]) -> None:
        filled = {name: replace(job, work=lambda _, n=name: work(n)) for name, job in JOBS.items()}
        monkeypatch.setattr(jobs, "JOBS", MappingProxyType(filled))

    return fill


def kept(engine: Engine, name: str) -> Any:
    with engine.connect() as connection:
        return connection.execute(text("SELECT * FROM job_run WHERE name = :n"), {"n": name}).one()


def noted(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT name, last_success, last_failure FROM job_run")).all()
    return {f"{r.name}: ok" for r in rows if r.last_success} | {
        f"{r.name}: failed" for r in rows if r.last_failure
    }


def test_two_workers_at_once_run_each_job_of_the_table_once(
    container: Container, database_url: str, table: Callable[[Callable[[str], str]], None]
) -> None:
    done: Counter[str] = Counter()
    barrier = Barrier(2)

    def work(name: str) -> str:
        time.sleep(0.02)
        done[name] += 1
        return "done"

    def worker(parts: Container) -> list[str | None]:
        told = []
        for name in JOBS:
            barrier.wait(10)
            told.append(run_job(parts, name))
        return told

    table(work)
    other = connect_engine(database_url)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(worker, (container, replace(container, engine=other))))
    other.dispose()
    assert done == dict.fromkeys(JOBS, 1)
    assert [{one, two} for one, two in zip(*both, strict=True)] == [{"done", None}] * len(JOBS)


def test_all_that_run_at_a_time_find_their_connections(
    database_url: str, container: Container, table: Callable[[Callable[[str], str]], None]
) -> None:
    """Each holds its lock and all it may take within before any takes its last."""
    engine = connect_engine(database_url, most=CONNECTIONS)
    barrier = Barrier(AT_A_TIME)

    def work(name: str) -> str:
        with ExitStack() as held:
            for depth in range(DEEPEST - 2):
                held.enter_context(try_lock(engine, f"{name} {depth}"))
            barrier.wait(20)
            with transaction(engine) as connection:
                return str(connection.execute(text("SELECT 'done'")).scalar_one())

    table(work)
    parts = replace(container, engine=engine)
    started = time.monotonic()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        told = list(pool.map(lambda name: run_job(parts, name), list(JOBS)[:AT_A_TIME]))
    engine.dispose()
    assert told == ["done"] * AT_A_TIME
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("name", JOBS)
def test_no_job_holds_more_connections_than_are_counted_for_it(
    name: str, engine: Engine, container: Container
) -> None:
    held: list[int] = [0]

    def change(by: int) -> Callable[..., None]:
        return lambda *_: held.append(held[-1] + by)

    taken, given = change(1), change(-1)
    event.listen(engine, "checkout", taken)
    event.listen(engine, "checkin", given)
    try:
        with suppress(Exception):
            # A part it needs may be away here.
            run_job(container, name, forced=True)
    finally:
        event.remove(engine, "checkout", taken)
        event.remove(engine, "checkin", given)
    assert 2 <= max(held) <= DEEPEST


def test_a_job_runs_again_when_its_time_has_come_and_not_before(
    container: Container, now: datetime, table: Callable[[Callable[[str], str]], None]
) -> None:
    table(lambda name: name)
    apart = JOBS["registers"].when.apart
    assert run_job(container, "registers") == "registers"
    early = replace(container, clock=lambda: now + apart - timedelta(seconds=1))
    assert run_job(early, "registers") is None
    assert run_job(replace(container, clock=lambda: now + apart), "registers") == "registers"


def test_a_clock_set_back_stops_no_job(
    container: Container, now: datetime, table: Callable[[Callable[[str], str]], None]
) -> None:
    table(lambda name: name)
    run_job(container, "crl")
    assert run_job(replace(container, clock=lambda: now - timedelta(days=1)), "crl") == "crl"


def test_a_forced_job_runs_whenever_it_last_did(
    container: Container, table: Callable[[Callable[[str], str]], None]
) -> None:
    table(lambda name: name)
    assert [run_job(container, "crl", forced=True) for _ in range(3)] == ["crl"] * 3


def test_a_forced_job_still_waits_for_nobody_who_holds_it(
    container: Container, table: Callable[[Callable[[str], str]], None]
) -> None:
    seen: list[str | None] = []

    def work(name: str) -> str:
        seen.append(run_job(container, name, forced=True))
        return "outer"

    table(work)
    assert run_job(container, "crl") == "outer"
    assert seen == [None]


def test_a_failing_job_is_noted_and_stops_no_other(
    container: Container, now: datetime, table: Callable[[Callable[[str], str]], None]
) -> None:
    def work(name: str) -> str:
        if name == "registers":
            raise ZeroDivisionError("with a person's name in it")
        return name

    table(work)
    with pytest.raises(ZeroDivisionError):
        run_job(container, "registers")
    assert run_job(container, "crl") == "crl"
    failed = kept(container.engine, "registers")
    # The type alone: what a bug says may hold somebody's data.
    assert (failed.last_failure, failed.last_error, failed.last_success) == (now, "ZeroDivisionError", None)
    assert kept(container.engine, "crl").last_success == now


def test_a_failed_job_has_freed_its_lock(
    container: Container, table: Callable[[Callable[[str], str]], None]
) -> None:
    outcomes = iter([ZeroDivisionError(), None])

    def work(_: str) -> str:
        if error := next(outcomes):
            raise error
        return "better"

    table(work)
    with pytest.raises(ZeroDivisionError):
        run_job(container, "crl")
    assert run_job(container, "crl", forced=True) == "better"


def test_an_unknown_job_is_refused(container: Container) -> None:
    with pytest.raises(Refusal, match="sceau jobs list") as refused:
        run_job(container, "coffee")
    assert refused.value.code == "unknown-job"


def test_a_worker_killed_at_work_frees_its_job(
    container: Container, database_url: str, tmp_path: Path, table: Callable[[Callable[[str], str]], None]
) -> None:
    table(lambda name: name)
    command = [sys.executable, "-c", HOLDER, str(tmp_path), database_url]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "holding\n"
        assert run_job(container, "crl", forced=True) is None
        holder.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while run_job(container, "crl", forced=True) is None:
        assert time.monotonic() < deadline, "the lock outlived its holder"
        time.sleep(0.02)


def test_every_job_can_be_missed_for_less_than_its_interval_without_being_skipped() -> None:
    for job in JOBS.values():
        assert isinstance(job, Job)
        assert timedelta() < job.when.apart < timedelta(days=1), job.name


@pytest.fixture
def two_workers(database_url: str, tmp_path: Path) -> Any:
    """A state folder with two running workers, and yesterday's files of every register in the drop folder."""
    state, drop = tmp_path / "state", tmp_path / "registers"
    save_settings(state, {"database_url": database_url, "drop_folder": str(drop)})
    (state / "secrets").mkdir()
    (state / "secrets" / "web.passphrase").write_text("for a test")
    made = [sys.executable, str(ROOT / "scripts" / "make_registers.py"), str(drop), "--practitioners", "40",
            "--organisations", "10", "--mailboxes", "30", "--seed", "3", "--day", "2026-09-01"]  # fmt: skip
    subprocess.run(made, check=True, capture_output=True)
    command = [*SCEAU, "worker", "--state", str(state)]
    logs = [(tmp_path / f"worker{n}.log").open("w+") for n in (1, 2)]
    workers = [subprocess.Popen(command, cwd=ROOT, stderr=log) for log in logs]
    yield state, workers, logs
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.wait(30)
    for log in logs:
        log.close()


def test_registers_forced_twice_in_the_same_second_beside_two_workers_are_applied_once(
    two_workers: Any, engine: Engine
) -> None:
    state, workers, _ = two_workers
    force = [*SCEAU, "jobs", "run", "registers", "--state", str(state), "--json"]
    forced = [
        subprocess.Popen(force, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in (1, 2)
    ]
    told = [one.communicate(timeout=60) for one in forced]
    assert [one.returncode for one in forced] == [0, 0], told
    with engine.connect() as connection:
        applied = connection.execute(text("SELECT register, state, count(*) FROM register_run GROUP BY 1, 2"))
        assert sorted(map(tuple, applied)) == [
            (register, "applied", 1) for register in ("finess", "mailboxes", "rpps", "trusted-domains")
        ]
        assert connection.execute(text("SELECT count(*) FROM practitioner")).scalar_one() > 30
    assert [worker.poll() for worker in workers] == [None, None]


def test_two_workers_beat_as_one_and_a_part_that_is_missing_stops_neither(
    two_workers: Any, engine: Engine
) -> None:
    _, workers, logs = two_workers
    # A change to publish, and no slapd to publish it to.
    seed_practitioner(engine)
    deadline = time.monotonic() + 40
    while not (known := noted(engine)) >= {"heartbeat: ok", "consequences: ok", "ldap-publication: failed"}:
        assert time.monotonic() < deadline, known
        time.sleep(0.2)
    for worker in workers:
        assert worker.poll() is None
        worker.terminate()
    assert [worker.wait(30) for worker in workers] == [0, 0]
    for log in logs:
        log.seek(0)
        assert "Traceback" not in log.read()
