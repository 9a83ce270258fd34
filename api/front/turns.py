"""Threads of one trade, and whose turn it is on them. No source has more than a quarter of them at work, no
credential more than an eighth, and those who wait are served in rotation.

A client that asks much waits behind itself: its next request does not come before the first one of somebody
else.
"""

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from api.front.askers import Asker
from api.front.shares import OF_A_CREDENTIAL, OF_A_SOURCE

_LOG = logging.getLogger("sceau.front")
_Key = tuple[str, bytes | None]


@dataclass(slots=True, eq=False)
class Turn:
    """What one asker wants done; a receipt for who may withdraw it."""

    asker: Asker
    act: Callable[[], None] | None


class Turns:
    """At most `threads` of one trade, started as they are needed; they end with the process."""

    def __init__(self, name: str, threads: int) -> None:
        self._name, self._threads = name, threads
        self._each_source = max(1, threads // OF_A_SOURCE)
        self._each_credential = max(1, threads // OF_A_CREDENTIAL)
        self._waiting: OrderedDict[_Key, deque[Turn]] = OrderedDict()
        self._at_work: dict[str | bytes, int] = {}
        # At work and waiting.
        self._there: dict[str | bytes, int] = {}
        self._in_all = 0
        self._started = 0
        self._changed = threading.Lock()
        # What each thread that sleeps waits for. The last to fall asleep is woken first: it is in the caches.
        # A condition would make a lock for each sleep, and wake the first.
        self._idle: list[threading.Lock] = []

    def ask(self, asker: Asker, act: Callable[[], None]) -> Turn:
        """Call `act` on a thread once its turn came; it tells what came of it, and raises nothing."""
        turn = Turn(asker, act)
        with self._changed:
            self._put(turn)
        return turn

    def ask_at_once(self, asker: Asker, act: Callable[[], None]) -> Turn | None:
        """The same, None unless a thread is free for this asker now."""
        turn = Turn(asker, act)
        with self._changed:
            if self._in_all >= self._threads or not self._fits(self._there, asker.source, asker.credential):
                return None
            self._put(turn)
        return turn

    def withdraw(self, turn: Turn) -> bool:
        """Take back what was asked for; False when it has begun, or is done."""
        key = turn.asker.source, turn.asker.credential
        with self._changed:
            waiting = self._waiting.get(key, ())
            if turn not in waiting:
                return False
            self._waiting[key].remove(turn)
            turn.act = None
            if not waiting:
                del self._waiting[key]
            self._leave(turn.asker)
            return True

    def _put(self, turn: Turn) -> None:
        """Into the row, once there is a thread for it; the lock is held."""
        self._begin()
        self._waiting.setdefault((turn.asker.source, turn.asker.credential), deque()).append(turn)
        _count(self._there, turn.asker, 1)
        self._in_all += 1

    def _leave(self, asker: Asker) -> None:
        _count(self._there, asker, -1)
        self._in_all -= 1

    def _begin(self) -> None:
        """Wake a thread, or start one; the lock is held."""
        if self._idle:
            self._wake()
        elif self._started < self._threads:
            self._start()

    def _start(self) -> None:
        name = f"{self._name}-{self._started + 1}"
        try:
            threading.Thread(target=self._serve, name=name, daemon=True).start()
        except RuntimeError:
            # Those there are serve this one too.
            if not self._started:
                raise
            _LOG.warning("no more threads for %s", self._name)
        else:
            self._started += 1

    def _wake(self) -> None:
        """One that sleeps, counted as awake from now: two who ask at once need two."""
        self._idle.pop().release()

    def _take(self, woken: threading.Lock) -> Turn:
        """The next turn, counted as at work; sleeps until there is one."""
        while True:
            with self._changed:
                turn = self._next()
                if turn is not None:
                    _count(self._at_work, turn.asker, 1)
                    return turn
                self._idle.append(woken)
            woken.acquire()

    def _serve(self) -> None:
        woken = threading.Lock()
        woken.acquire()
        while True:
            turn = self._take(woken)
            # Taken out: the turn and who asked for it know each other.
            act, turn.act = turn.act, None
            try:
                if act is not None:
                    act()
            except BaseException:  # noqa: BLE001 - the thread serves others still
                _LOG.exception("a turn failed, and told nobody")
            finally:
                with self._changed:
                    _count(self._at_work, turn.asker, -1)
                    self._leave(turn.asker)
                    # Who waited for the end of this one may begin, on a thread that slept for lack of work.
                    if self._waiting and self._idle:
                        self._wake()
            del turn, act

    def _next(self) -> Turn | None:
        """The first of the next asker in rotation who may begin; the lock is held."""
        for key in self._waiting:
            if self._fits(self._at_work, *key):
                waiting = self._waiting[key]
                turn = waiting.popleft()
                if waiting:
                    self._waiting.move_to_end(key)
                else:
                    del self._waiting[key]
                return turn
        return None

    def _fits(self, counted: dict[str | bytes, int], source: str, credential: bytes | None) -> bool:
        """Whether one more of this asker is within his share."""
        if counted.get(source, 0) >= self._each_source:
            return False
        return credential is None or counted.get(credential, 0) < self._each_credential


def _count(counted: dict[str | bytes, int], asker: Asker, more: int) -> None:
    for key in (asker.source, asker.credential):
        if key is not None:
            # None is left at zero: the next source is another, and these would be kept for good.
            if now := counted.get(key, 0) + more:
                counted[key] = now
            else:
                del counted[key]
