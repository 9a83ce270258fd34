"""The whole public set in files, from one snapshot of the record: NDJSON and CSV, gzip, with a manifest.

The same record gives the same bytes. Where the files lie, who signs the manifest and how long they are kept
is for the caller; what stands in them is `values`'s.
"""

import csv
import gzip
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import orjson
from sqlalchemy import Connection

from directory.feed import outside_cursor
from directory.feed.changes import Entity, Place
from directory.model import Organisation, Practice
from directory.store import keys_that_may_show, sources
from pki.publication import store as published
from pki.publication.values import Value, public_values

# 2: mailboxes have an `opaque_key`. 3: what may not be published is held back.
FORMAT = 3
# People and their practices: some 4 MB a page at most, whatever the size of the record.
_PAGE = 1000
# A spreadsheet takes a value that begins so for a formula, and runs it; some take the wide forms as well.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


@dataclass(frozen=True)
class FileFacts:
    """One file of an export; `lines` are records, without the heading of a CSV."""

    sha256: str
    size: int
    lines: int


@dataclass(frozen=True)
class Manifest:
    """What one export holds. `cursor`: where the feed goes on from exactly this state."""

    format: int
    made_at: datetime
    cursor: str
    sources: Mapping[str, datetime | None]
    files: Mapping[str, FileFacts]

    def as_json(self) -> bytes:
        """The manifest as it is signed."""
        return orjson.dumps(self, option=orjson.OPT_UTC_Z | orjson.OPT_INDENT_2) + b"\n"


@dataclass(frozen=True)
class _Table:
    """One CSV file: its heading, and its rows for one value of its entity."""

    name: str
    columns: tuple[str, ...]
    rows: Callable[[Value], list[Sequence[Any]]]


def _names(kind: type[Any], *without: str) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind) if field.name not in without)


_MAILBOX = ("address", "kind", "holder", "structure_type", "structure_id", "structure_name", "service")
_ORGANISATION = _names(Organisation, "departed_at", "withheld")
_PERSON = ("national_id", "title", "family_name", "given_name")
_PERSON_SHEET = (*_PERSON, "professions", "skills", "corrected")
_PRACTICE = _names(Practice)


def _person(value: Value) -> list[Any]:
    professions = " ".join(
        f"{profession['code']}:{profession['category']}" for profession in value["professions"]
    )
    skills, corrected = " ".join(value["skills"]), " ".join(value["corrected"])
    return [*(value[name] for name in _PERSON), professions, skills, corrected]


def _organisation(value: Value) -> list[Any]:
    return [*(value[name] for name in _ORGANISATION), " ".join(value["corrected"])]


def _practices(value: Value) -> list[Sequence[Any]]:
    return [
        [value["national_id"], *(practice[name] for name in _PRACTICE)] for practice in value["practices"]
    ]


def _mailbox(value: Value) -> list[Any]:
    certificates, corrected = " ".join(value["certificates"]), " ".join(value["corrected"])
    purposes = " ".join("+".join(combination) for combination in value["certificate_purposes"])
    return [*(value[name] for name in _MAILBOX), certificates, corrected, purposes, value["opaque_key"]]


TABLES: Mapping[Entity, tuple[_Table, ...]] = {
    Entity.AUTHORITY: (
        _Table("authorities", ("id", "certificate"), lambda value: [list(value.values())]),
    ),
    Entity.ORGANISATION: (
        _Table("organisations", (*_ORGANISATION, "corrected"), lambda value: [_organisation(value)]),
    ),
    Entity.PRACTITIONER: (
        _Table("practitioners", _PERSON_SHEET, lambda value: [_person(value)]),
        _Table("practices", ("national_id", *_PRACTICE), _practices),
    ),
    Entity.MAILBOX: (
        _Table(
            "mailboxes",
            (*_MAILBOX, "certificates", "corrected", "certificate_purposes", "opaque_key"),
            lambda value: [_mailbox(value)],
        ),
    ),
}  # fmt: skip


def write_export(connection: Connection, folder: Path, now: datetime) -> Manifest:
    """Write every file but the manifest into `folder`, which is there and empty.

    Wants one snapshot (REPEATABLE READ): the manifest's cursor stands for exactly what the files hold. Memory
    holds one page.
    """
    place = Place(outside_cursor.reached(connection))
    files: dict[str, FileFacts] = {}
    for entity, tables in TABLES.items():
        files |= _write(connection, folder, entity, tables, now)
    cursor = outside_cursor.cursor_of(outside_cursor.origin(connection), place)
    return Manifest(FORMAT, now, cursor, sources(connection), files)


def _write(
    connection: Connection, folder: Path, entity: Entity, tables: Sequence[_Table], now: datetime
) -> dict[str, FileFacts]:
    whole = f"{tables[0].name}.ndjson.gz"
    with ExitStack() as open_files:
        lines = open_files.enter_context(_Compressed(folder / whole))
        sheets = [
            (table, open_files.enter_context(_Compressed(folder / f"{table.name}.csv.gz")))
            for table in tables
        ]
        for table, sheet in sheets:
            sheet.write(_as_csv([table.columns]), 0)
        for page in _pages(connection, entity):
            values = public_values(connection, page, now)
            shown = [values[key] for key in page if key in values]
            lines.write(b"".join(map(_as_line, shown)), len(shown))
            for table, sheet in sheets:
                rows = [row for value in shown for row in table.rows(value)]
                sheet.write(_as_csv(rows), len(rows))
    return {whole: lines.facts} | {f"{table.name}.csv.gz": sheet.facts for table, sheet in sheets}


def _pages(connection: Connection, entity: Entity) -> Iterator[list[tuple[Entity, str]]]:
    if entity is Entity.AUTHORITY:
        yield [(entity, name) for name, _ in published.authorities(connection)]
        return
    after = ""
    while keys := keys_that_may_show(connection, entity, after, _PAGE):
        yield [(entity, key) for key in keys]
        after = keys[-1]


def _as_line(value: Value) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


def _as_csv(rows: Sequence[Sequence[Any]]) -> bytes:
    """RFC 4180, in UTF-8."""
    made = io.StringIO(newline="")
    csv.writer(made).writerows([harmless(value) for value in row] for row in rows)
    return made.getvalue().encode()


def harmless(value: Any) -> str:
    """A value as a spreadsheet may open it: an apostrophe keeps it from being a formula."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


class _Compressed:
    """A gzip file without name or time in it, counted and hashed on its way to disk."""

    def __init__(self, path: Path) -> None:
        self._file = _Hashed(path)
        self._zip = gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=self._file, mtime=0)
        self._lines = 0

    def write(self, octets: bytes, lines: int) -> None:
        self._zip.write(octets)
        self._lines += lines

    @property
    def facts(self) -> FileFacts:
        return FileFacts(self._file.digest.hexdigest(), self._file.size, self._lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()
        self._file.close()


class _Hashed:
    """A file that knows the digest and the size of what went into it, on disk when closed."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self.digest, self.size = sha256(), 0

    def write(self, octets: bytes) -> int:
        self.digest.update(octets)
        self.size += len(octets)
        return self._file.write(octets)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
