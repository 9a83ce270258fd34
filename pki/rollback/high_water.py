"""High-water marks that a restored database has forgotten, kept in files outside it and its backups.

For each shard the last CRL number and how many events that CRL rested on; beside it the last CRL and delta
themselves. `detection` holds them against the record. Lost: a restore is noticed by the audit heads alone.
Raised by who can write it: nothing is answered or published before somebody looked.
"""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import orjson

from directory.base.durable_files import onto_disk, own_draft, replacing
from directory.feed.changes import crl_at

# A place is `CA/shard`; what its last CRL rested on stands under the place and this.
_EVENTS = " events"

# By the umask: who reads these files besides is for whoever runs the service.
_AS_THE_ACCOUNT_HAS_IT = 0o666


def known(path: Path, place: str) -> int:
    """The highest CRL number ever given out in this place; 0 when none was."""
    return _read(path).get(place, 0)


def numbers(path: Path) -> dict[str, int]:
    """The highest number ever given out in each place."""
    return {name: number for name, number in _read(path).items() if not name.endswith(_EVENTS)}


def events(path: Path, number: int, place: str) -> int:
    """How many events CRL `number` must at least rest on; 0 when a later one has been numbered since."""
    floors = _read(path)
    return floors.get(place + _EVENTS, 0) if floors.get(place, 0) <= number else 0


def raise_to(path: Path, place: str, number: int, events: int = 0) -> None:
    """Remember a CRL's number and events durably, unless more is there; processes may do so at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path):
        floors = _read(path)
        wanted = {place: number} | ({place + _EVENTS: events} if events else {})
        if raised := {name: value for name, value in wanted.items() if value > floors.get(name, 0)}:
            _write(path, floors | raised)


def lower_events(path: Path, counted: Mapping[str, int]) -> None:
    """Ask no more events than these in each place: for who declares a restored record complete."""
    with _alone(path):
        floors = _read(path)
        asked = {place + _EVENTS: count for place, count in counted.items()}
        _write(path, {name: min(value, asked.get(name, value)) for name, value in floors.items()})


def keep_list(path: Path, place: str, content: bytes, *, delta: bool = False) -> None:
    """Keep a published CRL or delta in place of the one before, for the day the record has forgotten it."""
    kept = _list_file(path, place, delta=delta)
    kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Two publishers of one place may end in the other order: the record then holds the newer one.
    _replace(kept, content)


def kept_list(path: Path, place: str, *, delta: bool = False) -> bytes | None:
    """The CRL or delta kept of this place, or None."""
    kept = _list_file(path, place, delta=delta)
    return kept.read_bytes() if kept.exists() else None


def kept_lists(path: Path) -> list[bytes]:
    """Every CRL and delta that is kept."""
    return [kept.read_bytes() for kept in sorted((path.parent / "lists").glob("*.crl"))]


def _list_file(path: Path, place: str, *, delta: bool) -> Path:
    authority_id, shard = crl_at(place)
    return path.parent / "lists" / f"{authority_id}.{shard}{'-delta' if delta else ''}.crl"


def _read(path: Path) -> dict[str, int]:
    return dict(orjson.loads(path.read_bytes())) if path.exists() else {}


def _write(path: Path, floors: dict[str, int]) -> None:
    _replace(path, orjson.dumps(floors, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))


def _replace(path: Path, content: bytes) -> None:
    with replacing(path, _AS_THE_ACCOUNT_HAS_IT, own_draft(path)) as file:
        file.write(content)
    onto_disk(path.parent)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.with_name(path.name + ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
