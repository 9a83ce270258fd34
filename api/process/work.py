"""What the jobs of this process did last, by the monotonic clock: a job that hangs is known by its silence.

A job makes progress when the record answers it, or when it says so; what its pools' threads are answered
counts as its own (`directory/base/pools.py`). Nothing here beats by itself: a thread that did would go on
beating beside jobs that hang.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine, event


@dataclass
class _Run:
    name: str
    silence: float
    last: float


@dataclass
class Work:
    """The runs under way in this process, and when each job that comes due here ended last."""

    ticks: Callable[[], float] = time.monotonic
    _runs: dict[int, _Run] = field(default_factory=dict)
    _expected: dict[str, tuple[float, float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    # There is one `Work` in a process, so that a variable for each is no more than one of the module.
    _current: ContextVar[_Run | None] = field(default_factory=lambda: ContextVar("run", default=None))

    def follow(self, engine: Engine) -> None:
        """Take each answer of the record as progress of the job that asked, by whichever thread."""

        def note(*_: Any) -> None:
            self.progressed()

        # Both: some statements go to the driver past the first, and all of them give their connection back.
        event.listen(engine, "after_cursor_execute", note)
        event.listen(engine, "checkin", note)

    def expect(self, allowed: Mapping[str, float]) -> None:
        """From now on each of these jobs is to end a run within so many seconds of its last."""
        now = self.ticks()
        self._expected = {name: (seconds, now) for name, seconds in allowed.items()}

    def progressed(self) -> None:
        """The job of this context has got on; nothing where there is none."""
        run = self._current.get()
        if run is not None:
            run.last = self.ticks()

    @contextmanager
    def running(self, name: str, silence: float) -> Iterator[None]:
        """One run of a job in this thread, which hangs when it stays silent for longer than `silence`."""
        thread = threading.get_ident()
        before, run = self._runs.get(thread), _Run(name, silence, self.ticks())
        outer = self._current.set(run)
        with self._lock:
            self._runs[thread] = run
        try:
            yield
        finally:
            self._current.reset(outer)
            with self._lock:
                del self._runs[thread]
                if before is not None:
                    self._runs[thread] = before
                if name in self._expected:
                    self._expected[name] = self._expected[name][0], self.ticks()

    def hung(self) -> list[str]:
        """Which jobs hang: those that are silent for too long, and those that nobody runs any more."""
        now = self.ticks()
        with self._lock:
            runs = list(self._runs.values())
            expected = dict(self._expected)
        silent = [
            f"{run.name} is silent for {now - run.last:.0f} s" for run in runs if now - run.last > run.silence
        ]
        under_way = {run.name for run in runs}
        return silent + [
            f"{name} has not been run for {now - ended:.0f} s"
            for name, (allowed, ended) in expected.items()
            if name not in under_way and now - ended > allowed
        ]
