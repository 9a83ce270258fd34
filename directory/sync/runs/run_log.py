"""The rows that say how a run goes: its state, its steps, the rows it could not take; each written at once.

A run that was cut off leaves the state it was in, so that whoever comes next knows what to take up. What the
steps do is for `run.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import orjson
from sqlalchemy import Connection, delete, insert, select, text, update

from directory.base import failpoints
from directory.base.locks import is_held
from directory.tables import register_rejection, register_run, register_step

STEPS = ("fetch", "verify", "parse", "check", "stage", "diff", "plan", "apply", "report")
# A run that takes its process down with it is not tried for ever.
MOST_ATTEMPTS = 5

_REJECTIONS = text(
    "INSERT INTO register_rejection (run_id, line_number, reason, detail, excerpt)"
    " SELECT :run_id, line_number, reason, detail, excerpt FROM rejected ON CONFLICT DO NOTHING"
)
# A plan (`sceau sync run` without --apply) is no answer.
_OF_FILE = text(
    "SELECT state, reason FROM register_run WHERE register = :register AND file_sha256 = :sha256"
    " AND applies ORDER BY id DESC LIMIT 1"
)
_LAST_APPLIED = text("SELECT max(finished_at) FROM register_run WHERE state = 'applied'")
_STEP = text(
    "INSERT INTO register_step (run_id, step, started_at) VALUES (:run_id, :step, :at)"
    " ON CONFLICT (run_id, step) DO UPDATE SET started_at = :at, finished_at = NULL, detail = '{}'"
)
# A cut-off run is tried again at once, then after 1, 4, 9 minutes: a full disk takes a while to be seen to.
_DUE = text("""
    SELECT r.id, r.register, r.state FROM register_run r
    WHERE r.state = 'held' AND r.approvals_needed <= (
        SELECT count(*) FROM register_approval a JOIN api_token t ON t.id = a.token_id
        WHERE a.run_id = r.id AND t.revoked_at IS NULL)
    OR r.state IN ('running', 'interrupted') AND r.applies AND r.attempts < :most
    AND transaction_timestamp() >= (r.attempts - 1) * (r.attempts - 1) * interval '1 minute'
        + coalesce((SELECT max(s.started_at) FROM register_step s WHERE s.run_id = r.id), r.started_at)
    ORDER BY r.id
""")
_SUPERSEDED = text("""
    WITH overtaken AS (
        SELECT o.id FROM register_run o JOIN register_run n ON n.register = o.register
        WHERE n.id = :run_id AND o.id <> n.id AND o.applies
        AND o.state IN ('held', 'interrupted') AND o.generated_at <= n.generated_at
        AND (o.increment OR NOT n.increment)
        FOR UPDATE OF o
    )
    UPDATE register_run r SET state = 'refused', reason = 'superseded', finished_at = :at, kept_file = NULL
    FROM overtaken o WHERE r.id = o.id
    RETURNING o.id
