"""One register, one file, one run: fetch, verify, parse, check, stage, diff, plan, apply, report.

Opens its own transactions: short ones while reading, each step's row as it begins, and a single one for the
record. A run that was cut off or held is taken up again from its file. Where files come from, and when, is
for commands and jobs to say; how far a night may go, for `bounds.py`.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType

from sqlalchemy import Connection, Engine, text

from directory.base import failpoints
from directory.base.audit import Actor, Event, record
from directory.base.errors import Kind, Refusal
from directory.base.locks import try_lock
from directory.feed.changes import Entity
from directory.sync.formats import fhir
from directory.sync.formats.files import (
    Member,
    RegisterFile,
    Remark,
    is_archive,
    is_day_alone,
    modified_at,
    oldest,
    opened,
    refused,
    register_file,
    written_at,
)
from directory.sync.formats.finess import FINESS
from directory.sync.formats.mailboxes import MAILBOXES
from directory.sync.formats.register import Read, Reading, Register
from directory.sync.formats.rpps import RPPS
from directory.sync.formats.scan import Scan
from directory.sync.formats.staging import Progress, Staging
from directory.sync.formats.trusted_domains import TRUSTED_DOMAINS
from directory.sync.runs import increment_cursor as cursor
from directory.sync.runs import kept_files, run_log
from directory.sync.runs.approvals import approvals_of
from directory.sync.runs.bounds import (
    Finding,
    Judgement,
    LastRun,
    RegisterBounds,
    check_age,
    judge,
    load_bounds,
)
from directory.sync.runs.corrections_overlay import overlay
from directory.sync.runs.measuring import last_applied, lately, measure
from directory.sync.runs.run_log import Logbook, Rejection, due_to_resume
from directory.sync.runs.succession import succeed, succeed_by_mailbox

__all__ = ["REGISTERS", "RunReport", "due_to_resume", "resume_run", "run_register"]

log = logging.getLogger("sceau.sync")

REGISTERS: Mapping[str, Register] = MappingProxyType(
    {register.name: register for register in (RPPS, FINESS, MAILBOXES, TRUSTED_DOMAINS)}
)
SHOWN_REJECTIONS = 100
# So long the steps of increments are judged together, as one night's would be.
STEPS_COUNT_FOR = timedelta(days=1)
_COUNTED = (
    "lines", "accepted", "rejected", "unchanged", "created", "changed", "removed", "ignored", "recoded",
)  # fmt: skip

# Whose numbers were replaced shows once the record is as the file says.
_FOLLOW: Mapping[str, Callable[..., dict[str, int]]] = MappingProxyType(
    {"rpps": succeed, "mailboxes": succeed_by_mailbox}
)
# `judged` are those of whom the file may say something new: all, or the touched of
# `directory/sync/formats/scan.py`.
_JUDGED_ALL = "CREATE TEMP VIEW judged AS SELECT * FROM present"
_JUDGED_TOUCHED = "CREATE TEMP VIEW judged AS SELECT p.* FROM present p JOIN touched t ON t.key = p.key"
_PLAN = """
    CREATE TEMP TABLE planned AS
    SELECT coalesce(w.key, p.key) AS key,
           CASE WHEN p.key IS NULL THEN 'create' WHEN w.key IS NULL THEN 'remove' ELSE 'change' END AS act
    FROM wanted w FULL JOIN judged p ON p.key = w.key
    WHERE NOT EXISTS (SELECT FROM later l WHERE l.key = coalesce(w.key, p.key)) AND (p.key IS NULL OR (
        CASE WHEN w.key IS NULL THEN p.departed_at IS NULL
             ELSE p.departed_at IS NOT NULL OR p.row_hash <> w.row_hash END
        AND NOT EXISTS (SELECT FROM spared s WHERE s.key = p.key)))
"""
_UNASKED = "SELECT EXISTS (SELECT FROM wanted w WHERE NOT EXISTS (SELECT FROM touched t WHERE t.key = w.key))"
_ACTS = """
    SELECT p.act, count(*), coalesce(sum(w.lines), 0)::bigint
    FROM planned p LEFT JOIN wanted w ON w.key = p.key GROUP BY p.act
