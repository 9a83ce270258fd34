"""Places of those who are still sending: plenty.

When all are taken, the one who is longest at it, of the source that has most, makes room.
"""

import threading
from typing import Generic, Protocol, TypeVar

from api.front.askers import Asker
from api.front.shares import Shares


class Sender(Protocol):
    """Who sends: its asker, and when it began by the clock of this machine's seconds."""

    @property
    def asker(self) -> Asker:
        """Whose share its place counts in."""

    @property
    def began(self) -> float:
        """Its first second here; never changes."""


S = TypeVar("S", bound=Sender)


class Senders(Generic[S]):
    """At most `most` at a time, each source and credential within its share; any thread may call."""

    def __init__(self, most: int) -> None:
        self._shares = Shares(most, "places for requests on their way")
        # In the order of their coming.
        self._under_way: dict[S, None] = {}
        self._lock = threading.Lock()

    def enter(self, sender: S) -> S | None:
        """Give it a place, until `leave`; Refusal when there is none.

        The one who made room for it is returned, to be told.
        """
        with self._lock:
            # Nobody makes room for one who is refused all the same.
            self._shares.check(sender.asker)
            removed = self._in_the_way_of(sender.asker)
            if removed is not None:
                self._remove(removed)
            self._shares.take(sender.asker)
            self._under_way[sender] = None
            return removed

    def leave(self, sender: S) -> bool:
        """Free its place; False when it has none any more, having made room or left."""
        with self._lock:
            if sender not in self._under_way:
                return False
            self._remove(sender)
            return True

    def since(self, second: float) -> list[S]:
        """Those who began at this second or before, the longest first."""
        senders: list[S] = []
        with self._lock:
            for sender in self._under_way:
                if sender.began > second:
                    break
                senders.append(sender)
        return senders

    def _in_the_way_of(self, asker: Asker) -> S | None:
        if self._shares.taken < self._shares.most:
            return None
        heaviest = self._shares.heaviest()
        if heaviest is None or self._shares.of_source(heaviest) <= self._shares.of_source(asker.source):
            return None
        return next(sender for sender in self._under_way if sender.asker.source == heaviest)

    def _remove(self, sender: S) -> None:
        del self._under_way[sender]
        self._shares.give_back(sender.asker)
