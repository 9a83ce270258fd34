"""The white list writes operators' names by hand: however one is written, what it holds stays."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from directory.access import Role, create_token
from directory.base.audit import Actor
from directory.base.db import transaction
from tests.directory.sync.files import TRUSTED, Rows, Run
from tests.directory.test_distinguished_names import NAME, SAME

STANDING = "SELECT count(*), count(departed_at) FROM trusted_domain"


def white_list(
    folder: Path, *entries: str, day: int = 13, name: str = TRUSTED, end: str = "</ListeBlancheMSSante>"
) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(
        '<ListeBlancheMSSante xmlns="https://listeblanche.mssante.fr/schema">'
        f"<DateDeGeneration>2025-03-{day}T14:54:10Z</DateDeGeneration>"
        f"<ListeDomaines>{''.join(entries)}</ListeDomaines>{end}"
    )
    return folder / name


def entry(domain: str, dn: str = NAME, **more: str) -> str:
    given = {
        "Nom": domain,
        "Description": "Domaine fictif",
        "DNCertificatOperateur": dn,
        "ResponsableContact": "resp@exemple.invalid",
        "DateMAJ": "2025-03-01T08:00:00Z",
    } | more
    return "<Domaine>" + "".join(f"<{tag}>{value}</{tag}>" for tag, value in given.items()) + "</Domaine>"


def domains(count: int, dn: str = NAME) -> list[str]:
    return [entry(f"d{number}.mssante.invalid", dn) for number in range(count)]


@pytest.mark.parametrize("written", SAME.values(), ids=SAME)
def test_an_operator_written_otherwise_keeps_its_domains(
    written: str, tmp_path: Path, run: Run, rows: Rows
) -> None:
    run("trusted-domains", white_list(tmp_path, *domains(22)))
    report = run("trusted-domains", white_list(tmp_path, *domains(22, written), day=14))
    counts = report.counts
    assert (report.state, counts["created"], counts["removed"], counts["changed"]) == ("applied", 0, 0, 0)
    assert rows("SELECT certificate_dn, name FROM operator") == [(NAME, "OPERATEUR FICTIF")]
    assert rows(STANDING) == [(22, 0)]


def test_one_operator_written_in_two_ways_in_one_list_is_one(tmp_path: Path, run: Run, rows: Rows) -> None:
    other = SAME["from the country down"]
    told = white_list(tmp_path, entry("a.mssante.invalid"), entry("b.mssante.invalid", other))
    assert run("trusted-domains", told).counts["created"] == 2
    assert rows("SELECT certificate_dn FROM operator") == [(NAME,)]


def test_two_spellings_that_the_record_holds_from_before_stay_what_they_are(
    tmp_path: Path, run: Run, rows: Rows, engine: Engine
) -> None:
    other = SAME["spaces after the commas"]
    lines = [entry("a.mssante.invalid"), entry("b.mssante.invalid", other)]
    run("trusted-domains", white_list(tmp_path, lines[0], entry("b.mssante.invalid", "CN=x,O=Y")))
    with transaction(engine) as connection:
        connection.execute(
            text("UPDATE operator SET certificate_dn = :other WHERE name = 'Y'"), {"other": other}
        )
    report = run("trusted-domains", white_list(tmp_path, *lines, day=14))
    assert (report.counts["created"], report.counts["removed"]) == (0, 0)
    assert rows(STANDING) == [(2, 0)]


@pytest.mark.parametrize("written", SAME.values(), ids=SAME)
def test_a_token_acts_for_an_operator_however_its_name_is_written(
    written: str, *, tmp_path: Path, run: Run, rows: Rows, engine: Engine, now: datetime, actor: Actor
) -> None:
    run("trusted-domains", white_list(tmp_path, *domains(1)))
    with transaction(engine) as connection:
        token, _ = create_token(
            connection, now=now, actor=actor, name="provider", role=Role.OPERATOR,
            lifetime=timedelta(days=1), operator=written,
        )  # fmt: skip
    assert [(token.operator_id,)] == rows("SELECT id FROM operator")


def test_a_description_with_line_breaks_is_read(tmp_path: Path, run: Run, rows: Rows) -> None:
    told = entry("a.mssante.invalid", Description="Un domaine\r\n  de deux lignes\n", SupportContact="a\nb")
    report = run("trusted-domains", white_list(tmp_path, told))
    assert (report.state, report.counts["rejected"]) == ("applied", 0)
    assert rows("SELECT description FROM trusted_domain") == [("Un domaine de deux lignes",)]


def test_a_list_without_its_closing_tag_is_read_and_the_report_says_so(
    tmp_path: Path, run: Run, rows: Rows
) -> None:
    report = run("trusted-domains", white_list(tmp_path, *domains(22), end="\n"))
    assert (report.state, report.counts["created"]) == ("applied", 22)
    (found,) = report.findings
    assert (found.name, found.needed, report.approvals_needed) == ("no-closing-tag", 0, 0)
    assert "closing tag" in found.sentence
    assert rows("SELECT findings -> 0 ->> 'name' FROM register_run") == [("no-closing-tag",)]


def test_a_list_cut_before_its_domains_end_is_still_refused(tmp_path: Path, run: Run, rows: Rows) -> None:
    run("trusted-domains", white_list(tmp_path, *domains(100)))
    whole = white_list(tmp_path, *domains(100), day=14, end="").read_text()
    for end in ("</ListeDomaines>", "</Domaine></ListeDomaines>"):
        (tmp_path / TRUSTED).write_text(whole.removesuffix(end))
        report = run("trusted-domains", tmp_path / TRUSTED)
        assert (report.state, report.reason) == ("refused", "truncated")
    # Closed, and with half of its domains: the count is not plausible.
    report = run("trusted-domains", white_list(tmp_path, *domains(49), day=16, end=""))
    assert (report.state, report.reason) == ("refused", "too-few-rows")
    assert rows(STANDING) == [(100, 0)]
