"""A run that dies anywhere leaves the old day; seen to be cut off and taken up, it brings all the new one."""

import errno
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType

import psycopg
import pytest
from sqlalchemy import Engine, text

from api.embedded.postgres import EmbeddedPostgres
from directory.base import failpoints
from directory.base.audit import Actor
from directory.base.db import connect_engine, transaction
from directory.base.errors import Kind, Refusal
from directory.base.locks import try_lock
from directory.sync.runs.run import RunReport, due_to_resume, resume_run, run_register
from directory.sync.runs.run_log import MOST_ATTEMPTS, STEPS
from tests.conftest import NOON
from tests.directory.sync.dying import take_and_die

# Forks of a process that has imported all there is to import, and has no thread and no connection.
CLEAN = get_context("forkserver")
CLEAN.set_forkserver_preload(["tests.directory.sync.dying"])
SOMEONE = Actor("test:someone")
# The record as content, without the instants, which differ from run to run.
CONTENT = {
    "practitioner": "national_id, family_name, given_name, title, row_hash, departed_at IS NULL",
    "profession": "national_id, code, category",
    "skill": "national_id, profession_code, category, skill_type, skill_code",
    "practice": "national_id, digest, town, street",
    "practitioner_history": "national_id, family_name, row_hash, departed_at IS NULL",
    "profession_history": "national_id, code, category",
    "skill_history": "national_id, skill_code",
    "practice_history": "national_id, digest",
    "register_known": "register, key, digest, row_hash",
    "change": "entity, key, urgent",
    "register_rejection": "run_id, line_number, reason",
    "register_run": "id, register, counts::text, layout, generated_at",
    "audit_pending": "event, subject, (detail - 'run')::text",
}
Content = dict[str, list[tuple[object, ...]]]


@dataclass(frozen=True)
class Nights:
    """Two days of one register, and what the record holds after each when nothing goes wrong."""

    files: tuple[Path, Path]
    after: tuple[Content, Content]


def content(engine: Engine) -> Content:
    with transaction(engine, read_only=True) as connection:

        def all_of(table: str, what: str) -> list[tuple[object, ...]]:
            return [
                tuple(row) for row in connection.execute(text(f"SELECT {what} FROM {table} ORDER BY {what}"))
            ]

        return {table: all_of(table, what) for table, what in CONTENT.items()}


def take(engine: Engine, path: Path) -> RunReport:
    return run_register(engine, register="rpps", path=path, now=NOON, actor=SOMEONE, apply=True)


@pytest.fixture(scope="module")
def nights(
    maker: ModuleType, postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Nights]:
    folder = tmp_path_factory.mktemp("nights")
    plan: dict[str, object] = {"practitioners": 300, "organisations": 40, "mailboxes": 20, "seed": 3}
    # The second day's file is made at NOON: what is stamped for tomorrow would wait.
    plan |= {"day": date(2026, 8, 31)}
    shares = {"next_day": True, "arrivals": 0.02, "moves": 0.03, "departures": 0.01}
    one = maker.make(folder / "1", maker.Plan(**plan))["rpps"]
    two = maker.make(folder / "2", maker.Plan(**plan, **shares))["rpps"]
    with psycopg.connect(postgres.conninfo, autocommit=True) as link:
        link.execute("CREATE DATABASE undisturbed TEMPLATE template")
    engine = connect_engine(postgres.url.replace("/sceau?", "/undisturbed?"))
    after = []
    for path in (one, two):
        assert take(engine, path).state == "applied"
        after.append(content(engine))
    yield Nights((one, two), (after[0], after[1]))
    engine.dispose()
    with psycopg.connect(postgres.conninfo, autocommit=True) as link:
        link.execute("DROP DATABASE undisturbed WITH (FORCE)")


@pytest.fixture
def last_run(engine: Engine) -> Callable[[], tuple[object, ...]]:
    def look() -> tuple[object, ...]:
        with transaction(engine) as connection:
            query = "SELECT id, state, step, attempts FROM register_run ORDER BY id DESC LIMIT 1"
            return tuple(connection.execute(text(query)).one())

    return look


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


def die(url: str, file: Path, spec: str) -> int:
    """A run in a process of its own, in batches of 100 rows, with this fail point; its exit code."""
    process = CLEAN.Process(target=take_and_die, args=(url, str(file), spec))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode


def due(engine: Engine) -> list[int]:
    with transaction(engine) as connection:
        return due_to_resume(connection)


# Where it dies, and the step it was then at.
BEFORE_THE_COMMIT = {f"sync.{step}": step for step in STEPS if step != "report"} | {
    "sync.copy:1": "parse",
    "sync.applying:4": "apply",
    "sync.applying:10": "apply",
    "sync.commit": "apply",
}


@pytest.mark.parametrize("place", BEFORE_THE_COMMIT)
def test_killed_before_the_commit_the_old_day_stands_and_the_run_is_taken_up_whole(
    place: str, nights: Nights, database_url: str, engine: Engine, last_run: Callable[[], object]
) -> None:
    take(engine, nights.files[0])
    assert die(database_url, nights.files[1], f"{place}=kill") == -signal.SIGKILL
    assert last_run() == (2, "running", BEFORE_THE_COMMIT[place], 1)
    now_there = content(engine)
    assert {t: rows for t, rows in now_there.items() if t != "register_run"} == {
        t: rows for t, rows in nights.after[0].items() if t != "register_run"
    }
    assert due(engine) == [2]
    report = resume_run(engine, run_id=2, now=NOON, actor=SOMEONE)
    assert report.state == "applied"
    assert content(engine) == nights.after[1]
    assert last_run() == (2, "applied", "report", 2)
    assert due(engine) == []


