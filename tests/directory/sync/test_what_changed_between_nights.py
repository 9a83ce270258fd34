"""What the API says changed is in the record within minutes, as the next file would have it, and no older
file undoes it.

The people of `scripts/make_registers.py`, once as files and once as FHIR resources on a server of the test.
"""

import signal
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import Engine, text

from api.embedded.postgres import EmbeddedPostgres
from directory.base.audit import Actor
from directory.base.db import transaction
from directory.sync.runs import increment_cursor as cursor
from directory.sync.runs.bounds import load_bounds
from directory.sync.runs.run import RunReport, due_to_resume, resume_run, run_register
from directory.sync.sources.fhir_client import Api, Client
from directory.sync.sources.fhir_increment import gather
from directory.sync.sources.https import Origin
from tests.conftest import fresh_database
from tests.directory.sync.annuaire import KEY, Annuaire, Resource, concept, everything, serving
from tests.directory.sync.evenings import make_loaded
from tests.directory.sync.files import Rows, Run, restamped
from tests.directory.sync.sources import Authority
from tests.directory.sync.test_a_run_cut_off_is_taken_up import die
from tests.directory.sync.test_the_file_of_a_held_run_is_kept import approve

# Files are made at 2 in the morning in France; the API is asked between two of them.
FIRST_NIGHT = datetime(2026, 8, 31, 0, tzinfo=UTC)
EVENING = datetime(2026, 8, 31, 20, tzinfo=UTC)
REGISTERS = ("rpps", "finess", "mailboxes")


@pytest.fixture
def annuaire(ca: Authority) -> Iterator[Annuaire]:
    yield from serving(ca, Annuaire(EVENING))


@pytest.fixture
def api(ca: Authority, annuaire: Annuaire, tmp_path: Path) -> Api:
    (tmp_path / "key").write_text(f"{KEY}\n")
    origin = Origin("annuaire", "", annuaire.url, "", trust_anchor=ca.anchor, allow_private=True)
    return Api(origin, tmp_path / "key")


@dataclass(frozen=True)
class Days:
    """Two days of the same people, as files and as resources."""

    files: dict[int, dict[str, Path]]
    resources: dict[int, list[Resource]]


class World:
    """The two days, the first of them on the server."""

    def __init__(self, days: Days, annuaire: Annuaire) -> None:
        # A test may change them.
        self.files, self._resources = days.files, deepcopy(days.resources)
        self._annuaire = annuaire
        annuaire.put(self._resources[1], FIRST_NIGHT - timedelta(hours=1))

    def changes(self, at: datetime) -> None:
        """Let the second day begin for the API."""
        self._annuaire.put(self._resources[2], at)
        left = {(one["resourceType"], one["id"]) for one in self._resources[2]}
        for kind, resource_id in set(self._annuaire.held) - left:
            self._annuaire.retire(kind, resource_id, at)


