"""Who may hold a thread for a while, or a large file: a few of a process, fewer of one token and one source.

A thread is held while a reader waits for the next change; a file is open until a slow reader has it.
"""

import threading
from collections import Counter
from collections.abc import Callable

WAITING, WAITING_EACH = 32, 4
DOWNLOADS, DOWNLOADS_EACH = 16, 2
_OF_A_SOURCE = 4


class Seats:
    """At most `most` stay at a time, `most_each` of one token, a quarter of one source."""

    def __init__(self, most: int, most_each: int) -> None:
        self._most, self._most_each = most, most_each
        self._taken: Counter[int] = Counter()
        self._of_source: Counter[str] = Counter()
        self._left = threading.Condition()

    def take(self, token: int, source: str, patience: float = 0.0) -> bool:
        """Take a seat, to be given back by `leave`; False when there is none within `patience` seconds."""
        with self._left:
            if not self._left.wait_for(lambda: self._is_free(token, source), patience):
                return False
            self._taken[token] += 1
            self._of_source[source] += 1
            return True

    def _is_free(self, token: int, source: str) -> bool:
        return (
            self._taken.total() < self._most
            and self._taken[token] < self._most_each
            and self._of_source[source] < max(1, self._most // _OF_A_SOURCE)
        )

    def leave(self, token: int, source: str) -> None:
        """Give one back."""
        with self._left:
            self._taken[token] -= 1
            self._of_source[source] -= 1
            self._taken += Counter()  # forgets those at zero
            self._of_source += Counter()
            self._left.notify_all()

    @property
    def taken(self) -> int:
        """How many are."""
        return self._taken.total()


class Bell:
    """Rung when something was committed, by whoever hears of it; wakes all who wait in this process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._rung = 0

    def ring(self) -> None:
        """Something was committed."""
        with self._changed:
            self._rung += 1
            self._changed.notify_all()

    @property
    def rung(self) -> int:
        """How often it was; read before one looks, so that nothing falls between looking and waiting."""
        return self._rung

    def stir(self) -> None:
        """Somebody may not want to wait any more."""
        with self._changed:
            self._changed.notify_all()

    def wait(self, since: int, seconds: float, given_up: Callable[[], bool] = lambda: False) -> bool:
        """Wait until it was rung more often than `since`, for `seconds` at most; whether it was.

        Looks whether it was given up when it is rung or stirred.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._rung != since or given_up(), max(0.0, seconds))
            return self._rung != since
