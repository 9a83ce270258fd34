"""Threads of one trade, and whose turn it is on them: no source has more than a quarter of them at work, no
credential more than an eighth, and those who wait are served in rotation.

Whoever asks much waits behind himself: his next request does not come before the first one of somebody else.
"""

import asyncio
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from api.front.askers import Asker
from api.front.shares import OF_A_CREDENTIAL, OF_A_SOURCE

T = TypeVar("T")
_Key = tuple[str, bytes | None]


@dataclass(slots=True)
class _Work(Generic[T]):
    asker: Asker
    act: Callable[[], T]
    loop: asyncio.AbstractEventLoop
    outcome: "asyncio.Future[T]"


class Turns:
    """At most `threads` of one trade, started as they are needed; they end with the process."""

    def __init__(self, name: str, threads: int) -> None:
        self._name, self._threads = name, threads
        self._each_source = max(1, threads // OF_A_SOURCE)
        self._each_credential = max(1, threads // OF_A_CREDENTIAL)
        self._waiting: OrderedDict[_Key, deque[_Work[Any]]] = OrderedDict()
        self._at_work: Counter[str | bytes] = Counter()
        # At work and waiting.
        self._there: Counter[str | bytes] = Counter()
        self._in_all = 0
        self._started = self._idle = 0
        self._changed = threading.Condition(threading.Lock())

    def ask(self, asker: Asker, act: Callable[[], T]) -> "asyncio.Future[T]":
        """What `act` comes to, once its turn came."""
        loop = asyncio.get_running_loop()
        work = _Work(asker, act, loop, loop.create_future())
        with self._changed:
            self._put(work)
        return work.outcome

    def ask_at_once(self, asker: Asker, act: Callable[[], T]) -> "asyncio.Future[T] | None":
        """The same, None unless a thread is free for this asker now."""
        loop = asyncio.get_running_loop()
        with self._changed:
            if self._in_all >= self._threads or not self._fits(self._there, asker.source, asker.credential):
                return None
            work = _Work(asker, act, loop, loop.create_future())
            self._put(work)
        return work.outcome

    def withdraw(self, outcome: "asyncio.Future[Any]") -> bool:
        """Take back what was asked for; False when it has begun, or is done."""
        with self._changed:
            for key, waiting in self._waiting.items():
                for work in waiting:
                    if work.outcome is outcome:
                        waiting.remove(work)
                        if not waiting:
                            del self._waiting[key]
                        self._leave(work.asker)
                        return True
        return False

    def _put(self, work: "_Work[Any]") -> None:
        """Into the row; the lock is held."""
        self._waiting.setdefault((work.asker.source, work.asker.credential), deque()).append(work)
        _count(self._there, work.asker, 1)
        self._in_all += 1
        self._begin()

    def _leave(self, asker: Asker) -> None:
        _count(self._there, asker, -1)
        self._in_all -= 1

    def _begin(self) -> None:
        """Wake a thread, or start one; the lock is held."""
        if self._idle:
            self._wake()
        elif self._started < self._threads:
            self._started += 1
            threading.Thread(target=self._serve, name=f"{self._name}-{self._started}", daemon=True).start()

    def _wake(self) -> None:
        """One that sleeps, counted as awake from now: two who ask at once need two."""
        self._idle -= 1
        self._changed.notify()

    def _serve(self) -> None:
        while True:
            with self._changed:
                work = self._next()
                while work is None:
                    self._idle += 1
                    self._changed.wait()
                    work = self._next()
                _count(self._at_work, work.asker, 1)
            try:
                _done(work)
            finally:
                with self._changed:
                    _count(self._at_work, work.asker, -1)
                    self._leave(work.asker)
                    # Who waited for the end of this one may begin, on a thread that slept for lack of work.
                    if self._waiting and self._idle:
                        self._wake()
            del work

    def _next(self) -> "_Work[Any] | None":
        """The first of the next asker in rotation who may begin; the lock is held."""
        for key in self._waiting:
            if self._fits(self._at_work, *key):
                waiting = self._waiting[key]
                work = waiting.popleft()
                if waiting:
                    self._waiting.move_to_end(key)
                else:
                    del self._waiting[key]
                return work
        return None

    def _fits(self, counted: Counter[str | bytes], source: str, credential: bytes | None) -> bool:
        """Whether one more of this asker is within his share."""
        if counted[source] >= self._each_source:
            return False
        return credential is None or counted[credential] < self._each_credential


def _count(counted: Counter[str | bytes], asker: Asker, more: int) -> None:
    for key in (asker.source, asker.credential):
        if key is not None:
            counted[key] += more
            if not counted[key]:
                del counted[key]


def _done(work: _Work[T]) -> None:
    """Do it, on this thread, and tell the loop; what it raises is told as well."""
    try:
        found = work.act()
    except BaseException as error:  # noqa: BLE001 - handed to who waits for it, on the loop
        _tell(work, work.outcome.set_exception, error)
    else:
        _tell(work, work.outcome.set_result, found)


def _tell(work: _Work[T], tell: Callable[[Any], None], told: Any) -> None:
    def told_unless_gone() -> None:
        if not work.outcome.done():
            tell(told)

    # A loop that is closed has nobody left to tell.
    with suppress(RuntimeError):
        work.loop.call_soon_threadsafe(told_unless_gone)