@pytest.fixture(scope="module")
def days(maker: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Days:
    folder = tmp_path_factory.mktemp("days")
    sizes = {"practitioners": 60, "organisations": 24, "mailboxes": 50, "seed": 3}
    first = maker.Plan(**sizes, day=FIRST_NIGHT.date())
    second = replace(first, next_day=True, arrivals=0.1, moves=0.2, departures=0.1)
    plans = ((1, first), (2, second))
    return Days(
        {day: maker.make(folder / str(day), plan) for day, plan in plans},
        {day: list(everything(maker, plan)) for day, plan in plans},
    )


@pytest.fixture
def world(days: Days, annuaire: Annuaire) -> World:
    return World(days, annuaire)


@pytest.fixture(scope="module")
def loaded(postgres: EmbeddedPostgres, days: Days) -> str:
    """The database that holds the files of the first day."""
    files = [(register, days.files[1][register]) for register in REGISTERS]
    return make_loaded(postgres, "first_night", files)


@pytest.fixture
def first_night(world: World) -> None:
    """The server holds the first day, and the record its files: `database_url` sees to these."""
    del world


@pytest.fixture
def database_url(request: pytest.FixtureRequest, postgres: EmbeddedPostgres) -> Iterator[str]:
    held = "first_night" in request.fixturenames
    made = fresh_database(postgres, request.getfixturevalue("loaded") if held else "template")
    with made as url:
        yield url


@pytest.fixture
def ask(engine: Engine, api: Api, tmp_path: Path) -> Callable[..., Path | None]:
    """Gather what changed into a file."""

    def go(until: datetime = EVENING, since: datetime = FIRST_NIGHT) -> Path | None:
        def practitioners_of(roles: Iterable[str]) -> dict[str, str]:
            with transaction(engine) as connection:
                return cursor.practitioners_of(connection, roles)

        folder = tmp_path / "increments"
        return gather(Client(api), folder, since=since, until=until, practitioners_of=practitioners_of)

    return go


CHANGED = ("created", "changed", "removed")


def said(report: RunReport) -> tuple[int, ...]:
    return tuple(report.counts[name] for name in CHANGED)


@pytest.mark.usefixtures("first_night")
def test_after_an_increment_the_file_of_that_day_finds_nothing_to_change(
    world: World, ask: Callable[..., Path], run: Run
) -> None:
    world.changes(EVENING - timedelta(hours=1))
    file = ask()
    reports = {register: run(register, file) for register in REGISTERS}
    assert {report.state for report in reports.values()} == {"applied"}
    assert all(reports["rpps"].counts[name] for name in CHANGED)
    assert reports["rpps"].layout == "fhir-v2"
    assert reports["mailboxes"].counts["created"] > 0
    # Mailboxes are closed by the file alone, and one attached to two places is told of one.
    for register in ("rpps", "finess"):
        assert said(run(register, world.files[2][register])) == (0, 0, 0)
    created, changed, _ = said(run("mailboxes", world.files[2]["mailboxes"]))
    assert (created, changed) == (0, 0)


@pytest.mark.usefixtures("first_night")
def test_counts_of_an_increment_add_up_and_nobody_else_is_touched(
    world: World, ask: Callable[..., Path], run: Run, rows: Rows
) -> None:
    before = dict(rows("SELECT national_id, sys_from FROM practitioner"))
    world.changes(EVENING - timedelta(hours=1))
    counts = run("rpps", ask()).counts
    assert counts["accepted"] + counts["rejected"] + counts["unchanged"] == counts["lines"] > 0
    after = dict(rows("SELECT national_id, sys_from FROM practitioner"))
    touched = {person for person, since in after.items() if before.get(person) != since}
    assert 0 < len(touched) == counts["created"] + counts["changed"] + counts["removed"] < len(after)


@pytest.mark.usefixtures("first_night")
def test_an_older_file_undoes_nothing_and_a_later_one_does(
    world: World, ask: Callable[..., Path], run: Run, rows: Rows, fingerprint: Callable[[], object]
) -> None:
    """The increment of Monday evening, then once more the file of Monday's early morning."""
    world.changes(EVENING - timedelta(hours=1))
    assert run("rpps", ask()).state == "applied"
    stood = fingerprint()
    again = run("rpps", world.files[1]["rpps"])
    assert (again.state, said(again)) == ("applied", (0, 0, 0))
    assert fingerprint() == stood
    assert rows("SELECT count(*) > 0 FROM stated_since") == [(True,)]
    back = run("rpps", restamped(world.files[1]["rpps"], "202609020200"))
    assert back.counts["changed"] > 0 < back.counts["removed"]
    assert rows("SELECT count(*) FROM stated_since") == [(0,)]


@pytest.mark.usefixtures("first_night")
def test_who_is_inactive_has_left_and_his_mailbox_stays_to_be_refused(
    annuaire: Annuaire, ask: Callable[..., Path], run: Run, rows: Rows
) -> None:
    query = "SELECT p.national_id FROM practitioner p JOIN mailbox m ON m.holder = p.national_id LIMIT 1"
    ((person,),) = rows(query)
    annuaire.retire("Practitioner", f"005-{person}", EVENING)
    assert said(run("rpps", ask())) == (0, 0, 1)
    gone = f"SELECT departed_at IS NOT NULL FROM practitioner WHERE national_id = '{person}'"
    assert rows(gone) == [(True,)]
    assert rows(f"SELECT count(*) FROM practice WHERE national_id = '{person}'") == [(0,)]
    assert said(run("mailboxes", ask())) == (0, 0, 0)


@pytest.mark.usefixtures("first_night")
def test_a_situation_that_ended_takes_away_its_practice_alone(
    annuaire: Annuaire, ask: Callable[..., Path], run: Run, rows: Rows
) -> None:
    """What ended says only its number: whose it was, is known from an increment before."""
    role = next(one for (kind, _), one in sorted(annuaire.held.items()) if kind == "PractitionerRole")
    person = role["practitioner"]["reference"].rpartition("-")[2]
    annuaire.put([{**role, "telecom": []}, {**role, "language": "fr"}], EVENING - timedelta(hours=2))
    assert run("rpps", ask(EVENING - timedelta(hours=1))).state == "applied"
    practices = f"SELECT count(*) FROM practice WHERE national_id = '{person}'"
    ((before,),) = rows(practices)
    annuaire.retire("PractitionerRole", role["id"], EVENING)
    report = run("rpps", ask(EVENING, EVENING - timedelta(hours=1)))
    assert said(report) == (0, 1, 0)
    assert rows(practices) == [(before - 1,)]
    assert rows(f"SELECT departed_at FROM practitioner WHERE national_id = '{person}'") == [(None,)]


@pytest.mark.usefixtures("first_night")
def test_a_situation_nobody_knew_is_left_to_the_next_file(
    annuaire: Annuaire, ask: Callable[..., Path], run: Run, fingerprint: Callable[[], object]
) -> None:
    before = fingerprint()
    role = next(one for (kind, _), one in sorted(annuaire.held.items()) if kind == "PractitionerRole")
    annuaire.retire("PractitionerRole", role["id"], EVENING)
    report = run("rpps", ask())
    assert (report.counts["ignored"], said(report), report.rejections) == (1, (0, 0, 0), ())
    assert fingerprint() == before


@pytest.mark.usefixtures("first_night")
def test_an_establishment_that_ends_is_closed_and_one_that_is_inactive_has_left(
    annuaire: Annuaire, ask: Callable[..., Path], run: Run, rows: Rows
) -> None:
    (closing,), (leaving,) = rows("SELECT finess FROM organisation ORDER BY finess LIMIT 2")
    end = {"url": "http://hl7.org/fhir/StructureDefinition/organization-period",
           "valuePeriod": {"start": "1979-02-13", "end": "2026-08-30"}}  # fmt: skip
    annuaire.put([{**annuaire.held["Organization", f"001-{closing}"], "extension": [end]}], EVENING)
    annuaire.retire("Organization", f"001-{leaving}", EVENING)
    assert said(run("finess", ask())) == (0, 1, 1)
    query = (
        "SELECT finess, closed_on::text, departed_at IS NOT NULL FROM organisation ORDER BY finess LIMIT 2"
    )
    assert rows(query) == [(closing, "2026-08-30", False), (leaving, None, True)]


@pytest.mark.usefixtures("first_night")
def test_a_structure_in_the_spelling_of_a_release_before_is_no_other_one(
    annuaire: Annuaire, ask: Callable[..., Path], run: Run, rows: Rows, engine: Engine
) -> None:
    ((finess,),) = rows("SELECT finess FROM mailbox WHERE kind = 'ORG' ORDER BY address LIMIT 1")
    with engine.begin() as connection:
        sql = "UPDATE mailbox SET structure_type = '', structure_id = '1' || structure_id WHERE kind = 'ORG'"
        connection.execute(text(sql))
    annuaire.put([{**annuaire.held["Organization", f"001-{finess}"], "name": "AUTRE"}], EVENING)
    report = run("mailboxes", ask())
    assert (report.rejections, said(report)) == ((), (0, 0, 0))
    assert report.counts["unchanged"] > 0


@pytest.mark.usefixtures("first_night")
def test_no_increment_hands_a_mailbox_over(
    annuaire: Annuaire, ask: Callable[..., Path], run: Run, fingerprint: Callable[[], object]
) -> None:
    """Somebody claims the address of another, whom this increment does not name."""
    people = [one for (kind, _), one in sorted(annuaire.held.items()) if kind == "Practitioner"]
    owner = next(one for one in people if one["telecom"])
    other = next(one for one in people if one is not owner)
    before = fingerprint()
    annuaire.put([{**other, "telecom": owner["telecom"]}], EVENING)
    report = run("mailboxes", ask())
    assert [one.reason for one in report.rejections] == ["address-held-by-another"]
    assert (said(report), fingerprint()) == ((0, 0, 0), before)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"name": [{"given": ["X"]}]}, "no-name"),
        ({"qualification": []}, "no-profession"),
        ({"qualification": "none"}, "malformed-resource"),
        ({"name": [{"family": ["X"]}]}, "malformed-resource"),
        ({"name": [{"family": "X\x00Y"}]}, "control-character"),
        ({"name": [{"family": "X|Y"}]}, "separator-in-cell"),
        ({"identifier": []}, "no-national-id"),
    ],
)
@pytest.mark.usefixtures("first_night")
def test_a_person_who_cannot_be_read_is_left_as_he_was(  # noqa: PLR0917 - fixtures
    parts: dict[str, Any],
    reason: str,
    annuaire: Annuaire,
    ask: Callable[..., Path],
    run: Run,
    fingerprint: Callable[[], object],
) -> None:
    person = next(one for (kind, _), one in sorted(annuaire.held.items()) if kind == "Practitioner")
    before = fingerprint()
    annuaire.put([{**person, **parts}], EVENING)
    report = run("rpps", ask())
    assert ([one.reason for one in report.rejections], report.state) == ([reason], "applied")
    assert (said(report), fingerprint()) == ((0, 0, 0), before)