"""
_ENDED = {"create": "created", "change": "changed", "remove": "removed"}


@dataclass(frozen=True)
class RunReport:
    """How a run went.

    `counts`: lines = accepted + rejected + unchanged (rows); created, changed, removed (people, places,
    mailboxes, domains). Also ignored (rows of files read for nothing yet); recoded (lines that were not
    UTF-8). `state` is planned, applied, held or refused; `reason` is a stable code, `text` a sentence; both
    are '' unless the run was refused. `measures` and `findings` say why a run is held, `approvals_needed` by
    how many persons. A finding that needs nobody tells an oddity of the file. `rejections` are the first
    hundred.
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
    measures: dict[str, float] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    approvals_needed: int = 0


def run_register(
    engine: Engine,
    *,
    register: str,
    path: Path | RegisterFile,
    now: datetime,
    actor: Actor,
    apply: bool,
    strict_rpps: bool = True,
    progress: Progress | None = None,
    kept: Path | None = None,
    bounds: Mapping[str, RegisterBounds] | None = None,
) -> RunReport:
    """Bring the record to what `path` says, or, without `apply`, say what that would change.

    A file that the caller has opened and looked at is read as it is open, whatever has its name by then. It
    is copied once, and only the copy is read. Refusal UNAVAILABLE `no-room` when that cannot be made. A bad
    file is a report in state "refused", and one beyond the bounds in state "held"; both change nothing.
    `kept` is the folder where the file of a held run is kept, beside `path` when None; `bounds` are ours when
    None. Refusal NOT_FOUND for no such file or register, CONFLICT when another run of this register is under
    way or this very file is held. `progress` hears of steps and of rows done in them.
    """
    if register not in REGISTERS:
        raise Refusal(Kind.NOT_FOUND, "no-such-register", f"There is no register {register!r}.")
    if isinstance(path, Path):
        with register_file(path) as file:
            return run_register(
                engine, register=register, path=file, now=now, actor=actor, apply=apply,
                strict_rpps=strict_rpps, progress=progress, kept=kept, bounds=bounds,
            )  # fmt: skip
    with kept_files.private_copy(path, kept) as (file, sha256):
        given = _Given(
            file.path, file, sha256, now, actor, apply, strict_rpps, progress, kept, bounds or load_bounds()
        )
        return _run_new(engine, register, file, given)


def _run_new(engine: Engine, register: str, file: RegisterFile, given: "_Given") -> RunReport:
    def begin(connection: Connection) -> int:
        held = run_log.waiting_for(connection, register, given.sha256) if given.applies else None
        if held is not None:
            told = f"Run {held} of {register} holds this file until somebody lets it through."
            raise Refusal(Kind.CONFLICT, "run-held", told, run=held)
        return run_log.begin(
            connection,
            register=register,
            file_name=file.name,
            file_sha256=given.sha256,
            generated_at=written_at(file, REGISTERS[register].roles) or modified_at(file),
            started_at=given.now,
            applies=given.applies,
            actor=given.actor.name,
            kept_file=str(file.path.absolute()),
            increment=cursor.is_increment(file.path),
        )

    return _locked(engine, register, begin, given)


