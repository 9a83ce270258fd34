"""The files of checks that are answered later: the addresses asked about, and the verdicts.

They tell who writes to whom: only the account of the service reads them, and the log never names what is in
them. A file takes its name once it is whole and on the disk.
"""

import gzip
import hashlib
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import cast
from uuid import UUID

import orjson

from directory.base.durable_files import make_private, onto_disk, replacing
from directory.base.errors import Kind, Refusal

# Decided together, on one state of the record.
PART = 10_000
# Left to others on the disk: a CRL that cannot be written stops everything.
ROOM = 512 << 20
ASKED, RESULT, DRAFT = ".asked.gz", ".ndjson.gz", ".new"
_GZIP_LEVEL = 1
# What gzip and JSON say of a file that is not what was written.
_DAMAGED = (OSError, EOFError, ValueError, zlib.error)


@dataclass(frozen=True)
class AskedFor:
    """Towards whom, and as of when; None is nobody in particular, and the present."""

    sender: str | None
    at: datetime | None


def keep_asked(folder: Path, check_id: UUID, asked_for: AskedFor, addresses: Sequence[str]) -> None:
    """Write down what is asked, one JSON value a line, into a folder that is there."""
    at = None if asked_for.at is None else asked_for.at.isoformat()
    with _packed(asked_path(folder, check_id)) as write:
        write(orjson.dumps({"sender": asked_for.sender, "at": at}) + b"\n")
        for start in range(0, len(addresses), PART):
            write(b"\n".join(map(orjson.dumps, addresses[start : start + PART])) + b"\n")
    onto_disk(folder)


def make_folder(folder: Path) -> None:
    """Make the folder of checks where there is none; Refusal as `need_room`."""
    make_private(folder)
    need_room(folder)


def need_room(folder: Path) -> None:
    """Refusal UNAVAILABLE `no-room-for-checks` on a disk that is nearly full."""
    if shutil.disk_usage(folder).free < ROOM:
        text = f"Checks that are answered later leave {ROOM >> 20} MB of their disk to others: ask again."
        raise Refusal(Kind.UNAVAILABLE, "no-room-for-checks", text, retry_after=600)


class UnreadableError(Exception):
    """What was asked is gone, or damaged."""


@contextmanager
def asked(folder: Path, check_id: UUID) -> Iterator[tuple[AskedFor, Iterator[list[str]]]]:
    """What is asked: for whom, and the addresses in parts; both raise UnreadableError."""
    try:
        file = gzip.open(asked_path(folder, check_id))  # noqa: SIM115 - closed below
    except OSError as error:
        raise UnreadableError from error
    with file:
        try:
            head = orjson.loads(file.readline())
        except _DAMAGED as error:
            raise UnreadableError from error
        at = None if head["at"] is None else datetime.fromisoformat(head["at"])
        yield AskedFor(head["sender"], at), _parts(file)


@contextmanager
def result(folder: Path, check_id: UUID) -> Iterator[Callable[[bytes], object]]:
    """What writes the verdicts; they are a result once the block has ended well."""
    with _packed(result_path(folder, check_id)) as write:
        yield write
    onto_disk(folder)


def measured(path: Path) -> tuple[int, bytes]:
    """The size of a file and its SHA-256."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        return file.tell(), digest


def asked_path(folder: Path, check_id: UUID) -> Path:
    """Where the addresses of a check lie."""
    return folder / f"{check_id}{ASKED}"


def result_path(folder: Path, check_id: UUID) -> Path:
    """Where the verdicts of a check lie once they are whole."""
    return folder / f"{check_id}{RESULT}"


def forget(folder: Path, check_id: UUID) -> None:
    """Remove the files of a check, whichever there are."""
    for path in folder.glob(f"{check_id}.*"):
        path.unlink(missing_ok=True)


def owners(folder: Path, before: datetime) -> dict[Path, UUID | None]:
    """The files last changed before then, and which check each is of."""
    paths = [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
    found: dict[Path, UUID | None] = {}
    for path in paths:
        try:
            if path.stat().st_mtime < before.timestamp():
                found[path] = UUID(path.name.partition(".")[0])
        except FileNotFoundError:
            continue
        except ValueError:
            found[path] = None
    return found


@contextmanager
def _packed(path: Path) -> Iterator[Callable[[bytes], object]]:
    draft = path.with_name(path.name + DRAFT)
    with (
        replacing(path, draft=draft) as file,
        gzip.GzipFile("", "wb", compresslevel=_GZIP_LEVEL, fileobj=file, mtime=0) as packing,
    ):
        yield cast("Callable[[bytes], object]", packing.write)


def _parts(file: gzip.GzipFile) -> Iterator[list[str]]:
    while part := _part(file):
        yield part


def _part(file: gzip.GzipFile) -> list[str]:
    try:
        return [orjson.loads(line) for line in islice(file, PART)]
    except _DAMAGED as error:
        raise UnreadableError from error
