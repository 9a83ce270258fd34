"""The instant under which this host may sign: agreed with the record's clock, and never before the last one.

A clock that differs from the primary database's by over a minute signs nothing, and says so; what takes trust
away is dated by the database (`directory/base/instant.py`) and goes on. The last instant signed is kept in a
file of this host: an answer dated before it would let an older truth pass for a newer one. One that lies in
the future, because the clock once jumped ahead, two administrators void (`clock_reset`).
"""

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock

import orjson
from sqlalchemy import Engine, text

from directory.base import instant
from directory.base.clock import Clock
from directory.base.db import asking
from directory.base.errors import Kind, Refusal
from directory.base.folders import onto_disk

_LOG = logging.getLogger("sceau.clock")
# Farther apart, or farther back, something is wrong with a clock; within it, time is only a little uneven.
TOLERATED = timedelta(minutes=1)
FILE = "last-signed.json"
# How long one look at the database's clock counts, unless this machine's jumps meanwhile.
_HOLD_SECONDS = 5.0
_JUMP = timedelta(seconds=1)
# A crash forgets at most so much of what was signed: a write each time would cost more than the signature.
_WRITTEN_EVERY = timedelta(seconds=5)
_LOOK = text("SELECT clock_timestamp(), (SELECT count(*) FROM clock_reset WHERE confirmed_at IS NOT NULL)")


@dataclass(frozen=True)
class Mark:
    """The last instant signed here, and how many resets of marks were known then."""

    instant: datetime
    resets: int


@dataclass(frozen=True)
class _Look:
    """What was seen: this clock's difference, the resets there were, and when by both of its clocks."""

    difference: timedelta
    resets: int
    at: datetime
    tick: float


