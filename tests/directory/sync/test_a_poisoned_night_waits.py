"""Files that look whole and would do harm: each is held with what is wrong, or refused, and nothing changes.

One small country, loaded once; what is held or refused leaves it as it is for the next test.
"""

import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from zlib import crc32

import psycopg
import pytest
from sqlalchemy import Engine, text

from api.embedded.postgres import EmbeddedPostgres
from directory.access import Role, Token
from directory.base.audit import Actor
from directory.base.db import connect_engine, transaction
from directory.base.errors import Refusal
from directory.sync.runs.approvals import approve
from directory.sync.runs.bounds import load_bounds
from directory.sync.runs.measuring import measure
from directory.sync.runs.run import REGISTERS, RunReport, due_to_resume, resume_run, run_register
from tests.conftest import NOON
from tests.factories import rpps, seed_token

SOMEONE = Actor("test:someone")
SIZES = {"practitioners": 1500, "organisations": 60, "mailboxes": 900, "seed": 11}
SAME = {"next_day": True, "arrivals": 0, "moves": 0, "departures": 0}
RECORD = (
    "practitioner", "profession", "skill", "practice", "organisation", "operator", "trusted_domain",
    "mailbox", "mailbox_attachment", "succession", "change",
)  # fmt: skip
Lines = list[str]
Poison = Callable[[Lines], Lines]


@dataclass(frozen=True)
class Country:
    """An engine on the loaded record, and the files of a next day on which nothing happened."""

    engine: Engine
    tomorrow: dict[str, Path]

    def take(self, register: str, path: Path, *, apply: bool = True) -> RunReport:
        return run_register(
            self.engine, register=register, path=path, now=NOON, actor=SOMEONE, apply=apply, kept=path.parent
        )

    def fingerprint(self) -> list[object]:
        with transaction(self.engine, read_only=True) as connection:
            whole = "SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM {} t"
            return [connection.execute(text(whole.format(table))).scalar_one() for table in RECORD]

    def events(self) -> list[str]:
        with transaction(self.engine, read_only=True) as connection:
            return list(connection.execute(text("SELECT event FROM audit_pending ORDER BY id")).scalars())


@pytest.fixture(scope="module")
def country(
    maker: ModuleType, postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Country]:
    folder = tmp_path_factory.mktemp("country")
    with psycopg.connect(postgres.conninfo, autocommit=True) as link:
        link.execute("CREATE DATABASE country TEMPLATE template")
    engine = connect_engine(postgres.url.replace("/sceau?", "/country?"))
    made = Country(engine, maker.make(folder / "2", maker.Plan(**SIZES, **SAME)))
    for register, path in maker.make(folder / "1", maker.Plan(**SIZES)).items():
        assert made.take(register, path).state == "applied"
    yield made
    engine.dispose()
    with psycopg.connect(postgres.conninfo, autocommit=True) as link:
        link.execute("DROP DATABASE country WITH (FORCE)")


def poisoned(source: Path, folder: Path, poison: Poison, member: str = "Personne_activite") -> Path:
    """The same file with the lines of one text changed; a member whose lines are all gone is left out."""
    path = folder / source.name
    if source.suffix != ".zip":
        path.write_text("".join(poison(source.read_text().splitlines(keepends=True))))
        return path
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            lines = old.read(name).decode().splitlines(keepends=True)
            lines = poison(lines) if re.search(member, name) else lines
            if lines:
                new.writestr(name, "".join(lines))
    return path


def without(share: float) -> Poison:
    """Such a share of the people is gone, rows and all."""

    def stays(line: str) -> bool:
        return crc32(line.split("|")[2].encode()) % 1000 >= share * 1000

    return lambda lines: [lines[0], *filter(stays, lines[1:])]


def swapped(one: str, other: str) -> Poison:
    """Two headings have changed places, the cells below have not."""

    def poison(lines: Lines) -> Lines:
        if "Code mode exercice" not in lines[0]:
            return lines
        names = lines[0].split("|")
        first, second = names.index(one), names.index(other)
        names[first], names[second] = names[second], names[first]
        return ["|".join(names), *lines[1:]]

    return poison


