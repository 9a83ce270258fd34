"""The night's registers: fetched from their sources into the drop folder, and taken in from there, once each.

A file already applied, held or refused (same SHA-256) is left alone, so the jobs may run any number of times.
Of several files of a register the newest that is a register's wins, and older ones are left where they are.
"""

import os
import pwd
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from api.wiring import Container
from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.base.locks import try_lock
from directory.sync.formats.files import RegisterFile, arrived_at, register_file, sha256_of, written_at
from directory.sync.formats.staging import Progress
from directory.sync.runs import run_log
from directory.sync.runs.bounds import LastRun
from directory.sync.runs.measuring import last_applied
from directory.sync.runs.run import REGISTERS, RunReport, due_to_resume, resume_run, run_register
from directory.sync.sources import origins
from directory.sync.sources.drop_folder import PATTERNS, candidates, made_by_its_word, strangers
from directory.sync.sources.https import Origin, fetch

NIGHT = Actor("job:registers")
SHOWN_NAME = 100
# Of a register, in one night: each may be read to its end. A folder that changed hands is late as a whole.
MOST_OVERTAKEN = 5
# Reasons that time or another file takes away, while the file stays as it is.
_PASSING = {"from-the-future", "kept-file-gone"}


def take_registers(container: Container) -> str:
    """The night: ask every source, then apply what is new; a refusal keeps nobody else from its turn."""
    told = NightReport()
    with told.apart("sources_file"):
        known = _origins(container)
        with transaction(container.engine) as connection:
            origins.begin_night(connection, known, now=container.clock())
        _fetch_due(container, known, told)
    _take_all(container, PATTERNS, told)
    with told.apart("drop folder"):
        for name in strangers(container.settings.registers):
            told.warn(f"{name[:SHOWN_NAME]!r} in the drop folder is no register's file and was not read")
    return told.end()


def take_late_registers(container: Container) -> str:
    """Between the nights: sources that asked us to come back."""
    told = NightReport()
    fetched = _fetch_due(container, _origins(container), told)
    _take_all(container, [register for register in PATTERNS if register in fetched], told)
    return told.end()


def resume_runs(container: Container) -> str:
    """Take up what was cut off, and what was held until enough named persons let it through."""
    told = NightReport()
    with transaction(container.engine) as connection:
        waiting = due_to_resume(connection)
    for run_id in waiting:
        with told.apart(f"run {run_id}"):
            if (report := resumed_unless_taken(container, run_id)) is not None:
                told.take(report)
    return told.end()


class NightReport:
    """What was done, and what was refused, while one register keeps no other from its turn."""

    def __init__(self) -> None:
        self._taken: list[str] = []
        self._refused: list[str] = []
        self._warned: list[str] = []

    @contextmanager
    def apart(self, name: str) -> Iterator[None]:
        """A part whose refusal is kept for the end, as is the failure of a file, a disk or memory."""
        try:
            yield
        except Refusal as refusal:
            self.refuse(name, refusal)
        except (OSError, MemoryError) as error:
            self.fail(name, error)

    def refuse(self, name: str, refusal: Refusal) -> None:
        """A refusal to tell at the end."""
        self._refused.append(f"{name}: {refusal.text}")

    def fail(self, name: str, error: OSError | MemoryError) -> None:
        """A file, a disk or memory that failed, to tell at the end."""
        self._refused.append(f"{name}: {getattr(error, 'strerror', None) or type(error).__name__}")

    def take(self, report: RunReport) -> None:
        """How a run went; one that was refused is a Refusal."""
        if report.state == "refused":
            raise Refusal(Kind.UNACCEPTABLE, report.reason, report.text)
        self.say(f"{report.register}: {report.state} {report.counts}")

    def say(self, sentence: str) -> None:
        """Something else that was done."""
        self._taken.append(sentence)

    def warn(self, sentence: str) -> None:
        """Something that somebody should look at, however the night went."""
        self._warned.append(sentence)

    def end(self) -> str:
        """What was done; Refusal `register-refused` naming all that was refused."""
        if self._refused:
            text = "; ".join([*self._refused, *self._warned])
            raise Refusal(Kind.UNACCEPTABLE, "register-refused", text)
        return "; ".join([*self._taken, *self._warned])


def _origins(container: Container) -> tuple[Origin, ...]:
    path = container.settings.sources_file
    return origins.load_origins(Path(path), PATTERNS) if path else ()


def _fetch_due(container: Container, known: Iterable[Origin], told: NightReport) -> set[str]:
    """Ask the sources whose time has come; the registers that got a new file."""
    fetched = set()
    with transaction(container.engine) as connection:
        names = origins.due(connection, now=container.clock())
    for origin in (origin for origin in known if origin.name in names):
        with told.apart(origin.name), try_lock(container.engine, f"fetch:{origin.name}") as free:
            if free and (name := _fetch(container, origin)):
                told.say(f"{origin.name}: {name}")
                fetched.add(origin.register)
    return fetched


def _fetch(container: Container, origin: Origin) -> str:
    """The name of the new file, '' when there is none, or none yet; Refusal when tonight has none."""
    with transaction(container.engine) as connection:
        last = origins.last_version(connection, origin)
    try:
        download = fetch(origin, container.settings.registers, last)
    except Refusal as refusal:
        with transaction(container.engine) as connection:
            again = origins.note_refused(connection, origin, refusal, now=container.clock())
        if again is None:
            raise
        return ""
    with transaction(container.engine) as connection:
        origins.note_fetched(
            connection, origin, download.version if download else None, now=container.clock()
        )
    return download.path.name if download else ""


