"""White space, accents and the letters of codes make no difference, whichever reader a cell comes through."""

import json
import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from directory.base.db import transaction
from directory.base.errors import Refusal
from directory.rules import is_practising, registering_authorities, search_form
from directory.store import practitioners
from directory.sync.formats import scan
from directory.sync.formats.cells import code, is_plain, plain, spaced
from directory.sync.formats.departments import department_of
from directory.sync.formats.establishment import insee
from directory.sync.formats.layout import Column, normaliser
from directory.sync.formats.rpps import _searched
from directory.sync.runs.increment_cursor import file_name
from pki.registration.eligibility import check_present
from tests.directory.sync.annuaire import concept, identifier
from tests.directory.sync.evenings import SOURCES, Night
from tests.directory.sync.files import (
    ACTIVITIES,
    KNOW_HOW,
    VECTORS,
    Rows,
    Run,
    activity,
    header,
    someone,
    zipped,
)
from tests.directory.sync.test_bad_files_change_nothing import many, number

STUDENT = "810099000019"
# What a register's cell may hold that says nothing.
NOTHING = {
    "blank": " ",
    "no-break space": "\u00a0",
    "narrow no-break space": "\u202f",
    "tab": "\t",
    "ideographic space": "\u3000",
    "zero width space": "\u200b",
}
OF_STRUCTURES = (
    "Code mode exercice", "Code secteur d'activité", "Code rôle", "Numéro SIRET site",
    "Identifiant technique de la structure",
)  # fmt: skip
SPELLINGS = st.text(st.sampled_from("aÉé\u0301 \u00a0\t|\u200b0-.2B\u212a"), max_size=6)

NAMES = st.text(
    st.sampled_from("aÉ\u0301\u0345 -'\u2019ßœ\u212a\u1fef.") | st.characters(codec="utf-8"), max_size=6
)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("CENTRE  HOSPITALIER ", "CENTRE HOSPITALIER"),
        ("\u00a0N'\u202fDIARRAME\u3000", "N' DIARRAME"),
        ("E\u0301CHANTILLON", "ÉCHANTILLON"),
        ("EXEM\u00adPLE\u200b", "EXEMPLE"),
        ("un\r\n  autre", "un autre"),
        (" \t\u00a0", ""),
    ],
)
def test_a_cell_is_plain(cell: str, expected: str) -> None:
    assert plain(cell) == expected


def test_a_code_has_no_case_and_no_stand_in() -> None:
    assert [code(cell) for cell in ("2a", " sm04\u00a0", "10 ", "0", "-", ".", "\u017f")] == [
        "2A", "SM04", "10", "", "", "", "\u017f",
    ]  # fmt: skip


def test_letters_of_an_address_are_left_alone() -> None:
    assert spaced(" a\u00adb@\u212a.invalid\u00a0") == "a\u00adb@\u212a.invalid"


@given(st.lists(SPELLINGS, min_size=4, max_size=4))
def test_the_quick_look_at_a_line_gives_what_each_cell_would(cells: list[str]) -> None:
    cells = [cell.replace("|", "") for cell in cells]
    columns = (
        Column("a", ()),
        Column("b", (), code=True),
        Column("c", (), exact=True),
        Column("d", (), code=True),
    )
    one_by_one = (plain(cells[0]), code(cells[1]), spaced(cells[2]), code(cells[3]))
    line = "|".join(cells)
    assert normaliser(columns)(line, tuple(cells)) == one_by_one
    if is_plain(line, "|"):
        assert [plain(cell) for cell in cells] == cells


def test_no_letter_that_would_be_normalised_passes_the_quick_look() -> None:
    letters = [chr(number) for number in range(0x30000) if chr(number) != "|"]
    assert [one for one in letters if is_plain(f"a{one}b", "|") and plain(f"a{one}b") != f"a{one}b"] == []
    assert is_plain("CHÂTEAU N\u2019DIARRAME|2A|œ", "|")


@given(NAMES, NAMES)
def test_a_name_is_searched_alike_whole_or_by_parts(family: str, given_name: str) -> None:
    assert _searched(family, given_name) == search_form(f"{family} {given_name}")