def resume_run(
    engine: Engine,
    *,
    run_id: int,
    now: datetime,
    actor: Actor,
    strict_rpps: bool = True,
    progress: Progress | None = None,
    kept: Path | None = None,
    bounds: Mapping[str, RegisterBounds] | None = None,
) -> RunReport:
    """Take up a held run that was let through, or one that was cut off, from its file.

    It is judged anew: what now needs more persons than said so is held again. Refused "superseded" when a
    later run of its register was applied, "kept-file-gone" when its file is no longer there or the same.
    Refusal NOT_FOUND for no such run, and for a file that cannot be read now, which leaves the run as it is.
    CONFLICT when it waits for persons, is over, or is under way.
    """
    with engine.connect() as connection, connection.begin():
        opened_run = run_log.opened_run(connection, run_id)
        approvals = approvals_of(connection, run_id)
    if opened_run is None:
        raise Refusal(Kind.NOT_FOUND, "unknown-run", f"There is no run {run_id}.")
    if opened_run.state not in ("held", "interrupted", "running"):
        raise Refusal(Kind.CONFLICT, "run-is-over", f"Run {run_id} is {opened_run.state}.")
    if opened_run.state == "held" and approvals < opened_run.approvals_needed:
        told = f"Run {run_id} waits for {opened_run.approvals_needed - approvals} more to let it through."
        raise Refusal(Kind.CONFLICT, "approvals-missing", told)

    def begin(connection: Connection) -> int:
        again = run_log.opened_run(connection, run_id)
        if again is None or again.state not in ("held", "interrupted"):
            raise Refusal(Kind.CONFLICT, "run-is-over", f"Run {run_id} was taken up by somebody else.")
        run_log.begin_again(connection, run_id)
        return run_id

    asked = Actor(opened_run.actor) if opened_run.actor else actor
    with kept_files.found_again(run_id, opened_run.path, opened_run.sha256, kept) as file:
        path = opened_run.path if file is None else file.path
        given = _Given(
            path, file, opened_run.sha256, now, asked, opened_run.applies, strict_rpps, progress, kept,
            bounds or load_bounds(),
        )  # fmt: skip
        return _locked(engine, opened_run.register, begin, given)


@dataclass(frozen=True)
class _Given:
    """What a run is asked to do, whether for the first time or again.

    `path` is where its file lies, `file` what is read.
    """

    path: Path
    file: RegisterFile | None
    sha256: bytes
    now: datetime
    actor: Actor
    applies: bool
    strict: bool
    progress: Progress | None
    kept: Path | None
    bounds: Mapping[str, RegisterBounds]


def _locked(engine: Engine, register: str, begin: Callable[[Connection], int], given: _Given) -> RunReport:
    """One run, alone in its register; whatever claims to run meanwhile was cut off."""
    with try_lock(engine, f"sync:{register}") as free:
        if not free:
            raise Refusal(Kind.CONFLICT, "sync-running", f"Another run of {register} is under way.")
        with engine.connect() as connection:
            # Out of the pool, closed at the end: the temporary tables die with it.
            connection.detach()
            with connection.begin():
                run_log.mark_cut_off(connection, register)
                run_id = begin(connection)
            run = _Run(connection, run_id, REGISTERS[register], given)
            try:
                return run.go()
            finally:
                run.abandon()


