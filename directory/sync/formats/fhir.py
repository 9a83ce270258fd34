"""An increment's file as the rows that the registers' own files would give.

`directory/sync/sources/fhir_increment.py` writes it: a header, then one JSON object a line, at last how many
they were. Each is a person with all situations of practice or an organisation. Only whom a line names is
touched; who cannot be read is left to the next whole file. What resources say is for `fhir_profiles.py`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from datetime import datetime
from itertools import chain
from types import MappingProxyType

import orjson

from directory.base.errors import Refusal
from directory.identifiers import parse_finess, parse_national_id
from directory.sync.formats.establishment import Establishment
from directory.sync.formats.fhir_profiles import (
    Resource,
    activities_of,
    element,
    elements,
    establishment_of,
    mailboxes_of,
    national_id_of,
    numbers_of,
    period_of,
    said,
    skills_of,
    structure_of,
    unknown_codes,
)
from directory.sync.formats.files import Member, refused
from directory.sync.formats.layout import Column, fault, normaliser
from directory.sync.formats.mailboxes import COLUMNS as MAILBOX_COLUMNS
from directory.sync.formats.mailboxes import mailbox_row, owner_of, structure_told
from directory.sync.formats.register import Read, Reading
from directory.sync.formats.rpps import (
    ACTIVITIES,
    IDENTITY,
    SKILL,
    activity_row,
    identity_check,
    know_how_row,
)
from directory.sync.formats.staging import Staging, copy_row

LAYOUT = "fhir-v2"
TABLES = """
CREATE TEMP TABLE touched (key text PRIMARY KEY);
CREATE TEMP TABLE learned (role_id text PRIMARY KEY, practitioner_id text);
"""
# A person with some hundreds of situations of practice.
LONGEST_ENTRY = 4 << 20


def entries(member: Member) -> tuple[Resource, Iterator[tuple[int, Resource]]]:
    """The header of an increment and its entries with their line numbers.

    Refusal `missing-header`, `truncated` or `line-too-long` for what is no whole increment.
    """
    lines = _lines(member)
    header = _entry(member.name, *next(lines, (1, b"{}")))
    if not {"since", "until"} <= set(header):
        raise refused("missing-header", f"{member.name} does not begin as an increment does.")
    return header, _whole(member.name, lines)


def _whole(name: str, lines: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, Resource]]:
    """The entries, of which the last line says how many there are."""
    entry: Resource = {}
    number = 1
    for number, line in lines:
        entry = _entry(name, number, line)
        if "entries" not in entry:
            yield number, entry
    if entry.get("entries") != number - 2:
        raise refused("truncated", f"{name} does not end as an increment does.")


def _lines(member: Member) -> Iterator[tuple[int, bytes]]:
    """Numbered lines; blank ones at the end are none. The last needs no end: it says how many there are."""
    number, rest, blank = 0, b"", 0
    for block in chain(member.blocks(), (b"\n",)):
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            blank += not line.strip()
            if line.strip():
                yield from ((number + ahead, b"") for ahead in range(1, blank + 1))
                number, blank = number + blank + 1, 0
                yield number, line
        if len(rest) > LONGEST_ENTRY:
            raise refused("line-too-long", f"{member.name}: a line is longer than {LONGEST_ENTRY >> 20} MB.")


def _entry(name: str, number: int, line: bytes) -> Resource:
    try:
        resource = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise refused("missing-header", f"{name}: line {number} is no JSON.") from error
    if not isinstance(resource, dict):
        raise refused("missing-header", f"{name}: line {number} is no JSON object.")
    return resource


class _Increment:
    """The entries of one file on their way into the temporary tables."""

    def __init__(self, members: Mapping[str, Member], staging: Staging) -> None:
        header, self.entries = entries(next(iter(members.values())))
        try:
            since, until = (datetime.fromisoformat(header[name]) for name in ("since", "until"))
        except (ValueError, TypeError) as error:
            raise refused("missing-header", "The increment does not say of which time it tells.") from error
        if since.tzinfo is None or until.tzinfo is None or since > until:
            raise refused("missing-header", "The increment does not say of which time it tells.")
        self.reading = Reading(LAYOUT, until, since)
        self._staging = staging
        self._touched: set[str] = set()

    def take(self, kind: str, row: Callable[[int, Resource], None]) -> None:
        """Let `row` stage each entry of this kind; its Refusal is the reason of a rejection.

        Whom the API named and then did not know, and situations that ended and are nobody's whom we know,
        are told with the people.
        """
        for number, entry in self.entries:
            if kind == "person" and "missing" in entry:
                self.reject(number, "person-not-found", f"{entry['missing']}", entry)
            if kind == "person" and "role" in entry:
                self._staging.ignored += 1
            if kind not in entry:
                continue
            try:
                row(number, entry)
            except Refusal as refusal:
                self.reject(number, refusal.code, refusal.text, entry)

    def reject(self, number: int, reason: str, detail: str, entry: Resource, key: str = "") -> None:
        """Leave whom the entry names, or the `key`, as the record has him."""
        key = key or _named(entry)
        self._staging.reject(number, reason, f"{key}: {detail}", orjson.dumps(entry).decode(), spared=(key,))

    def touch(self, key: str) -> None:
        """What the file says of this key is all that there is."""
        self._touched.add(key)

    def end(self) -> Reading:
        """Hand over which keys were touched."""
        self._staging.hand_over(("COPY touched FROM STDIN", [copy_row((key,)) for key in self._touched]))
        return self.reading


def read_people(members: Mapping[str, Member], staging: Staging, *, strict: bool) -> Reading:
    """Stage the activities and skills of each person named; one who is inactive has none left."""
    increment = _Increment(members, staging)
    check = identity_check(strict=strict)
    learned: dict[str, str] = {}

    def person(number: int, entry: Resource) -> None:
        resource = element(entry, "person")
        national_id = parse_national_id(national_id_of(resource), strict=strict)
        if resource.get("active") is not False:
            roles = [role for role in elements(entry, "roles") if role.get("active") is not False]
            cells = list(activities_of(national_id, resource, roles, element(entry, "organisations")))
            skills = list(skills_of(cells[0], resource))
            for row in (*cells, *skills):
                _check(check, row)
            for row in cells:
                staging.stage(activity_row(number, _picked(ACTIVITIES, row)))
            for row in skills:
                staging.stage(know_how_row(number, _picked((*IDENTITY, *SKILL), row)))
            staging.ignored += unknown_codes(resource, roles)
            learned.update((str(role["id"]), str(resource["id"])) for role in roles)
        increment.touch(national_id)

    increment.take("person", person)
    staging.hand_over(("COPY learned FROM STDIN", [copy_row(pair) for pair in learned.items()]))
    return increment.end()


def _check(check: Callable[[tuple[str, ...]], str], row: Mapping[str, str]) -> None:
    """Refuse what no line of the extraction could say."""
    if reason := check(_picked(IDENTITY, row)) or _fault(row.values()):
        raise refused(reason, "This person cannot be read.")


def _fault(cells: Iterable[str]) -> str:
    joined = "".join(cells)
    return fault(joined) or ("separator-in-cell" if "|" in joined else "")


def _picked(columns: Iterable[Column], row: Mapping[str, str]) -> tuple[str, ...]:
    cells = tuple(row.get(column.field, "") for column in columns)
    return normaliser(tuple(columns))("|".join(cells), cells)


def read_establishments(members: Mapping[str, Member], staging: Staging, *, strict: bool) -> Reading:
    """Stage what is new of establishments: an arrival, a closure, a departure.

    FINESS itself tells the rest every day, and in more detail than the API.
    """
    del strict  # about numbers of persons
    increment = _Increment(members, staging)
    known = _known_establishments(staging, members)

    def establishment(number: int, entry: Resource) -> None:
        organisation = element(entry, "organisation")
        given = numbers_of(organisation).get("FINEG", "")
        if not given:
            return
        finess = parse_finess(given)
        if organisation.get("active") is not False:
            closed_on = said(period_of(organisation), "end")[:10]
            before, departed = known.get(finess, (None, False))
            told = replace(before, closed_on=closed_on or before.closed_on) if before else None
            if told == before and before is not None and not departed:
                staging.agreed += 1
                return
            staging.stage(
                (told or establishment_of(finess, organisation, element(entry, "organisations"))).row(number)
            )
        increment.touch(finess)

    increment.take("organisation", establishment)
    return increment.end()


def _known_establishments(
    staging: Staging, members: Mapping[str, Member]
) -> dict[str, tuple[Establishment, bool]]:
    """Those whom the increment names, as the record has them, and whether they are gone."""
    columns = ", ".join(f"coalesce({column.name}::text, '')" for column in fields(Establishment))
    query = (
        f"SELECT {columns}, departed_at IS NOT NULL FROM organisation"  # noqa: S608 - names of a dataclass
        " WHERE finess = ANY(CAST(:keys AS text[]))"
    )
    _, told = entries(next(iter(members.values())))
    keys = {
        _finess(entry["organisation"]) for _, entry in told if isinstance(entry.get("organisation"), dict)
    }
    rows = staging.ask(query, keys=sorted(keys))
    return {row[0]: (Establishment(*row[:-1]), row[-1]) for row in rows}


def _finess(organisation: Resource) -> str:
    try:
        return parse_finess(numbers_of(organisation).get("FINEG", ""))
    except Refusal:
        return ""


_KNOWN_MAILBOXES = """
    SELECT address, kind, coalesce(holder, ''), structure_type, structure_id FROM mailbox
    WHERE departed_at IS NULL AND address = ANY(CAST(:keys AS text[]))
