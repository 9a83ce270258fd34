"""Pages for people on the registers: how fresh each is, its last 90 runs, and one run in full.

Open to all, so they hold figures only: no file's name, no line of a file, no name of whoever agreed. French
first, then English. However many ask, what may still change is made anew at most every five seconds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock
from typing import Any

from flask import Blueprint, render_template
from sqlalchemy import Connection
from werkzeug.exceptions import NotFound

from api.pages.register_chart import Chart, chart
from api.wiring import Container
from api.words import registers as words
from api.words.figures import Said, age
from directory.base.db import transaction
from directory.base.errors import Refusal
from directory.sync.runs import history
from directory.sync.runs.history import Condition, Run, RunInFull, RunState

CHARTED = 90
LISTED = 12
# How long pages are kept, and how many. Anybody may ask, and each costs the database some counting: much of
# it where a whole country's lines were rejected. A run that is over changes no more.
_HELD = timedelta(seconds=5)
_HELD_WHEN_OVER = timedelta(minutes=10)
_MOST_HELD = 64


@dataclass(frozen=True)
class _Sheet:
    """One register as the page shows it."""

    condition: Condition
    runs: list[Run]
    chart: Chart
    ago: Said | None


def register_pages(container: Container) -> Blueprint:
    """/registers and /registers/runs/<id> on `container`."""
    made = Blueprint("register_pages", __name__)
    pages = _Pages(container)

    @made.get("/registers")
    def overview() -> str:
        return pages.shown("", lambda connection, now: _overview(container, connection, now))

    @made.get("/registers/runs/<int:run_id>")
    def run(run_id: int) -> str:
        return pages.shown(str(run_id), lambda connection, _: _run(connection, run_id))

    return made


@dataclass
class _Pages:
    """Pages made a moment ago, by name, with the time they were made and how long they hold; one process
    makes one at a time.
    """

    container: Container
    _lock: Lock = field(default_factory=Lock)
    _made: dict[str, tuple[datetime, timedelta, str]] = field(default_factory=dict)

    def shown(self, name: str, make: Callable[[Connection, datetime], tuple[timedelta, str]]) -> str:
        """The page of this name, made anew when it holds no more."""
        with self._lock:
            now = self.container.clock()
            kept = self._made.get(name)
            if kept is None or not timedelta() <= now - kept[0] < kept[1]:
                with transaction(self.container.engine, read_only=True) as connection:
                    kept = (now, *make(connection, now))
                self._made.pop(name, None)
                self._made[name] = kept
                while len(self._made) > _MOST_HELD:
                    self._made.pop(next(iter(self._made)))
            return kept[2]


def _overview(container: Container, connection: Connection, now: datetime) -> tuple[timedelta, str]:
    conditions = history.conditions(connection, now, container.settings.freshness)
    sheets = [_sheet(connection, condition, now) for condition in conditions]
    return _HELD, render_template(
        "registers.html", sheets=sheets, words=words, now=now, RunState=RunState, listed=LISTED
    )


def _sheet(connection: Connection, condition: Condition, now: datetime) -> _Sheet:
    shown = tuple(state for state in RunState if state not in (RunState.PLANNED, RunState.RUNNING))
    runs = history.runs(
        connection, register=condition.register, states=shown, limit=CHARTED, increments=False
    )
    ago = None if condition.last is None else age(now - condition.last.generated_at)
    return _Sheet(condition, runs, chart(runs), ago)


def _run(connection: Connection, run_id: int) -> tuple[timedelta, str]:
    try:
        full_run = history.run(connection, run_id, samples=False)
    except Refusal as error:
        raise NotFound from error
    over = full_run.run.state in (RunState.APPLIED, RunState.REFUSED, RunState.PLANNED)
    return _HELD_WHEN_OVER if over else _HELD, render_template(
        "register_run.html", found=full_run, run=full_run.run, words=words, RunState=RunState,
        findings=[_finding(full_run.run.register, finding) for finding in full_run.run.findings],
        longest=_longest(full_run),
    )  # fmt: skip


def _finding(register: str, finding: Mapping[str, Any]) -> Said:
    return Said(words.finding_in_french(register, finding), finding["sentence"])


def _longest(full_run: RunInFull) -> float:
    """Seconds of the longest step, against which the others are drawn."""
    took = [
        (step.finished_at - step.started_at).total_seconds() for step in full_run.steps if step.finished_at
    ]
    return max([*took, 0.001])
