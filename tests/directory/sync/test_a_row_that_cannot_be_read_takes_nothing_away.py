"""Whoever an unreadable row may speak of keeps his state; whoever is gone beside it goes."""

import re
from pathlib import Path

import pytest

from tests.directory.sync.evenings import Night
from tests.directory.sync.files import ACTIVITIES, MAILBOXES, TRUSTED, VECTORS, Rows, Run, header, someone
from tests.directory.sync.test_bad_files_change_nothing import mailbox_line, mailboxes, number
from tests.directory.sync.test_one_operator_however_its_name_is_written import (
    domains,
    entry,
    white_list,
)

OTHER = "CN=autre.invalid,O=AUTRE OPERATEUR,C=FR"
GONE = "SELECT name FROM trusted_domain WHERE departed_at IS NOT NULL ORDER BY name"
ENTRIES = {
    "empty name": entry(""),
    "a name that is none": entry("exemple mssante"),
    "no organisation": entry("x.mssante.invalid", "CN=mss.exemple.invalid,C=FR"),
    "no operator": entry("x.mssante.invalid", ""),
    "no day": entry("x.mssante.invalid", DateMAJ="hier"),
    "nothing at all": "<Domaine/>",
}


@pytest.mark.parametrize("told", ENTRIES.values(), ids=ENTRIES)
def test_an_entry_of_the_white_list(told: str, tmp_path: Path, run: Run, rows: Rows) -> None:
    run("trusted-domains", white_list(tmp_path, *domains(21), entry("x.mssante.invalid")))
    report = run("trusted-domains", white_list(tmp_path, *domains(21), told, day=14))
    assert (report.state, report.counts["rejected"], report.counts["removed"]) == ("applied", 1, 0)
    assert rows(GONE) == []


def test_an_entry_with_a_final_dot_is_the_same_domain(tmp_path: Path, run: Run, rows: Rows) -> None:
    run("trusted-domains", white_list(tmp_path, *domains(21), entry("x.mssante.invalid")))
    report = run("trusted-domains", white_list(tmp_path, *domains(21), entry("X.mssante.invalid."), day=14))
    assert (report.state, report.counts["rejected"], report.counts["changed"]) == ("applied", 0, 0)
    assert rows(GONE) == []


def test_a_right_that_no_unreadable_entry_may_be_goes(tmp_path: Path, run: Run, rows: Rows) -> None:
    kept, gone = entry("x.mssante.invalid"), entry("y.mssante.invalid", OTHER)
    run("trusted-domains", white_list(tmp_path, *domains(21), kept, gone))
    run("trusted-domains", white_list(tmp_path, *domains(21), ENTRIES["empty name"], day=14))
    assert rows(GONE) == [("y.mssante.invalid",)]


def test_entries_that_cannot_be_read_are_counted_against_the_bounds(tmp_path: Path, run: Run) -> None:
    run("trusted-domains", white_list(tmp_path, *domains(60)))
    report = run("trusted-domains", white_list(tmp_path, *domains(39), *[entry("")] * 21, day=14))
    assert report.state == "held"
    assert [found.name for found in report.findings] == ["more-rejections"]


PEOPLE = {
    "a number without its check digit": {
        "Identifiant PP": "10099000018", "Identification nationale PP": "810099000018",
    },
    "no number": {"Type d'identifiant PP": "", "Identifiant PP": "", "Identification nationale PP": ""},
    "half a number": {"Identification nationale PP": "8100"},
    "no profession": {"Code profession": ""},
    "a cell too many": {"Nom d'exercice": "A|B"},
    "a cell too many before the number": {"Type d'identifiant PP": "8|"},
}  # fmt: skip


@pytest.mark.parametrize("cells", PEOPLE.values(), ids=PEOPLE)
def test_a_person(cells: dict[str, str], tmp_path: Path, run: Run, rows: Rows) -> None:
    named = {"Nom d'exercice": "UNIQUE", "Prénom d'exercice": "ÉMILE"}
    others = "".join(someone(number(n)) for n in range(20, 60))
    gone = someone(number(2), **{"Nom d'exercice": "AUTRE"})
    (tmp_path / ACTIVITIES).write_text(header() + others + someone(number(1), **named) + gone)
    run("rpps", tmp_path / ACTIVITIES)
    unreadable = someone(number(1), **named)
    first, *rest = unreadable.split("|")
    row = dict(zip(header().removesuffix("|\n").split("|"), [first, *rest], strict=False)) | cells
    later = tmp_path / ACTIVITIES.replace("0826", "0827")
    later.write_text(header() + "|".join(row[heading] for heading in row) + "|\n" + others)
    report = run("rpps", later)
    assert (report.state, report.counts["rejected"]) == ("applied", 1)
    assert rows("SELECT national_id FROM practitioner WHERE departed_at IS NOT NULL") == [(f"8{number(2)}",)]


@pytest.mark.parametrize("address", ["", "x a.invalid", "x@ß..invalid"])
def test_a_mailbox(address: str, tmp_path: Path, run: Run, rows: Rows) -> None:
    lines = (mailbox_line(1, "x@a.invalid"), mailbox_line(2, "y@a.invalid"))
    run("mailboxes", mailboxes(tmp_path / MAILBOXES, *lines))
    later = mailboxes(tmp_path / MAILBOXES.replace("0826", "0827"), mailbox_line(1, address))
    report = run("mailboxes", later)
    assert (report.state, report.counts["rejected"]) == ("applied", 1)
    assert rows("SELECT address FROM mailbox WHERE departed_at IS NOT NULL") == [("y@a.invalid",)]


@pytest.mark.parametrize("source_name", ["finess", "finess-json"])
def test_an_establishment(night: Night, rows: Rows) -> None:
    told = night.text.decode()
    ((known,),) = rows("SELECT min(finess) FROM organisation")
    spoilt = told.replace(f";{known};", ";?;").replace(f'"{known}"', '"?"')
    assert spoilt != told
    report = night.bring(spoilt.encode())
    assert (report.state, report.counts["rejected"], report.counts["removed"]) == ("applied", 1, 0)


def test_two_bad_rows_in_a_file_of_ten_refuse_nothing(tmp_path: Path, run: Run, rows: Rows) -> None:
    good = "".join(someone(number(n)) for n in range(1, 9))
    bad = "".join(someone(number(n), **{"Code profession": ""}) for n in (20, 21))
    (tmp_path / ACTIVITIES).write_text(header() + good + bad)
    report = run("rpps", tmp_path / ACTIVITIES)
    assert (report.state, report.counts["rejected"], report.counts["created"]) == ("applied", 2, 8)
    assert rows("SELECT count(*) FROM practitioner") == [(8,)]


def test_a_file_of_which_no_row_can_be_read_is_refused(tmp_path: Path, run: Run) -> None:
    assert re.search("mssante", (VECTORS / TRUSTED).read_text())
    report = run("trusted-domains", white_list(tmp_path, entry(""), entry("")))
    assert (report.state, report.reason) == ("refused", "too-many-rejections")
