"""One register, one file, one run: fetch, read, settle, compare, check, apply, and a row that says how it
went.

Opens its own transactions, short ones while reading and a single one for the record. Where files come from,
and when, is for commands and jobs to say.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic
from types import MappingProxyType

import orjson
from sqlalchemy import Connection, Engine, text

from directory.base.audit import Actor, Event, record
from directory.base.errors import Kind, Refusal
from directory.base.locks import held_if_free
from directory.sync import bounds
from directory.sync.finess import FINESS
from directory.sync.mailboxes import MAILBOXES
from directory.sync.register import Reading, Register
from directory.sync.rpps import RPPS
from directory.sync.source import modified_at, opened, sha256_of, stamp_of
from directory.sync.staging import Progress, Staging
from directory.sync.trusted_domains import TRUSTED_DOMAINS

REGISTERS: Mapping[str, Register] = MappingProxyType(
    {register.name: register for register in (RPPS, FINESS, MAILBOXES, TRUSTED_DOMAINS)}
)
SHOWN_REJECTIONS = 100

_PLAN = """
    CREATE TEMP TABLE planned AS
    SELECT coalesce(w.key, p.key) AS key,
           CASE WHEN p.key IS NULL THEN 'create' WHEN w.key IS NULL THEN 'remove' ELSE 'change' END AS act
    FROM wanted w FULL JOIN present p ON p.key = w.key
    WHERE p.key IS NULL OR (
        CASE WHEN w.key IS NULL THEN p.departed_at IS NULL
             ELSE p.departed_at IS NOT NULL OR p.row_hash <> w.row_hash END
        AND NOT EXISTS (SELECT FROM spared s WHERE s.key = p.key))