""")


@dataclass(frozen=True)
class FileRun:
    """What a run of a file came to: its state, and the reason of a refusal."""

    state: str
    reason: str | None


@dataclass(frozen=True)
class Opened:
    """A run as its row has it: what to read, whether to apply it, for whom."""

    run_id: int
    register: str
    path: Path
    sha256: bytes
    state: str
    applies: bool
    actor: str
    approvals_needed: int


@dataclass(frozen=True)
class Rejection:
    """One row that could not be taken; `excerpt` is its beginning, as the file has it."""

    line_number: int
    reason: str
    detail: str
    excerpt: str


def opened_run(connection: Connection, run_id: int) -> Opened | None:
    """The run of this number; None when there is none."""
    row = connection.execute(select(register_run).where(register_run.c.id == run_id)).one_or_none()
    if row is None:
        return None
    return Opened(
        row.id, row.register, Path(row.kept_file or row.file_name), row.file_sha256, row.state, row.applies,
        row.actor, row.approvals_needed,
    )  # fmt: skip


def due_to_resume(connection: Connection) -> list[int]:
    """The runs to take up again, oldest first: held ones let through, and ones that were cut off.

    A run counts as cut off when it says that it runs and nobody holds its register's lock.
    """
    due = connection.execute(_DUE, {"most": MOST_ATTEMPTS}).all()
    return [
        row.id for row in due if row.state != "running" or not is_held(connection, f"sync:{row.register}")
    ]


def waiting_for(connection: Connection, register: str, sha256: bytes) -> int | None:
    """The held run of this very file, None when there is none."""
    query = select(register_run.c.id).where(
        register_run.c.register == register,
        register_run.c.file_sha256 == sha256,
        register_run.c.state == "held",
    )
    return connection.execute(query.order_by(register_run.c.id.desc()).limit(1)).scalar_one_or_none()


def newer_applied(connection: Connection, run_id: int) -> int | None:
    """A later run of the same register, with a file no older, that was applied; None when there is none."""
    query = (
        "SELECT max(n.id) FROM register_run n JOIN register_run r ON r.register = n.register"
        " WHERE r.id = :run_id AND n.id > r.id AND n.generated_at >= r.generated_at AND n.state = 'applied'"
        " AND n.increment = r.increment"
    )
    newer_id: int | None = connection.execute(text(query), {"run_id": run_id}).scalar_one()
    return newer_id


def last_of_file(connection: Connection, register: str, sha256: bytes) -> FileRun | None:
    """What the last run of this file came to that was to be applied; None when there was none."""
    row = connection.execute(_OF_FILE, {"register": register, "sha256": sha256}).one_or_none()
    return None if row is None else FileRun(*row)


def last_applied_at(connection: Connection) -> datetime | None:
    """When a run of whatever register was applied last; None when none ever was."""
    applied_at: datetime | None = connection.execute(_LAST_APPLIED).scalar_one()
    return applied_at


def mark_cut_off(connection: Connection, register: str) -> None:
    """Say of runs that still claim to be under way that they were cut off; the caller holds the lock."""
    connection.execute(
        update(register_run)
        .where(register_run.c.register == register, register_run.c.state == "running")
        .values(state="interrupted")
    )


def begin(connection: Connection, **columns: Any) -> int:
    """The row of a run that begins now, in state running; returns its number."""
    made = insert(register_run).values(state="running", **columns).returning(register_run.c.id)
    return int(connection.execute(made).scalar_one())


def begin_again(connection: Connection, run_id: int) -> None:
    """The row of a run that is taken up again."""
    connection.execute(
        update(register_run)
        .where(register_run.c.id == run_id)
        .values(state="running", attempts=register_run.c.attempts + 1, reason=None, finished_at=None)
    )
    connection.execute(delete(register_rejection).where(register_rejection.c.run_id == run_id))


class Logbook:
    """Writes of one run, each in a transaction of its own unless one is open."""

    def __init__(self, connection: Connection, run_id: int, now: datetime) -> None:
        self.run_id = run_id
        self._connection = connection
        self._now = now
        self._began = monotonic()
        self._step: str | None = None
        self._detail: dict[str, Any] = {}

    @property
    def now(self) -> datetime:
        """The instant given at the start, and the time that has passed since."""
        return self._now + timedelta(seconds=monotonic() - self._began)

    def enter(self, step: str) -> None:
        """The step before is done, this one begins."""
        with self._connection.begin():
            self._close()
            at = self.now
            self._connection.execute(_STEP, {"run_id": self.run_id, "step": step, "at": at})
            self._set(step=step)
        self._step = step
        failpoints.passing(f"sync.{step}")

    def tell(self, **detail: Any) -> None:
        """What the step under way is remembered by."""
        self._detail |= detail

    def leave(self) -> None:
        """The last step is done."""
        with self._connection.begin():
            self._close()

    def end(self, state: str, *, counts: Mapping[str, int], **columns: Any) -> None:
        """How the run went, with the rows it could not take; in the caller's transaction."""
        self._set(state=state, counts=dict(counts), finished_at=self.now, **columns)
        self._connection.execute(_REJECTIONS, {"run_id": self.run_id})

    def supersede(self) -> list[int]:
        """Older runs that still waited wait no more: their numbers."""
        closed = self._connection.execute(_SUPERSEDED, {"run_id": self.run_id, "at": self.now})
        return list(closed.scalars())

    def _close(self) -> None:
        if self._step is None:
            return
        self._connection.execute(
            update(register_step)
            .where(register_step.c.run_id == self.run_id, register_step.c.step == self._step)
            .values(finished_at=self.now, detail=orjson.loads(orjson.dumps(self._detail)))
        )
        self._step, self._detail = None, {}

    def _set(self, **columns: Any) -> None:
        self._connection.execute(
            update(register_run).where(register_run.c.id == self.run_id).values(**columns)
        )