def test_killed_after_the_commit_the_new_day_stands(
    nights: Nights, database_url: str, engine: Engine, last_run: Callable[[], object]
) -> None:
    take(engine, nights.files[0])
    assert die(database_url, nights.files[1], "sync.report=kill") == -signal.SIGKILL
    assert content(engine) == nights.after[1]
    assert last_run() == (2, "applied", "report", 1)
    assert due(engine) == []


def test_killed_at_every_batch_of_a_first_load_nothing_of_it_stays(
    nights: Nights, database_url: str, engine: Engine
) -> None:
    runs = 0
    while die(database_url, nights.files[0], f"sync.copy:{runs + 1}=kill"):
        runs += 1
        with transaction(engine) as connection:
            assert connection.execute(text("SELECT count(*) FROM practitioner")).scalar_one() == 0
    assert runs > 3
    one, there = nights.after[0], content(engine)
    assert {t: there[t] for t in ("practitioner", "practice", "skill", "register_known")} == {
        t: one[t] for t in ("practitioner", "practice", "skill", "register_known")
    }
    with transaction(engine) as connection:
        states = connection.execute(text("SELECT state, reason, count(*) FROM register_run GROUP BY 1, 2"))
        assert {tuple(row) for row in states} == {("refused", "superseded", runs), ("applied", None, 1)}


def test_a_full_disk_leaves_the_old_day_and_the_run_is_taken_up_when_there_is_room(
    nights: Nights, engine: Engine
) -> None:
    take(engine, nights.files[0])
    failpoints.arm("sync.copy=enospc")
    with pytest.raises(OSError, match="No space left") as caught:
        take(engine, nights.files[1])
    assert caught.value.errno == errno.ENOSPC
    assert content(engine)["practitioner"] == nights.after[0]["practitioner"]
    assert due(engine) == [2]
    assert resume_run(engine, run_id=2, now=NOON, actor=SOMEONE).state == "applied"
    assert content(engine) == nights.after[1]


def test_a_run_under_way_is_neither_due_nor_taken_up_twice(nights: Nights, engine: Engine) -> None:
    failpoints.arm("sync.diff=raise")
    with pytest.raises(RuntimeError):
        take(engine, nights.files[0])
    assert due(engine) == [1]
    with try_lock(engine, "sync:rpps") as free:
        assert free
        assert due(engine) == []
        with pytest.raises(Refusal) as caught:
            resume_run(engine, run_id=1, now=NOON, actor=SOMEONE)
        assert (caught.value.kind, caught.value.code) == (Kind.CONFLICT, "sync-running")
    assert resume_run(engine, run_id=1, now=NOON, actor=SOMEONE).state == "applied"
    with pytest.raises(Refusal) as caught:
        resume_run(engine, run_id=1, now=NOON, actor=SOMEONE)
    assert (caught.value.kind, caught.value.code) == (Kind.CONFLICT, "run-is-over")
    with pytest.raises(Refusal) as caught:
        resume_run(engine, run_id=9, now=NOON, actor=SOMEONE)
    assert (caught.value.kind, caught.value.code) == (Kind.NOT_FOUND, "unknown-run")


def test_a_run_whose_file_changed_or_went_is_refused_and_not_due_again(
    nights: Nights, engine: Engine, tmp_path: Path
) -> None:
    for spoil in (lambda path: path.unlink(), lambda path: path.write_bytes(b"other")):
        path = tmp_path / nights.files[0].name
        path.write_bytes(nights.files[0].read_bytes())
        failpoints.arm("sync.parse=raise")
        with pytest.raises(RuntimeError):
            take(engine, path)
        spoil(path)
        (run_id,) = due(engine)
        report = resume_run(engine, run_id=run_id, now=NOON, actor=SOMEONE)
        assert (report.state, report.reason) == ("refused", "kept-file-gone")
        assert due(engine) == []


def fail(engine: Engine, file: Path | None = None) -> None:
    """One more attempt that does not come to its end."""
    failpoints.arm("sync.verify=raise")
    with pytest.raises(RuntimeError):
        take(engine, file) if file else resume_run(engine, run_id=1, now=NOON, actor=SOMEONE)


def test_a_run_that_takes_its_process_down_each_time_is_given_up(nights: Nights, engine: Engine) -> None:
    fail(engine, nights.files[0])
    for _ in range(MOST_ATTEMPTS - 1):
        assert due(engine) == [1]
        fail(engine)
    assert due(engine) == []


def test_after_each_failure_the_next_attempt_waits_longer(nights: Nights, engine: Engine) -> None:
    fail(engine, nights.files[0])
    fail(engine)
    age = (
        "UPDATE register_step SET finished_at = NULL,"
        " started_at = transaction_timestamp() - :age * interval '1 second'"
    )
    for seconds, expected in ((30, []), (90, [1])):
        with transaction(engine) as connection:
            connection.execute(text(age), {"age": seconds})
        assert due(engine) == expected
