"""A held run keeps its file, whatever becomes of the one given, until it is let through or overtaken."""

import dataclasses
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.sync.runs.bounds import Bound, load_bounds
from directory.sync.runs.run import RunReport, due_to_resume, resume_run, run_register
from tests.directory.sync.files import ACTIVITIES, Rows
from tests.directory.sync.test_bad_files_change_nothing import many

LATER = ACTIVITIES.replace("202608260200", "202608270200")
NEEDS_ONE = Bound(name="any", count="rows", says="{count} rows.", why="so that every run waits", one=0)


class Night:
    """Runs of one folder, each of which waits for somebody unless told otherwise."""

    def __init__(self, engine: Engine, folder: Path, now: datetime, actor: Actor) -> None:
        self.engine, self.now, self.actor = engine, now, actor
        self.inbox, self.kept = folder / "inbox", folder / "kept"
        self.inbox.mkdir()

    def take(self, name: str, content: str, *, waits: bool = True, apply: bool = True) -> RunReport:
        path = self.inbox / name
        path.write_text(content)
        bounds = dict(load_bounds())
        bounds["rpps"] = dataclasses.replace(bounds["rpps"], bounds=(NEEDS_ONE,) if waits else ())
        return run_register(
            self.engine, register="rpps", path=path, now=self.now, actor=self.actor, apply=apply,
            kept=self.kept, bounds=bounds,
        )  # fmt: skip

    def resume(self, run_id: int) -> RunReport:
        return resume_run(self.engine, run_id=run_id, now=self.now, actor=self.actor, kept=self.kept)


@pytest.fixture
def night(engine: Engine, tmp_path: Path, now: datetime, actor: Actor) -> Night:
    return Night(engine, tmp_path, now, actor)


def approve(engine: Engine, run_id: int) -> None:
    with transaction(engine) as connection:
        connection.execute(
            text(
                "INSERT INTO api_token (name, secret_hash, role, created_at, expires_at)"
                " VALUES ('somebody', sha256('x'), 'admin', now(), now() + interval '1 day')"
            )
        )
        connection.execute(
            text(
                "INSERT INTO register_approval (run_id, token_id, comment, approved_at)"
                " SELECT :run_id, id, 'seen', now() FROM api_token"
            ),
            {"run_id": run_id},
        )


def test_a_held_run_changes_nothing_says_why_and_goes_on_from_its_kept_file(night: Night, rows: Rows) -> None:
    report = night.take(ACTIVITIES, many(30))
    assert (report.state, report.approvals_needed, [f.name for f in report.findings]) == ("held", 1, ["any"])
    assert rows("SELECT count(*) FROM practitioner") == [(0,)]
    assert rows("SELECT event FROM audit_pending") == [("register.held",)]
    # The night takes no file of two names, and would refuse this one until the run is over.
    assert (night.inbox / ACTIVITIES).stat().st_nlink == 1
    (night.inbox / ACTIVITIES).unlink()
    (kept,) = night.kept.rglob("*.txt")
    with pytest.raises(Refusal) as caught:
        night.resume(report.run_id)
    assert (caught.value.kind, caught.value.code) == (Kind.CONFLICT, "approvals-missing")
    approve(night.engine, report.run_id)
    with transaction(night.engine) as connection:
        assert due_to_resume(connection) == [report.run_id]
    again = night.resume(report.run_id)
    assert (again.state, again.run_id, again.generated_at) == ("applied", report.run_id, report.generated_at)
    assert rows("SELECT count(*) FROM practitioner") == [(30,)]
    assert not kept.exists()


def test_the_same_file_is_not_taken_twice_while_it_waits(night: Night, rows: Rows) -> None:
    night.take(ACTIVITIES, many(30))
    with pytest.raises(Refusal) as caught:
        night.take(ACTIVITIES, many(30))
    assert (caught.value.kind, caught.value.code) == (Kind.CONFLICT, "run-held")
    assert night.take(ACTIVITIES, many(30), apply=False).state == "planned"
    assert rows("SELECT state FROM register_run ORDER BY id") == [("held",), ("planned",)]


def test_a_held_run_ends_when_a_newer_file_is_applied(night: Night, rows: Rows) -> None:
    held = night.take(ACTIVITIES, many(30))
    assert night.take(LATER, many(31), waits=False).state == "applied"
    assert rows("SELECT state, reason, kept_file FROM register_run ORDER BY id") == [
        ("refused", "superseded", None),
        ("applied", None, None),
    ]
    assert not list(night.kept.rglob("*.txt"))
    approve(night.engine, held.run_id)
    with pytest.raises(Refusal) as caught:
        night.resume(held.run_id)
    assert (caught.value.kind, caught.value.code) == (Kind.CONFLICT, "run-is-over")


def test_a_held_run_of_a_newer_file_outlives_an_older_one_that_is_applied(night: Night, rows: Rows) -> None:
    held = night.take(LATER, many(31))
    assert night.take(ACTIVITIES, many(30), waits=False).state == "applied"
    assert rows(f"SELECT state FROM register_run WHERE id = {held.run_id}") == [("held",)]
    approve(night.engine, held.run_id)
    assert night.resume(held.run_id).state == "applied"
