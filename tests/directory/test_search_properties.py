"""What must hold of every search: nobody is missed, nobody comes twice, whatever is asked and changes."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from directory import search
from directory.base.db import transaction
from directory.rules import search_form
from directory.search import PEOPLE, START, Question, find, people_question, total
from tests.examples import examples

FAMILIES = (
    "MARTIN", "Martinez", "De La Bruyelle", "D'Aubépine", "DAUBEPINE", "Le Goëllic", "LEGOELLIC", "Lamartin",
    "Saint-Brézeau", "ST BREZEAU", "Martin-De La Bruyelle", "El Aubrelune", "Aube", "M'Bé", "Œuvrard", "Van",
)  # fmt: skip
GIVEN = ("Léa", "Jean-Martin", "JEANMARTIN", "Marie Aube", "Œdipe", "Le", "Saint", "Anaïs", "D'Artagnan")
TOWNS = ("Saint-Étienne", "ST ETIENNE CEDEX", "Lyon 03", "LYONS LA FORET", "")
NAMES = ("Hôpital Saint-Aube", "EHPAD MARTIN DE LYON", "Clinique St Aube d'Arc", "")
FINESS = ("250990033", "750990012", "")
# As docs/reference/rest.md lists them.
PARTICLES = set("D DE DEL DELLA DEN DER DES DI DO DOS DU EL L LA LE LES VAN VON".split())  # noqa: SIM905


@dataclass(frozen=True)
class Somebody:
    """A person of the scan, with one practice."""

    national_id: str
    family: str
    given: str
    profession: str
    skill: str
    department: str
    town: str
    finess: str
    place: str


def somebody(dice: Random, number: int) -> Somebody:
    return Somebody(
        f"810{number:09}", dice.choice(FAMILIES), dice.choice(GIVEN), dice.choice(("10", "60")),
        dice.choice(("", "SM04", "SM54")), dice.choice(("75", "2A", "974")), dice.choice(TOWNS),
        dice.choice(FINESS), dice.choice(NAMES),
    )  # fmt: skip


PUT = (
    """INSERT INTO practitioner (national_id, id_type, id_number, family_name, given_name, search_name,
                                 row_hash)
       VALUES (:national_id, '8', '', :family, :given, '', '')""",
    "INSERT INTO profession (national_id, code, category) VALUES (:national_id, :profession, 'C')",
    """INSERT INTO practice (national_id, digest, profession_code, category, department, town, finess,
                             structure_name)
       VALUES (:national_id, decode(md5(:town), 'hex'), :profession, 'C', :department, :town, :finess,
               :place)""",
    """INSERT INTO skill (national_id, profession_code, category, skill_type, skill_code)
       SELECT CAST(:national_id AS text), :profession, 'C', 'S', CAST(:skill AS text)
       WHERE CAST(:skill AS text) <> ''""",
)


def put(connection: Connection, people: list[Somebody]) -> None:
    for statement in PUT:
        connection.execute(text(statement), [vars(person) for person in people])


def saints(folded: str) -> str:
    return " ".join({"ST": "SAINT", "STE": "SAINTE"}.get(word, word) for word in folded.split())


def endings(name: str) -> Iterator[str]:
    for spelling in {search_form(name), saints(search_form(name))}:
        words = spelling.split()
        yield from ("".join(words[first:]) for first in range(len(words)))


def name_matches(person: Somebody, asked: str) -> bool:
    """The documented rules, read word by word: as slow as can be, and written on their own."""
    written = [*endings(person.family), *endings(person.given)]
    words = search_form(asked).split()
    if not set(words) - PARTICLES:
        return all(any(ending.startswith(word) for ending in written) for word in words)
    before: list[str] = []
    for word in words:
        if word in PARTICLES:
            before.append(word)
            continue
        alternatives = [word, {"ST": "SAINT", "STE": "SAINTE"}.get(word, word)]
        alternatives += ["".join(before[first:]) + word for first in range(len(before))]
        if not any(ending.startswith(tuple(alternatives)) for ending in written):
            return False
        before = []
    return True


def town_matches(person: Somebody, asked: str) -> bool:
    def folded(town: str) -> str:
        return "".join({"ST": "SAINT", "STE": "SAINTE"}.get(word, word) for word in search_form(town).split())

    return folded(person.town).startswith(folded(asked))


def place_matches(person: Somebody, asked: str) -> bool:
    if asked.isdigit():
        return person.finess == asked
    words = [word for word in search_form(asked).split() if word not in PARTICLES]
    written = saints(f"{search_form(person.place)} {search_form(person.place.replace(chr(39), ''))}").split()
    return all(any(one.startswith(saints(word)) for one in written) for word in words)


MATCHES = {
    "name": name_matches,
    "town": town_matches,
    "organisation": place_matches,
    "profession": lambda person, asked: person.profession == asked,
    "skill": lambda person, asked: person.skill == asked,
    "department": lambda person, asked: person.department == asked,
}


def scan(people: list[Somebody], asked: dict[str, str]) -> list[str]:
    """Everybody who matches, in order."""
    matching = [p for p in people if all(MATCHES[criterion](p, value) for criterion, value in asked.items())]
    return [
        person.national_id
        for person in sorted(
            matching,
            key=lambda p: (
                f"{saints(search_form(p.family)).replace(' ', '')} {saints(search_form(p.given))}",
                p.national_id,
            ),
        )
    ]


def begun(texts: tuple[str, ...]) -> st.SearchStrategy[str]:
    """A text, or the beginning of one, at any of its words, in any case."""

    def part(whole: str, first: int, length: int) -> str:
        words = whole.split()
        return " ".join(words[first % len(words) :])[:length]

    wholes = st.sampled_from([one for one in texts if one])
    parts = st.builds(part, wholes, st.integers(0, 3), st.integers(2, 20))
    return parts | parts.map(str.lower)


def _is_enough(asked: dict[str, str]) -> bool:
    """Whether it is a question at all: refusals have tests of their own."""
    if any(len(search_form(value).replace(" ", "")) < 2 for value in asked.values()):
        return False
    for criterion in ("name", "organisation"):
        words = search_form(asked.get(criterion, "MARTIN")).split()
        counting = [word for word in words if word not in PARTICLES] or (words if criterion == "name" else [])
        if all(len(word) < 2 for word in counting):
            return False
    return True


names = st.lists(begun(FAMILIES + GIVEN), min_size=1, max_size=3).map(" ".join)
questions = st.fixed_dictionaries(
    {},
    optional={
        "name": names,
        "town": begun(TOWNS),
        "organisation": begun(NAMES) | st.sampled_from(FINESS[:2]),
        "profession": st.sampled_from(("10", "60")),
        "skill": st.sampled_from(("SM04", "SM54")),
        "department": st.sampled_from(("75", "2A", "974")),
    },
).filter(_is_enough)


def pages(connection: Connection, question: Question, limit: int) -> Iterator[tuple[str, ...]]:
    after = START
    while True:
        page = find(connection, PEOPLE, question, after=after, limit=limit)
        yield page.keys
        if page.last is None:
            return
        after = page.last


@pytest.fixture(params=[3, 40, 10_000])
def walked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both roads to the answer, and the turn from one to the other, among few people."""
    monkeypatch.setattr(search, "WALKED", request.param)