@pytest.mark.usefixtures("first_night")
def test_whose_profession_is_not_told_is_left_to_the_next_file(
    annuaire: Annuaire, ask: Callable[..., Path], run: Run
) -> None:
    """Two professions, and a situation that does not say of which it is."""
    role = next(one for (kind, _), one in sorted(annuaire.held.items()) if kind == "PractitionerRole")
    person = annuaire.held["Practitioner", role["practitioner"]["reference"].partition("/")[2]]
    second = {"code": concept(("TRE_G15-ProfessionSante", "93"), ("TRE_R09-CategorieProfessionnelle", "C"))}
    annuaire.put([{**person, "qualification": [*person["qualification"], second]}], EVENING)
    assert [one.reason for one in run("rpps", ask()).rejections] == ["profession-unclear"]


@pytest.mark.usefixtures("first_night")
def test_what_our_profiles_do_not_know_is_counted(
    annuaire: Annuaire, ask: Callable[..., Path], run: Run
) -> None:
    person = next(one for (kind, _), one in sorted(annuaire.held.items()) if kind == "Practitioner")
    new = {"code": concept(("TRE_R999-Nouveaute", "1"))}
    annuaire.put([{**person, "qualification": [*person["qualification"], new]}], EVENING)
    report = run("rpps", ask())
    assert (report.counts["ignored"], said(report)) == (1, (0, 0, 0))