class _Run:
    """The steps of one run, and what each leaves to the next."""

    def __init__(self, connection: Connection, run_id: int, register: Register, given: _Given) -> None:
        self._connection = connection
        self._register = register
        self._given = given
        self._log = Logbook(connection, run_id, given.now)
        self._staging = Staging(connection, register.tables, register.copy, given.progress)
        self._scan: Scan | None = None
        self._increment = cursor.is_increment(given.path)
        self._written_at = None if given.file is None else written_at(given.file, register.roles)
        self._generated_at = self._written_at or given.now
        self._layout: str | None = None
        self._counts = dict.fromkeys(_COUNTED, 0)
        self._measures: dict[str, float] = {}
        self._judgement = Judgement(0)
        self._remarks: tuple[Remark, ...] = ()

    def abandon(self) -> None:
        """See that nothing is on its way when the connection closes."""
        self._staging.abandon()

    def go(self) -> RunReport:
        """The numbered steps; a Refusal on the way is the run's result."""
        try:
            # 1. Fetch: the copy that alone is read, the same as when the run began.
            self._log.enter("fetch")
            file = self._fetch()
            with opened(file, self._register.roles) as members:
                # 2. Verify: the file is whole; which of its lines say something new.
                self._log.enter("verify")
                to_read = self._verify(members)
                # 3. Parse: those rows staged, or rejected with their reason.
                self._log.enter("parse")
                self._parse(to_read, archived=is_archive(file))
            # 4. Check: rows that contradict one another.
            self._log.enter("check")
            self._run_each(self._register.settle)
            # 5. Stage: what the file wants of each person, place, mailbox, domain.
            self._log.enter("stage")
            self._run_each((self._register.wanted, "ANALYZE wanted"))
            # 6. Diff: by hash with what the record holds.
            self._log.enter("diff")
            self._diff()
            # 7. Plan: counted, measured, judged.
            self._log.enter("plan")
            self._count()
            self._judge()
            if not self._given.applies:
                return self._end("planned")
            if self._judgement.needed > self._approvals():
                return self._hold(file)
        except Refusal as refusal:
            return self._refuse(refusal)
        # 8. Apply: one transaction holds the record's change, the run's row and the audit line.
        self._log.enter("apply")
        return self._apply()

    def _fetch(self) -> RegisterFile:
        with self._connection.begin():
            newer = run_log.newer_applied(self._connection, self._log.run_id)
        if newer is not None:
            raise refused("superseded", f"Run {newer} of this register was applied since.")
        file = self._given.file
        # Whoever handed the file over hashed what is read here; nobody else can change it.
        if file is None:
            name = self._given.path.name
            raise refused("kept-file-gone", f"{name} is no longer the file this run began with.")
        self._written_at = written_at(file, self._register.roles)
        self._generated_at = self._written_at or modified_at(file)
        self._check_age()
        return file

    def _check_age(self) -> None:
        """Refuse `older-than-applied` what is older to the minute, before half a minute goes into reading it.

        What is in the file can make it older still, never younger.
        """
        made = self._written_at
        if made is None or is_day_alone(made) or self._increment:
            return
        with self._connection.begin():
            last = last_applied(self._connection, self._register.name)
        check_age(made, last)

    def _verify(self, members: Mapping[str, Member]) -> Mapping[str, Member]:
        keyed = self._register.keyed
        if keyed is None or self._increment:
            return members
        self._scan = Scan(self._connection, self._staging, self._register.name, keyed)
        self._scan.read(members, strict=self._given.strict)
        runs = self._scan.compare()
        self._log.tell(lines=self._scan.lines, to_read=self._scan.picked)
        return members if runs is None else self._scan.pick(members, runs)

    def _parse(self, members: Mapping[str, Member], *, archived: bool) -> None:
        read = self._reader() if self._increment else self._register.read
        reading: Reading = read(members, self._staging, strict=self._given.strict)
        self._staging.flush()
        if reading.since is not None:
            with self._connection.begin():
                cursor.check_since(self._connection, self._register.name, reading.since)
        self._layout = reading.layout
        told = reading.generated_at if self._increment else oldest(self._written_at, reading.generated_at)
        if told is None and archived:
            raise refused("undated-archive", "Neither the archive nor a text in it says of which day it is.")
        self._generated_at = told or self._generated_at
        scanned = self._scan.remarks if self._scan is not None else ()
        self._remarks = (*scanned, *reading.remarks)
        self._log.tell(read=self._staging.lines, rejected=self._staging.rejections)

    def _reader(self) -> Read:
        name = self._register.name
        if name not in fhir.INCREMENTS:
            raise refused("no-increments", f"The register {name} is told by whole files only.")
        with self._connection.begin():
            self._staging.execute(fhir.TABLES)
        return fhir.INCREMENTS[name]

    def _run_each(self, statements: tuple[str, ...]) -> None:
        for statement in statements:
            with self._connection.begin():
                self._connection.execute(text(statement))

    @property
    def _partial(self) -> bool:
        """Whether only touched keys were read."""
        return self._increment or (self._scan is not None and self._scan.picked is not None)

    def _diff(self) -> None:
        if not self._increment:
            with self._connection.begin():
                cursor.mark_later(self._connection, self._register.name, self._generated_at)
        judged = _JUDGED_TOUCHED if self._partial else _JUDGED_ALL
        # Of an increment nobody is gone whom it does not name.
        unclear = (self._register.unclear,) if self._register.unclear and not self._increment else ()
        self._run_each((judged, _PLAN, *unclear, "ANALYZE planned"))
        if self._partial:
            with self._connection.begin():
                if self._connection.execute(text(_UNASKED)).scalar_one():
                    raise RuntimeError("a row was read under a key that the scan had not seen in it")

    def _count(self) -> None:
        counts = self._counts
        with self._connection.begin():
            for act, entities, lines in self._connection.execute(text(_ACTS)):
                counts[_ENDED[act]] = entities
                counts["accepted"] += lines
            query = "SELECT coalesce(sum(lines), 0)::bigint FROM wanted"
            known = self._connection.execute(text(query)).scalar_one()
            counts["rejected"] = self._connection.execute(text("SELECT count(*) FROM rejected")).scalar_one()
        counts |= {name: getattr(self._staging, name) for name in ("lines", "ignored", "recoded")}
        # Rows of which nothing need be staged: known word for word, or saying what the record says.
        unread = self._staging.agreed
        if self._scan is not None:
            unread = self._scan.lines - self._staging.lines
        counts["lines"] += unread
        counts["unchanged"] = known - counts["accepted"] + unread
        if counts["accepted"] + counts["rejected"] + counts["unchanged"] != counts["lines"] or (
            unread != 0 and not self._partial
        ):
            raise RuntimeError(f"rows went missing between file and record: {counts}")
        if counts["rejected"] == counts["lines"] and not self._increment:
            raise refused("too-many-rejections", f"Not one of its {counts['lines']} rows can be read.")

    def _judge(self) -> None:
        bounds = self._given.bounds[self._register.name]
        with self._connection.begin():
            last = last_applied(self._connection, self._register.name)
            self._measures = measure(self._connection, self._register.name, bounds.codes)
            steps = lately(self._connection, self._register.name, since=self._given.now - STEPS_COUNT_FOR)
        counts, measures = self._counts, self._measures
        if self._increment and last is not None:
            # Its rows are a share of the whole register's; its steps count with those just before it.
            counts = {**counts, "lines": max(counts["lines"], last.counts["lines"])}
            last = LastRun(last.generated_at, {"lines": counts["lines"], "rejected": 0})
            added = {bound.count for bound in bounds.bounds} - {bound.whole for bound in bounds.bounds}
            measures = {name: of + steps.get(name, 0) * (name in added) for name, of in measures.items()}
        judged = judge(
            bounds, counts=counts, measures=measures, last=last,
            generated_at=self._generated_at, now=self._given.now, layout=self._layout,
            by_the_minute=not is_day_alone(self._generated_at),
        )  # fmt: skip
        remarks = (Finding(remark.name, 1, 0, 0, remark.sentence) for remark in self._remarks)
        self._judgement = Judgement(judged.needed, (*judged.findings, *remarks))

    def _approvals(self) -> int:
        if not self._judgement.needed:
            return 0
        with self._connection.begin():
            return approvals_of(self._connection, self._log.run_id)

    def _apply(self) -> RunReport:
        done = 0
        with self._connection.begin():
            # Not for these rows the session's leniency.
            self._connection.execute(text("SET LOCAL synchronous_commit = on"))
            if self._register.entity is not None:
                self._connection.execute(text(self._register.told))
                self._log.tell(**self._overlaid(self._register.entity))
            for statement in self._register.apply:
                failpoints.passing("sync.applying")
                result = self._connection.execute(text(statement), {"now": self._given.now})
                done += max(0, result.rowcount)
                if self._given.progress:
                    self._given.progress("apply", done)
            if follow := _FOLLOW.get(self._register.name):
                self._log.tell(**follow(self._connection, run_id=self._log.run_id, now=self._given.now))
            if self._scan is not None:
                self._scan.remember()
            self._move_cursor()
            self._close("applied")
            self._tell(Event.REGISTER_APPLIED)
            closed = self._supersede()
            report = self._report("applied")
            failpoints.passing("sync.commit")
        # 9. Report: what is left lying about is put away.
        self._log.enter("report")
        for run_id in [*closed, self._log.run_id]:
            kept_files.put_away(run_id, self._given.kept)
        self._log.leave()
        return report

    def _supersede(self) -> list[int]:
        """Older runs that waited: closed, each with its line in the log."""
        closed = self._log.supersede()
        for run_id in closed:
            record(
                self._connection,
                now=self._given.now,
                actor=self._given.actor,
                event=Event.REGISTER_REFUSED,
                subject=self._register.name,
                detail={"run": run_id, "reason": "superseded", "by": self._log.run_id},
            )
        return closed

    def _overlaid(self, entity: Entity) -> dict[str, int]:
        return overlay(self._connection, entity, now=self._given.now, actor=self._given.actor)

    def _move_cursor(self) -> None:
        name, until = self._register.name, self._generated_at
        if self._increment:
            cursor.remember(self._connection, name, until=until, now=self._given.now)
        else:
            cursor.forget(self._connection, name, until)

    def _end(self, state: str) -> RunReport:
        with self._connection.begin():
            self._close(state)
            report = self._report(state)
        self._log.leave()
        return report

    def _hold(self, file: RegisterFile) -> RunReport:
        kept = self._kept(file)
        with self._connection.begin():
            self._close("held", kept_file=str(kept))
            self._tell(Event.REGISTER_HELD, needed=self._judgement.needed)
            report = self._report("held")
        self._log.leave()
        return report

    def _kept(self, file: RegisterFile) -> Path:
        """Where the file of a held run stays: as a copy, or where it lies when none can be made."""
        if self._given.kept is not None:
            try:
                return kept_files.keep(self._log.run_id, file, self._given.sha256, self._given.kept)
            except OSError as error:
                why = error.strerror or type(error).__name__
                log.warning("run %d is held without a copy of %r: %s", self._log.run_id, file.name, why)
                self._log.tell(not_kept=why)
        return file.path.absolute()

    def _refuse(self, refusal: Refusal) -> RunReport:
        self._staging.flush()
        with self._connection.begin():
            scanned = self._scan.lines if self._scan is not None else 0
            self._counts["lines"] = max(self._staging.lines, scanned)
            query = "SELECT count(*) FROM rejected"
            self._counts["rejected"] = self._connection.execute(text(query)).scalar_one()
            self._close("refused", reason=refusal.code)
            self._tell(Event.REGISTER_REFUSED, reason=refusal.code, text=refusal.text)
            report = self._report("refused", refusal)
        kept_files.put_away(self._log.run_id, self._given.kept)
        self._log.leave()
        return report

    def _close(self, state: str, **columns: object) -> None:
        if state != "held":
            columns["kept_file"] = None
        self._log.end(
            state,
            counts=self._counts,
            layout=self._layout,
            generated_at=self._generated_at,
            measures=self._measures,
            findings=[asdict(finding) for finding in self._judgement.findings],
            approvals_needed=self._judgement.needed,
            **columns,
        )

    def _tell(self, event: Event, **more: object) -> None:
        detail = {
            "run": self._log.run_id,
            "file": self._given.path.name,
            "sha256": self._given.sha256.hex(),
            "generated_at": self._generated_at.isoformat(),
            "counts": self._counts,
            **more,
        }
        record(
            self._connection,
            now=self._given.now,
            actor=self._given.actor,
            event=event,
            subject=self._register.name,
            detail=detail,
        )

    def _report(self, state: str, refusal: Refusal | None = None) -> RunReport:
        rejections = self._connection.execute(
            text(
                "SELECT line_number, reason, detail, excerpt FROM rejected"
                " ORDER BY line_number, reason LIMIT :most"
            ),
            {"most": SHOWN_REJECTIONS},
        )
        return RunReport(
            run_id=self._log.run_id,
            register=self._register.name,
            layout=self._layout,
            file_name=self._given.path.name,
            generated_at=self._generated_at,
            state=state,
            reason=refusal.code if refusal else "",
            text=refusal.text if refusal else "",
            counts=dict(self._counts),
            rejections=tuple(Rejection(*row) for row in rejections),
            measures=dict(self._measures),
            findings=self._judgement.findings,
            approvals_needed=self._judgement.needed,
        )