def emptied(*headings: str) -> Poison:
    """Columns that are there, and say nothing."""

    def poison(lines: Lines) -> Lines:
        if "Code mode exercice" not in lines[0]:
            return lines
        places = [lines[0].split("|").index(heading) for heading in headings]
        return [lines[0], *("|".join(_blank(line.split("|"), places)) for line in lines[1:])]

    return poison


def _blank(cells: Lines, places: list[int]) -> Lines:
    return ["" if place in places else cell for place, cell in enumerate(cells)]


def dropped(first: int) -> Poison:
    """The last columns are missing."""
    return lambda lines: ["|".join(line.rstrip("\n").split("|")[:first]) + "|\n" for line in lines]


def doubled(lines: Lines) -> Lines:
    """Everybody stands there twice, under a second name."""
    others = ["|".join([*(cells := line.split("|"))[:7], "MALIN", *cells[8:]]) for line in lines[1:]]
    return [*lines, *others]


def no_know_how(lines: Lines) -> Lines:
    """The file of know-how is missing, and the activities say nothing of it, as they do in some editions."""
    of_know_how = "Code mode exercice" not in lines[0]
    return [] if of_know_how else emptied("Code type savoir-faire", "Code savoir-faire")(lines)


def with_newcomers(lines: Lines) -> Lines:
    """A hundred and fifty people nobody has heard of, with numbers that pass."""
    made = []
    for number in range(90_000, 90_150):
        cells = lines[1].split("|")
        cells[:3] = ["8", rpps(number)[1:], rpps(number)]
        made.append("|".join(cells))
    return [*lines, *made]


ACTIVITY = (
    "Code mode exercice", "Code secteur d'activité", "Code rôle", "Code genre activité",
    "Identifiant technique de la structure", "Numéro SIRET site", "Numéro FINESS site",
)  # fmt: skip
BOTH = "Personne|SavoirFaire"
HELD: dict[str, tuple[Poison, str, int, set[str]]] = {
    "three in a hundred rows gone": (without(0.03), BOTH, 2, {"too-few-rows", "too-many-removals"}),
    "names under one another's heading": (
        swapped("Nom d'exercice", "Prénom d'exercice"), "Personne", 2, {"too-many-changes"},
    ),
    "FINESS numbers emptied": (emptied("Numéro FINESS site"), "Personne", 2, {"columns-emptied"}),
    "no know-how in the archive": (no_know_how, BOTH, 2, {"too-many-skills-lost"}),
    "four columns fewer": (dropped(52), "Personne", 2, {"columns-missing", "columns-emptied"}),
    "everybody twice": (doubled, "Personne", 2, {"too-many-rows"}),
    "many newcomers": (with_newcomers, "Personne", 2, {"too-many-arrivals"}),
}  # fmt: skip


@pytest.mark.parametrize(("poison", "member", "needed", "names"), HELD.values(), ids=HELD)
def test_a_register_of_people_that_is_not_believable_is_held_with_what_is_wrong(
    poison: Poison, member: str, needed: int, names: set[str], *, country: Country, tmp_path: Path
) -> None:
    before = country.fingerprint()
    report = country.take("rpps", poisoned(country.tomorrow["rpps"], tmp_path, poison, member))
    assert (report.state, report.approvals_needed) == ("held", needed), report
    assert names <= {finding.name for finding in report.findings}
    assert all(finding.sentence.endswith(".") for finding in report.findings)
    assert country.fingerprint() == before
    assert country.events()[-1] == "register.held"


REFUSED: dict[str, tuple[Poison, str]] = {
    "nothing": (lambda _: [], "missing-member"),
    "a header": (lambda lines: lines[:1], "no-rows"),
    "six in ten rows gone": (without(0.6), "too-few-rows"),
    "a quarter of the people gone": (without(0.25), "too-many-removals"),
    "codes under one another's heading": (
        swapped("Code profession", "Code catégorie professionnelle"), "unknown-codes",
    ),
    "activity columns emptied": (emptied(*ACTIVITY), "too-many-stopped"),
}  # fmt: skip


