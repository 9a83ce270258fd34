"""Finding people and places as people look for them: the rules, the question, the roads to its answer.

What may be shown of who is found is for `directory.rules`; what is known of them, for `directory.store`. The
tables read here hold what the record says in the words it is looked for by; the database keeps them in step
(migration 0009). They know today only, and no text that must not be published: migration 0040 leaves out all
that `privacy.py` holds back. Nobody is found or sorted by it, and no total counts him.

The rules, as docs/reference/rest.md gives them to users:

- Names, towns and names of places are folded (`rules.search_form`): no accents, case, hyphens, apostrophes.
- Each word asked must begin a word of the name, or several words of the family name, or of the given names,
  written together. Order does not count.
- A particle asked ("de la", "d'", "le") need not be there, and may be one with the word after it. Asked
  alone, it is a word like any other.
- "St" and "Ste" mean "Saint" and "Sainte", of what is asked and of what is found.
- Titles before a name ("Dr", "Pr", "Mme") need not be there.
- A town is asked by the beginning of its name, a place by its FINESS number or by beginnings of words of its
  name.
- All that is asked must hold. People come by family name written together, given names, number.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from types import MappingProxyType
from typing import Any

import orjson
from sqlalchemy import Connection, TextClause, text

from directory.base.errors import Kind, Refusal
from directory.identifiers import read_national_id, read_place
from directory.rules import search_form

PARTICLES = frozenset(
    ("D", "DE", "DEL", "DELLA", "DEN", "DER", "DES", "DI", "DO", "DOS", "DU", "EL", "L", "LA", "LE", "LES",
     "VAN", "VON")
)  # fmt: skip
SAINTS = MappingProxyType({"ST": "SAINT", "STE": "SAINTE"})
TITLES = frozenset(("DR", "DOCTEUR", "MLLE", "MME", "MR", "PR", "PROFESSEUR"))
FEWEST_LETTERS = 2
MOST_COUNTED = 10_000
# A number, or words of three letters and more that have five in all, seldom have more matches than are soon
# gathered. Shorter words begin so many names that they are looked at last.
TELLING_LETTERS, TELLING_EACH = 5, 3
FEW = 2_000
# So many rows in the order of names take a few milliseconds; who is one in two hundred fills a page by then.
WALKED = 10_000
# Comes after every letter and digit, in the order of bytes.
_AFTER_LETTERS = "~"

_BOUNDS = "(sort_name, {key}) > (:sort_name, :key) AND sort_name < :ends"
_MATCHES = "terms @@ CAST(:terms AS tsquery)"
# Forward in the order of names, leaving out who does not match: soon done when many do.
_WALK = """
    SELECT sort_name, {key} FROM (
        SELECT sort_name, {key}, terms FROM {table} WHERE {bounds} ORDER BY sort_name, {key} LIMIT :walked
    ) AS walked WHERE {matches} ORDER BY sort_name, {key} LIMIT :limit"""
_GOES_ON = "SELECT EXISTS (SELECT FROM {table} WHERE {bounds} ORDER BY sort_name, {key} OFFSET :walked)"
# All who match, then sorted: soon done when few do. Apart, so that no plan takes the other road.
_GATHER = """
    WITH matching AS MATERIALIZED (SELECT sort_name, {key} FROM {table} WHERE {matches})
    SELECT sort_name, {key} FROM matching WHERE {bounds} ORDER BY sort_name, {key} LIMIT :limit"""
# The same, given up where they are more than a few; one row at least, to say so.
_GATHER_FEW = """
    WITH matching AS MATERIALIZED (
            SELECT sort_name, {key}, terms FROM {table} WHERE terms @@ CAST(:telling AS tsquery)),
        few AS MATERIALIZED (SELECT sort_name, {key}, terms FROM matching LIMIT :few + 1)
    SELECT counted.many, page.sort_name, page.{key}
    FROM (SELECT count(*) > :few AS many FROM few) AS counted LEFT JOIN (
        SELECT sort_name, {key} FROM few WHERE {bounds} AND {matches} ORDER BY sort_name, {key} LIMIT :limit
    ) AS page ON NOT counted.many ORDER BY page.sort_name, page.{key}"""
_COUNT = """
    WITH matching AS MATERIALIZED (SELECT FROM {table} WHERE {matches})
    SELECT count(*) FROM (SELECT FROM matching LIMIT :most) AS counted"""
_SITES = text(
    "SELECT finess FROM organisation WHERE finess = :asked"
    " UNION SELECT finess FROM organisation WHERE legal_finess = :asked AND legal_finess <> ''"
    " UNION SELECT finess FROM organisation WHERE siret = :asked AND siret <> '' ORDER BY 1"
)
_LIST = "SELECT sort_name, {key} FROM {table} WHERE {bounds} ORDER BY sort_name, {key} LIMIT :limit"
_KEYED = """
    SELECT sort_name, {key} FROM {table}
    WHERE {key} = ANY(:asked) AND {bounds} AND (CAST(:terms AS text) IS NULL OR {matches})
    ORDER BY sort_name, {key} LIMIT :limit"""
_COUNT_ALL = "SELECT count(*) FROM (SELECT FROM {table} LIMIT :most) AS counted"


class Index:
    """One of the two tables, and its statements; `by_family`: a name begins with a part of its own."""

    def __init__(self, table: str, key: str, *, by_family: bool) -> None:
        self.by_family = by_family
        parts = {"table": table, "key": key, "matches": _MATCHES, "bounds": _BOUNDS.format(key=key)}

        def made(statement: str) -> TextClause:
            return text(statement.format(**parts))

        self.walk, self.goes_on, self.gather = made(_WALK), made(_GOES_ON), made(_GATHER)
        self.gather_few = made(_GATHER_FEW)
        self.keyed = made(_KEYED)
        self.list, self.count, self.count_all = made(_LIST), made(_COUNT), made(_COUNT_ALL)


PEOPLE = Index("search_person", "national_id", by_family=True)
PLACES = Index("search_place", "finess", by_family=False)


@dataclass(frozen=True)
class Question:
    """A question in the tables' terms. Each of `words` by its alternatives, words of the name of a `place` of
    practice, `codes`, and any of `keys`.
    """

    words: tuple[tuple[str, ...], ...] = ()
    place: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    # Where the name asked is a number: the keys of whoever or whatever has it.
    keys: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """What a cursor remembers of it: two spellings of one question have the same."""
        parts = [sorted(self.words), sorted(self.place), sorted(self.codes), sorted(self.keys)]
        return blake2b(orjson.dumps(parts), digest_size=9).hexdigest()

    @property
    def conditions(self) -> tuple[str, ...]:
        """All but the words of the name."""
        return (*self.codes, *(f"n{word}:*" for word in self.place))

    @property
    def everything(self) -> str | None:
        """All of it; None when nothing is asked."""
        return _all(*map(_anywhere, self.words), *self.conditions)

    @property
    def telling(self) -> str | None:
        """A part of it that few are likely to match; None where there is none.

        Of the words of a place's name that is the last long one: those before say what kind of place it is.
        """
        words = [word for word in self.words if len(word[0]) >= TELLING_EACH]
        place = [word for word in self.place if len(word) >= TELLING_LETTERS][-1:]
        by_number = any(code.startswith("(i") for code in self.codes)
        if sum(len(word[0]) for word in words) < TELLING_LETTERS and not place and not by_number:
            return None
        return _all(*map(_anywhere, words), *self.codes, *(f"n{word}:*" for word in place))


@dataclass(frozen=True, order=True)
class Position:
    """Where someone stands: the name he is sorted by (ASCII), and his key."""

    sort_name: str
    key: str


START = Position("", "")


@dataclass(frozen=True)
class Page:
    """Keys in order; `last` is the position to go on from, None when nothing follows."""

    keys: tuple[str, ...]
    last: Position | None


@dataclass(frozen=True)
class Total:
    """How many match; with `more`, that there are more than `count`."""

    count: int
    more: bool


@dataclass(frozen=True)
class _Stream:
    """A part of the answer: who is sorted from `begins` to `ends` and matches `terms` (None: everybody)."""

    terms: str | None
    begins: str = ""
    ends: str = _AFTER_LETTERS


def people_question(
    *,
    name: str | None = None,
    profession: str | None = None,
    skill: str | None = None,
    department: str | None = None,
    town: str | None = None,
    organisation: str | None = None,
    sites: Sequence[str] = (),
) -> Question:
    """The question for people; a name that is a national number asks for whoever has it.

    `sites` are the places that the number `organisation` stands for (`sites_of`). Refusal MALFORMED
    `too-little-to-search` for a text without a letter or digit, or a name of one letter and nothing else.
    """
    codes = [prefix + code for prefix, code in (("p", profession), ("s", skill), ("d", department)) if code]
    codes += [] if town is None else [_town(town)]
    finess, place = ("", ()) if organisation is None else _organisation(organisation, sites)
    codes += [finess] if finess else []
    if key := _number(read_national_id, name):
        return Question((), place, tuple(codes), (key,))
    return Question(_name(name, enough=bool(codes or place)), place, tuple(codes))


def places_question(
    *,
    name: str | None = None,
    department: str | None = None,
    town: str | None = None,
    sites: Sequence[str] = (),
) -> Question:
    """The question for places; a name that is a number asks for the places it stands for (`sites`, by
    `sites_of`). Refuses as `people_question`.
    """
    codes = [] if department is None else [f"d{department}"]
    codes += [] if town is None else [_town(town)]
    if key := _number(read_place, name):
        # Without a place it is a question still: it finds none.
        return Question(codes=tuple(codes), keys=tuple(sites) or (key,))
    return Question(_name(name, enough=bool(codes)), codes=tuple(codes))


def sites_of(connection: Connection, number: str) -> list[str]:
    """The FINESS numbers of the places that a number stands for: a place's own, its legal entity's, a SIRET.
    None for a number that FINESS does not know and for text that is no number.
    """
    asked = _number(read_place, number)
    return [] if not asked else list(connection.execute(_SITES, {"asked": asked}).scalars())


def find(connection: Connection, index: Index, question: Question, *, after: Position, limit: int) -> Page:
    """The first `limit` of those who match and come after that position, in order."""
    # One more than shown tells whether anybody follows.
    positions = _found_if_few(connection, index, question, after, limit + 1)
    if positions is None:
        followed = (
            _followed(connection, index, stream, after, limit + 1) for stream in _streams(index, question)
        )
        positions = sorted(set(chain.from_iterable(followed)))
    shown = positions[:limit]
    return Page(tuple(position.key for position in shown), shown[-1] if len(positions) > limit else None)


def total(connection: Connection, index: Index, question: Question) -> Total:
    """How many match, counted up to MOST_COUNTED."""
    terms = question.everything
    statement = index.count if terms else index.count_all
    asked = {"most": MOST_COUNTED + 1} | ({"terms": terms} if terms else {})
    if question.keys:
        count = len(_keyed(connection, index, question, START, MOST_COUNTED + 1))
    else:
        count = int(connection.execute(statement, asked).scalar_one())
    return Total(min(count, MOST_COUNTED), more=count > MOST_COUNTED)


def _keyed(
    connection: Connection, index: Index, question: Question, after: Position, limit: int
) -> list[Position]:
    asked = {"asked": list(question.keys), "terms": question.everything, "limit": limit}
    asked |= {"ends": _AFTER_LETTERS, **vars(after)}
    return _positions(connection, index.keyed, asked)


def _found_if_few(
    connection: Connection, index: Index, question: Question, after: Position, limit: int
) -> list[Position] | None:
    """The page at once where the question tells enough to leave a few; None where it is found otherwise."""
    if question.keys:
        return _keyed(connection, index, question, after, limit)
    if question.telling is None:
        return None
    asked = {"telling": question.telling, "terms": question.everything, "few": FEW, "limit": limit}
    asked |= {"ends": _AFTER_LETTERS, **vars(after)}
    rows = connection.execute(index.gather_few, asked).all()
    return None if rows[0].many else [Position(name, key) for _, name, key in rows if key is not None]


def _streams(index: Index, question: Question) -> Iterator[_Stream]:
    """Parts that together are the answer, each with its matches spread evenly over its stretch of names.

    Names that begin with a word asked stand side by side in the order of names, far from where a walk begins.
    Each such stretch is a stream. The last holds whoever has all words elsewhere in the name.
    """
    for number, word in enumerate(question.words if index.by_family else ()):
        others = question.words[:number] + question.words[number + 1 :]
        terms = _all(*map(_anywhere, others), *question.conditions)
        for beginning in word:
            yield _Stream(terms, beginning, beginning + _AFTER_LETTERS)
    yield _Stream(_all(*map(_later, question.words), *question.conditions))


def _followed(
    connection: Connection, index: Index, stream: _Stream, after: Position, limit: int
) -> list[Position]:
    """The first of a stream after a position: by walking if that gets there, or else by gathering."""
    # One bound from below: of two, PostgreSQL may start from the lower.
    asked: dict[str, Any] = {
        "ends": stream.ends,
        "limit": limit,
        **vars(max(after, Position(stream.begins, ""))),
    }
    if stream.terms is None:
        return _positions(connection, index.list, asked)
    asked |= {"terms": stream.terms, "walked": WALKED}
    positions = _positions(connection, index.walk, asked)
    if len(positions) == limit or not connection.execute(index.goes_on, asked).scalar_one():
        return positions
    return _positions(connection, index.gather, asked)


def _positions(connection: Connection, statement: TextClause, asked: Mapping[str, Any]) -> list[Position]:
    return [Position(*row) for row in connection.execute(statement, asked)]


def _name(name: str | None, *, enough: bool) -> tuple[tuple[str, ...], ...]:
    if name is None:
        return ()
    words = _words(name)
    if not words or not (
        enough or any(len(word) >= FEWEST_LETTERS for alternatives in words for word in alternatives)
    ):
        raise _too_little("name")
    return words


def _words(name: str) -> tuple[tuple[str, ...], ...]:
    """Each word asked, by its alternatives; particles only where there is nothing else."""
    asked = search_form(name).split()
    while len(asked) > 1 and asked[0] in TITLES:
        asked = asked[1:]
    if all(word in PARTICLES for word in asked):
        return tuple((word,) for word in dict.fromkeys(asked))
    alternatives: dict[tuple[str, ...], None] = {}
    particles: list[str] = []
    for word in asked:
        if word in PARTICLES:
            particles.append(word)
            continue
        spellings = [word, *(saint for abbreviation, saint in SAINTS.items() if abbreviation == word)]
        together = ["".join([*particles[first:], word]) for first in range(len(particles))]
        alternatives[(*spellings, *together)] = None
        particles = []
    return tuple(alternatives)


def _town(town: str) -> str:
    together = "".join(SAINTS.get(word, word) for word in search_form(town).split())
    if len(together) < FEWEST_LETTERS:
        raise _too_little("town")
    return f"t{together}:*"


def _number(read: Callable[[str], str], asked: str | None) -> str:
    """The number that the text is, '' for words; nine letters are a name, whatever FINESS allows."""
    try:
        number = "" if asked is None else read(asked)
    except Refusal:
        return ""
    return number if any(character.isdigit() for character in number) else ""


def _organisation(asked: str, sites: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The terms of a number, or else the words of a name."""
    if number := _number(read_place, asked):
        # RPPS knows places that FINESS does not.
        return "(" + " | ".join(f"i{site}" for site in sites or [number]) + ")", ()
    # Names of places are kept with their saints written out.
    words = [SAINTS.get(word, word) for word in search_form(asked).split() if word not in PARTICLES]
    if not any(len(word) >= FEWEST_LETTERS for word in words):
        raise _too_little("organisation")
    return "", tuple(dict.fromkeys(words))


def _anywhere(word: Sequence[str]) -> str:
    return "(" + " | ".join(f"f{beginning}:* | o{beginning}:*" for beginning in word) + ")"


def _later(word: Sequence[str]) -> str:
    return "(" + " | ".join(f"o{beginning}:*" for beginning in word) + ")"


def _all(*terms: str) -> str | None:
    return " & ".join(terms) or None


def _too_little(field: str) -> Refusal:
    return Refusal(
        Kind.MALFORMED,
        "too-little-to-search",
        f"Two letters or digits of the {field} at least, or another criterion beside a name of one.",
        field=field,
    )