def test_an_increment_needs_a_whole_file_and_leaves_no_gap(
    world: World, ask: Callable[..., Path], run: Run
) -> None:
    world.changes(EVENING - timedelta(hours=1))
    assert run("rpps", ask()).reason == "no-whole-file"
    run("rpps", world.files[1]["rpps"])
    assert run("rpps", ask(EVENING, FIRST_NIGHT + timedelta(hours=1))).reason == "increment-gap"
    report = run("rpps", ask())
    assert report.state == "applied"


@pytest.mark.usefixtures("first_night")
def test_the_cursor_moves_with_the_record_and_not_before(
    engine: Engine, world: World, ask: Callable[..., Path], run: Run
) -> None:
    def known() -> datetime | None:
        with transaction(engine) as connection:
            return cursor.known_until(connection, "rpps")

    world.changes(EVENING - timedelta(hours=1))
    file = ask()
    assert (run("rpps", file, apply=False).state, known()) == ("planned", FIRST_NIGHT)
    assert (run("rpps", file).state, known()) == ("applied", EVENING)
    with transaction(engine) as connection:
        assert cursor.known_until(connection, "finess") < EVENING


@pytest.mark.usefixtures("first_night")
def test_a_held_increment_waits_for_a_person_and_goes_on_from_its_file(  # noqa: PLR0917 - fixtures
    engine: Engine, world: World, ask: Callable[..., Path], now: datetime, actor: Actor, tmp_path: Path
) -> None:
    """Bounds of the nights hold for increments: here one person who leaves is too many."""
    strict = tmp_path / "bounds.toml"
    strict.write_text("[rpps.too-many-removals]\nfloor = 0\none = 0.001\ntwo = 1\nrefuse = 1\n")
    world.changes(EVENING - timedelta(hours=1))
    file, kept = ask(), tmp_path / "kept"
    given = {"now": now, "actor": actor, "kept": kept, "bounds": load_bounds(strict)}
    held = run_register(engine, register="rpps", path=file, apply=True, **given)
    assert (held.state, [one.name for one in held.findings]) == ("held", ["too-many-removals"])
    file.unlink()
    with transaction(engine) as connection:
        assert cursor.open_run(connection, "rpps") == held.run_id
        assert cursor.known_until(connection, "rpps") == FIRST_NIGHT
    approve(engine, held.run_id)
    done = resume_run(engine, run_id=held.run_id, **given)
    assert (done.state, done.layout) == ("applied", "fhir-v2")
    with transaction(engine) as connection:
        assert cursor.open_run(connection, "rpps") is None
        assert cursor.known_until(connection, "rpps") == EVENING


