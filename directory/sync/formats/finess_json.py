"""FINESS in its daily JSON edition: legal entities (`pmej`), each with its establishments (`ege`).

1.45 GB of one object: walked element by element, a legal entity at a time in memory, in any order of keys.
The standard library's scanner does 100 MB/s here, more than yajl below ijson, and finds each element's end
itself. An establishment is one row, and its "line" its place among them.
"""

import codecs
import json
import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any

from directory.base.errors import Refusal
from directory.identifiers import parse_finess
from directory.sync.formats.cells import code, plain
from directory.sync.formats.departments import department_of
from directory.sync.formats.establishment import Establishment, spoken_of
from directory.sync.formats.files import Member, refused
from directory.sync.formats.register import Reading
from directory.sync.formats.staging import Staging

# The largest legal entity has some 600 establishments of 7 kB.
LARGEST_ELEMENT = 16 << 20
# Establishments that closed long before: the frozen edition does not know them either.
REMEMBERED = timedelta(days=366)
_ACTIVE = "A"
_VERSION = re.compile(r"v?(1\.[0-9]{1,4}\.[0-9]{1,4})")
_GENERATED = re.compile(rb'"generatedAt"\s*:\s*"(20[0-9]{2}-[0-9T:.+Z-]{14,35})"')
_OVERLAP = 128
_SPACE = re.compile(r"[ \t\r\n]*")
# Where a value ends before the text does, the scanner says so near its end, or names an open string's start.
_NEAR_END = 16


def read(member: Member, staging: Staging) -> Reading:
    """Stage the establishments; Refusal `truncated`, `missing-header`, `no-rows` or `too-large`."""
    generated_at = _generated_at(member)
    forgotten = generated_at.date() - REMEMBERED
    version = ""
    for name, value in _walk(_Window(member)):
        if name == "schemaVersion":
            version = str(value)
        elif name == "pmej":
            for number, site in enumerate(_sites(value), staging.lines + staging.ignored + 1):
                _read_site(staging, number, _part(value, "informationsGeneralesPMEJ"), site, forgotten)
    known = _VERSION.fullmatch(version)
    if known is None:
        raise refused(
            "missing-header", f"{member.name} is of an edition that is not known: {version[:40]!r}."
        )
    if not staging.lines:
        raise refused("no-rows", f"{member.name} holds no establishment.")
    return Reading(f"finess-json-{known[1]}", generated_at)


def _generated_at(member: Member) -> datetime:
    """The time the file states, wherever it stands in it."""
    tail = b""
    for block in member.blocks():
        seen = tail + block
        if match := _GENERATED.search(seen):
            try:
                instant = datetime.fromisoformat(match[1].decode())
            except ValueError:
                break
            if instant.tzinfo:
                return instant
            break
        tail = seen[-_OVERLAP:]
    raise refused("missing-header", f"{member.name} does not say when it was made.")


def _sites(entity: Any) -> list[Any]:
    sites = entity.get("ege") if isinstance(entity, dict) else None
    return sites if isinstance(sites, list) else []


def _read_site(staging: Staging, number: int, entity: dict[str, Any], site: Any, forgotten: date) -> None:
    about = _part(site, "informationsGeneralesEGE")
    finess = code(_text(about, "numFinessEge"))
    try:
        parse_finess(finess)
        closed = _closed_on(site, about)
        if closed and closed <= forgotten:
            staging.ignored += 1
            return
        staging.stage(_establishment(finess, entity, site, closed).row(number))
    except Refusal as refusal:
        excerpt = f"{finess}|{_text(about, 'nomEgeCourt')}".encode(errors="replace").decode()
        spared = spoken_of(finess, _text(about, "nomEgeCourt"), code(_text(about, "siret")))
        staging.reject(number, refusal.code, refusal.text, excerpt, spared=spared)


def _closed_on(site: Any, about: dict[str, Any]) -> date | None:
    """The day it closed, None while it is open; the day it was last changed when no other is told."""
    closed = _text(about, "dateFermeture")
    if not closed and code(_text(site, "etatObjet")) == _ACTIVE:
        return None
    try:
        return date.fromisoformat((closed or _text(site, "dateDerniereMaj"))[:10])
    except ValueError as error:
        raise refused("bad-date", "No day tells since when this establishment is closed.") from error


