"""What changed since an instant, asked of the API and written into one file that runs read like any other.

Each resource that changed names a person or an organisation. The whole present state of each of them is then
asked for, so that nothing need be pieced together from parts. No database and no meaning here: where the
cursor stands is for `directory/sync/runs/increment_cursor.py`, what resources say for
`directory/sync/formats/fhir.py`.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import orjson

from directory.base.durable_files import make_private, replacing
from directory.base.errors import Kind, Refusal
from directory.sync.runs.increment_cursor import file_name
from directory.sync.sources.fhir_client import Client, Resource

# So that an address stays below 2 kB.
BATCH = 50
# 2,000 batches and their places, at 17 calls a second: some minutes of the quarter of an hour.
MOST_PEOPLE = 100_000
_MOST_REMEMBERED = 20_000
_PLAIN = re.compile(r"[A-Za-z0-9.-]{1,64}")

PractitionersOf = Callable[[Iterable[str]], Mapping[str, str]]


@dataclass
class _Named:
    """Whom the changes name: people by id, organisations as they are, situations that ended."""

    people: dict[str, None] = field(default_factory=dict)
    organisations: list[Resource] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)


def gather(
    client: Client, folder: Path, *, since: datetime, until: datetime, practitioners_of: PractitionersOf
) -> Path | None:
    """A file in `folder` with all that changed since then; None when nothing did.

    `until` is when the asking began: what changes meanwhile is the next one's. `practitioners_of` tells whose
    situations of practice are, by their ids. Refusal as of `Client.search`, UNAVAILABLE `no-room`.
    """
    named = _named(client, since)
    known = practitioners_of(named.ended)
    named.people.update(dict.fromkeys(known.values()))
    if not (named.people or named.organisations or named.ended):
        return None
    unknown: Iterator[Mapping[str, Any]] = ({"role": role} for role in named.ended if role not in known)
    try:
        make_private(folder)
        path = folder / file_name(until)
        header = {"since": since.isoformat(), "until": until.isoformat()}
        _write(path, header, (unknown, _people(client, named), _organisations(client, named)))
    except OSError as error:
        text = f"The increment cannot be kept: {error.strerror or error}."
        raise Refusal(Kind.UNAVAILABLE, "no-room", text) from error
    return path


def _named(client: Client, since: datetime) -> _Named:
    changed = {"_lastUpdated": f"ge{since:%Y-%m-%dT%H:%M:%SZ}"}
    named = _Named()
    for person in client.search("Practitioner", changed):
        named.people[person["id"]] = None
    for role in client.search("PractitionerRole", changed):
        person_id = _referred(role, "practitioner")
        if person_id:
            named.people[person_id] = None
        else:
            # One that ended says nothing but its own number.
            named.ended.append(role["id"])
    named.organisations.extend(client.search("Organization", changed))
    _follow(client, named)
    return named


def _follow(client: Client, named: _Named) -> None:
    """Name all who practise in an organisation that changed: its address is told with theirs."""
    changed = [
        organisation["id"] for organisation in named.organisations if organisation.get("active") is not False
    ]
    for batch in _batches(changed):
        for role in client.search("PractitionerRole", {"organization": ",".join(batch)}):
            named.people[_referred(role, "practitioner")] = None
            if len(named.people) > MOST_PEOPLE:
                text = f"The changes concern more than {MOST_PEOPLE} people: the next whole file tells them."
                raise Refusal(Kind.UNACCEPTABLE, "increment-too-large", text)
    named.people.pop("", None)


def _people(client: Client, named: _Named) -> Iterator[Mapping[str, Any]]:
    organisations = _Organisations(client)
    yield from ({"missing": odd} for odd in named.people if not _PLAIN.fullmatch(odd))
    for batch in _batches(list(named.people)):
        asked = {"_id": ",".join(batch), "_revinclude": "PractitionerRole:practitioner"}
        people: dict[str, Resource] = {}
        roles: dict[str, list[Resource]] = {}
        for resource in client.search("Practitioner", asked):
            if resource.get("resourceType") == "Practitioner":
                people[resource["id"]] = resource
            elif resource.get("resourceType") == "PractitionerRole":
                roles.setdefault(_referred(resource, "practitioner"), []).append(resource)
        places = [_referred(role, "organization") for own in roles.values() for role in own]
        organisations.learn(places)
        for person_id in batch:
            if person_id not in people:
                yield {"missing": person_id}
                continue
            own = roles.get(person_id, [])
            around = organisations.around(_referred(role, "organization") for role in own)
            yield {"person": people[person_id], "roles": own, "organisations": around}


def _organisations(client: Client, named: _Named) -> Iterator[Mapping[str, Any]]:
    parents = _Organisations(client)
    for organisation in named.organisations:
        parents.keep(organisation)
    for start in range(0, len(named.organisations), BATCH):
        batch = named.organisations[start : start + BATCH]
        parents.learn(_referred(child, "partOf") for child in batch)
        for organisation in batch:
            yield {
                "organisation": organisation,
                "organisations": parents.around([_referred(organisation, "partOf")]),
            }


class _Organisations:
    """Organisations that others refer to, each asked for once as long as memory allows."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[str, Resource] = {}

    def keep(self, organisation: Resource) -> None:
        """One that came by itself."""
        self._known[organisation["id"]] = organisation

    def learn(self, ids: Iterable[str]) -> None:
        """Ask for these, and for those they are part of."""
        if len(self._known) > _MOST_REMEMBERED:
            self._known.clear()
        wanted = list(ids)
        self._ask(wanted)
        self._ask(_referred(self._known[fhir_id], "partOf") for fhir_id in wanted if fhir_id in self._known)

    def _ask(self, ids: Iterable[str]) -> None:
        missing = list(dict.fromkeys(fhir_id for fhir_id in ids if fhir_id and fhir_id not in self._known))
        for batch in _batches(missing):
            for organisation in self._client.search("Organization", {"_id": ",".join(batch)}):
                self.keep(organisation)

    def around(self, ids: Iterable[str]) -> dict[str, Resource]:
        """Those of these that there are, with those they are part of."""
        organisations = {fhir_id: self._known[fhir_id] for fhir_id in ids if fhir_id in self._known}
        parents = (_referred(organisation, "partOf") for organisation in list(organisations.values()))
        return {
            **{fhir_id: self._known[fhir_id] for fhir_id in parents if fhir_id in self._known},
            **organisations,
        }


def _referred(resource: Resource, name: str) -> str:
    """The id at the end of a reference; '' where there is none."""
    reference = resource.get(name)
    text = reference.get("reference") if isinstance(reference, dict) else None
    return text.rpartition("/")[2] if isinstance(text, str) else ""


def _batches(ids: list[str]) -> Iterator[list[str]]:
    """So many at a time; an id that is none of FHIR's is not asked for."""
    plain = [fhir_id for fhir_id in ids if _PLAIN.fullmatch(fhir_id)]
    for start in range(0, len(plain), BATCH):
        yield plain[start : start + BATCH]


def _write(path: Path, header: Mapping[str, str], parts: Iterable[Iterator[Mapping[str, Any]]]) -> None:
    """Whole or not at all; nobody else on this machine reads it."""
    with replacing(path, draft=path.with_name(f".{path.name}.part")) as file:
        _line(file, header)
        entries = 0
        for part in parts:
            for entry in part:
                _line(file, entry)
                entries += 1
        _line(file, {"entries": entries})


def _line(file: IO[bytes], entry: Mapping[str, Any]) -> None:
    file.write(orjson.dumps(entry) + b"\n")
