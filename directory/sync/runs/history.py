"""What became of each register's files: runs, their steps, who let them through, what could not be read, and
how old what we know is.

Reads only, for REST, commands, pages and figures alike. What a bound is stands in `bounds.py`, who may let a
run through in `approvals.py`; nothing here decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from sqlalchemy import Connection, Row, text

from directory.base.errors import Kind, Refusal
from directory.store import REGISTERS, sources
from directory.sync.runs.run_log import STEPS, Rejection

SAMPLES = 3
# What a bigint holds: no run has a number above it, and asking for one is no error of the database.
HIGHEST_ID = 2**63 - 1


class RunState(Enum):
    """Where a run stands: at work, shown only, waiting for named persons, done, refused, cut off."""

    RUNNING = "running"
    PLANNED = "planned"
    HELD = "held"
    APPLIED = "applied"
    REFUSED = "refused"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Run:
    """One file of one register and what came of it.

    `counts` are those of `run.RunReport`; `measures` are shares by name; `reason` is the code of a refusal.
    `findings` say which bound was passed, each with `name`, `value`, `bound`, `needed` and `sentence`.
    """

    id: int
    register: str
    file_name: str
    sha256: bytes
    layout: str | None
    generated_at: datetime
    started_at: datetime
    finished_at: datetime | None
    state: RunState
    step: str | None
    reason: str | None
    counts: Mapping[str, int]
    measures: Mapping[str, float]
    findings: Sequence[Mapping[str, Any]]
    approvals_needed: int

    @property
    def duration(self) -> timedelta | None:
        """How long it took; None while it has not ended."""
        return None if self.finished_at is None else self.finished_at - self.started_at


@dataclass(frozen=True)
class Step:
    """One step of a run; `finished_at` None while it lasts, or where it was cut off."""

    step: str
    started_at: datetime
    finished_at: datetime | None
    detail: Mapping[str, Any]


@dataclass(frozen=True)
class Approved:
    """A named person's word that a held run may go on; `counts` until that person's token is revoked."""

    token_id: int
    name: str
    comment: str
    at: datetime
    counts: bool


@dataclass(frozen=True)
class RunInFull:
    """A run with its steps in order, its approvals, its rejections by reason, and the applied run before."""

    run: Run
    before: Run | None
    steps: tuple[Step, ...]
    approvals: tuple[Approved, ...]
    rejections: Mapping[str, int]
    samples: Mapping[str, tuple[Rejection, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Condition:
    """How one register is at an instant.

    `last` is the last applied run, `latest` the last of any outcome (plans left out), `in_hand` one at work
    or cut off. `held` is one that waits for persons; `late` when what we know is older than `limit`. A
    register never applied is not late: there is nothing whose age could be told.
    """

    register: str
    limit: timedelta
    age: timedelta | None
    last: Run | None
    latest: Run | None
    in_hand: Run | None
    held: Run | None

    @property
    def late(self) -> bool:
        """Whether the alarm is due."""
        return self.age is not None and self.age > self.limit


@dataclass(frozen=True)
class Turned:
    """A register that became late, or is so no more."""

    register: str
    late: bool
    generated_at: datetime


_RUN = (
    "id, register, file_name, file_sha256, layout, generated_at, started_at, finished_at, state, step,"
    " reason, counts, measures, findings, approvals_needed"
)
_RUNS = text(
    f"SELECT {_RUN} FROM register_run WHERE (CAST(:register AS text) IS NULL OR register = :register)"  # noqa: S608 - a constant of this module
    " AND (CAST(:states AS text[]) IS NULL OR state = ANY(:states))"
    " AND (CAST(:after AS bigint) IS NULL OR id < :after) AND (:increments OR NOT increment)"
    " ORDER BY id DESC LIMIT :limit"
)
_ONE = text(f"SELECT {_RUN} FROM register_run WHERE id = :id")  # noqa: S608 - same
_BEFORE = text(
    f"SELECT {_RUN} FROM register_run WHERE register = :register AND state = 'applied'"  # noqa: S608 - same
    " AND id < :id AND increment = (SELECT increment FROM register_run WHERE id = :id)"
    " ORDER BY id DESC LIMIT 1"
)
# The order that `sources` has, or two answers could name two different runs as the last.
_LATEST = text(
    "SELECT last.* FROM unnest(CAST(:registers AS text[])) AS asked (register)"  # noqa: S608 - same
    " CROSS JOIN unnest(CAST(:states AS text[])) AS wanted (state) CROSS JOIN LATERAL ("
    f" SELECT {_RUN} FROM register_run r WHERE r.register = asked.register AND r.state = wanted.state"
    # How old a register is, its whole files say: increments close no mailbox.
    " AND NOT (r.increment AND r.state = 'applied')"
    " ORDER BY r.finished_at DESC, r.id DESC LIMIT 1) AS last"
)
_STEPS = text(
    "SELECT step, started_at, finished_at, detail FROM register_step WHERE run_id = :id"
    " ORDER BY started_at, array_position(CAST(:steps AS text[]), step)"
)
_APPROVALS = text(
    "SELECT a.token_id, t.name, a.comment, a.approved_at, t.revoked_at IS NULL FROM register_approval a"
    " JOIN api_token t ON t.id = a.token_id WHERE a.run_id = :id ORDER BY a.approved_at, a.token_id"
)
_BY_REASON = text(
    "SELECT reason, count(*) FROM register_rejection WHERE run_id = :id GROUP BY reason"
    " ORDER BY count(*) DESC, reason"
)
_SAMPLES = text(
    "SELECT s.line_number, s.reason, s.detail, s.excerpt"
    " FROM unnest(CAST(:reasons AS text[])) AS asked (reason) CROSS JOIN LATERAL ("
    " SELECT * FROM register_rejection r WHERE r.run_id = :id AND r.reason = asked.reason"
    " ORDER BY r.line_number LIMIT :most) AS s"
)
_REJECTIONS = text(
    "SELECT line_number, reason, detail, excerpt FROM register_rejection WHERE run_id = :id"
    " AND (CAST(:only AS text) IS NULL OR reason = :only)"
    " AND (line_number, reason) > (:line, :reason) ORDER BY line_number, reason LIMIT :limit"
)
_OUTCOMES = tuple(state.value for state in RunState if state is not RunState.PLANNED)


def runs(
    connection: Connection,
    *,
    register: str | None = None,
    states: Sequence[RunState] | None = None,
    after: int | None = None,
    limit: int,
    increments: bool = True,
) -> list[Run]:
    """Runs, newest first: the first `limit` that come after the one numbered `after`. With increments, of
    which a day has many, or those of whole files alone.
    """
    asked = {
        "register": register,
        "states": None if states is None else [state.value for state in states],
        "after": None if after is None else min(after, HIGHEST_ID),
        "limit": limit,
        "increments": increments,
    }
    return [_run(row) for row in connection.execute(_RUNS, asked)]


def run(connection: Connection, run_id: int, *, samples: bool) -> RunInFull:
    """One run with all that is known of it; Refusal NOT_FOUND `unknown-run`.

    `samples` adds the first three rejected lines of each reason: they hold what the file holds, names too.
    """
    known_run = _known(connection, run_id)
    asked = {"id": run_id}
    before = connection.execute(_BEFORE, {**asked, "register": known_run.register}).one_or_none()
    by_reason = {reason: number for reason, number in connection.execute(_BY_REASON, asked)}  # noqa: C416 - dict() of rows is untyped
    return RunInFull(
        known_run,
        None if before is None else _run(before),
        tuple(Step(*row) for row in connection.execute(_STEPS, {**asked, "steps": list(STEPS)})),
        tuple(Approved(*row) for row in connection.execute(_APPROVALS, asked)),
        by_reason,
        _samples(connection, run_id, list(by_reason)) if samples else {},
    )


def rejections(
    connection: Connection,
    run_id: int,
    *,
    reason: str | None = None,
    after: tuple[int, str] = (0, ""),
    limit: int,
) -> list[Rejection]:
    """Rejected lines of a run in the order of the file: the first `limit` that come after `after` (line
    number, reason). Refusal NOT_FOUND `unknown-run`.
    """
    _known(connection, run_id)
    asked = {"id": run_id, "only": reason, "line": after[0], "reason": after[1], "limit": limit}
    return [Rejection(*row) for row in connection.execute(_REJECTIONS, asked)]


def conditions(
    connection: Connection, now: datetime, limits: Mapping[str, timedelta]
) -> tuple[Condition, ...]:
    """How each register is, in their usual order; `limits` say from which age each is late."""
    asked = {"registers": list(REGISTERS), "states": list(_OUTCOMES)}
    latest = {
        (latest_run.register, latest_run.state): latest_run
        for latest_run in map(_run, connection.execute(_LATEST, asked))
    }
    return tuple(_condition(register, latest, now, limits[register]) for register in REGISTERS)


def turned(
    connection: Connection, *, since: datetime | None, now: datetime, limits: Mapping[str, timedelta]
) -> tuple[Turned, ...]:
    """The registers whose lateness changed after `since` until `now`; with `since` None, all that are late.

    What was known at `since` is asked of the runs themselves, so that whoever asks needs to remember nothing.
    """
    before = {} if since is None else sources(connection, since)
    return tuple(
        Turned(register, late, generated_at)
        for register, generated_at in sources(connection).items()
        if generated_at is not None
        and (late := _is_late(generated_at, now, limits[register]))
        != (since is not None and _is_late(before.get(register), since, limits[register]))
    )


def _is_late(generated_at: datetime | None, now: datetime, limit: timedelta) -> bool:
    return generated_at is not None and now - generated_at > limit


def _condition(
    register: str, latest: Mapping[tuple[str, RunState], Run], now: datetime, limit: timedelta
) -> Condition:
    last = latest.get((register, RunState.APPLIED))
    ours = [latest_run for (name, _), latest_run in latest.items() if name == register]
    # What a newer applied file has overtaken goes on no more, and waits for nobody.
    ahead = [latest_run for latest_run in ours if last is None or latest_run.id > last.id]
    at_work = [
        latest_run for latest_run in ahead if latest_run.state in (RunState.RUNNING, RunState.INTERRUPTED)
    ]
    return Condition(
        register,
        limit,
        None if last is None else now - last.generated_at,
        last,
        max(ours, key=_number, default=None),
        max(at_work, key=_number, default=None),
        next((latest_run for latest_run in ahead if latest_run.state is RunState.HELD), None),
    )


def _number(run: Run) -> int:
    return run.id


def _known(connection: Connection, run_id: int) -> Run:
    row = connection.execute(_ONE, {"id": run_id}).one_or_none() if run_id <= HIGHEST_ID else None
    if row is None:
        raise Refusal(Kind.NOT_FOUND, "unknown-run", f"There is no run {run_id} of a register.")
    return _run(row)


def _samples(connection: Connection, run_id: int, reasons: list[str]) -> dict[str, tuple[Rejection, ...]]:
    asked = {"id": run_id, "reasons": reasons, "most": SAMPLES}
    samples = [Rejection(*row) for row in connection.execute(_SAMPLES, asked)]
    return {
        reason: tuple(rejection for rejection in samples if rejection.reason == reason) for reason in reasons
    }


def _run(row: Row[Any]) -> Run:
    return Run(
        row.id, row.register, row.file_name, row.file_sha256, row.layout, row.generated_at, row.started_at,
        row.finished_at, RunState(row.state), row.step, row.reason, row.counts, row.measures,
        tuple(row.findings), row.approvals_needed,
    )  # fmt: skip
