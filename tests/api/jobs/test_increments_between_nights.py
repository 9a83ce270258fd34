"""Between two nights the API is asked what changed, if it is named; what waits for persons keeps nobody else
from its turn.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from api.jobs.register_increments import take_increments
from api.jobs.registers import resume_runs, run_file, take_registers
from api.wiring import Container
from directory.base.errors import Refusal
from directory.store import sources
from directory.sync.sources.origins import load_api, load_origins
from tests.api.jobs.test_nightly import applied, make
from tests.api.jobs.test_sources_at_night import Clock
from tests.directory.sync.annuaire import KEY, Annuaire, concept, identifier, serving
from tests.directory.sync.sources import Authority, authority
from tests.directory.sync.test_the_file_of_a_held_run_is_kept import approve

LAST_NIGHT = datetime(2026, 8, 31, 0, tzinfo=UTC)
MORNING = datetime(2026, 8, 31, 9, tzinfo=UTC)
REGISTERS = ("rpps", "finess", "mailboxes")


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    (tmp_path / "ca").mkdir()
    return authority(tmp_path / "ca")


@pytest.fixture
def annuaire(ca: Authority) -> Iterator[Annuaire]:
    yield from serving(ca, Annuaire(MORNING))


def named(tmp_path: Path, port: int, more: str = "") -> Path:
    (tmp_path / "annuaire.key").write_text(f"{KEY}\n")
    path = tmp_path / "sources.toml"
    path.write_text(
        f'hosts = ["localhost"]\n[fhir]\nurl = "https://localhost:{port}/fhir/v2/"\n{more}'
        'key_file = "annuaire.key"\ntrust_anchor = "ca/ca.pem"\nallow_private = true\n'
    )
    return path


@pytest.fixture
def clock() -> Clock:
    return Clock(MORNING)


@pytest.fixture
def day(container: Container, annuaire: Annuaire, clock: Clock, tmp_path: Path) -> Container:
    """The morning after a night, with the API named."""
    make(tmp_path / "made", "2026-08-31")
    ready = replace(container, clock=clock)
    for register, pattern in (("rpps", "PS_*"), ("finess", "etalab-*"), ("mailboxes", "Extraction_*")):
        (file,) = (tmp_path / "made").glob(pattern)
        assert run_file(ready, register, file).state == "applied"
    sources = str(named(tmp_path, annuaire.port))
    return replace(ready, settings=replace(container.settings, sources_file=sources))


def newcomer(number: str = "10099900010") -> dict[str, Any]:
    exercise = concept(("TRE_G15-ProfessionSante", "60"), ("TRE_R09-CategorieProfessionnelle", "C"))
    return {
        "resourceType": "Practitioner",
        "id": f"005-{number}",
        "active": True,
        "identifier": [identifier("IDNPS", "urn:oid:1.2.250.1.71.4.2.1", f"8{number}")],
        "name": [{"family": "Nouvelarrivé", "given": ["Zoé"], "prefix": ["MME"]}],
        "qualification": [{"code": exercise}],
    }


def runs(engine: Engine) -> list[tuple[str, str]]:
    query = "SELECT register, state FROM register_run WHERE increment ORDER BY id"
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def cursors(engine: Engine) -> dict[str, datetime]:
    query = "SELECT register, cursor FROM source_state WHERE cursor IS NOT NULL"
    with engine.connect() as connection:
        return {row.register: datetime.fromisoformat(row.cursor) for row in connection.execute(text(query))}


def test_where_the_api_is_not_named_it_is_not_asked(container: Container, tmp_path: Path) -> None:
    assert take_increments(container) == ""
    (tmp_path / "sources.toml").write_text('hosts = ["a.invalid"]\n')
    settings = replace(container.settings, sources_file=str(tmp_path / "sources.toml"))
    assert take_increments(replace(container, settings=settings)) == ""


def test_what_changed_is_taken_in_and_the_next_time_only_what_changed_since(
    day: Container, engine: Engine, annuaire: Annuaire, clock: Clock
) -> None:
    annuaire.put([newcomer()], MORNING - timedelta(minutes=20))
    assert "rpps: applied" in take_increments(day)
    assert runs(engine) == [(register, "applied") for register in REGISTERS]
    assert cursors(engine) == dict.fromkeys(REGISTERS, MORNING)
    assert list(day.settings.kept_files.rglob("*.ndjson")) == []
    with engine.connect() as connection:
        assert sources(connection)["rpps"] == LAST_NIGHT
    clock.forward(minutes=15)
    annuaire.asked.clear()
    assert take_increments(day) == ""
    assert "ge2026-08-31T08%3A50%3A00Z" in annuaire.asked[0]
    assert cursors(engine) == dict.fromkeys(REGISTERS, MORNING + timedelta(minutes=15))
    assert len(runs(engine)) == 3


def test_a_register_without_a_whole_file_is_not_begun_by_increments(
    container: Container, annuaire: Annuaire, engine: Engine, clock: Clock, tmp_path: Path
) -> None:
    annuaire.put([newcomer()], MORNING)
    settings = replace(container.settings, sources_file=str(named(tmp_path, annuaire.port)))
    assert take_increments(replace(container, settings=settings, clock=clock)) == ""
    assert (runs(engine), annuaire.asked) == ([], [])


def test_after_30_days_only_a_whole_file_helps(
    day: Container, engine: Engine, annuaire: Annuaire, clock: Clock
) -> None:
    clock.forward(days=30)
    with pytest.raises(Refusal) as refused:
        take_increments(day)
    assert "a whole file must come first" in refused.value.text
    assert (runs(engine), annuaire.asked) == ([], [])


def test_a_register_that_waits_for_persons_waits_and_the_others_go_on(
    day: Container, engine: Engine, annuaire: Annuaire, clock: Clock, tmp_path: Path
) -> None:
    """Its cursor stays, nothing new is asked for it, and what is held goes on from its file."""
    (tmp_path / "narrow.toml").write_text("[rpps.too-many-arrivals]\nfloor = 0\none = 0\n")
    narrow = replace(day.settings, bounds_file=str(tmp_path / "narrow.toml"))
    careful = replace(day, settings=narrow)
    annuaire.put([newcomer()], MORNING - timedelta(minutes=20))
    assert "rpps: held" in take_increments(careful)
    clock.forward(minutes=15)
    annuaire.now = clock()
    annuaire.put([newcomer("10099900028")], clock())
    take_increments(careful)
    assert [register for register, _ in runs(engine)] == [*REGISTERS, "finess", "mailboxes"]
    assert cursors(engine) == dict.fromkeys(REGISTERS[1:], clock())
    assert resume_runs(careful) == ""
    with engine.connect() as connection:
        held = connection.execute(text("SELECT id FROM register_run WHERE state = 'held'")).scalar_one()
    approve(engine, held)
    assert "rpps: applied" in resume_runs(careful)
    assert cursors(engine)["rpps"] == MORNING
    assert "rpps: held" in take_increments(careful)


def test_a_night_after_increments_is_taken_whatever_was_asked_since(
    day: Container, engine: Engine, annuaire: Annuaire, clock: Clock
) -> None:
    """The file is older than the last increment, and newer than the last file: it is taken all the same."""
    make(day.settings.registers, "2026-08-31", "--next-day")
    clock.forward(hours=18)
    annuaire.now = clock()
    annuaire.put([newcomer()], clock() - timedelta(minutes=1))
    take_increments(day)
    take_registers(replace(day, settings=replace(day.settings, sources_file="")))
    assert any("20260901" in name for name in applied(engine)["rpps"])
    with engine.connect() as connection:
        query = "SELECT departed_at FROM practitioner WHERE national_id = '810099900010'"
        assert connection.execute(text(query)).all() == [(None,)]


BAD = {
    "no key": '[fhir]\nurl = "https://a.invalid/fhir"\n',
    "no address": '[fhir]\nkey_file = "k"\n',
    "a host that may not be asked": '[fhir]\nurl = "https://b.invalid/fhir"\nkey_file = "k"\n',
    "plain http": '[fhir]\nurl = "http://a.invalid/fhir"\nkey_file = "k"\n',
    "no register": '[fhir]\nurl = "https://a.invalid/fhir"\nkey_file = "k"\nregisters = ["domains"]\n',
    "the key itself": '[fhir]\nurl = "https://a.invalid/fhir"\nkey = "k"\nkey_file = "k"\n',
    "a list of nothing": '[fhir]\nurl = "https://a.invalid/fhir"\nkey_file = "k"\nregisters = "rpps"\n',
    "a path that no file has": '[fhir]\nurl = "https://a.invalid/fhir"\nkey_file = "k\\u0000"\n',
    "no table": 'fhir = "https://a.invalid/fhir"\n',
}


@pytest.mark.parametrize("case", BAD)
def test_an_api_that_cannot_be_meant_is_refused(case: str, tmp_path: Path) -> None:
    (tmp_path / "sources.toml").write_text(f'hosts = ["a.invalid"]\n{BAD[case]}')
    with pytest.raises(Refusal) as refused:
        load_api(tmp_path / "sources.toml", REGISTERS)
    assert refused.value.code == "bad-source"


@pytest.mark.parametrize("hosts", ["5", '"a.invalid"', '[["a.invalid"]]'])
def test_hosts_that_are_no_list_of_texts_are_refused(hosts: str, tmp_path: Path) -> None:
    given = '[fhir]\nurl = "https://a.invalid/fhir"\nkey_file = "k"\n'
    (tmp_path / "sources.toml").write_text(f"hosts = {hosts}\n{given}")
    for load in (load_api, load_origins):
        with pytest.raises(Refusal) as refused:
            load(tmp_path / "sources.toml", REGISTERS)
        assert refused.value.code == "bad-source"


def test_the_documented_example_of_the_api_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "reference" / "registers.md").read_text()
    example = next(part.split("```")[0] for part in page.split("```toml\n") if "[fhir]" in part)
    (tmp_path / "sources.toml").write_text(example)
    found = load_api(tmp_path / "sources.toml", REGISTERS)
    assert found is not None
    api, registers = found
    assert (registers, api.origin.url[-3:], api.key_file) == (REGISTERS, "/v2", tmp_path / "annuaire.key")
    assert load_origins(tmp_path / "sources.toml", REGISTERS) == ()