def student(tmp_path: Path, cells: dict[str, str], name: str = ACTIVITIES) -> Path:
    row = (VECTORS / ACTIVITIES).read_text().splitlines()[0].removesuffix("|").split("|")
    kept = {"Type d'identifiant PP", "Identifiant PP", "Identification nationale PP", "Nom d'exercice",
            "Prénom d'exercice", "Code profession"}  # fmt: skip
    emptied = {heading: "" for heading in row if heading not in kept}
    (tmp_path / name).write_text(
        header() + activity(**{**emptied, "Code catégorie professionnelle": "E", **cells})
    )
    return tmp_path / name


def practising(engine: Engine, national_id: str = STUDENT) -> bool:
    with transaction(engine, read_only=True) as connection:
        return is_practising(practitioners(connection, [national_id])[national_id])


@pytest.mark.parametrize("heading", OF_STRUCTURES)
@pytest.mark.parametrize("cell", NOTHING.values(), ids=NOTHING)
def test_a_student_with_a_blank_for_a_structure_is_not_practising(
    heading: str, cell: str, tmp_path: Path, run: Run, engine: Engine
) -> None:
    assert run("rpps", student(tmp_path, {heading: cell})).state == "applied"
    assert not practising(engine)


@pytest.mark.parametrize("stand_in", ["0", " 0 ", "-"])
def test_a_student_whose_sector_is_0_is_not_practising(
    stand_in: str, tmp_path: Path, run: Run, engine: Engine
) -> None:
    assert run("rpps", student(tmp_path, {"Code secteur d'activité": stand_in})).state == "applied"
    assert not practising(engine)


@pytest.mark.parametrize("source_name", ["rpps-psc"])
def test_a_student_of_the_restricted_extraction_is_not_practising_either(
    night: Night, rows: Rows, engine: Engine
) -> None:
    without = "SELECT national_id FROM practitioner p WHERE NOT EXISTS"
    without += " (SELECT FROM practice t WHERE t.national_id = p.national_id) ORDER BY 1"
    before = rows(without)
    assert before
    headings = night.text.decode().split("\n", 1)[0].split("|")
    places = [headings.index(heading) for heading in OF_STRUCTURES]
    told = []
    for line in night.text.decode().split("\n"):
        cells = line.split("|")
        for place in places:
            if len(cells) > place and not cells[place]:
                cells[place] = "\u00a0"
        told.append("|".join(cells))
    assert night.bring("\n".join(told).encode()).state == "applied"
    assert rows(without) == before
    with transaction(engine, read_only=True) as connection:
        students = practitioners(connection, [str(key) for (key,) in before])
    for person in students.values():
        with pytest.raises(Refusal, match="holder-not-practising"):
            check_present(person)


def test_a_student_told_by_the_api_with_blanks_is_not_practising(
    tmp_path: Path, run: Run, engine: Engine
) -> None:
    assert run("rpps", student(tmp_path, {})).state == "applied"
    person = {
        "resourceType": "Practitioner",
        "id": "005-1",
        "identifier": [identifier("IDNPS", "urn:oid:1.2.250.1.71.4.2.1", f"{STUDENT}\u00a0")],
        "name": [{"family": "EXEMPLE\u00a0", "given": [" ALICE"]}],
        "qualification": [
            {"code": concept(("TRE_G15-ProfessionSante", "10 "), ("TRE_R09-CategorieProfessionnelle", "e"))}
        ],
    }
    role = {
        "resourceType": "PractitionerRole",
        "id": "004-1",
        "organization": {"reference": "Organization/1"},
        "code": [concept(("TRE_R23-ModeExercice", "\u00a0"))],
    }
    place = {"id": "1", "type": [concept(("TRE_R02-SecteurActivite", "0"))]}
    increment(tmp_path, {"person": person, "roles": [role], "organisations": {"1": place}})
    report = run("rpps", tmp_path / file_name(UNTIL))
    assert (report.state, report.counts["rejected"]) == ("applied", 0)
    assert not practising(engine)
    with transaction(engine, read_only=True) as connection:
        found = practitioners(connection, [STUDENT])[STUDENT]
    assert (found.family_name, found.professions) == ("EXEMPLE", (("10", "E"),))


SINCE = datetime(2026, 8, 26, 0, tzinfo=UTC)
UNTIL = datetime(2026, 8, 31, 20, tzinfo=UTC)


def increment(folder: Path, *entries: dict[str, Any], end: str = "\n") -> Path:
    lines = [{"since": SINCE.isoformat(), "until": UNTIL.isoformat()}, *entries, {"entries": len(entries)}]
    path = folder / file_name(UNTIL)
    path.write_text("\n".join(map(json.dumps, lines)) + end)
    return path