@pytest.mark.usefixtures("walked")
def test_a_search_finds_all_that_a_scan_finds_in_the_same_order_and_nobody_else(engine: Engine) -> None:
    dice = Random(9)
    people = [somebody(dice, number) for number in range(300)]
    with transaction(engine) as connection:
        put(connection, people)

    @settings(max_examples=examples(30), deadline=None)
    @given(questions, st.integers(1, 30))
    def finds_all(asked: dict[str, str], limit: int) -> None:
        question = people_question(**asked)
        with transaction(engine, read_only=True) as connection:
            found = [key for keys in pages(connection, question, limit) for key in keys]
            assert found == scan(people, asked)
            assert total(connection, PEOPLE, question).count == len(found)

    finds_all()


@pytest.mark.usefixtures("walked")
def test_pages_hold_whoever_stays_once_while_others_come_move_and_go(engine: Engine) -> None:
    dice = Random(10)
    staying = [somebody(dice, number) for number in range(150)]
    with transaction(engine) as connection:
        put(connection, [*staying, *(somebody(dice, number) for number in range(150, 300))])
    keys = {person.national_id for person in staying}

    @settings(max_examples=examples(6), deadline=None)
    @given(questions, st.integers(5, 30), st.integers(0, 1000))
    def stays(asked: dict[str, str], limit: int, seed: int) -> None:
        chance, found = Random(seed), list[str]()
        with engine.connect() as connection:
            for page in pages(connection, people_question(**asked), limit):
                found += [key for key in page if key in keys]
                connection.rollback()
                with transaction(engine) as other:
                    shuffle_others(other, chance)
        assert found == scan(staying, asked)

    stays()


def shuffle_others(connection: Connection, chance: Random) -> None:
    """Somebody goes, somebody comes, maybe under another name: none of those who stay."""
    gone, renamed = (f"810{chance.randrange(150, 300):09}" for _ in range(2))
    departs = "UPDATE practitioner SET departed_at = now() WHERE national_id = :id"
    connection.execute(text(departs), {"id": gone})
    renames = "UPDATE practitioner SET family_name = :name, departed_at = NULL WHERE national_id = :id"
    connection.execute(text(renames), {"id": renamed, "name": chance.choice(FAMILIES)})
