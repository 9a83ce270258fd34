"""A file like yesterday's is scanned and not read; what comes out is what reading all of it would give."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from directory.base.db import transaction
from directory.sync.formats import scan
from tests.directory.sync.files import (
    ACTIVITIES,
    KNOW_HOW,
    MAILBOXES,
    VECTORS,
    Rows,
    Run,
    activity,
    header,
    someone,
    zipped,
)
from tests.directory.sync.test_bad_files_change_nothing import many, number

READ = "SELECT (detail ->> 'read')::int FROM register_step WHERE step = 'parse' ORDER BY run_id DESC LIMIT 1"
RECORD = (
    "SELECT national_id, family_name, encode(row_hash, 'hex'), departed_at IS NULL"
    " FROM practitioner ORDER BY 1"
)


def day(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture
def forget(engine: Engine) -> Callable[[], None]:
    """What a crash of the database does to an unlogged table."""

    def empty() -> None:
        with transaction(engine) as connection:
            connection.execute(text("TRUNCATE register_known"))

    return empty


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("directory.sync.formats.files.BLOCK", 4096)


def test_the_same_file_again_is_not_read(tmp_path: Path, run: Run, rows: Rows) -> None:
    file = day(tmp_path / ACTIVITIES, many(50))
    first, second = run("rpps", file), run("rpps", file)
    assert (first.counts["accepted"], first.counts["unchanged"]) == (50, 0)
    assert (second.counts["lines"], second.counts["unchanged"]) == (50, 50)
    assert rows(READ) == [(0,)]


def test_of_a_person_with_one_new_line_all_lines_are_read_and_of_others_none(
    tmp_path: Path, run: Run, rows: Rows
) -> None:
    run("rpps", day(tmp_path / ACTIVITIES, many(50)))
    # Not beside the other one: the lines of a person may stand anywhere.
    moved = someone(number(7), **{"Code mode exercice": "L"})
    report = run("rpps", day(tmp_path / ACTIVITIES, many(50) + moved))
    assert rows(READ) == [(2,)]
    assert (report.counts["changed"], report.counts["accepted"], report.counts["unchanged"]) == (1, 2, 49)
    assert rows(f"SELECT count(*) FROM practice WHERE national_id = '8{number(7)}'") == [(2,)]


def test_who_is_gone_is_removed_though_nothing_was_read(tmp_path: Path, run: Run, rows: Rows) -> None:
    run("rpps", day(tmp_path / ACTIVITIES, many(500)))
    report = run("rpps", day(tmp_path / ACTIVITIES, many(499)))
    assert (rows(READ), report.counts["removed"]) == ([(0,)], 1)
    assert rows("SELECT national_id FROM practitioner WHERE departed_at IS NOT NULL") == [
        (f"8{number(500)}",)
    ]
    back = run("rpps", day(tmp_path / ACTIVITIES, many(500)))
    assert (rows(READ), back.counts["changed"]) == ([(1,)], 1)
    assert rows("SELECT count(*) FROM practitioner WHERE departed_at IS NOT NULL") == [(0,)]


def test_a_rejected_line_is_told_each_night(tmp_path: Path, run: Run, rows: Rows) -> None:
    wrong = someone(number(3), **{"Nom d'exercice": ""})
    file = day(tmp_path / ACTIVITIES, many(50) + wrong)
    for _ in range(3):
        report = run("rpps", file)
        assert [(r.line_number, r.reason) for r in report.rejections] == [(52, "no-name")]
        assert report.counts["lines"] == 51
        assert report.counts["accepted"] + report.counts["unchanged"] == 50
    assert rows(READ) == [(2,)]
    assert rows("SELECT count(*) FROM practitioner WHERE departed_at IS NULL") == [(50,)]


def test_a_line_that_names_nobody_readably_is_read_each_night(tmp_path: Path, run: Run, rows: Rows) -> None:
    odd = activity(**{"Identification nationale PP": f" 8{number(3)}\x01é"})
    for _ in range(2):
        report = run("rpps", day(tmp_path / ACTIVITIES, many(50) + odd))
        assert report.counts["rejected"] == 1
    assert rows(READ) == [(1,)]


def test_what_other_hands_changed_in_the_record_is_read_again(
    tmp_path: Path, run: Run, rows: Rows, engine: Engine
) -> None:
    file = day(tmp_path / ACTIVITIES, many(50))
    run("rpps", file)
    before = rows(RECORD)
    with transaction(engine) as connection:
        connection.execute(
            text("UPDATE practitioner SET family_name = 'X', row_hash = '\\x00' WHERE national_id = :id"),
            {"id": f"8{number(5)}"},
        )
    run("rpps", file)
    assert (rows(READ), rows(RECORD)) == ([(1,)], before)


def test_a_forgotten_memory_costs_reading_and_nothing_else(
    tmp_path: Path, run: Run, rows: Rows, forget: Callable[[], None]
) -> None:
    file = day(tmp_path / ACTIVITIES, many(50))
    run("rpps", file)
    forget()
    report = run("rpps", file)
    assert (rows(READ), report.counts["unchanged"], report.counts["changed"]) == ([(50,)], 50, 0)
    run("rpps", file)
    assert rows(READ) == [(0,)]


def test_another_way_of_reading_reads_all_again(
    tmp_path: Path, run: Run, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = day(tmp_path / ACTIVITIES, many(50))
    run("rpps", file)
    run("rpps", file, strict_rpps=False)
    assert rows(READ) == [(50,)]
    monkeypatch.setattr(scan, "READING", scan.READING + 1)
    run("rpps", file, strict_rpps=False)
    assert rows(READ) == [(50,)]


def test_a_skill_lost_in_the_second_file_is_lost_in_the_record(tmp_path: Path, run: Run, rows: Rows) -> None:
    skills = (VECTORS / KNOW_HOW).read_text()
    one, two = {"Code savoir-faire": "SM01"}, {"Code savoir-faire": "SM02"}
    lines = "".join(someone(number(n), **{"Code savoir-faire": ""}) for n in range(1, 40))
    known = "".join(skills.splitlines(keepends=True)[:1])
    row = dict(zip(known.removesuffix("|\n").split("|"), skills.splitlines()[1].split("|"), strict=False))

    def skill(of: int, **cells: str) -> str:
        them = {"Identifiant PP": number(of), "Identification nationale PP": f"8{number(of)}"}
        return "|".join((row | them | cells).values()) + "|\n"

    def archive(*rows_: str) -> Path:
        members = {ACTIVITIES: (header() + lines).encode(), KNOW_HOW: (known + "".join(rows_)).encode()}
        return zipped(tmp_path / "PS_LibreAcces_202608260200.zip", members)

    run("rpps", archive(skill(1, **one), skill(2, **one), skill(1, **two)))
    held = "SELECT national_id, skill_code FROM skill ORDER BY 1, 2"
    first, second = f"8{number(1)}", f"8{number(2)}"
    assert rows(held) == [(first, "SM01"), (first, "SM02"), (second, "SM01")]
    run("rpps", archive(skill(1, **one), skill(2, **one)))
    # His activity and the skill that stays.
    assert rows(READ) == [(2,)]
    assert rows(held) == [(first, "SM01"), (second, "SM01")]


def test_an_address_spelled_otherwise_is_the_same_address(tmp_path: Path, run: Run) -> None:
    lines = (VECTORS / MAILBOXES).read_text().splitlines(keepends=True)
    address = lines[1].split("|")[1]
    file = tmp_path / MAILBOXES
    file.write_text("".join(lines))
    run("mailboxes", file)
    file.write_text("".join(lines).replace(address, f" {address.upper()}", 1))
    report = run("mailboxes", file)
    assert (report.counts["created"], report.counts["removed"], report.counts["changed"]) == (0, 0, 0)
    assert report.counts["unchanged"] == report.counts["lines"] - report.counts["rejected"]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.usefixtures("small_blocks")
def test_picking_lines_gives_what_reading_all_gives(
    seed: int, tmp_path: Path, run: Run, rows: Rows, forget: Callable[[], None]
) -> None:
    """Shuffled, doubled, spoiled and recoded lines, small blocks: once by picking, once by reading all."""
    chance = random.Random(seed)
    lines = [someone(number(n)) for n in range(1, 120)]
    lines += [someone(number(n), **{"Code mode exercice": "L"}) for n in range(1, 60)]

    def spoiled(line: str) -> str:
        return chance.choice(
            [line, line, line.replace("|", ";", 3), line.replace("ALICE", "ÉLISE"), line.replace("ALICE", "")]
        )

    nights = []
    for _ in range(3):
        tonight = [spoiled(line) if chance.random() < 0.1 else line for line in lines]
        chance.shuffle(tonight)
        tonight += [activity(), activity()]
        nights.append((header() + "".join(tonight)).encode(chance.choice(["utf-8", "cp1252"])))
    outcomes = []
    for forgets in (False, True):
        for night in nights:
            path = tmp_path / ACTIVITIES
            path.write_bytes(night)
            if forgets:
                forget()
            run("rpps", path)
        report = run("rpps", path)
        counts = dict(report.counts)
        outcomes.append((rows(RECORD), counts, report.rejections))
    assert outcomes[0] == outcomes[1]


def test_a_second_line_of_one_address_is_read_with_its_first_and_no_other(
    tmp_path: Path, run: Run, rows: Rows
) -> None:
    heading, *lines = (VECTORS / MAILBOXES).read_text().splitlines(keepends=True)
    (at_work,) = (line for line in lines if "a.exemple@chi-fictif" in line)
    others = [at_work.replace("a.exemple", f"other{n}") for n in range(40)]
    second = at_work.replace("250990033", "750990012").replace("URGENCES", "CARDIOLOGIE")

    def attached(stamp: str, *more: str) -> list[tuple[object, ...]]:
        name = f"Extraction_Correspondance_MSSante_{stamp}0213.txt"
        file = day(tmp_path / name, heading + "".join([at_work, *others, *more]))
        assert run("mailboxes", file).state == "applied"
        return rows("SELECT address, structure_id, service FROM mailbox_attachment")

    assert attached("20260826") == []
    here = [("a.exemple@chi-fictif.mssante.invalid", "750990012", "CARDIOLOGIE")]
    assert attached("20260827", second) == here
    assert rows(READ) == [(2,)]
    assert attached("20260828", second) == here
    assert rows(READ) == [(0,)]
    assert attached("20260829") == []
    assert rows(READ) == [(1,)]
