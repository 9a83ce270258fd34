"""Start over: the whole tree as LDIF, and a database made from it in the place of the old one.

For a server that lost its data, and for the first day of a country. Loading and swapping a database is the
server's business, handed in.
"""

import base64
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

from directory.base.audit import Actor, Event, record
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.base.locks import try_lock
from directory.base.pools import Pool
from directory.feed.changes import Cursor
from directory.feed.readers import horizon, save_cursor
from directory.ldap.entry import Attributes, Entry, base_entries, publisher_name
from directory.ldap.plan import FORM, MODIFIER, Add, place_plan, plan
from directory.ldap.publish import CONSUMER, Publisher, deferred
from directory.ldap.wanted import Record
from directory.store import sources

PAGE = 500
PAGES_AHEAD = 4

# RFC 2849: a value that may stand as it is; everything else is written in base64.
_SAFE = re.compile(rb"(?![ :<])[\x01-\x09\x0b\x0c\x0e-\x7f]*(?<! )")

Progress = Callable[[int], None]


@dataclass(frozen=True)
class RebuildReport:
    """How many entries the new tree has, base entries included, and how many seconds each part took.

    `seconds_away` is how long readers were without an answer.
    """

    entries: int
    seconds_loading: float
    seconds_away: float


def ldif(engine: Engine, wanted_record: Record, now: datetime) -> Iterator[bytes]:
    """The whole tree as LDIF, entry by entry, parents first, from pages of the present record."""
    with transaction(engine, read_only=True) as connection:
        place = horizon(connection)
    for page in _pages(engine, wanted_record, place, now):
        yield from page


def _pages(engine: Engine, wanted_record: Record, place: Cursor, now: datetime) -> Iterator[list[bytes]]:
    """Entries page by page; the tree says that it has followed the feed up to `place`."""
    writer = {MODIFIER: (publisher_name(wanted_record.suffix).encode(),)}
    with transaction(engine, read_only=True) as connection:
        top, *units = base_entries(wanted_record.suffix, sources(connection))
    yield [ldif_entry(entry, writer) for entry in (_placed(top, place), *units)]
    for keys in wanted_record.all_keys(engine, PAGE):
        with transaction(engine, read_only=True) as connection:
            wanted = wanted_record.wanted(connection, keys, now)
        operations = (plan(target.entry, None, wanted.version) for target in wanted.targets)
        yield [ldif_entry(operation, writer) for operation in operations if isinstance(operation, Add)]


def _ahead(pages: Iterator[list[bytes]]) -> Iterator[list[bytes]]:
    """The same pages, made by a thread while those before are used: reading and loading share the time."""
    waiting = deque[Future[list[bytes] | None]]()
    with Pool(1) as reader:
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
        told = _CountedEntries(_ahead(_pages(publisher.engine, publisher.record, place, now)), progress)
        load(told)
        loaded = time.monotonic()
        with deferred(publisher.engine):
            # Back before the swap. Cut short after it, the new tree would never learn what was written into
            # the old one while it was being made. Going back for nothing is harmless.
            with transaction(publisher.engine) as connection:
                save_cursor(connection, CONSUMER, place, now)
            swap()
            away = time.monotonic() - loaded
            _tell(publisher, told.entries, now=now, actor=actor)
    return RebuildReport(told.entries, loaded - began, away)


class _CountedEntries:
    """Entries on their way, counted page by page as they pass; read once."""

    def __init__(self, pages: Iterator[list[bytes]], progress: Progress) -> None:
        self._pages, self._progress = pages, progress
        self.entries = 0

    def __iter__(self) -> Iterator[bytes]:
        for page in self._pages:
            yield from page
            self.entries += len(page)
            self._progress(self.entries)


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
    with try_lock(engine, "ldap-rebuild") as free:
        if not free:
            raise Refusal(Kind.CONFLICT, "ldap-rebuild-running", "Another rebuild is under way.")
        yield


def _placed(top: Entry, place: Cursor) -> Entry:
    operation = place_plan(top, place, FORM)
    said = {} if operation is None else {name: new for name, (_, new) in operation.changes.items()}
    return Entry(top.dn, {**top.attributes, **said})


def ldif_entry(entry: Entry | Add, more: Attributes) -> bytes:
    """An entry as LDIF, with what belongs to the act of writing."""
    lines = [_line("dn", entry.dn.encode())]
    told = (*entry.attributes.items(), *more.items())
    lines += [_line(name, value) for name, values in told for value in values]
    return b"\n".join((*lines, b"", b""))


def _line(name: str, value: bytes) -> bytes:
    if _SAFE.fullmatch(value):
        return name.encode() + b": " + value
    return name.encode() + b":: " + base64.b64encode(value)
