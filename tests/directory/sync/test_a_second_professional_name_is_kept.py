"""A person who practises under two names is found by both, and shown with both."""

from pathlib import Path

from sqlalchemy import Engine, text

from directory.base.db import transaction
from directory.search import PEOPLE, START, find, people_question
from directory.store import practitioners
from tests.directory.sync.annuaire import concept, identifier
from tests.directory.sync.files import ACTIVITIES, Rows, Run, activity, header, someone
from tests.directory.sync.test_bad_files_change_nothing import number
from tests.directory.sync.test_cells_are_compared_as_one_spells_them import UNTIL, increment

PERSON = "810099000019"
MAIDEN = {"Nom d'exercice": "DURAND-TEST", "Code profession": "10"}
MARRIED = {"Nom d'exercice": "ZABEL", "Prénom d'exercice": "ALIX", "Code profession": "60"}


def day(folder: Path, *people: dict[str, str], stamp: str = "20260826") -> Path:
    path = folder / ACTIVITIES.replace("20260826", stamp)
    others = "".join(someone(number(n)) for n in range(2, 40))
    path.write_text(header() + "".join(activity(**cells) for cells in people) + others)
    return path


def found(engine: Engine, name: str) -> bool:
    with transaction(engine, read_only=True) as connection:
        page = find(connection, PEOPLE, people_question(name=name), after=START, limit=50)
    return PERSON in page.keys


def names(engine: Engine) -> tuple[tuple[str, str], ...]:
    with transaction(engine, read_only=True) as connection:
        person = practitioners(connection, [PERSON])[PERSON]
    return ((person.family_name, person.given_name), *person.other_names)


def test_both_names_are_kept_and_searched(tmp_path: Path, run: Run, rows: Rows, engine: Engine) -> None:
    report = run("rpps", day(tmp_path, MAIDEN, MARRIED))
    assert report.state == "applied"
    assert names(engine) == (("DURAND-TEST", "ALICE"), ("ZABEL", "ALIX"))
    assert rows("SELECT profession_code, category, family_name FROM professional_name") == [
        ("60", "C", "ZABEL")
    ]
    assert all(
        found(engine, name) for name in ("durand", "zabel", "zab", "alix zabel", "durand zabel", "test")
    )
    assert not found(engine, "zabelle")


def test_the_order_of_the_file_shows_nobody_otherwise(
    tmp_path: Path, run: Run, engine: Engine, rows: Rows
) -> None:
    run("rpps", day(tmp_path, MAIDEN, MARRIED))
    again = run("rpps", day(tmp_path, MARRIED, MAIDEN, stamp="20260827"))
    assert (again.counts["changed"], names(engine)[1]) == (0, ("ZABEL", "ALIX"))
    assert rows("SELECT count(*) FROM professional_name_history") == [(0,)]


def test_a_name_given_up_goes_and_stays_in_the_history(
    tmp_path: Path, run: Run, engine: Engine, rows: Rows
) -> None:
    run("rpps", day(tmp_path, MAIDEN, MARRIED))
    run("rpps", day(tmp_path, MAIDEN, stamp="20260827"))
    assert names(engine) == (("DURAND-TEST", "ALICE"),)
    assert not found(engine, "zabel")
    assert rows("SELECT family_name FROM professional_name_history") == [("ZABEL",)]
    with transaction(engine, read_only=True) as connection:
        before = connection.execute(text("SELECT max(sys_from) FROM professional_name_history")).scalar_one()
        assert practitioners(connection, [PERSON], at=before)[PERSON].other_names == (("ZABEL", "ALIX"),)


def test_names_are_kept_on_the_first_night_that_knows_of_them(
    tmp_path: Path, run: Run, engine: Engine
) -> None:
    run("rpps", day(tmp_path, MAIDEN, MARRIED))
    with transaction(engine) as connection:
        # As the version before left the record: the same activities, hashed without the second name.
        connection.execute(text("DELETE FROM professional_name"))
        connection.execute(
            text("UPDATE practitioner SET row_hash = '\\x00' WHERE national_id = :person"),
            {"person": PERSON},
        )
        connection.execute(text("TRUNCATE register_known"))
    report = run("rpps", day(tmp_path, MAIDEN, MARRIED, stamp="20260827"))
    assert report.counts["changed"] == 1
    assert names(engine)[1:] == (("ZABEL", "ALIX"),)


def test_an_increment_that_tells_one_name_takes_no_other_away(
    tmp_path: Path, run: Run, engine: Engine
) -> None:
    run("rpps", day(tmp_path, MAIDEN, {**MARRIED, "Code profession": "10"}))
    person = {
        "id": "005-1",
        "identifier": [identifier("IDNPS", "urn:oid:1.2.250.1.71.4.2.1", PERSON)],
        "name": [{"family": "DURAND-TEST", "given": ["ALICE"]}],
        "qualification": [
            {"code": concept(("TRE_G15-ProfessionSante", "10"), ("TRE_R09-CategorieProfessionnelle", "C"))}
        ],
    }
    report = run("rpps", increment(tmp_path, {"person": person, "roles": [], "organisations": {}}))
    assert (report.state, report.counts["changed"]) == ("applied", 1)
    assert report.generated_at == UNTIL
    assert names(engine) == (("DURAND-TEST", "ALICE"), ("ZABEL", "ALIX"))