@pytest.mark.parametrize("spelt", ["10 ", "\u00a010", "10\u200b", " 10\t"])
def test_profession_10_with_a_blank_is_profession_10(
    spelt: str, tmp_path: Path, run: Run, engine: Engine
) -> None:
    (tmp_path / ACTIVITIES).write_text(header() + activity(**{"Code profession": spelt}))
    assert run("rpps", tmp_path / ACTIVITIES).state == "applied"
    with transaction(engine, read_only=True) as connection:
        found = practitioners(connection, [STUDENT])[STUDENT]
    assert (found.professions, registering_authorities(found)) == ((("10", "C"),), {"CNOM"})


def test_codes_are_compared_without_case(tmp_path: Path, run: Run, rows: Rows) -> None:
    cells = {"Code catégorie professionnelle": "c", "Code mode exercice": "s", "Code savoir-faire": "sm53",
             "Code Département (structure)": "2a",
             "Identifiant technique de la structure": "f250990033"}  # fmt: skip
    (tmp_path / ACTIVITIES).write_text(header() + activity(**cells))
    assert run("rpps", tmp_path / ACTIVITIES).state == "applied"
    assert rows("SELECT category, mode, department, structure_id FROM practice") == [
        ("C", "S", "2A", "F250990033")
    ]
    assert rows("SELECT skill_code FROM skill") == [("SM53",)]


def widened_within(part: Any, widened: Callable[[str], str]) -> Any:
    """The same JSON with each of its texts widened."""
    if isinstance(part, dict):
        return {name: widened_within(value, widened) for name, value in part.items()}
    if isinstance(part, list):
        return [widened_within(value, widened) for value in part]
    return widened(part) if isinstance(part, str) else part


def respelled(source: str, told: str) -> str:
    """The same register with every cell padded, every space widened and every accent written apart."""

    def widened(cell: str) -> str:
        cell = unicodedata.normalize("NFD", cell)
        return "\u00a0" + re.sub(r" +", " \u202f ", cell) + "\t" if cell else "\u00a0 "

    if source == "finess-json":
        whole = json.loads(told)
        return json.dumps(whole | {"pmej": widened_within(whole["pmej"], widened)})
    if source == "trusted-domains":
        return re.sub(
            r"(<(?:Nom|Description|DNCertificatOperateur|DateMAJ)>)([^<]*)",
            lambda found: found[1] + "\n" + widened(found[2]) + "\n",
            told,
        )
    separator = ";" if source == "finess" else "|"
    first, *lines = told.split("\n")
    return "\n".join(
        [first, *(separator.join(map(widened, line.split(separator))) if line else line for line in lines)]
    )


@pytest.mark.parametrize("source_name", SOURCES)
def test_a_register_written_otherwise_changes_nobody(
    source_name: str, night: Night, fingerprint: Callable[[], object]
) -> None:
    rejected = night.bring(night.text, apply=False).counts["rejected"]
    before = fingerprint()
    told = respelled(source_name, night.text.decode())
    assert told != night.text.decode()
    report = night.bring(told.encode())
    counts = report.counts
    assert (report.state, counts["created"], counts["changed"], counts["removed"]) == ("applied", 0, 0, 0)
    assert counts["rejected"] == rejected
    assert fingerprint() == before


def test_the_first_night_that_reads_so_moves_nobody_whose_address_was_kept_with_two_spaces(
    tmp_path: Path, run: Run, engine: Engine
) -> None:
    places = {"Numéro FINESS site": "", "Identifiant technique de la structure": ""}
    day = header() + "".join(
        someone(number(n), **places, **{"Libellé Voie (coord. structure)": "SAINT  ETIENNE"})
        for n in range(1, 200)
    )
    (tmp_path / ACTIVITIES).write_text(day)
    run("rpps", tmp_path / ACTIVITIES)
    with transaction(engine) as connection:
        # As the version before kept it.
        connection.execute(text("UPDATE practice SET street = replace(street, 'SAINT ', 'SAINT  ')"))
        connection.execute(text("UPDATE practitioner SET row_hash = '\\x00'"))
        connection.execute(text("TRUNCATE register_known"))
    later = tmp_path / ACTIVITIES.replace("0826", "0827")
    later.write_text(day)
    report = run("rpps", later, apply=False)
    assert (report.measures["changes"], report.measures["moved"], report.measures["stopped"]) == (199, 0, 0)