"""


def read_mailboxes(members: Mapping[str, Member], staging: Staging, *, strict: bool) -> Reading:
    """Stage the mailboxes that the record does not have; no increment closes one or hands it over.

    The API does not list all that the extraction does, and it tells of one holder at a time.
    """
    increment = _Increment(members, staging)
    rows: list[tuple[int, Resource, tuple[str, ...]]] = []
    for number, entry in increment.entries:
        if "person" not in entry and "organisation" not in entry:
            continue
        try:
            rows.extend((number, entry, row) for row in _mailboxes(number, entry, strict=strict))
        except Refusal as refusal:
            increment.reject(number, refusal.code, refusal.text, entry)
    known = {
        # Kept by a release before, a number may stand as its register wrote it.
        address: owner_of(kind, holder, *structure_told(structure_type, structure_id))
        for address, kind, holder, structure_type, structure_id in staging.ask(
            _KNOWN_MAILBOXES, keys=sorted({row[1] for _, _, row in rows})
        )
    }
    for number, entry, row in rows:
        address, owner = row[1], row[3]
        if address not in known:
            staging.stage(row)
            increment.touch(address)
        elif known[address] == owner:
            staging.agreed += 1
        else:
            increment.reject(number, "address-held-by-another", owner, entry, key=address)
    return increment.end()


def _mailboxes(number: int, entry: Resource, *, strict: bool) -> Iterator[tuple[str, ...]]:
    """The rows of the mailboxes that this person, with his situations, or this organisation has."""
    holder = ""
    if "organisation" in entry:
        organisation = element(entry, "organisation")
        told = [mailboxes_of(organisation, organisation, holder)]
    else:
        person, organisations = element(entry, "person"), element(entry, "organisations")
        holder = parse_national_id(national_id_of(person), strict=strict)
        roles = elements(entry, "roles") if person.get("active") is not False else []
        told = [mailboxes_of(role, structure_of(role, organisations), holder) for role in roles]
        told.insert(0, mailboxes_of(person, {}, holder))
    for cells in chain.from_iterable(told):
        if reason := _fault(cells.values()):
            raise refused(reason, "A mailbox holds characters that no register has.")
        yield mailbox_row(number, _picked(MAILBOX_COLUMNS, cells), holder)


INCREMENTS: Mapping[str, Read] = MappingProxyType(
    {"rpps": read_people, "finess": read_establishments, "mailboxes": read_mailboxes}
)


def _named(entry: Resource) -> str:
    """The key of whom an entry names, as far as it can be told."""
    try:
        if "person" in entry:
            return national_id_of(element(entry, "person"))
        return numbers_of(element(entry, "organisation")).get("FINEG", "")
    except Refusal:
        return ""
