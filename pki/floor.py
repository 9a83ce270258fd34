"""The numbers that must never be used again, kept in a file outside the database and its backups.

A database restored from yesterday would number today's CRLs a second time; this file remembers what it
forgot. Lost: nothing until the next restore. Raised by who can write it: numbers jump, harmlessly.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from directory.base.folders import onto_disk


def known(path: Path, name: str) -> int:
    """The highest number ever given out under `name`; 0 when none was."""
    return _read(path).get(name, 0)


def raise_to(path: Path, name: str, number: int) -> None:
    """Remember `number` under `name` durably, unless a higher one is there; processes may do so at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path):
        floors = _read(path)
        if number > floors.get(name, 0):
            _write(path, floors | {name: number})


def _read(path: Path) -> dict[str, int]:
    return dict(orjson.loads(path.read_bytes())) if path.exists() else {}


def _write(path: Path, floors: dict[str, int]) -> None:
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(orjson.dumps(floors, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    onto_disk(path.parent)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.with_name(path.name + ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
