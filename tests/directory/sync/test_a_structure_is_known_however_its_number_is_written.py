"""A mailbox stands with its establishment, whichever way the national list writes the number."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from directory.base.db import transaction
from directory.sync.formats import scan
from pki.verdict.answer import verdicts
from tests.directory.sync.files import MAILBOXES, Rows, Run
from tests.directory.sync.test_bad_files_change_nothing import mailbox_line, mailboxes
from tests.factories import seed_organisation

ADDRESS, PLACE, SIRET = "contact@two.example", "690990015", "12345678200010"
LATER = MAILBOXES.replace("0826", "0827")
KEPT = f"SELECT structure_type, structure_id, finess FROM mailbox WHERE address = '{ADDRESS}'"
NOBODY = {"Type Identifiant PP": "", "Identifiant PP": "", "Identification nationale PP": ""}
FINESS = ("1", PLACE, PLACE)
SPELLINGS = {
    "as agreed": ("1", PLACE, FINESS),
    "with the 1 of its type": ("1", f"1{PLACE}", FINESS),
    "in groups": ("1", "690 990\u00a0015", FINESS),
    "both": ("1", "1 690 990 015", FINESS),
    "with dashes": ("1", "69-0990-015", FINESS),
    "without a type": ("", PLACE, FINESS),
    "with dashes, without a type": ("", "1-69-0990-015", FINESS),
    "in groups, without a type": ("", "690 990 015", FINESS),
    "the type in the number alone": ("", f"1{PLACE}", FINESS),
    "Corsica, without a type": ("", "12a0990015", ("1", "2A0990015", "2A0990015")),
    "SIRET": ("3", SIRET, ("3", SIRET, "")),
    "SIRET in groups": ("3", "123 456 782 00010", ("3", SIRET, "")),
    "SIRET with dashes": ("3", "123-456-782-00010", ("3", SIRET, "")),
    "SIRET without a type": ("", "123 456 782 00010", ("3", SIRET, "")),
    # Nothing says that these are numbers of places: they stay as they are, and match none.
    "a number that fails its check": ("", "690990016", ("", "690990016", "")),
    "a SIRET that fails its check": ("", "12345678200011", ("", "12345678200011", "")),
    "a word": ("", "CABINET12", ("", "CABINET12", "")),
    "a SIREN by its type": ("2", "690990015", ("2", "690990015", "")),
}


def line(kind: str, number: str, address: str = ADDRESS, **cells: str) -> str:
    told = {"Type identifiant structure": kind, "Identification Structure": number, "Type de BAL": "ORG"}
    return mailbox_line(1, address, **(NOBODY | told | cells))


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_the_number_of_a_structure_is_kept_in_one_spelling(
    spelling: tuple[str, str, tuple[str, ...]], tmp_path: Path, run: Run, rows: Rows
) -> None:
    kind, number, expected = spelling
    report = run("mailboxes", mailboxes(tmp_path / MAILBOXES, line(kind, number)))
    assert (report.state, report.rejections, rows(KEPT)) == ("applied", (), [expected])


@pytest.mark.parametrize(("kind", "number"), [("1", f"1{PLACE}"), ("", PLACE), ("", f"1{PLACE}")])
def test_no_verdict_misses_the_establishment(
    kind: str, number: str, tmp_path: Path, run: Run, engine: Engine
) -> None:
    seed_organisation(engine, PLACE)
    assert run("mailboxes", mailboxes(tmp_path / MAILBOXES, line(kind, number))).state == "applied"
    with transaction(engine, read_only=True) as connection:
        (found,) = verdicts(
            connection, [ADDRESS], sender=None, at=None, now=datetime(2026, 9, 1, tzinfo=UTC),
            lifetime=timedelta(minutes=15),
        )  # fmt: skip
    assert found.reasons == ("no-answerable-professional", "no-certificate")


def test_two_spellings_of_one_structure_are_no_two_holders(tmp_path: Path, run: Run, rows: Rows) -> None:
    spelt = [line("1", PLACE), line("1", f"1{PLACE}"), line("", "690 990 015")]
    report = run("mailboxes", mailboxes(tmp_path / MAILBOXES, *spelt))
    assert (report.rejections, rows(KEPT)) == ((), [FINESS])
    report = run("mailboxes", mailboxes(tmp_path / LATER, line("", f"1{PLACE}")))
    assert (report.counts["changed"], report.measures["moved"]) == (0, 0)


def test_an_unreadable_row_spares_its_structure_however_it_is_written(
    tmp_path: Path, run: Run, rows: Rows
) -> None:
    other = line("1", "250990033", "other@two.example")
    run("mailboxes", mailboxes(tmp_path / MAILBOXES, line("1", PLACE), other))
    report = run("mailboxes", mailboxes(tmp_path / LATER, line("", f"1 {PLACE}", "not an address")))
    assert (report.state, report.counts["rejected"]) == ("applied", 1)
    gone = "SELECT address FROM mailbox WHERE departed_at IS NOT NULL"
    assert rows(gone) == [("other@two.example",)]


@pytest.mark.parametrize("number", [PLACE, f"1{PLACE}", "690 990 015"])
def test_what_a_release_before_kept_as_written_is_read_anew_and_has_not_moved(
    number: str, tmp_path: Path, run: Run, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "READING", 3)
    monkeypatch.setattr(
        "directory.sync.formats.mailboxes.structure_told", lambda kind, number: (kind, number)
    )
    run("mailboxes", mailboxes(tmp_path / MAILBOXES, line("", number)))
    assert rows(KEPT) == [("", number, "")]
    monkeypatch.undo()
    report = run("mailboxes", mailboxes(tmp_path / LATER, line("", number)))
    assert (report.counts["changed"], report.measures["moved"]) == (1, 0)
    assert rows(KEPT) == [FINESS]


def test_a_mailbox_that_passes_to_another_structure_has_moved(tmp_path: Path, run: Run) -> None:
    run("mailboxes", mailboxes(tmp_path / MAILBOXES, line("1", PLACE)))
    report = run("mailboxes", mailboxes(tmp_path / LATER, line("1", "1 250 990 033")))
    assert (report.counts["changed"], report.measures["moved"]) == (1, 1)