@pytest.mark.usefixtures("first_night")
def test_many_small_steps_are_held_where_one_large_one_would_be(  # noqa: PLR0917 - fixtures
    engine: Engine, annuaire: Annuaire, ask: Callable[..., Path], now: datetime, actor: Actor, tmp_path: Path
) -> None:
    bounds = tmp_path / "bounds.toml"
    bounds.write_text("[rpps.too-many-removals]\nfloor = 0\none = 0.04\ntwo = 1\nrefuse = 1\n")
    people = [one for kind, one in sorted(annuaire.held) if one.startswith("005-8")]
    states = []
    for step, person in enumerate(people[:3]):
        until = EVENING + timedelta(minutes=15 * step)
        annuaire.retire("Practitioner", person, until - timedelta(minutes=1))
        file = ask(until, FIRST_NIGHT if not step else until - timedelta(minutes=15))
        given = {"now": now, "actor": actor, "bounds": load_bounds(bounds)}
        states.append(run_register(engine, register="rpps", path=file, apply=True, **given).state)
    assert states == ["applied", "applied", "held"]


@pytest.mark.parametrize("keep", [0, 1, 2, -1])
@pytest.mark.usefixtures("first_night")
def test_an_increment_that_was_cut_changes_nothing(
    keep: int, world: World, ask: Callable[..., Path], run: Run, fingerprint: Callable[[], object]
) -> None:
    world.changes(EVENING - timedelta(hours=1))
    file, before = ask(), fingerprint()
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:keep]) or b"\n")
    assert run("rpps", file).state == "refused"
    assert fingerprint() == before


def test_when_nothing_changed_there_is_no_file(annuaire: Annuaire, ask: Callable[..., Path | None]) -> None:
    assert ask() is None
    assert [path.partition("?")[0].rpartition("/")[2] for path in annuaire.asked] == [
        "Practitioner", "PractitionerRole", "Organization"]  # fmt: skip


@pytest.mark.parametrize(
    "place", ["sync.parse", "sync.copy", "sync.diff", "sync.applying:2", "sync.commit", "sync.report"]
)
@pytest.mark.usefixtures("first_night")
def test_an_increment_killed_anywhere_is_taken_up_and_leaves_the_file_nothing_to_change(  # noqa: PLR0917 - fixtures
    place: str,
    database_url: str,
    engine: Engine,
    world: World,
    ask: Callable[..., Path],
    run: Run,
    fingerprint: Callable[[], object],
) -> None:
    before, committed = fingerprint(), place == "sync.report"
    world.changes(EVENING - timedelta(hours=1))
    assert die(database_url, ask(), f"{place}=kill") == -signal.SIGKILL
    with transaction(engine) as connection:
        assert cursor.known_until(connection, "rpps") == (EVENING if committed else FIRST_NIGHT)
        due = due_to_resume(connection)
    assert (fingerprint() != before, due == []) == (committed, committed)
    for run_id in due:
        report = resume_run(engine, run_id=run_id, now=EVENING, actor=Actor("test:someone"))
        assert report.state == "applied"
    with transaction(engine) as connection:
        assert cursor.known_until(connection, "rpps") == EVENING
    assert said(run("rpps", world.files[2]["rpps"])) == (0, 0, 0)