@pytest.mark.parametrize(("poison", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_register_of_people_that_nobody_may_let_through_is_refused(
    poison: Poison, reason: str, country: Country, tmp_path: Path
) -> None:
    before = country.fingerprint()
    report = country.take("rpps", poisoned(country.tomorrow["rpps"], tmp_path, poison, BOTH))
    assert (report.state, report.reason) == ("refused", reason)
    assert country.fingerprint() == before


def test_an_empty_file_is_refused(country: Country, tmp_path: Path) -> None:
    (tmp_path / "PS_LibreAcces_202609020200.zip").write_bytes(b"")
    assert country.take("rpps", tmp_path / "PS_LibreAcces_202609020200.zip").reason == "empty-file"


def test_the_same_file_again_needs_nobody(country: Country) -> None:
    for register, path in country.tomorrow.items():
        report = country.take(register, path, apply=False)
        assert (report.state, report.findings, report.counts["changed"]) == ("planned", (), 0)


def cells(change: Callable[[int, Lines], Lines | None]) -> Poison:
    """Each mailbox's line with its cells changed, or gone where there are none."""

    def poison(lines: Lines) -> Lines:
        told = (change(number, line.split("|")) for number, line in enumerate(lines[1:]))
        return [lines[0], *("|".join(line) for line in told if line is not None)]

    return poison


def of_organisation(line: Lines) -> bool:
    return line[0] in ("ORG", "APP")


def to_one_person(number: int, line: Lines) -> Lines:
    """A mailbox in nine has another holder."""
    mine = line[0] == "PER" and number % 9 == 0
    return [*line[:2], "8", rpps(1)[1:], rpps(1), *line[5:]] if mine else line


def to_one_place(_: int, line: Lines) -> Lines:
    return [*line[:5], "1", "750990012", *line[7:]] if of_organisation(line) else line


def renamed(number: int, line: Lines) -> Lines:
    """As many closed as opened."""
    domain = line[1].partition("@")[2]
    return [line[0], f"new-{number}@{domain}", *line[2:]] if of_organisation(line) else line


def closed(number: int, line: Lines) -> Lines | None:
    return None if line[0] == "PER" and number % 10 == 0 else line


MAILBOXES: dict[str, tuple[Poison, set[str]]] = {
    "mailboxes handed to one person": (cells(to_one_person), {"too-many-moves"}),
    "mailboxes of organisations handed to one": (cells(to_one_place), {"too-many-moves"}),
    "as many organisations closed as opened": (cells(renamed), {"too-many-organisation-removals"}),
    "mailboxes of people closed": (cells(closed), {"too-many-removals", "too-few-rows"}),
}


@pytest.mark.parametrize(("poison", "names"), MAILBOXES.values(), ids=MAILBOXES)
def test_a_list_of_mailboxes_that_is_not_believable_is_held(
    poison: Poison, names: set[str], country: Country, tmp_path: Path
) -> None:
    before = country.fingerprint()
    report = country.take(
        "mailboxes", poisoned(country.tomorrow["mailboxes"], tmp_path, poison, "Extraction")
    )
    assert report.state in ("held", "refused"), report
    assert names <= {finding.name for finding in report.findings} | {report.reason}
    assert country.fingerprint() == before


def test_mailboxes_that_open_again_arrive_as_new_ones_do(
    maker: ModuleType, engine: Engine, tmp_path: Path
) -> None:
    sizes = {"practitioners": 900, "organisations": 20, "mailboxes": 600, "seed": 5}
    night = Country(engine, maker.make(tmp_path / "2", maker.Plan(**sizes, **SAME)))
    assert (
        night.take("mailboxes", maker.make(tmp_path / "1", maker.Plan(**sizes))["mailboxes"]).state
        == "applied"
    )
    with transaction(engine) as connection:
        closed_again = (
            "UPDATE mailbox SET departed_at = :now WHERE kind = 'PER' AND hashtext(address) % 3 = 0"
        )
        connection.execute(text(closed_again), {"now": NOON})
    report = night.take("mailboxes", night.tomorrow["mailboxes"])
    assert report.state == "held"
    assert "too-many-arrivals" in {finding.name for finding in report.findings}
    assert report.measures["arrivals-personal"] == report.counts["changed"]


def entries(path: Path) -> tuple[str, list[str], str]:
    start, *found = re.split(r"(?=<Domaine>)", path.read_text())
    last, end = re.split(r"(?<=</Domaine>)", found[-1], maxsplit=1)
    return start, [*found[:-1], last], end


def test_a_domain_with_many_mailboxes_that_loses_its_operator_is_held(
    country: Country, tmp_path: Path
) -> None:
    """One domain of many, too few for a bound on domains: what counts is who is cut off."""
    with transaction(country.engine, read_only=True) as connection:
        query = "SELECT domain FROM mailbox GROUP BY domain ORDER BY count(*) DESC LIMIT 1"
        largest = connection.execute(text(query)).scalar_one()
    start, found, end = entries(country.tomorrow["trusted-domains"])
    path = tmp_path / "listeblanchemssante.xml"
    path.write_text(start + "".join(entry for entry in found if f"<Nom>{largest}</Nom>" not in entry) + end)
    before = country.fingerprint()
    report = country.take("trusted-domains", path)
    assert (report.state, report.approvals_needed) == ("held", 2)
    assert [finding.name for finding in report.findings] == ["too-many-mailboxes-cut-off"]
    assert country.fingerprint() == before


FIRST, SECOND = (f"CN=mss.{name}.invalid,O={name.upper()},C=FR" for name in ("une", "deux"))


def white_list(folder: Path, day: int, rights: list[tuple[str, str]]) -> Path:
    folder.mkdir(exist_ok=True)
    made = "".join(
        f"<Domaine><Nom>{domain}</Nom><DNCertificatOperateur>{operator}</DNCertificatOperateur></Domaine>"
        for domain, operator in rights
    )
    path = folder / "listeblanchemssante.xml"
    path.write_text(
        '<ListeBlancheMSSante xmlns="https://listeblanche.mssante.fr/schema">'
        f"<DateDeGeneration>2026-08-{day:02}T08:00:00Z</DateDeGeneration>"
        f"<ListeDomaines>{made}</ListeDomaines></ListeBlancheMSSante>"
    )
    return path


DOMAINS = [f"d{number}.mssante.invalid" for number in range(4_500)]
HELD_BY_ONE = [(domain, FIRST) for domain in DOMAINS]
NIGHTS: dict[str, tuple[list[tuple[str, str]], str, dict[str, int]]] = {
    "a thousand domains that pass to another operator": (
        [*HELD_BY_ONE[:3_500], *((domain, SECOND) for domain in DOMAINS[3_500:])], "applied", {},
    ),
    "a thousand domains that a second operator serves too": (
        [*HELD_BY_ONE, *((domain, SECOND) for domain in DOMAINS[3_500:])], "held", {"too-many-rows": 2},
    ),
    "two thousand that pass": (
        [*HELD_BY_ONE[:2_500], *((domain, SECOND) for domain in DOMAINS[2_500:])], "held",
        {"too-many-moves": 1},
    ),
    "forty-five lost": (HELD_BY_ONE[45:], "applied", {}),
    "forty-six lost": (HELD_BY_ONE[46:], "held", {"too-many-domains-lost": 1}),
    "three hundred lost": (HELD_BY_ONE[300:], "held", {"too-many-domains-lost": 2, "too-few-rows": 2}),
    "three hundred new": (
        [*HELD_BY_ONE, *((f"n{number}.invalid", SECOND) for number in range(300))], "held",
        {"too-many-new-domains": 1, "too-many-rows": 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("rights", "state", "needed"), NIGHTS.values(), ids=NIGHTS)
def test_domains_that_keep_an_operator_are_moved_and_the_others_are_lost(
    rights: list[tuple[str, str]], state: str, needed: dict[str, int], engine: Engine, tmp_path: Path
) -> None:
    night = Country(engine, {})
    assert night.take("trusted-domains", white_list(tmp_path / "1", 30, HELD_BY_ONE)).state == "applied"
    report = night.take("trusted-domains", white_list(tmp_path / "2", 31, rights))
    assert (report.state, {f.name: f.needed for f in report.findings}) == (state, needed)


def admin(engine: Engine, name: str) -> Token:
    return Token(
        seed_token(engine, name, role="admin"), name, Role.ADMIN, "", datetime(2027, 1, 1, tzinfo=UTC)
    )


def test_a_held_run_goes_on_after_two_persons_and_does_what_it_said(
    maker: ModuleType, engine: Engine, tmp_path: Path
) -> None:
    sizes = {"practitioners": 1000, "organisations": 20, "mailboxes": 10, "seed": 5}
    night = Country(engine, maker.make(tmp_path / "2", maker.Plan(**sizes, **SAME)))
    assert night.take("rpps", maker.make(tmp_path / "1", maker.Plan(**sizes))["rpps"]).state == "applied"
    (tmp_path / "3").mkdir()
    path = poisoned(night.tomorrow["rpps"], tmp_path / "3", without(0.03), BOTH)
    held = night.take("rpps", path)
    assert (held.state, held.approvals_needed) == ("held", 2)
    before = night.fingerprint()
    for name, due in (("alice", []), ("bruno", [held.run_id])):
        with pytest.raises(Refusal) as refused:
            resume_run(engine, run_id=held.run_id, now=NOON, actor=SOMEONE)
        assert refused.value.code == "approvals-missing"
        with transaction(engine) as connection:
            approve(connection, now=NOON, token=admin(engine, name), run_id=held.run_id, comment="announced")
        with transaction(engine) as connection:
            assert due_to_resume(connection) == due
    assert night.fingerprint() == before
    done = resume_run(engine, run_id=held.run_id, now=NOON, actor=SOMEONE)
    assert (done.state, done.counts) == ("applied", held.counts)
    assert night.events() == [
        "register.applied",
        "register.held",
        *["register.approved"] * 2,
        "register.applied",
    ]
    with transaction(engine, read_only=True) as connection:
        gone = connection.execute(text("SELECT count(*) FROM practitioner WHERE departed_at IS NOT NULL"))
        assert gone.scalar_one() == done.counts["removed"] > 20


@pytest.mark.parametrize("register", sorted(REGISTERS))
def test_everything_that_has_a_bound_is_measured(register: str, engine: Engine) -> None:
    of_the_file = {
        "rows", "rows-last", "rows-fewer", "rows-more", "rejections", "rejections-more", "columns-fewer",
        "hours-ahead", "hours-ahead-by-the-minute",
    }  # fmt: skip
    bounds = load_bounds()[register]
    with engine.connect() as connection, connection.begin():
        connection.connection.dbapi_connection.execute(REGISTERS[register].tables.encode())
        connection.execute(text("CREATE TEMP TABLE planned (key text, act text)"))
        connection.execute(text("CREATE TEMP TABLE IF NOT EXISTS spared (key text)"))
        measured = measure(connection, register, bounds.codes)
    named = {name for b in bounds.bounds for name in (b.count, b.whole) if name}
    assert named - of_the_file <= set(measured)
    assert not any(measured.values())


def without_numbers(lines: Lines) -> Lines:
    """No place names its legal entity or its SIRET."""

    def poison(line: str) -> str:
        cells = line.split(";")
        if cells[0] == "structureet":
            cells[2] = cells[22] = ""
        return ";".join(cells)

    return [poison(line) for line in lines]


def test_a_finess_that_loses_the_numbers_of_legal_entities_is_refused(
    maker: ModuleType, engine: Engine, tmp_path: Path
) -> None:
    sizes = {"practitioners": 100, "organisations": 60, "mailboxes": 50, "seed": 5}
    night = Country(engine, maker.make(tmp_path / "2", maker.Plan(**sizes, **SAME)))
    assert night.take("finess", maker.make(tmp_path / "1", maker.Plan(**sizes))["finess"]).state == "applied"
    with engine.begin() as connection:
        under = (
            "INSERT INTO mailbox (address, kind, structure_type, structure_id, row_hash)"
            " SELECT 'place' || n || '@one.example', 'ORG', '1', legal_finess, ''"
            " FROM generate_series(1, 25) n,"
            " LATERAL (SELECT legal_finess FROM organisation WHERE legal_finess <> '' OFFSET n LIMIT 1) o"
        )
        assert connection.execute(text(under)).rowcount == 25
    before = night.fingerprint()
    report = night.take("finess", poisoned(night.tomorrow["finess"], tmp_path, without_numbers))
    assert (report.state, report.reason) == ("refused", "too-many-mailboxes-deserted")
    assert night.fingerprint() == before
    assert night.take("finess", night.tomorrow["finess"]).state == "applied"
