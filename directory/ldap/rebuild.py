"""Start over, or compare everything: the tree as LDIF, a rebuilt database for the old one, the nightly look.

The publisher follows changes; this is for what it cannot see: a server that lost its data, an entry somebody
touched. Loading and swapping a database is the server's business, handed in.
"""

import base64
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

from directory.base.audit import Actor, Event, record
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.base.locks import held_if_free
from directory.feed import horizon, save_cursor
from directory.ldap.entry import Entry, Key, base_entries, key_of
from directory.ldap.names import Name, split
from directory.ldap.plan import Add, Delete, Modify, Operation, brake, plan
from directory.ldap.publish import CONSUMER, LOCK, Publisher
from directory.ldap.wanted import Record, Target, Wanted

PAGE = 500
PAGES_AHEAD = 4
# A publisher's pass is over in about a second; longer means that it hangs.
PATIENCE_SECONDS = 30
EXAMPLES = 20
WORDS = {Add: "missing", Delete: "extra", Modify: "different"}

# RFC 2849: a value that may stand as it is; everything else is written in base64.
_SAFE = re.compile(rb"(?![ :<])[\x01-\x09\x0b\x0c\x0e-\x7f]*(?<! )")

Progress = Callable[[int], None]
# What looks wrong: its name, and the key of the record it should come from (None for what is not ours).
Suspect = tuple[str, Key | None]


@dataclass(frozen=True)
class RebuildReport:
    """How many entries the new tree has, base entries included, and how many seconds each part took.

    `seconds_away` is how long readers were without an answer.
    """

    entries: int
    seconds_loading: float
    seconds_away: float