def _take_all(container: Container, registers: Iterable[str], told: NightReport) -> None:
    for register in registers:
        with told.apart(register):
            settled, late = False, 0
            for path in candidates(container.settings.registers, register):
                if not settled:
                    settled = _settled(container, register, path, told)
                elif _was_overtaken(container, register, path):
                    late += 1
                    if late <= MOST_OVERTAKEN:
                        _settled(container, register, path, told)
            if late > MOST_OVERTAKEN:
                told.warn(f"{register}: {late - MOST_OVERTAKEN} more files came late and are older")


def _settled(container: Container, register: str, path: Path, told: NightReport) -> bool:
    """Run this file unless that was done. False when it is refused for what it is, waits since its time has
    not come, or cannot even be read. An older one then has its turn.
    """
    try:
        with dropped(path, container.settings.droppers) as file:
            before = _before(container, register, file)
            if before == "":
                report = run_file(container, register, file)
                told.take(report)
                if report.state == "held" and report.generated_at > container.clock():
                    before = "ahead"
    except Refusal as refusal:
        told.refuse(register, refusal)
        return refusal.kind is Kind.CONFLICT
    except (OSError, MemoryError) as error:
        told.fail(f"{register}: {path.name[:SHOWN_NAME]}", error)
        return False
    return before not in {"refused", "ahead"}


def _was_overtaken(container: Container, register: str, path: Path) -> bool:
    """Whether this file came when a later one was being applied already: somebody has to hear of it."""
    with transaction(container.engine) as connection:
        last = last_applied(connection, register)
    try:
        with register_file(path, through_links=False) as file:
            return _is_older(file, register, last) and _came_later(file, last)
    except (Refusal, OSError, MemoryError):
        return False


def _is_older(file: RegisterFile, register: str, last: LastRun | None) -> bool:
    written = written_at(file, REGISTERS[register].roles)
    return last is not None and written is not None and written < last.generated_at


def _came_later(file: RegisterFile, last: LastRun | None) -> bool:
    return last is not None and last.began_at is not None and arrived_at(file) > last.began_at


@contextmanager
def dropped(path: Path, droppers: Collection[int] = ()) -> Iterator[RegisterFile]:
    """The file that was dropped under this name, opened once; refuses (`no-such-file`) what only looks like
    one: a link, a pipe, a stranger's.

    Files of root, of our own account, of the folder's and of `droppers` (by number) are none of a stranger.
    An account that may write into the folder could else have any file that this account reads taken for a
    register. It would see its lines among those rejected. Between two openings he would exchange it: all is
    read from this one.
    """
    with register_file(path, through_links=False) as file:
        check_dropped(file, droppers)
        yield file


def check_dropped(file: RegisterFile, droppers: Collection[int] = ()) -> None:
    """Refuse (`no-such-file`) a file that has a second name, or belongs to a stranger."""
    path, status = file.path, os.fstat(file.descriptor)
    if status.st_nlink > 1:
        text = f"{path.name} has a second name, which may lie elsewhere: not taken in. Copy it instead."
        raise Refusal(Kind.NOT_FOUND, "no-such-file", text)
    if status.st_uid not in {0, os.geteuid(), path.parent.stat().st_uid, *droppers}:
        account = _account_of(status.st_uid)
        text = (
            f"{path.name} belongs to another account, {account}: not taken in."
            f" Name {account} in `drop_accounts` if it may drop files, or have the folder's owner copy it."
        )
        raise Refusal(Kind.NOT_FOUND, "no-such-file", text)


def _account_of(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _before(container: Container, register: str, file: RegisterFile) -> str:
    """What earlier runs say of this file.

    'done': nothing is to be had from it or an older one; 'refused': not from it, unless time alone was
    against it. 'ahead': it is held, and says that it will be made; '' when it is to be tried. An older file
    is, when it came after a later one was taken: that it is refused leaves a row.
    """
    now, sha256 = container.clock(), sha256_of(file)
    with transaction(container.engine) as connection:
        last = last_applied(connection, register)
        seen = run_log.last_of_file(connection, register, sha256)
    if seen is None:
        return "done" if _is_older(file, register, last) and not _came_later(file, last) else ""
    if seen.state == "held" and made_by_its_word(file, register) > now:
        return "ahead"
    if seen.state != "refused":
        return "done"
    passes = seen.reason in _PASSING and made_by_its_word(file, register) <= now
    return "" if passes else "refused"


def run_file(
    container: Container,
    register: str,
    path: Path | RegisterFile,
    *,
    actor: Actor = NIGHT,
    apply: bool = True,
    progress: Progress | None = None,
) -> RunReport:
    """Take this file in, by the settings and bounds of this installation; as of `run_register`."""
    return run_register(
        container.engine,
        register=register,
        path=path,
        now=container.present(),
        actor=actor,
        apply=apply,
        strict_rpps=container.settings.strict_rpps,
        progress=progress,
        kept=container.settings.kept_files,
        bounds=container.bounds,
    )


def resumed_unless_taken(
    container: Container, run_id: int, *, actor: Actor = NIGHT, progress: Progress | None = None
) -> RunReport | None:
    """The run taken up again; None when somebody else was quicker, or its register is at work."""
    try:
        return resume(container, run_id, actor=actor, progress=progress)
    except Refusal as refusal:
        if refusal.kind is not Kind.CONFLICT:
            raise
        return None


def resume(
    container: Container, run_id: int, *, actor: Actor = NIGHT, progress: Progress | None = None
) -> RunReport:
    """Take this run up again, by the settings and bounds of this installation; as of `resume_run`."""
    return resume_run(
        container.engine,
        run_id=run_id,
        now=container.present(),
        actor=actor,
        strict_rpps=container.settings.strict_rpps,
        progress=progress,
        kept=container.settings.kept_files,
        bounds=container.bounds,
    )
