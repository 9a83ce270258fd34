"""A held run keeps its file, whatever becomes of the one given, until it is let through or overtaken."""

import dataclasses
import errno
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from directory.base import failpoints
from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.sync.runs import kept_files
from directory.sync.runs.bounds import Bound, load_bounds
from directory.sync.runs.run import RunReport, due_to_resume, resume_run, run_register
from directory.sync.runs.run_log import Logbook
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


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


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


def row_of(rows: Rows, run_id: int) -> tuple[object, ...]:
    (row,) = rows(f"SELECT state, reason, kept_file FROM register_run WHERE id = {run_id}")
    return row


def rooms(*answers: str) -> Callable[..., None]:
    """A disk that is full or not, from one question to the next."""
    left = iter(answers)

    def answer(*_: object) -> None:
        if next(left) == "full":
            raise OSError(errno.ENOSPC, "no room")

    return answer


@pytest.mark.parametrize("cause", ["full", "reserve"])
def test_a_run_whose_file_cannot_be_copied_is_held_without_a_copy(
    cause: str, night: Night, rows: Rows, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if cause == "full":
        failpoints.arm("sync.keeping=enospc")
    else:
        # All that is free is left to the record, once the file is read.
        monkeypatch.setattr(kept_files, "_check_room", rooms("read", "full"))
    report = night.take(ACTIVITIES, many(30))
    assert row_of(rows, report.run_id) == ("held", None, str(night.inbox / ACTIVITIES))
    assert [path for path in night.kept.rglob("*") if path.is_file()] == []
    assert "is held without a copy" in caplog.text
    monkeypatch.undo()
    approve(night.engine, report.run_id)
    assert night.resume(report.run_id).state == "applied"
    assert (night.inbox / ACTIVITIES).exists()


def test_a_copy_that_was_cut_off_leaves_nothing(night: Night) -> None:
    failpoints.arm("sync.keeping=raise")
    with pytest.raises(RuntimeError):
        night.take(ACTIVITIES, many(30))
    assert list(night.kept.iterdir()) == []


def test_a_copy_that_cannot_be_made_again_leaves_the_one_there(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = night.take(ACTIVITIES, many(30))
    monkeypatch.setattr(kept_files, "RESERVE", 1 << 60)
    # As when too many files are open.
    monkeypatch.setattr(kept_files, "_is_whole", lambda *_: False)
    with kept_files.register_file(night.inbox / ACTIVITIES) as file, pytest.raises(OSError, match="MB are"):
        kept_files.keep(report.run_id, file, kept_files.sha256_of(file), night.kept)
    (copy,) = night.kept.rglob("*.txt")
    assert copy.read_text() == many(30)
    with kept_files.register_file(copy) as file:
        assert kept_files.keep(report.run_id, file, kept_files.sha256_of(file), night.kept) == copy


def test_a_name_of_the_greatest_length_is_kept(night: Night, rows: Rows) -> None:
    name = ACTIVITIES.replace(".txt", f"{'x' * (255 - len(ACTIVITIES))}.txt")
    report = night.take(name, many(30))
    assert row_of(rows, report.run_id)[2] == str(night.kept / f"run-{report.run_id}" / name)


def test_what_is_kept_is_what_was_read(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another file under the copy's name is no copy, and one that changed meanwhile is refused."""
    target = night.kept / "run-1" / ACTIVITIES
    target.parent.mkdir(parents=True)
    target.write_text("something else\n")
    report = night.take(ACTIVITIES, many(30))
    assert (report.run_id, report.state, target.read_text()) == (1, "held", many(30))
    # Who writes into the dropped file once it is read changes nothing of what is kept.
    writes_at("plan", night.inbox / LATER, many(32), monkeypatch)
    report = night.take(LATER, many(31))
    assert report.state == "held"
    assert (night.kept / f"run-{report.run_id}" / LATER).read_text() == many(31)


def writes_at(step: str, path: Path, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody writes into this file, in place, as a run comes to this step."""
    enter = Logbook.enter

    def entered(self: Logbook, now_at: str) -> None:
        enter(self, now_at)
        if now_at == step:
            path.write_text(content)

    monkeypatch.setattr(Logbook, "enter", entered)


FAMILY_NAMES = "SELECT DISTINCT family_name FROM practitioner"


@pytest.mark.parametrize("step", ["fetch", "verify", "parse"])
def test_what_is_hashed_is_what_is_read(
    step: str, night: Night, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    true, forged = many(30), many(30).replace("|EXEMPLE|", "|FAUSSES|")
    assert len(true) == len(forged)
    assert true != forged
    with monkeypatch.context() as attack:
        writes_at(step, night.inbox / ACTIVITIES, forged, attack)
        assert night.take(ACTIVITIES, true, waits=False).state == "applied"
    assert (night.inbox / ACTIVITIES).read_text() == forged
    assert "FAUSSES" not in {name for (name,) in rows(FAMILY_NAMES)}
    # The true file of the next night is compared with lines that were read.
    assert night.take(LATER, true, waits=False).counts["changed"] == 0
    assert "FAUSSES" not in {name for (name,) in rows(FAMILY_NAMES)}
    assert list(night.kept.iterdir()) == []


def test_a_run_held_by_the_dropped_file_reads_a_copy_of_it(
    night: Night, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    failpoints.arm("sync.keeping=enospc")
    report = night.take(ACTIVITIES, many(30))
    approve(night.engine, report.run_id)
    writes_at("parse", night.inbox / ACTIVITIES, many(29), monkeypatch)
    assert night.resume(report.run_id).state == "applied"
    assert rows("SELECT count(*) FROM practitioner") == [(30,)]


def test_a_file_without_room_for_a_copy_is_not_read(
    night: Night, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr(kept_files, "RESERVE", 1 << 60)
        with pytest.raises(Refusal, match="MB are free") as refused:
            night.take(ACTIVITIES, many(30))
    assert (refused.value.kind, refused.value.code) == (Kind.UNAVAILABLE, "no-room")
    failpoints.arm("sync.copying=enospc")
    with pytest.raises(Refusal, match="No space left"):
        night.take(ACTIVITIES, many(30))
    assert rows("SELECT count(*) FROM register_run") == [(0,)]
    assert list(night.kept.iterdir()) == []
    assert night.take(ACTIVITIES, many(30), waits=False).state == "applied"


def test_a_file_that_grows_while_it_is_read_has_an_end(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_files, "LARGEST_FILE", 1000)
    with pytest.raises(Refusal, match="grows while it is read"):
        night.take(ACTIVITIES, many(30))


def test_a_copy_is_as_old_as_its_file(night: Night) -> None:
    path = night.inbox / "listing.txt"
    path.touch()
    at = night.now.timestamp() - 86400
    os.utime(path, (at, at))
    with kept_files.register_file(path) as file:
        copy = kept_files.keep(7, file, kept_files.sha256_of(file), night.kept)
    assert copy.stat().st_mtime == at


def test_a_run_cut_off_between_copy_and_row_goes_on_from_its_copy(night: Night, rows: Rows) -> None:
    failpoints.arm("sync.kept=raise")
    with pytest.raises(RuntimeError):
        night.take(ACTIVITIES, many(30))
    assert row_of(rows, 1)[2] == str(night.inbox / ACTIVITIES)
    (night.inbox / ACTIVITIES).unlink()
    assert night.resume(1).state == "applied"
    assert not (night.kept / "run-1").exists()


def test_a_kept_file_goes_with_its_run_whatever_the_row_says(night: Night, rows: Rows) -> None:
    failpoints.arm("sync.kept=raise")
    with pytest.raises(RuntimeError):
        night.take(ACTIVITIES, many(30))
    assert (night.kept / "run-1" / ACTIVITIES).exists()
    assert night.take(LATER, many(31), waits=False).state == "applied"
    assert row_of(rows, 1) == ("refused", "superseded", None)
    assert not (night.kept / "run-1").exists()


def test_a_kept_file_that_cannot_be_opened_now_ends_no_run(
    night: Night, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = night.take(ACTIVITIES, many(30))
    (night.inbox / ACTIVITIES).unlink()
    approve(night.engine, report.run_id)
    before = row_of(rows, report.run_id)
    opening = os.open

    def failing(path: object, *given: object, **named: object) -> int:
        if str(path).endswith(ACTIVITIES):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opening(path, *given, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as crowded:
        crowded.setattr(os, "open", failing)
        with pytest.raises(Refusal, match="Too many open files"):
            night.resume(report.run_id)
    assert row_of(rows, report.run_id) == before
    # A folder in its place is not gone either.
    kept = night.kept / f"run-{report.run_id}" / ACTIVITIES
    kept.rename(kept.with_suffix(".aside"))
    kept.mkdir()
    with pytest.raises(Refusal, match="no regular file"):
        night.resume(report.run_id)
    kept.rmdir()
    kept.with_suffix(".aside").rename(kept)
    assert row_of(rows, report.run_id) == before
    assert night.resume(report.run_id).state == "applied"


def test_a_disk_that_fails_while_a_held_run_is_read_again_ends_it_not(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = night.take(ACTIVITIES, many(30))
    approve(night.engine, report.run_id)

    def failing(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr("directory.sync.runs.run.opened", failing)
        with pytest.raises(OSError, match="Input/output error"):
            night.resume(report.run_id)
    assert list(night.kept.rglob("*.txt"))
    assert night.resume(report.run_id).state == "applied"