class SigningClock:
    """One for each process and folder; `folder` holds the mark. `ticks` counts seconds, as `time.monotonic`.

    Over an engine whose acts the caller dates, the clock is the caller's too and is compared with nothing.
    Raises what the database raises: a clock that cannot be compared signs nothing.
    """

    def __init__(
        self, engine: Engine, clock: Clock, folder: Path, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._path = folder / FILE
        self._ticks = ticks
        self._look: _Look | None = None
        self._last: Mark | None = None
        self._written: datetime | None = None
        self._lock = Lock()
        self._said = ""

    def instant(self) -> datetime:
        """The instant to sign under now, kept as the last one.

        Up to `TOLERATED` before the last one it is the last one again. Refuses `clock-differs`, and
        `clock-behind` beyond that.
        """
        with self._lock:
            now = self._agreed()
            last = self._last_mark(now)
            if last is None or now >= last.instant:
                self._keep(Mark(now, self._resets(last)))
                return now
            if last.instant - now > TOLERATED:
                raise self._told(behind(last.instant - now))
            return last.instant

    def need(self) -> None:
        """Refuse what `instant` refuses, without signing anything."""
        with self._lock:
            self._agreed()
            if (ahead := self._ahead()) > TOLERATED:
                raise self._told(behind(ahead))

    def difference(self) -> timedelta:
        """How far this clock is ahead of the database's, as of the last seconds."""
        with self._lock:
            return self._looked().difference if self._compared() else timedelta()

    def wrong(self) -> str:
        """Why nothing is signed on this host, a sentence; '' when the clock is as it should be."""
        try:
            self.need()
        except Refusal as refusal:
            return refusal.text
        return ""

    def ahead(self) -> timedelta:
        """How far the last instant signed lies in the future."""
        with self._lock:
            return self._ahead()

    def _agreed(self) -> datetime:
        """This clock's instant, once it agrees with the database's."""
        if self._compared() and abs(self._looked().difference) > TOLERATED:
            # Looked at again before anything is refused: it may have been set right a moment ago.
            self._look = None
            if abs(difference := self._looked().difference) > TOLERATED:
                raise self._told(differs(difference))
        if self._said:
            _LOG.warning("the clock of this host is right again: it signs")
            self._said = ""
        return self._clock()

    def _compared(self) -> bool:
        return instant.is_dated_by_database(self._engine)

    def _looked(self) -> _Look:
        known, now, tick = self._look, self._clock(), self._ticks()
        if known is not None and 0 <= tick - known.tick < _HOLD_SECONDS:
            passed = timedelta(seconds=tick - known.tick)
            if abs(now - known.at - passed) < _JUMP:
                return known
        with asking(self._engine) as connection:
            said, resets = connection.execute(_LOOK).one()
        # Half of the way there and back: a database that answers late is not a clock that is late.
        middle = now + (self._clock() - now) / 2
        self._look = _Look(middle - said, resets, self._clock(), self._ticks())
        return self._look

    def _resets(self, last: Mark | None) -> int:
        if self._compared():
            return self._looked().resets
        return 0 if last is None else last.resets

    def _ahead(self) -> timedelta:
        now = self._clock()
        last = self._last_mark(now)
        return timedelta() if last is None else max(timedelta(), last.instant - now)

    def _last_mark(self, now: datetime) -> Mark | None:
        """The mark that counts: one beyond what is tolerated counts no more once it was voided."""
        if self._last is None or self._last.instant > now + TOLERATED:
            self._last = _read(self._path)
        last = self._last
        if last is None or last.instant <= now + TOLERATED:
            return last
        with asking(self._engine) as connection:
            resets = connection.execute(_LOOK).one()[1]
        if resets <= last.resets:
            return last
        _LOG.warning("the last instant signed, %s, was voided by two administrators", last.instant)
        self._last = Mark(now, resets)
        _write(self._path, self._last)
        self._written = now
        return self._last

    def _keep(self, mark: Mark) -> None:
        self._last = mark
        if self._written is None or not timedelta() <= mark.instant - self._written < _WRITTEN_EVERY:
            with _alone(self._path):
                # Processes of one host share the file; what another signed later stays.
                kept = _read(self._path)
                if kept is None or kept.instant <= mark.instant:
                    _write(self._path, mark)
                else:
                    self._last = kept
            self._written = mark.instant

    def _told(self, refusal: Refusal) -> Refusal:
        if self._said != refusal.code:
            _LOG.error("nothing is signed on this host: %s", refusal.text)
            self._said = refusal.code
        return refusal


def differs(difference: timedelta) -> Refusal:
    """The refusal to sign of a host whose clock is so far ahead of the database's, negative: behind."""
    seconds = round(difference.total_seconds())
    word = "ahead of" if seconds > 0 else "behind"
    text = (
        f"The clock of this host is {abs(seconds)} s {word} the database's: it signs nothing until they agree"
        " (see that both follow a time server). Revocations are recorded."
    )
    return Refusal(Kind.UNAVAILABLE, "clock-differs", text)


def behind(ahead: timedelta) -> Refusal:
    """The refusal to sign before what was signed last here, so far in the future."""
    text = (
        f"This host has signed under an instant {round(ahead.total_seconds())} s in the future: it signs"
        " nothing before it, until two administrators void it (`sceau clock reset`). Revocations are"
        " recorded."
    )
    return Refusal(Kind.UNAVAILABLE, "clock-behind", text)


def _read(path: Path) -> Mark | None:
    if not path.exists():
        return None
    try:
        told = orjson.loads(path.read_bytes())
        return Mark(datetime.fromisoformat(told["instant"]).astimezone(UTC), int(told["resets"]))
    except (ValueError, KeyError, TypeError) as error:
        text = f"The last instant signed cannot be read ({path.name}): put the file back or remove it."
        raise Refusal(Kind.UNAVAILABLE, "clock-behind", text) from error


def _write(path: Path, mark: Mark) -> None:
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    with fresh.open("wb") as file:
        file.write(orjson.dumps({"instant": mark.instant.isoformat(), "resets": mark.resets}))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    onto_disk(path.parent)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.with_name(path.name + ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
