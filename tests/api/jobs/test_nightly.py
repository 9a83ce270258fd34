"""The night takes the newest file of each register once, and a refused file keeps no other from its turn."""

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from api.jobs import registers
from api.jobs.registers import take_registers
from api.wiring import Container
from directory.base.audit import Actor
from directory.base.errors import Refusal
from directory.base.locks import try_lock
from directory.sync.formats.files import RegisterFile, arrived_at, register_file, written_at
from directory.sync.runs.run import run_register
from directory.sync.sources import drop_folder
from directory.sync.sources.drop_folder import candidates, newest, strangers
from tests.conftest import NOON
from tests.directory.sync.files import restamped

MAKER = Path(__file__).resolve().parents[3] / "scripts" / "make_registers.py"
ALL = {"rpps", "finess", "mailboxes", "trusted-domains"}


@pytest.fixture
def drop(container: Container) -> Path:
    container.settings.registers.mkdir()
    return container.settings.registers


def make(folder: Path, day: str, *options: str) -> None:
    command = [sys.executable, str(MAKER), str(folder), "--practitioners", "30", "--organisations", "8",
               "--mailboxes", "20", "--seed", "5", "--day", day, *options]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)


def applied(engine: Engine) -> dict[str, list[str]]:
    query = "SELECT register, file_name FROM register_run WHERE state = 'applied' ORDER BY id"
    with engine.connect() as connection:
        found: dict[str, list[str]] = {}
        for register, name in connection.execute(text(query)):
            found.setdefault(register, []).append(name)
    return found


def test_an_empty_folder_is_no_fault(container: Container, engine: Engine, drop: Path) -> None:
    assert take_registers(container) == ""
    drop.rmdir()
    assert take_registers(container) == ""
    assert applied(engine) == {}


def test_each_register_is_taken_once_and_left_alone_the_next_night(
    container: Container, engine: Engine, drop: Path
) -> None:
    make(drop, "2026-08-30")
    did = take_registers(container)
    assert {part.split(":")[0] for part in did.split("; ")} == ALL
    first = applied(engine)
    assert set(first) == ALL
    # Touched and renamed it is still the same file.
    for path in drop.iterdir():
        os.utime(path)
    (drop / "listeblanchemssante.xml").rename(drop / "listeblanchemssante-copy.xml")
    assert take_registers(replace(container, clock=lambda: container.clock() + timedelta(days=1))) == ""
    assert applied(engine) == first


def test_the_newest_file_wins_by_the_time_in_its_name(
    container: Container, engine: Engine, drop: Path
) -> None:
    make(drop, "2026-08-30")
    make(drop, "2026-08-31", "--next-day")
    (old,) = drop.glob("PS_LibreAcces_20260830*")
    (new,) = drop.glob("PS_LibreAcces_20260901*")
    # Copied last, it is no newer for it: taking it would be refused as older than what was applied.
    os.utime(old, (2_000_000_000, 2_000_000_000))
    assert newest(drop, "rpps") == new
    take_registers(container)
    assert applied(engine)["rpps"] == [new.name]


def test_a_name_without_a_time_is_judged_by_the_files_own(tmp_path: Path) -> None:
    old, new = tmp_path / "listeblanchemssante.xml", tmp_path / "listeblanchemssante-2.xml"
    for path, at in ((new, 1_700_000_000), (old, 1_600_000_000)):
        path.touch()
        os.utime(path, (at, at))
    assert newest(tmp_path, "trusted-domains") == new
    assert newest(tmp_path, "rpps") is None


def test_a_folder_with_a_files_name_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "PS_LibreAcces_202608300200.zip").mkdir()
    assert newest(tmp_path, "rpps") is None


def test_a_refused_file_is_reported_after_the_others_had_their_turn(
    container: Container, engine: Engine, drop: Path
) -> None:
    make(drop, "2026-08-30")
    # The first of all: those after it must not suffer.
    (rpps,) = drop.glob("PS_LibreAcces*")
    rpps.write_bytes(rpps.read_bytes()[:1000])
    with pytest.raises(Refusal) as refused:
        take_registers(container)
    assert refused.value.code == "register-refused"
    assert refused.value.text.startswith("rpps: ")
    assert "; " not in refused.value.text
    assert {"finess", "trusted-domains"} <= set(applied(engine)) <= ALL - {"rpps"}


def test_a_file_that_cannot_be_read_is_reported_and_keeps_nobody_from_its_turn(
    container: Container, engine: Engine, drop: Path
) -> None:
    make(drop, "2026-08-30")
    # A regular file that fails at the first read, whoever reads.
    (drop / "PS_LibreAcces_202609010200.zip").symlink_to("/proc/self/mem")
    with pytest.raises(Refusal) as refused:
        take_registers(container)
    assert refused.value.text.startswith("rpps: PS_LibreAcces_202609010200.zip")
    assert set(applied(engine)) == ALL


