"""A reader of the feed that runs ahead of its place: to urgent changes, and to those not settled yet.

A withdrawal waits neither for the queue nor for an older open transaction. The place is saved by whoever
follows, beside what came of the changes (`directory/feed/readers.py`). The memory here only spares work:
forgotten with the process, those changes are looked at once more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from directory.feed.changes import START, Change, Cursor
from directory.feed.readers import horizon, load_cursor, read_changes, read_unsettled, read_urgent


@dataclass(frozen=True)
class Batch:
    """The changes that one step looks at, each once, and what is known once it is done.

    `start` is the saved place, `reached` the one to save; urgent changes were read behind `urgent_after`, as
    far as `urgent`. `more`: others are waiting.
    """

    start: Cursor
    changes: Sequence[Change]
    reached: Cursor
    urgent_after: Cursor
    urgent: Cursor
    early: frozenset[Cursor]
    more: bool


class Follower:
    """Follows the feed as `consumer`; a step looks at `size` changes of each kind at most."""

    def __init__(self, consumer: str, size: int) -> None:
        self._consumer, self._size = consumer, size
        self._left = START
        self._urgent = START
        self._early: frozenset[Cursor] = frozenset()

    def read(self, connection: Connection) -> Batch:
        """The next changes; `finish` says that they were dealt with."""
        start = load_cursor(connection, self._consumer)
        self._go_on_from(start)
        urgent_after = max(start, self._urgent)
        urgent = read_urgent(connection, urgent_after, self._size)
        early = read_unsettled(connection, self._early, self._size)
        settled = read_changes(connection, start, self._size)
        settled_to = horizon(connection) if self._early else START
        waiting = (cursor for cursor in self._early if cursor > settled_to)
        return Batch(
            start=start,
            changes=tuple({change.cursor: change for change in (*urgent, *early, *settled)}.values()),
            reached=settled[-1].cursor if settled else start,
            urgent_after=urgent_after,
            urgent=urgent[-1].cursor if urgent else self._urgent,
            early=frozenset((*waiting, *(change.cursor for change in early))),
            more=self._size in (len(settled), len(urgent), len(early)),
        )

    def finish(self, batch: Batch) -> None:
        """Go on behind this batch: its place is saved, and what follows from its changes is done."""
        self._left, self._urgent, self._early = batch.reached, batch.urgent, batch.early

    def _go_on_from(self, start: Cursor) -> None:
        """Forget what was looked at ahead when somebody else moved our place: it may have been undone."""
        if start < self._left:
            self._urgent = START
        if start != self._left:
            self._early = frozenset()
        self._left = start
