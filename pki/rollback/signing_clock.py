"""The instant under which this host may sign: agreed with the record's clock, and never before the last one.

A clock that differs from the primary database's by over a minute signs nothing, and says so. Withdrawals of
trust are dated by the database (`directory/base/instant.py`) and go on. The last instant signed is kept in a
file of this host. An answer dated before it would let an older truth pass for a newer one. Without room for
it, it is kept in memory: `revoked` must still be told, and `api.process.writing` judges whether anything good
may be. One that lies in the future, because the clock once jumped ahead, two administrators void
(`clock_reset`).
"""

import fcntl
import logging
import os
import stat
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
from directory.base.durable_files import onto_disk, own_draft, replacing
from directory.base.errors import Kind, Refusal

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
            if last is None or last.instant <= now:
                # What is kept may be another process's, who signed later meanwhile.
                last = self._keep(Mark(now, self._resets(last)))
            if last.instant - now > TOLERATED:
                raise self._told(behind(last.instant - now))
            self._right()
            return last.instant

    def need(self) -> None:
        """Refuse what `instant` refuses, without signing anything."""
        with self._lock:
            self._agreed()
            if (ahead := self._ahead()) > TOLERATED:
                raise self._told(behind(ahead))
            self._right()

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
            self._last = self._read()
        last = self._last
        if last is None or last.instant <= now + TOLERATED:
            return last
        with asking(self._engine) as connection:
            resets = connection.execute(_LOOK).one()[1]
        if resets <= last.resets:
            return last
        _LOG.warning("the last instant signed, %s, was voided by two administrators", last.instant)
        self._written = now
        self._last = self._put(Mark(now, resets))
        return self._last

    def _keep(self, mark: Mark) -> Mark:
        """The mark that counts from now on, as `_put`."""
        self._last = mark
        if self._written is None or not timedelta() <= mark.instant - self._written < _WRITTEN_EVERY:
            self._written = mark.instant
            self._last = self._put(mark)
        return self._last

    def _put(self, mark: Mark) -> Mark:
        """The mark that counts from now on: this one, or what another of this host signed later."""
        try:
            with _alone(self._path):
                kept = self._read()
                if kept is not None and _stands(kept, mark):
                    return kept
                _write(self._path, mark)
        except PermissionError as error:
            raise self._told(_closed(self._path, error)) from error
        except OSError as error:
            _LOG.error("the last instant signed is kept in memory alone: %s", error)
        return mark

    def _read(self) -> Mark | None:
        try:
            return _read(self._path)
        except Refusal as refusal:
            raise self._told(refusal) from refusal.__cause__

    def _right(self) -> None:
        if self._said:
            _LOG.warning("the clock of this host is right again: it signs")
            self._said = ""

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


def _closed(path: Path, error: OSError) -> Refusal:
    text = (
        f"The last instant signed cannot be kept ({path.parent.name}/{path.name}: {error.strerror}). Give the"
        " file, and the one beside it that ends in .lock, to the account of the service."
    )
    return Refusal(Kind.UNAVAILABLE, "clock-behind", text)


def _stands(kept: Mark, mark: Mark) -> bool:
    """Whether what lies in the file is later than this, and not voided by a reset that this one knows."""
    ahead = kept.instant - mark.instant
    return ahead > timedelta() and (ahead <= TOLERATED or kept.resets >= mark.resets)


def _read(path: Path) -> Mark | None:
    try:
        told = orjson.loads(path.read_bytes())
        return Mark(datetime.fromisoformat(told["instant"]).astimezone(UTC), int(told["resets"]))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _closed(path, error) from error
    except (ValueError, KeyError, TypeError) as error:
        text = f"The last instant signed cannot be read ({path.name}): put the file back or remove it."
        raise Refusal(Kind.UNAVAILABLE, "clock-behind", text) from error


def _write(path: Path, mark: Mark) -> None:
    with replacing(path, 0o666, own_draft(path)) as file:
        _give(file.fileno(), path)
        file.write(orjson.dumps({"instant": mark.instant.isoformat(), "resets": mark.resets}))
    onto_disk(path.parent)


def _give(file: int, path: Path) -> None:
    """Let an open file belong to whom `path` belongs, else its folder: a command of root signs here too."""
    folder = path.parent.stat()
    known = path.stat() if path.exists() else None
    if known is not None:
        os.fchmod(file, stat.S_IMODE(known.st_mode))
    if os.geteuid() == 0:
        owner = known if known is not None and known.st_uid else folder
        os.fchown(file, owner.st_uid, owner.st_gid)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = path.with_name(path.name + ".lock")
    with lock.open("w") as file:
        _give(file.fileno(), lock)
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