def _establishment(finess: str, entity: dict[str, Any], site: Any, closed: date | None) -> Establishment:
    about, place = _part(site, "informationsGeneralesEGE"), _first(site, "adresse")
    commune, postal_code = code(_text(place, "cogCommune")), _text(place, "codePostal")
    town = _text(place, "ligneAcheminement")
    street = ("numeroVoie", "complementVoie", "typeVoie", "libelleVoie")
    line = " ".join(part for name in street if (part := _text(place, name)))
    return Establishment(
        finess=finess,
        legal_finess=code(_text(entity, "numFinessPm")),
        siret=code(_text(about, "siret")),
        name=_text(about, "nomEgeCourt"),
        long_name=_text(about, "nomEgeLong"),
        category_code=code(_text(site, "categorieentiteGeographiqueExercice")),
        category_label="",
        street=line or _text(place, "lieuDit"),
        # The frozen edition writes the postal code before the town.
        postal_line=town if town[:1].isdigit() else f"{postal_code} {town}".strip(),
        commune=commune,
        department=department_of(commune, postal_code),
        telephone=_telephone(site),
        opened_on=_text(about, "dateOuverture")[:10],
        closed_on=closed.isoformat() if closed else "",
    )


def _telephone(site: Any) -> str:
    contacts = site.get("contact") if isinstance(site, dict) else None
    numbers = (
        _text(_part(contact, "telecom"), "telephone")
        for contact in contacts or ()
        if isinstance(contact, dict)
    )
    return next((number for number in numbers if number), "")


def _part(whole: Any, name: str) -> dict[str, Any]:
    part = whole.get(name) if isinstance(whole, dict) else None
    return part if isinstance(part, dict) else {}


def _first(whole: Any, name: str) -> dict[str, Any]:
    part = whole.get(name) if isinstance(whole, dict) else None
    first = part[0] if isinstance(part, list) and part else part
    return first if isinstance(first, dict) else {}


def _text(whole: Any, name: str) -> str:
    """A text or a coded value, normalised; editions write the code alone or an object with a `code`."""
    part = whole.get(name) if isinstance(whole, dict) else None
    if isinstance(part, dict):
        part = part.get("code")
    return plain(part) if isinstance(part, str) and part else ""


def _walk(text: "_Window") -> Iterator[tuple[str, Any]]:
    """The members of the object that is the file: an array's elements one by one, other values whole."""
    text.expect("{")
    while text.peek() != "}":
        name = text.value()
        text.expect(":")
        if text.peek() == "[":
            text.expect("[")
            while text.peek() != "]":
                yield name, text.value()
                text.separated("]")
            text.expect("]")
        else:
            yield name, text.value()
        text.separated("}")
    text.expect("}")
    if text.peek():
        raise text.broken("goes on after its end")


class _Window:
    """The text of a member around the place that is read: a block, or one value if that is longer."""

    def __init__(self, member: Member) -> None:
        self._name = member.name
        self._blocks = member.blocks()
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        # Numbers stay as they are written: nothing here counts with them.
        self._scan = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str).raw_decode
        self._text = ""
        self._place = 0
        self._ended = False

    def broken(self, how: str) -> Refusal:
        """The refusal of a file that is no whole JSON."""
        return refused("truncated", f"{self._name} {how}: it is not whole JSON.")

    def peek(self) -> str:
        """The next character that is no space, '' at the end."""
        while True:
            match = _SPACE.match(self._text, self._place)
            self._place = match.end() if match else self._place
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._grow():
                return ""

    def expect(self, character: str) -> None:
        """Step over `character`."""
        if self.peek() != character:
            raise self.broken(f"lacks a {character!r}")
        self._place += 1

    def separated(self, end: str) -> None:
        """Step over a comma, unless `end` comes."""
        if self.peek() != end:
            self.expect(",")
            if self.peek() == end:
                raise self.broken("has a comma too many")

    def value(self) -> Any:
        """The value that begins here."""
        self.peek()
        while True:
            try:
                value, end = self._scan(self._text, self._place)
            except json.JSONDecodeError as error:
                cut = error.pos >= len(self._text) - _NEAR_END or error.msg.startswith("Unterminated")
                if not (cut and self._grow()):
                    raise self.broken("breaks off") from error
            except RecursionError as error:
                raise refused("too-large", f"{self._name} is nested deeper than any register.") from error
            else:
                # A number may go on in the next block.
                if end < len(self._text) or not self._grow():
                    self._place = end
                    return value

    def _grow(self) -> bool:
        """Forget what was read, and read as much as is left unread; False at the end of the file."""
        rest = self._text[self._place :]
        if len(rest) > LARGEST_ELEMENT:
            raise refused(
                "too-large", f"{self._name} holds an entity of more than {LARGEST_ELEMENT >> 20} MB."
            )
        more, wanted = [rest], max(1, len(rest))
        try:
            while wanted > 0 and not self._ended:
                block = next(self._blocks, b"")
                self._ended = not block
                more.append(self._decode.decode(block, final=self._ended))
                wanted -= len(more[-1])
        except UnicodeDecodeError as error:
            raise refused("truncated", f"{self._name} is not UTF-8.") from error
        self._text, self._place = "".join(more), 0
        return len(self._text) > len(rest)
