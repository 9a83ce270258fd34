"""Answers kept in memory, usable only while a listener vouches that every revocation has been heard of.

Knows neither the database nor HTTP. One cache per process; reads take no lock.
"""

import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from pki.model import Serial

# How long one heartbeat of the listener counts: the longest that a revocation may go unheard.
VOUCHED_SECONDS = 1.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CachedValue(Generic[T]):
    """A value and the instant from which it must be made anew; before `since` it is of a clock put back."""

    value: T
    until: datetime
    since: datetime | None = None


class AnswerCache(Generic[T]):
    """At most `size` values, each about one serial under any number of keys; the oldest gives way.

    `generation` counts what has been heard: who stores says at which count the truth was read, and is refused
    when the count has moved since. So an answer read before a revocation cannot be stored after it.
    """

    def __init__(self, size: int) -> None:
        self.generation = 0
        self._size = size
        self._kept: dict[object, CachedValue[T]] = {}
        self._keys: defaultdict[Serial, set[object]] = defaultdict(set)
        self._serials: dict[object, Serial] = {}
        self._lock = threading.Lock()
        self._vouched_until = float("-inf")

    def get(self, key: object, now: datetime) -> T | None:
        """The value under this key, when it is fresh and vouched for."""
        kept = self._kept.get(key)
        if kept is None or now >= kept.until or not self.is_vouched_for():
            return None
        if kept.since is not None and now < kept.since:
            return None
        return kept.value

    def is_vouched_for(self) -> bool:
        """Whether the listener has been heard lately."""
        return time.monotonic() < self._vouched_until

    def vouch(self, asked_at: float) -> None:
        """Everything committed by `asked_at` (monotonic seconds) has been heard of."""
        self._vouched_until = asked_at + VOUCHED_SECONDS

    def keep(self, key: object, serial: Serial, kept: CachedValue[T], generation: int) -> None:
        """Store what was read at `generation`, unless something has been heard since."""
        with self._lock:
            if generation != self.generation:
                return
            if key not in self._kept and len(self._kept) >= self._size:
                self._drop(next(iter(self._kept)))
            self._kept[key] = kept
            self._keys[serial].add(key)
            self._serials[key] = serial

    def forget(self, serial: Serial) -> None:
        """Drop every variant about this serial: GET and POST, SHA-1 and SHA-256, any spelling of the path."""
        with self._lock:
            self.generation += 1
            for key in list(self._keys.get(serial, ())):
                self._drop(key)

    def clear(self) -> None:
        """Drop everything: something may have been missed."""
        with self._lock:
            self.generation += 1
            self._kept.clear()
            self._keys.clear()
            self._serials.clear()

    def _drop(self, key: object) -> None:
        del self._kept[key]
        serial = self._serials.pop(key)
        self._keys[serial].discard(key)
        if not self._keys[serial]:
            del self._keys[serial]
