"""What keeps some requests from taking every thread of a web process: only a few of them may stay.

A thread is held while a reader waits for the next change, and while a slow one is handed a large file. OCSP
is answered by the same threads.
"""

import threading
from collections import Counter

# Threads for whatever is answered at once: two for each core that a process is meant for.
SWIFT = 4
WAITING, WAITING_EACH = 16, 4
DOWNLOADS, DOWNLOADS_EACH = 8, 2
# What the server must be started with, or those who stay would take the threads of those who do not.
THREADS = SWIFT + WAITING + DOWNLOADS


class Seats:
    """At most `most` stay at a time, and `most_each` of one token."""

    def __init__(self, most: int, most_each: int) -> None:
        self._most, self._most_each = most, most_each
        self._taken: Counter[int] = Counter()
        self._lock = threading.Lock()

    def take(self, token: int) -> bool:
        """Take a seat, to be given back by `leave`; False when there is none."""
        with self._lock:
            if self._taken.total() >= self._most or self._taken[token] >= self._most_each:
                return False
            self._taken[token] += 1
            return True

    def leave(self, token: int) -> None:
        """Give one back."""
        with self._lock:
            self._taken[token] -= 1
            self._taken += Counter()  # forgets those at zero

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

    def wait(self, since: int, seconds: float) -> bool:
        """Wait until it was rung more often than `since`, for `seconds` at most; whether it was."""
        with self._changed:
            return self._changed.wait_for(lambda: self._rung != since, max(0.0, seconds))