"""


@dataclass(frozen=True)
class Rejection:
    """One row that could not be taken; `excerpt` is its beginning."""

    line_number: int
    reason: str
    detail: str
    excerpt: str


@dataclass(frozen=True)
class RunReport:
    """How a run went.

    `counts`: lines = accepted + rejected + unchanged (rows); created, changed, removed (people, places,
    mailboxes, domains); ignored (rows of files read for nothing yet);
    recoded (lines that were not UTF-8). `reason` is a stable code, `text` a
    sentence; both are '' unless the run was refused. `rejections` are the first hundred.
    """

    run_id: int
    register: str
    layout: str | None
    file_name: str
    generated_at: datetime
    state: str
    reason: str
    text: str
    counts: dict[str, int]
    rejections: tuple[Rejection, ...]


def run_register(
    engine: Engine,
    *,
    register: str,
    path: Path,
    now: datetime,
    actor: Actor,
    apply: bool,
    strict_rpps: bool = True,
    progress: Progress | None = None,
) -> RunReport:
    """Bring the record to what `path` says, or, without `apply`, say what that would change.

    A bad file is a report in state "refused", and changes nothing. Refusal NOT_FOUND for no such file or
    register, CONFLICT when another run of this register is under way. `progress` hears of steps and of rows
    done in them.
    """
    if register not in REGISTERS:
        raise Refusal(Kind.NOT_FOUND, "no-such-register", f"There is no register {register!r}.")
    sha256 = sha256_of(path)
    with held_if_free(engine, f"sync:{register}") as free:
        if not free:
            raise Refusal(Kind.CONFLICT, "sync-running", f"Another run of {register} is under way.")
        with engine.connect() as connection:
            # Out of the pool, closed at the end: the temporary tables die with it.
            connection.detach()
            return _Run(connection, REGISTERS[register], path, sha256, now, actor, progress).go(
                apply=apply, strict=strict_rpps
            )


@dataclass
class _Run:
    """The steps of one run, and what each leaves to the next."""

    _connection: Connection
    _register: Register
    _path: Path
    _sha256: bytes
    _now: datetime
    _actor: Actor
    _progress: Progress | None

    def __post_init__(self) -> None:
        self._began = monotonic()
        self._staging = Staging(self._connection, self._register.tables, self._register.copy, self._progress)
        self._generated_at = stamp_of(self._path) or modified_at(self._path)
        self._layout: str | None = None
        self._counts = dict.fromkeys(
            (
                "lines",
                "accepted",
                "rejected",
                "unchanged",
                "created",
                "changed",
                "removed",
                "ignored",
                "recoded",
            ),
            0,
        )

    def go(self, *, apply: bool, strict: bool) -> RunReport:
        """The numbered steps; a Refusal on the way is the run's result."""
        try:
            # 1. Read: every row staged, or rejected with its reason.
            reading = self._read(strict=strict)
            self._layout = reading.layout
            self._generated_at = stamp_of(self._path) or reading.generated_at or self._generated_at
            # 2. Settle: rows that contradict one another.
            # 3. Compare: by hash of each person, place, mailbox, domain.
            for statement in (
                *self._register.settle,
                self._register.wanted,
                _PLAN,
                "ANALYZE wanted",
                "ANALYZE planned",
            ):
                with self._connection.begin():
                    self._connection.execute(text(statement))
            # 4. Plan and check.
            self._count()
            self._check()
        except Refusal as refusal:
            return self._refuse(refusal)
        # 5. Apply: one transaction holds the record's change, the run's row and the audit line.
        with self._connection.begin():
            if not apply:
                return self._report(self._keep("planned"), "planned")
            self._apply()
            run_id = self._keep("applied")
            self._tell(Event.REGISTER_APPLIED, run_id)
            return self._report(run_id, "applied")

    def _read(self, *, strict: bool) -> Reading:
        with opened(self._path, self._register.roles) as members:
            reading = self._register.read(members, self._staging, strict=strict)
        self._staging.flush()
        return reading

    def _count(self) -> None:
        counts = self._counts
        with self._connection.begin():
            acts = self._connection.execute(
                text(
                    "SELECT p.act, count(*), coalesce(sum(w.lines), 0)::bigint"
                    " FROM planned p LEFT JOIN wanted w ON w.key = p.key GROUP BY p.act"
                )
            )
            for act, entities, lines in acts:
                counts[{"create": "created", "change": "changed", "remove": "removed"}[act]] = entities
                counts["accepted"] += lines
            known = self._connection.execute(
                text("SELECT coalesce(sum(lines), 0)::bigint FROM wanted")
            ).scalar_one()
            counts["rejected"] = self._connection.execute(text("SELECT count(*) FROM rejected")).scalar_one()
        counts["unchanged"] = known - counts["accepted"]
        counts |= {name: getattr(self._staging, name) for name in ("lines", "ignored", "recoded")}
        if counts["accepted"] + counts["rejected"] + counts["unchanged"] != counts["lines"]:
            raise RuntimeError(f"rows went missing between file and record: {counts}")

    def _check(self) -> None:
        with self._connection.begin():
            present = self._connection.execute(
                text("SELECT count(*) FROM present WHERE departed_at IS NULL")
            ).scalar_one()
            last = self._connection.execute(
                text(
                    "SELECT generated_at, CAST(counts ->> 'lines' AS bigint) AS lines FROM register_run"
                    " WHERE register = :register AND state = 'applied' ORDER BY id DESC LIMIT 1"
                ),
                {"register": self._register.name},
            ).one_or_none()
        bounds.check(
            self._counts,
            present=present,
            last_lines=last.lines if last else None,
            generated_at=self._generated_at,
            last_generated_at=last.generated_at if last else None,
            now=self._now,
        )

    def _apply(self) -> None:
        done = 0
        for statement in self._register.apply:
            done += max(0, self._connection.execute(text(statement), {"now": self._now}).rowcount)
            if self._progress:
                self._progress("apply", done)

    def _refuse(self, refusal: Refusal) -> RunReport:
        self._staging.flush()
        with self._connection.begin():
            self._counts["lines"] = self._staging.lines
            self._counts["rejected"] = self._connection.execute(
                text("SELECT count(*) FROM rejected")
            ).scalar_one()
            run_id = self._keep("refused", refusal.code)
            self._tell(Event.REGISTER_REFUSED, run_id, reason=refusal.code, text=refusal.text)
            return self._report(run_id, "refused", refusal)

    def _keep(self, state: str, reason: str | None = None) -> int:
        run_id: int = self._connection.execute(
            text(
                "INSERT INTO register_run (register, file_name, file_sha256, layout, generated_at,"
                " started_at, finished_at, state, reason, counts) VALUES (:register, :file_name, :sha256,"
                " :layout, :generated_at, :started_at, :finished_at, :state, :reason,"
                " CAST(:counts AS jsonb)) RETURNING id"
            ),
            {
                "register": self._register.name,
                "file_name": self._path.name,
                "sha256": self._sha256,
                "layout": self._layout,
                "generated_at": self._generated_at,
                "started_at": self._now,
                "finished_at": self._now + timedelta(seconds=monotonic() - self._began),
                "state": state,
                "reason": reason,
                "counts": orjson.dumps(self._counts).decode(),
            },
        ).scalar_one()
        self._connection.execute(
            text(
                "INSERT INTO register_rejection (run_id, line_number, reason, detail, excerpt)"
                " SELECT :run_id, line_number, reason, detail, excerpt FROM rejected ON CONFLICT DO NOTHING"
            ),
            {"run_id": run_id},
        )
        return run_id

    def _tell(self, event: Event, run_id: int, **more: str) -> None:
        detail = {
            "run": run_id,
            "file": self._path.name,
            "sha256": self._sha256.hex(),
            "generated_at": self._generated_at.isoformat(),
            "counts": self._counts,
            **more,
        }
        record(
            self._connection,
            now=self._now,
            actor=self._actor,
            event=event,
            subject=self._register.name,
            detail=detail,
        )

    def _report(self, run_id: int, state: str, refusal: Refusal | None = None) -> RunReport:
        rejections = self._connection.execute(
            text(
                "SELECT line_number, reason, detail, excerpt FROM rejected"
                " ORDER BY line_number, reason LIMIT :most"
            ),
            {"most": SHOWN_REJECTIONS},
        )
        return RunReport(
            run_id=run_id,
            register=self._register.name,
            layout=self._layout,
            file_name=self._path.name,
            generated_at=self._generated_at,
            state=state,
            reason=refusal.code if refusal else "",
            text=refusal.text if refusal else "",
            counts=dict(self._counts),
            rejections=tuple(Rejection(*row) for row in rejections),
        )