@dataclass(frozen=True)
class ReconcileReport:
    """What a comparison of every entry found: names missing, extra or different, and how many were put right.

    `examples` are the first of those names with what was wrong with each.
    """

    compared: int
    missing: int
    extra: int
    different: int
    repaired: int
    examples: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether nothing was wrong."""
        return not (self.missing or self.extra or self.different)


def ldif(engine: Engine, wanted_record: Record, now: datetime) -> Iterator[bytes]:
    """The whole tree as LDIF, entry by entry, parents first, from pages of the present record."""
    for page in _pages(engine, wanted_record, now):
        yield from page


def _pages(engine: Engine, wanted_record: Record, now: datetime) -> Iterator[list[bytes]]:
    yield [_ldif_entry(entry) for entry in base_entries(wanted_record.suffix)]
    for keys in wanted_record.all_keys(engine, PAGE):
        with transaction(engine, read_only=True) as connection:
            wanted = wanted_record.wanted(connection, keys, now)
        operations = (plan(target.entry, None, wanted.version) for target in wanted.targets)
        yield [_ldif_entry(Entry(each.dn, each.attributes)) for each in operations if isinstance(each, Add)]


def _ahead(pages: Iterator[list[bytes]]) -> Iterator[list[bytes]]:
    """The same pages, made by a thread while those before are used: reading and loading share the time."""
    waiting = deque[Future[list[bytes] | None]]()
    with ThreadPoolExecutor(1) as reader:
        try:
            waiting.extend(reader.submit(next, pages, None) for _ in range(PAGES_AHEAD))
            while (page := waiting.popleft().result()) is not None:
                waiting.append(reader.submit(next, pages, None))
                yield page
        finally:
            reader.shutdown(cancel_futures=True)


def rebuild(
    publisher: Publisher,
    *,
    now: datetime,
    actor: Actor,
    load: Callable[[Iterable[bytes]], None],
    swap: Callable[[], None],
    progress: Progress = lambda _: None,
) -> RebuildReport:
    """`load` the record as LDIF beside the served tree while it is read; `swap` with the publisher held.

    `swap` stops the server, puts the new tree in place and starts it. The publisher goes on from where the
    feed stood before the first page was read, so that nothing committed meanwhile is missed. Whatever fails
    before `swap` leaves the served tree alone. Refusal CONFLICT `ldap-rebuild-running` while another rebuild
    is under way.
    """
    with _alone(publisher.engine):
        began = time.monotonic()
        with transaction(publisher.engine, read_only=True) as connection:
            place = horizon(connection)
        told = _Told(_ahead(_pages(publisher.engine, publisher.record, now)), progress)
        load(told)
        loaded = time.monotonic()
        with _publisher_held(publisher.engine):
            # Back before the swap: cut short after it, the new tree would never learn what was written into
            # the old one while it was being made. Going back for nothing is harmless.
            with transaction(publisher.engine) as connection:
                save_cursor(connection, CONSUMER, place, now)
            swap()
            away = time.monotonic() - loaded
            _tell(publisher, told.entries, now=now, actor=actor)
    return RebuildReport(told.entries, loaded - began, away)


class _Told:
    """Entries on their way, counted page by page as they pass; read once."""

    def __init__(self, pages: Iterator[list[bytes]], progress: Progress) -> None:
        self._pages, self._progress = pages, progress
        self.entries = 0

    def __iter__(self) -> Iterator[bytes]:
        for page in self._pages:
            yield from page
            self.entries += len(page)
            self._progress(self.entries)


def reconcile(
    publisher: Publisher,
    *,
    now: datetime,
    apply: bool,
    force: bool = False,
    progress: Progress = lambda _: None,
) -> ReconcileReport:
    """Compare every entry that should stand with every entry that does; put right what differs with `apply`.

    The tree is walked while publication goes on. What looks wrong is looked at again with the publisher held
    and up to date, so that a change on its way is not taken for damage. Deletions come last and only below
    the brake (CONFLICT `too-many-deletions`), unless forced.
    """
    with _publisher_held(publisher.engine):
        publisher.drain(now, overwrite=apply)
        if apply:
            publisher.plant()
    seen, suspects = _walk(publisher, now, progress)
    suspects += _unseen(publisher, seen, now)
    wrong = dict.fromkeys(WORDS, 0)
    extras, examples, repaired = list[Suspect](), list[str](), 0
    for suspect, operation, wanted in _look_again(publisher, suspects, now, apply=apply):
        wrong[type(operation)] += 1
        examples.append(f"{WORDS[type(operation)]} {suspect[0]}")
        if isinstance(operation, Delete):
            extras.append(suspect)
        elif apply:
            repaired += publisher.bring_in_step(wanted, overwrite=True).written
    if apply and extras:
        brake(len(extras), len(seen), force=force)
        repaired += _delete(publisher, extras, now)
    return ReconcileReport(
        len(seen), wrong[Add], wrong[Delete], wrong[Modify], repaired, tuple(examples[:EXAMPLES])
    )


def _walk(publisher: Publisher, now: datetime, progress: Progress) -> tuple[set[Name], list[Suspect]]:
    """The names of all entries, and those that are not as the record wants them."""
    suffix, seen, suspects = publisher.record.suffix, set[Name](), list[Suspect]()
    base = {entry.name for entry in base_entries(suffix)}
    for page in publisher.client.walk(suffix, PAGE):
        found = {entry.name: entry for entry in page if entry.name not in base}
        keys = {name: key_of(name, suffix) for name in found}
        wanted = _wanted(publisher, [key for key in keys.values() if key is not None], now)
        entries = {target.key: target.entry for target in wanted.targets}
        for name, entry in found.items():
            key = keys[name]
            should = None if key is None else entries[key]
            if plan(should, entry, wanted.version, overwrite=True) is not None:
                suspects.append((entry.dn, key))
        seen |= found.keys()
        progress(len(seen))
    return seen, suspects


def _unseen(publisher: Publisher, seen: set[Name], now: datetime) -> list[Suspect]:
    """What the record wants and the walk did not meet."""
    return [
        (target.dn, target.key)
        for keys in publisher.record.all_keys(publisher.engine, PAGE)
        for target in _wanted(publisher, keys, now).targets
        if target.entry is not None and split(target.dn) not in seen
    ]


def _look_again(
    publisher: Publisher, suspects: Sequence[Suspect], now: datetime, *, apply: bool
) -> Iterator[tuple[Suspect, Operation, Wanted]]:
    """What is wrong even with the publisher held and up to date: the operation that mends it, its target."""
    for start in range(0, len(suspects), PAGE):
        page = suspects[start : start + PAGE]
        with _publisher_held(publisher.engine):
            publisher.drain(now, overwrite=apply)
            wanted = _wanted(publisher, [key for _, key in page if key is not None], now)
            targets = {target.key: target for target in wanted.targets}
            for dn, key in page:
                target = Target(key, dn, None) if key is None else targets[key]
                operation = plan(target.entry, publisher.client.read(dn), wanted.version, overwrite=True)
                if operation is not None:
                    yield (dn, key), operation, Wanted((target,), wanted.version)


def _delete(publisher: Publisher, extras: Sequence[Suspect], now: datetime) -> int:
    """Delete what is still extra, children before their parents; gives how many."""
    deleted = 0
    deepest_first = sorted(extras, key=lambda suspect: -len(split(suspect[0])))
    for _, operation, _ in _look_again(publisher, deepest_first, now, apply=True):
        if isinstance(operation, Delete):
            deleted += publisher.client.apply(operation)
    return deleted


def _wanted(publisher: Publisher, keys: Sequence[Key], now: datetime) -> Wanted:
    with transaction(publisher.engine, read_only=True) as connection:
        return publisher.record.wanted(connection, keys, now)


def _tell(publisher: Publisher, entries: int, *, now: datetime, actor: Actor) -> None:
    with transaction(publisher.engine) as connection:
        record(
            connection,
            now=now,
            actor=actor,
            event=Event.LDAP_REBUILT,
            subject=publisher.record.suffix,
            detail={"entries": entries},
        )


@contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    """Two rebuilds at once would write one file, and serve what both of them half wrote."""
    with held_if_free(engine, "ldap-rebuild") as free:
        if not free:
            raise Refusal(Kind.CONFLICT, "ldap-rebuild-running", "Another rebuild is under way.")
        yield


@contextmanager
def _publisher_held(engine: Engine) -> Iterator[None]:
    """The publisher's lock, waited for: no other writes to the tree within the block."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with held_if_free(engine, LOCK) as mine:
            if mine:
                yield
                return
        if time.monotonic() > deadline:
            text = f"Another publisher has held LDAP for {PATIENCE_SECONDS} s: try again when it is done."
            raise Refusal(Kind.CONFLICT, "ldap-publisher-busy", text)
        time.sleep(0.05)


def _ldif_entry(entry: Entry) -> bytes:
    lines = [_line("dn", entry.dn.encode())]
    lines += [_line(name, value) for name, values in entry.attributes.items() for value in values]
    return b"\n".join((*lines, b"", b""))


def _line(name: str, value: bytes) -> bytes:
    if _SAFE.fullmatch(value):
        return name.encode() + b": " + value
    return name.encode() + b":: " + base64.b64encode(value)