def test_the_first_night_after_the_upgrade_changes_no_row_that_was_plain(
    tmp_path: Path, run: Run, fingerprint: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "READING", 2)
    (tmp_path / ACTIVITIES).write_text(many(50))
    run("rpps", tmp_path / ACTIVITIES)
    before = fingerprint()
    monkeypatch.undo()
    later = tmp_path / ACTIVITIES.replace("0826", "0827")
    later.write_text(many(50))
    report = run("rpps", later)
    assert (report.counts["unchanged"], report.counts["changed"]) == (50, 0)
    assert fingerprint() == before


@pytest.mark.parametrize(
    ("told", "commune", "postal_code", "country", "expected"),
    [
        ("", "", "28001", "99134", ""),
        ("28", "", "28001", "99134", ""),
        ("", "99134", "28001", "", ""),
        ("99", "", "", "", ""),
        ("", "", "1000", "BE", ""),
        ("", "99138", "98000", "", "980"),
        ("", "", "98000", "99138", "980"),
        ("99", "", "98000", "MC", "980"),
        ("9E", "", "", "", "975"),
        ("9A", "", "97110", "99000", "971"),
        ("1", "", "", "", "01"),
        ("075", "", "", "", "75"),
        ("2A", "", "", "", "2A"),
        ("", "2A004", "20000", "FR", "2A"),
        ("", "", "20000", "", ""),
        ("", "97502", "97500", "PM", "975"),
        ("25", "25056", "25000", "99100", "25"),
        ("", "", "GL", "99132", ""),
    ],
)
def test_an_address_has_the_department_that_people_ask_for(
    told: str, commune: str, postal_code: str, country: str, expected: str
) -> None:
    assert department_of(commune, postal_code, told=told, country=country) == expected


def test_a_surgery_abroad_has_no_department_and_one_in_monaco_has_980(
    tmp_path: Path, run: Run, rows: Rows
) -> None:
    department = {"Code Département (structure)": ""}
    madrid = {"Code postal (coord. structure)": "28001", "Code commune (coord. structure)": "99134"}
    monaco = {"Code postal (coord. structure)": "98000", "Code commune (coord. structure)": "99138"}
    islands = {"Code Département (structure)": "9e"}
    ain = {"Code Département (structure)": "1"}
    told = [madrid, monaco, islands, ain]
    (tmp_path / ACTIVITIES).write_text(
        header() + "".join(someone(number(n), **{**department, **cells}) for n, cells in enumerate(told))
    )
    assert run("rpps", tmp_path / ACTIVITIES).state == "applied"
    assert [row[0] for row in rows("SELECT department FROM practice ORDER BY national_id")] == [
        "", "980", "975", "01",
    ]  # fmt: skip


def test_finess_writes_saint_pierre_as_9e() -> None:
    assert insee("9E", "502") == ("975", "97502")
    assert insee("1", "053")[0] == "01"
    assert insee("99", "")[0] == ""
    assert insee("99", "138") == ("980", "99138"), "Monaco, by the code of countries"
    assert insee("99", "134") == ("", "99134"), "Spain"


def test_a_skill_whose_row_cannot_be_read_is_kept(tmp_path: Path, run: Run, rows: Rows) -> None:
    skills = (VECTORS / KNOW_HOW).read_text().splitlines()
    row = skills[1].replace("10099000035", number(1)).replace("SM04", "SM02")
    other = skills[1].replace("10099000035", number(2))
    activities = header() + "".join(someone(number(n), **{"Code savoir-faire": ""}) for n in range(1, 40))
    stamp = datetime(2026, 8, 26, tzinfo=UTC)
    for night, known in enumerate([row, row.replace("|10|", "||"), row.replace("|Civil|", "|Ci|vil|")]):
        name = f"PS_LibreAcces_{stamp + timedelta(days=night):%Y%m%d}0200.zip"
        members = {ACTIVITIES: activities.encode(), KNOW_HOW: f"{skills[0]}\n{known}\n{other}\n".encode()}
        members = {
            name_.replace("20260826", f"{stamp + timedelta(days=night):%Y%m%d}"): data
            for name_, data in members.items()
        }
        report = run("rpps", zipped(tmp_path / name, members))
        assert (report.state, report.counts["rejected"]) == ("applied", int(night > 0))
        assert rows(f"SELECT skill_code FROM skill WHERE national_id = '8{number(1)}'") == [("SM02",)]
