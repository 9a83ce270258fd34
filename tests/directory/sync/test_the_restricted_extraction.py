"""The restricted extraction makes the rows that the public one makes, and nothing private of it is kept."""

import re
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy import Engine, text

from directory.sync.formats.layout import folded
from directory.sync.formats.rpps import PRIVATE
from tests.directory.sync.files import Rows, Run

PLAN = {"practitioners": 400, "organisations": 20, "mailboxes": 0, "seed": 9}
PERSONS = (
    "SELECT national_id, title, civility, family_name, given_name, row_hash FROM practitioner ORDER BY 1"
)
# What the restricted extraction does not tell: the kind of an activity, and the town in small letters.
PRACTICES = (
    "SELECT national_id, digest, profession_code, category, mode, sector, role, structure_id, siret,"
    " pharmacist_table, finess, legal_finess, structure_name, street, postal_code, commune, department,"
    " country, telephone, registered_by FROM practice ORDER BY national_id, digest"
)
SKILLS = "SELECT national_id, profession_code, category, skill_type, skill_code FROM skill ORDER BY 1, 5"


@pytest.fixture
def public(tmp_path: Path, maker: ModuleType) -> Path:
    """The archive of the first day, with the know-how in a file of its own besides."""
    return maker.make(tmp_path / "public", maker.Plan(**PLAN))["rpps"]


@pytest.fixture
def restricted(tmp_path: Path, maker: ModuleType) -> Path:
    """The same people, told a day later."""
    return maker.make(tmp_path / "psc", maker.Plan(**PLAN, psc=True, day=maker.date(2026, 9, 2)))["rpps"]


def unzipped(restricted: Path) -> list[str]:
    with zipfile.ZipFile(restricted) as members:
        return members.read(members.namelist()[0]).decode().splitlines(keepends=True)


def text_of(folder: Path, lines: list[str]) -> Path:
    path = folder / "Extraction_ProSanteConnect_Personne_activite_202609030200.txt"
    path.write_text("".join(lines))
    return path


def test_its_night_after_a_public_one_changes_nobody(
    public: Path, restricted: Path, run: Run, rows: Rows
) -> None:
    assert run("rpps", public).counts["created"] == 400
    before = [rows(f"SELECT * FROM {table} ORDER BY 1, 2, 3, 4, 5") for table in ("practitioner", "practice")]
    report = run("rpps", restricted, apply=False)
    assert (report.state, report.layout) == ("planned", "rpps-psc-49")
    assert (report.counts["changed"], report.counts["removed"], report.counts["created"]) == (0, 0, 0)
    assert report.counts["unchanged"] + report.counts["rejected"] == report.counts["lines"]
    assert before[1]


def test_it_makes_the_same_rows_in_an_empty_record(
    public: Path, restricted: Path, run: Run, rows: Rows, engine: Engine
) -> None:
    assert run("rpps", restricted).state == "applied"
    told = [rows(query) for query in (PERSONS, PRACTICES, SKILLS)]
    assert all(told)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM practice"))
        connection.execute(text("DELETE FROM skill"))
        connection.execute(text("DELETE FROM profession"))
        connection.execute(text("DELETE FROM practitioner"))
        connection.execute(text("DELETE FROM register_run"))
    assert run("rpps", public).state == "applied"
    assert [rows(query) for query in (PERSONS, PRACTICES, SKILLS)] == told


def test_nothing_private_is_kept_anywhere(restricted: Path, tmp_path: Path, run: Run, engine: Engine) -> None:
    lines = unzipped(restricted)
    headings = [folded(heading) for heading in lines[0].split("|")]
    places = [headings.index(folded(heading)) for heading in PRIVATE]
    assert places == list(range(3, 12))
    # Rows that cannot be taken, in every way that shows a row to somebody.
    lines[5] = lines[5].replace("|", "||", 1)
    lines[6] = lines[6].replace("8|10099", "8|10098", 1)
    lines[7] = "".join(lines[7].split("|", 3)[3:])
    lines[8] = lines[8].replace("|", "\0|", 1)
    private = {line.split("|")[place] for line in lines[1:] for place in places if "|" in line}
    private = {cell for cell in private if re.search(r"/|@|^06|NAISSANCE|'", cell)}
    assert len(private) > 1000
    report = run("rpps", text_of(tmp_path, lines))
    assert (report.state, len(report.rejections)) == ("applied", 5)
    assert {rejection.detail for rejection in report.rejections} == {""}
    kept = everything(engine)
    assert [cell for cell in private if cell in kept] == []
    assert [r for r in report.rejections if any(cell in r.excerpt for cell in private if cell)] == []


def everything(engine: Engine) -> str:
    """Every row of every table, as text."""
    with engine.connect() as connection:
        tables = connection.execute(
            text("SELECT quote_ident(relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
                 " WHERE relkind = 'r' AND nspname = 'public'")
        ).scalars()  # fmt: skip
        return "".join(
            str(row) for table in tables for row in connection.execute(text(f"SELECT t::text FROM {table} t"))
        )


def test_a_change_of_something_private_alone_is_no_change(
    restricted: Path, tmp_path: Path, run: Run, rows: Rows
) -> None:
    run("rpps", restricted)
    known = rows("SELECT key, digest FROM register_known ORDER BY key")
    lines = unzipped(restricted)
    cells = lines[1].split("|")
    cells[5] = "31/12/1999"
    report = run("rpps", text_of(tmp_path, [lines[0], "|".join(cells), *lines[2:]]))
    assert (report.state, report.counts["changed"]) == ("applied", 0)
    assert rows("SELECT key, digest FROM register_known ORDER BY key") == known