@pytest.mark.parametrize("place", ["candidates", "run"])
def test_memory_that_fails_for_one_file_keeps_nobody_from_its_turn(
    place: str, container: Container, engine: Engine, drop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(drop, "2026-08-30")

    def failing(file: RegisterFile, *given: Any) -> Any:
        if file.name.startswith("PS_"):
            raise MemoryError
        return written_at(file, *given)

    where = {"candidates": drop_folder, "run": registers}[place]
    monkeypatch.setattr(where, "written_at", failing)
    if place == "run":
        with pytest.raises(Refusal, match=r"^rpps: PS_LibreAcces_202608300200.zip: MemoryError$"):
            take_registers(container)
        assert "finess" in applied(engine)
    else:
        take_registers(container)
        assert set(applied(engine)) == ALL


def test_a_file_that_claims_more_than_any_register_is_refused_by_its_name_alone(
    container: Container, engine: Engine, drop: Path
) -> None:
    make(drop, "2026-08-30")
    huge = drop / "PS_LibreAcces_202608300201.zip"
    huge.write_bytes(b"PK")
    os.truncate(huge, 60 << 30)
    with pytest.raises(Refusal, match=r"^rpps: PS_LibreAcces_202608300201.zip takes 61440 MB"):
        take_registers(container)
    assert set(applied(engine)) == ALL


def test_a_register_that_somebody_is_taking_is_reported_after_the_others_too(
    container: Container, engine: Engine, drop: Path
) -> None:
    make(drop, "2026-08-30")
    with try_lock(engine, "sync:finess") as free:
        assert free
        with pytest.raises(Refusal, match=r"^finess: Another run"):
            take_registers(container)
    assert {"rpps", "trusted-domains"} <= set(applied(engine)) <= ALL - {"finess"}
    take_registers(container)
    assert set(applied(engine)) == ALL


def runs(engine: Engine) -> list[tuple[str, str, str | None]]:
    query = "SELECT file_name, state, reason FROM register_run ORDER BY id"
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def only_rpps(drop: Path) -> Path:
    """The RPPS archive, made and left alone in the folder."""
    make(drop, "2026-08-30")
    for path in drop.iterdir():
        if not path.name.startswith("PS_LibreAcces"):
            path.unlink()
    return next(drop.iterdir())


def test_a_file_stamped_in_the_future_hides_no_true_one(
    container: Container, engine: Engine, drop: Path
) -> None:
    true = only_rpps(drop)
    # The texts in it say so too: the oldest time that a file tells counts.
    future = restamped(true, "203608300200")
    with pytest.raises(Refusal, match="from now"):
        take_registers(container)
    assert runs(engine) == [(future.name, "refused", "from-the-future"), (true.name, "applied", None)]
    # Known for what it is, it is not tried again every night, until its day has come.
    assert take_registers(container) == ""
    assert len(runs(engine)) == 2
    take_registers(replace(container, clock=lambda: container.clock() + timedelta(days=3660)))
    assert runs(engine)[2:] == [(future.name, "applied", None)]


def test_a_refused_file_is_not_tried_again_until_it_changes(
    container: Container, engine: Engine, drop: Path
) -> None:
    true = only_rpps(drop)
    cut = drop / "PS_LibreAcces_202608310200.zip"
    cut.write_bytes(true.read_bytes()[:1000])
    with pytest.raises(Refusal, match=r"^rpps: PS_LibreAcces_202608310200"):
        take_registers(container)
    assert [state for _, state, _ in runs(engine)] == ["refused", "applied"]
    assert take_registers(container) == ""
    cut.write_bytes(true.read_bytes()[:2000])
    with pytest.raises(Refusal):
        take_registers(container)
    assert [state for _, state, _ in runs(engine)] == ["refused", "applied", "refused"]


def test_files_older_than_the_applied_one_are_left_alone(
    container: Container, engine: Engine, drop: Path
) -> None:
    true = only_rpps(drop)
    take_registers(container)
    (drop / "PS_LibreAcces_202608010200.zip").write_bytes(true.read_bytes() + b"\0")
    assert take_registers(container) == ""
    assert [name for name, _, _ in runs(engine)] == [true.name]


@pytest.mark.parametrize("lies", [True, False], ids=["still there", "gone"])
def test_a_file_that_came_after_a_later_one_was_taken_is_told_once(
    container: Container, engine: Engine, drop: Path, monkeypatch: pytest.MonkeyPatch, *, lies: bool
) -> None:
    """A stamp set ahead makes the true files after it 'older': the register stands still, and looks fresh."""
    true = only_rpps(drop)
    ahead = restamped(true, f"{container.clock() + timedelta(hours=1):%Y%m%d%H%M}")
    take_registers(container)
    assert runs(engine) == [(ahead.name, "applied", None)]
    if not lies:
        ahead.unlink()
    # It lay there before: overtaken, as one of several files is.
    assert take_registers(container) == ""
    monkeypatch.setattr(registers, "arrived_at", lambda _: container.clock() + timedelta(hours=2))
    with pytest.raises(Refusal, match=r"^rpps: This file was made on .* before the one applied last"):
        take_registers(container)
    assert runs(engine)[1:] == [(true.name, "refused", "older-than-applied")]
    assert take_registers(container) == ""
    assert len(runs(engine)) == 2


def test_of_a_folder_that_came_late_as_a_whole_a_few_are_tried_a_night(
    container: Container, engine: Engine, drop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is late once it was given to another account: a year of it would take a night by itself."""
    true = only_rpps(drop)
    take_registers(container)
    for number in range(registers.MOST_OVERTAKEN + 2):
        (drop / f"PS_LibreAcces_2026080{number + 1}0200.zip").write_bytes(
            true.read_bytes() + bytes(number + 1)
        )
    monkeypatch.setattr(registers, "arrived_at", lambda _: container.clock() + timedelta(hours=2))
    with pytest.raises(Refusal, match="rpps: 2 more files came late and are older"):
        take_registers(container)
    refused = [("refused", "older-than-applied")] * registers.MOST_OVERTAKEN
    assert [(state, reason) for _, state, reason in runs(engine)[1:]] == refused


def test_a_file_comes_when_it_is_put_there_whatever_its_own_time(tmp_path: Path) -> None:
    path = tmp_path / "listeblanchemssante.xml"
    path.touch()
    os.utime(path, (1_000_000_000, 1_000_000_000))
    with register_file(path) as file:
        assert arrived_at(file) == datetime.fromtimestamp(path.stat().st_ctime, UTC)
        assert arrived_at(file) > datetime.fromtimestamp(1_000_000_000, UTC)


def test_a_file_stamped_for_tomorrow_waits_and_the_true_one_is_taken(
    container: Container, engine: Engine, drop: Path
) -> None:
    true = only_rpps(drop)
    ahead = restamped(true, f"{container.clock() + timedelta(hours=27):%Y%m%d%H%M}")
    assert "rpps: applied" in take_registers(container)
    assert runs(engine) == [(ahead.name, "held", None), (true.name, "applied", None)]
    # It waits on, and the file of the next night is taken as well.
    later = restamped(true, f"{container.clock() + timedelta(hours=20):%Y%m%d%H%M}")
    assert "rpps: applied" in take_registers(replace(container, clock=lambda: NOON + timedelta(hours=21)))
    assert runs(engine)[2:] == [(later.name, "applied", None)]
    with engine.connect() as connection:
        (findings,) = connection.execute(text("SELECT findings FROM register_run WHERE state = 'held'")).one()
    assert [(one["name"], one["needed"]) for one in findings] == [("stamped-ahead", 2)]


def test_a_plan_made_by_hand_does_not_stand_for_the_night(
    container: Container, engine: Engine, drop: Path
) -> None:
    true = only_rpps(drop)
    run_register(container.engine, register="rpps", path=true, now=container.clock(), actor=Actor("test:x"),
                 apply=False)  # fmt: skip
    assert "rpps: applied" in take_registers(container)
    assert [state for _, state, _ in runs(engine)] == ["planned", "applied"]


def test_the_daily_finess_and_the_restricted_extraction_are_found(tmp_path: Path) -> None:
    make(tmp_path, "2026-08-30", "--psc", "--finess-json")
    make(tmp_path, "2026-08-29")
    assert [path.name for path in candidates(tmp_path, "finess")] == [
        "finess-structures-journalier-20260830.json.gz",
        "etalab-cs1100502-stock-20260829-0338.csv",
    ]
    assert [path.name for path in candidates(tmp_path, "rpps")] == [
        "Extraction_ProSanteConnect_202608300200.zip",
        "PS_LibreAcces_202608290200.zip",
    ]


def test_a_file_that_no_register_knows_is_named_in_the_report_of_the_night(
    container: Container, engine: Engine, drop: Path
) -> None:
    make(drop, "2026-08-30")
    (drop / "PS_LibreAcces (1).ZIP").write_bytes(b"x")
    (drop / ".white-list.part").write_bytes(b"x")
    (drop / "older").mkdir()
    assert strangers(drop) == ["PS_LibreAcces (1).ZIP"]
    did = take_registers(container)
    assert "'PS_LibreAcces (1).ZIP' in the drop folder is no register's file and was not read" in did
    assert set(applied(engine)) == ALL


def test_a_night_with_a_refused_file_names_strangers_too(container: Container, drop: Path) -> None:
    (drop / "PS_LibreAcces_202608260200.zip").write_bytes(b"<html>503</html>")
    (drop / "registre.csv").write_bytes(b"x")
    with pytest.raises(Refusal) as caught:
        take_registers(container)
    assert "is a web page" in caught.value.text
    assert "'registre.csv'" in caught.value.text


def test_an_archive_renamed_younger_is_older_than_what_was_applied(
    container: Container, engine: Engine, drop: Path
) -> None:
    make(drop, "2026-08-31")
    take_registers(container)
    before = applied(engine)["rpps"]
    make(drop / "old", "2026-08-20")
    (old,) = (drop / "old").glob("PS_*.zip")
    old.rename(drop / "PS_LibreAcces.zip")
    take_registers(container)
    assert applied(engine)["rpps"] == before
