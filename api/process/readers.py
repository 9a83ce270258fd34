"""What this process may still hand out to each reader: portions of quotas, drawn from the record.

A portion is drawn for many reads, so that a read writes nothing. How large quotas are, and what is left of
them for all processes, is `directory/reading_quotas.py`'s. While the record takes no row each process counts
alone. A reader may then have his quota once from each, and nobody is refused for a fault of ours.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from directory import reading_quotas
from directory.access import Token
from directory.base.db import transaction
from directory.reading_quotas import PORTION_HOLDS, UNEVEN, WINDOW, Portion, Reached, Reading, ReadingQuotas

_LOG = logging.getLogger("sceau.readers")
_SWEEP_SECONDS = 5.0
# For so long a record that took no row is not asked again.
_ALONE_SECONDS = 5.0
# Who was refused and asks again at once is refused from memory: his storm costs the record nothing.
_REFUSED_HOLDS = timedelta(seconds=2)
# Oldest first beyond this many scopes: their portions stay counted, so that inventing scopes frees nothing.
_REMEMBERED = 10_000
# One transaction holds a lock for each scope that it gives back to.
_AT_ONCE = 100
Key = tuple[Reading, str]
Value = TypeVar("Value")


class QuotaStanding(NamedTuple):
    """What a scope has left of its quota as this process knows it; `resets_in` seconds more comes."""

    reading: Reading
    scope: str
    limit: int
    left: int
    resets_in: int


@dataclass(slots=True)
class _Held:
    """A portion drawn at `at`, and what of it is `unspent`; `limit` is the whole quota."""

    portion: Portion
    unspent: int
    at: datetime
    limit: int


class Readers:
    """Counts for all threads of a process.

    `engine` is for this alone: a view that counts holds a connection of the views already.
    """

    def __init__(self, engine: Engine, quotas: ReadingQuotas, clock: Callable[[], datetime]) -> None:
        self._engine, self.quotas, self._clock = engine, quotas, clock
        self._held: OrderedDict[Key, _Held] = OrderedDict()
        self._refused: OrderedDict[Key, tuple[Reached, datetime]] = OrderedDict()
        self._told: OrderedDict[Key, datetime] = OrderedDict()
        self._alone = _Alone(quotas)
        self._alone_until = float("-inf")
        self._lock = threading.Lock()
        # One thread at a time draws: those who ask for the same find it drawn.
        self._drawing = threading.Lock()

    def charge(
        self, token: Token, scopes: Sequence[str], reading: Reading, number: int = 1
    ) -> list[QuotaStanding] | Reached:
        """Count `number` reads under each of these scopes of who asks, or under none where one has too little
        left.
        """
        now = self._clock()
        with self._lock:
            done = self._refused_lately(reading, scopes, number, now) or self._spend(
                reading, scopes, number, now
            )
        if done is None:
            with self._drawing:
                done = self._drawn(reading, scopes, number)
        if isinstance(done, Reached):
            self._tell(done, token)
        return done

    def spend(self, scopes: Sequence[str], reading: Reading) -> list[QuotaStanding] | None:
        """Count one read of portions drawn before; None where one must be drawn, or was refused lately."""
        now = self._clock()
        with self._lock:
            if self._refused_lately(reading, scopes, 1, now) is not None:
                return None
            return self._spend(reading, scopes, 1, now)

    def follow(self) -> None:
        """Give back again and again, from now on, what nobody spends in time."""
        threading.Thread(target=self._follow, name="readers", daemon=True).start()

    def give_back(self) -> None:
        """Give back what is left of portions that hold no more."""
        now = self._clock()
        with self._lock:
            stale = [key for key, held in self._held.items() if not _holds(held, now)]
            unspent = self._take(stale)
        try:
            for start in range(0, len(unspent), _AT_ONCE):
                with transaction(self._engine) as connection:
                    reading_quotas.give_back(connection, unspent[start : start + _AT_ONCE])
        except SQLAlchemyError:
            # They stay counted until their hour is over.
            self._go_alone()

    def _follow(self) -> None:
        while True:
            time.sleep(_SWEEP_SECONDS)
            self.give_back()

    def _refused_lately(
        self, reading: Reading, scopes: Sequence[str], number: int, now: datetime
    ) -> Reached | None:
        for scope in scopes if self._refused else ():
            reached, at = self._refused.get((reading, scope), (None, now))
            if reached is not None and number == reached.asked and timedelta() <= now - at < _REFUSED_HOLDS:
                return reached
        return None

    def _spend(
        self, reading: Reading, scopes: Sequence[str], number: int, now: datetime
    ) -> list[QuotaStanding] | None:
        shares = [self._held.get((reading, scope)) for scope in scopes]
        held = [
            share for share in shares if share is not None and share.unspent >= number and _holds(share, now)
        ]
        if len(held) < len(scopes):
            return None
        for share in held:
            share.unspent -= number
            self._held.move_to_end((reading, share.portion.scope))
        return [_standing(share, now) for share in held]

    def _drawn(self, reading: Reading, scopes: Sequence[str], number: int) -> list[QuotaStanding] | Reached:
        now = self._clock()
        with self._lock:
            done = self._spend(reading, scopes, number, now)
            if done is not None:
                return done
            unspent = self._take([(reading, scope) for scope in scopes])
        portions = self._from_record(reading, scopes, number, unspent, now)
        with self._lock:
            if isinstance(portions, Reached):
                _remember(self._refused, (reading, portions.scope), (portions, now))
                return portions
            drawn = [self._begun(portion, number, now) for portion in portions]
            for held in drawn:
                _remember(self._held, (reading, held.portion.scope), held)
            return [_standing(held, now) for held in drawn]

    def _begun(self, portion: Portion, number: int, now: datetime) -> _Held:
        limit = self.quotas.of(portion.reading, portion.scope)
        return _Held(portion, portion.number - number, now, limit)

    def _from_record(
        self, reading: Reading, scopes: Sequence[str], number: int, unspent: Sequence[Portion], now: datetime
    ) -> list[Portion] | Reached:
        if time.monotonic() >= self._alone_until:
            try:
                with transaction(self._engine) as connection:
                    return reading_quotas.draw(
                        connection, self.quotas, reading, scopes, number=number, now=now, unspent=unspent
                    )
            except SQLAlchemyError:
                self._go_alone()
        return self._alone.draw(reading, scopes, number, now)

    def _go_alone(self) -> None:
        _LOG.warning("readers are counted by each process alone: the record takes no row", exc_info=True)
        self._alone_until = time.monotonic() + _ALONE_SECONDS

    def _take(self, keys: Sequence[Key]) -> list[Portion]:
        """What is unspent of these, which nobody may spend from now on."""
        taken = [self._held.pop(key) for key in keys if key in self._held]
        return [replace(held.portion, number=held.unspent) for held in taken if held.unspent]

    def _tell(self, reached: Reached, token: Token) -> None:
        whose = reading_quotas.whose(reached.scope)
        key, now = (reached.reading, whose), self._clock()
        with self._lock:
            told_at = self._told.get(key)
            if told_at is not None and timedelta() <= now - told_at < reading_quotas.HOUR:
                return
            _remember(self._told, key, now)
        try:
            with transaction(self._engine) as connection:
                told = reading_quotas.tell(connection, reached, token, now)
        except SQLAlchemyError:
            with self._lock:
                self._told.pop(key, None)
            return
        if told:
            _LOG.warning("the quota of %s of %s is reached", reached.reading.value, whose)


class _Alone:
    """The count of this process by itself, of what it handed out while the record took no row."""

    def __init__(self, quotas: ReadingQuotas) -> None:
        self._quotas = quotas
        self._used: OrderedDict[Key, list[tuple[datetime, int]]] = OrderedDict()

    def draw(
        self, reading: Reading, scopes: Sequence[str], number: int, now: datetime
    ) -> list[Portion] | Reached:
        portions = []
        for scope in scopes:
            limit = self._quotas.of(reading, scope)
            used = self._counted(reading, scope, now)
            left = limit - sum(count for _, count in used)
            if number > left:
                opens_at = _opens_at(used, number - left) if number <= limit else None
                return Reached(reading, scope, number, limit, left, opens_at)
            oldest = used[0][0] if used else now
            portions.append(Portion(reading, scope, now, number, left - number, oldest))
        for portion in portions:
            used = self._counted(reading, portion.scope, now)
            _remember(self._used, (reading, reading_quotas.whose(portion.scope)), _with(used, now, number))
        return portions

    def _counted(self, reading: Reading, scope: str, now: datetime) -> list[tuple[datetime, int]]:
        # Under a clock that had jumped ahead it was counted ahead of now.
        used = self._used.get((reading, reading_quotas.whose(scope)), [])
        return [entry for entry in used if -UNEVEN <= now - entry[0] < WINDOW]


def _with(used: list[tuple[datetime, int]], now: datetime, number: int) -> list[tuple[datetime, int]]:
    """One more, under the second that it falls in, so that an hour makes no more than so many."""
    second = now.replace(microsecond=0)
    if used and used[-1][0] == second:
        return [*used[:-1], (second, used[-1][1] + number)]
    return [*used, (second, number)]


def _opens_at(used: Sequence[tuple[datetime, int]], lacking: int) -> datetime | None:
    for at, count in used:
        lacking -= count
        if lacking <= 0:
            return at + WINDOW
    return None


def _holds(held: _Held, now: datetime) -> bool:
    """Whether it may be spent yet; a clock that was put back does not make it younger."""
    return timedelta() <= now - held.at < PORTION_HOLDS


def _standing(held: _Held, now: datetime) -> QuotaStanding:
    portion = held.portion
    resets_in = max(1, int((portion.oldest + WINDOW - now).total_seconds()) + 1)
    left = portion.rest + held.unspent
    return QuotaStanding(portion.reading, portion.scope, held.limit, left, resets_in)


def _remember(known: "OrderedDict[Key, Value]", key: Key, value: Value) -> None:
    known[key] = value
    known.move_to_end(key)
    while len(known) > _REMEMBERED:
        known.popitem(last=False)
