"""Keeps the parts of a one-machine installation at work: starts them in order, restarts what dies or hangs.

Knows processes, not what they do: which parts there are, and in what order, is said by
`api/installation/bring_up.py`.
"""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import psutil

from directory.base.durable_files import write_atomically
from directory.base.errors import Kind, Refusal

LONGEST_PAUSE = 10.0
LONGEST_START = 40.0
# Between two questions to a part. Each is a connection and an answer. Every second they took a twentieth of a
# core from the parts asked, at work and at rest.
ASKED_EVERY = 3.0
# For a part that hangs to end by itself.
LONGEST_END = 5.0
LONGEST_AWAY = 2.0
# So often within so many seconds, and a part does not hang by chance: a person is to look at it.
HANGS, HANGS_WITHIN = 2, 300.0
# For a part to end by itself where it is stopped on purpose, or was left behind.
LONGEST_STOP, LONGEST_LEFT = 20.0, 15.0


@dataclass(frozen=True)
class Part:
    """One process to keep alive: `command` is asked anew at each start, `answers` says whether it serves.

    Its environment is its own: a passphrase goes to the part that needs it and to no other. `works` is asked
    while it runs: whether it gave a sign of work since; without one for `silence` seconds, it hangs. It is
    not judged while the part that it `stands_on` is silent itself. `recovers` says of a part without answers
    that it still makes itself ready. That is work however long it takes, though nobody can stand on it yet.
    Asked to end, it is given `ends_within` seconds before it is killed. Between two questions to it there are
    `asked_every` seconds.
    """

    name: str
    command: Callable[[], list[str]]
    answers: Callable[[], bool]
    environment: Mapping[str, str]
    stop_signal: signal.Signals = signal.SIGTERM
    works: Callable[[], bool] | None = None
    silence: float = 15.0
    stands_on: str = ""
    recovers: Callable[[], bool] = lambda: False
    ends_within: float = 0.0
    asked_every: float = field(default_factory=lambda: ASKED_EVERY)


class _WatchedPart:
    """One part, asked again and again by a thread of its own: a question that hangs holds up nobody."""

    def __init__(self, works: Callable[[], bool], recovers: Callable[[], bool], every: float) -> None:
        self._works, self._recovers, self._every = works, recovers, every
        self._stopped = threading.Event()
        self.last = time.monotonic()
        self._recovered = float("-inf")
        threading.Thread(target=self._ask, daemon=True).start()

    @property
    def last_busy(self) -> float:
        """When it last answered, or was seen to make itself ready."""
        return max(self.last, self._recovered)

    def stop(self) -> None:
        self._stopped.set()

    def _ask(self) -> None:
        while not self._stopped.wait(self._every):
            # Whatever a question fails by, it brought no sign of work.
            with suppress(Exception):
                if self._works():
                    self.last = max(self.last, time.monotonic())
                elif self._recovers():
                    self._recovered = time.monotonic()


@dataclass
class _Running:
    part: Part
    process: subprocess.Popen[bytes]
    since: float
    started: float = field(default_factory=time.monotonic)
    restarts: int = 0
    pause: float = 0.2
    not_before: float = 0.0
    is_held: bool = False
    asked: _WatchedPart | None = None
    killed_at: float = float("inf")
    hung_at: list[float] = field(default_factory=list)
    trouble: str = ""


@dataclass
class Supervisor:
    """The parts that run below one state folder; one supervisor at a time holds the folder."""

    state: Path
    report: Callable[[str], None]
    _running: dict[str, _Running] = field(default_factory=dict)
    _stopping: bool = False

    def start(self, part: Part) -> None:
        """Start `part`; return when it serves, refuse with the end of its log when it ends or is silent.

        One that recovers is waited for: ended half-way, it would begin anew at each start.
        """
        running = _Running(part, self._spawn(part), time.time())
        self._running[part.name] = running
        self._write_state()
        deadline = time.monotonic() + LONGEST_START
        while True:
            # Asked before `answers`: recovery that ends between the two is then answered.
            is_late = time.monotonic() > deadline and not part.recovers()
            if part.answers():
                break
            code = running.process.poll()
            if code is not None or is_late:
                why = (
                    f"did not answer within {LONGEST_START:.0f} s"
                    if code is None
                    else f"ended at once ({code})"
                )
                tail = self.log_of(part.name).read_text(errors="replace").strip()[-600:]
                text = f"{part.name} {why}. The end of {self.log_of(part.name)}: {tail or 'empty'}"
                raise Refusal(Kind.UNAVAILABLE, "part-not-started", text)
            time.sleep(0.05)
        if part.works is not None:
            running.asked = _WatchedPart(part.works, part.recovers, part.asked_every)

    def log_of(self, name: str) -> Path:
        """Where the part's output goes."""
        return self.state / "log" / f"{name}.log"

    def watch(self, until: Callable[[], bool] = lambda: False) -> bool:
        """Restart what dies until `ask_to_stop()` or `until()`; what keeps dying is tried ever more slowly.

        Gives whether it ended because it was asked to stop.
        """
        looked = time.monotonic()
        while not (self._stopping or until()):
            away, looked = time.monotonic() - looked, time.monotonic()
            for running in self._running.values():
                if away > LONGEST_AWAY and running.asked is not None:
                    # We stood still ourselves, and nobody was asked meanwhile: that is no silence of theirs.
                    running.asked.last = looked
                self._look_after(running)
            time.sleep(0.1)
        return self._stopping

    def ask_to_stop(self, *_: object) -> None:
        """End `watch()`; fit to be a signal handler."""
        self._stopping = True

    def stop_all(self) -> None:
        """Stop every part, the last started first, each given time to finish what it acknowledged."""
        for running in self._running.values():
            if running.asked is not None:
                running.asked.stop()
        for running in reversed(self._running.values()):
            _end(running.process, running.part)
        self._running.clear()
        (self.state / "run" / "parts.json").unlink(missing_ok=True)

    def _look_after(self, running: _Running) -> None:
        code = running.process.poll()
        now = time.monotonic()
        self._call_a_person(running, now)
        if code is None:
            if now - running.started > LONGEST_PAUSE:
                running.pause = 0.2
            self._judge(running, now)
            return
        if self._is_paused(running.part.name):
            running.is_held = True
        elif running.is_held:
            # Stopped on purpose: whoever did it waits for it now, and it is no failure to count.
            self._start_again(running, now, restarts=running.restarts)
        elif not running.not_before:
            self.report(f"{running.part.name} ended ({code}); restarting")
            _kill_group(running.process.pid)
            running.not_before = now + running.pause
            running.pause = min(running.pause * 2, LONGEST_PAUSE)
        elif now >= running.not_before and not self._stopping:
            self._start_again(running, now, restarts=running.restarts + 1)

    def _start_again(self, running: _Running, now: float, *, restarts: int) -> None:
        running.process = self._spawn(running.part)
        running.since, running.started, running.killed_at = time.time(), now, float("inf")
        running.not_before, running.is_held, running.restarts = 0.0, False, restarts
        if running.asked is not None:
            # As much as a first start is given.
            running.asked.last = now + LONGEST_START - running.part.silence
        self._write_state()

    def _judge(self, running: _Running, now: float) -> None:
        """End a part that hangs: asked first, killed when it does not listen. It is then started again."""
        if now > running.killed_at:
            running.process.kill()
        if running.asked is None or running.killed_at < float("inf"):
            return
        below = self._running.get(running.part.stands_on)
        if self._is_paused(running.part.name) or (below is not None and _is_silent(below, now)):
            running.asked.last = max(running.asked.last, now)
        elif (silent := now - running.asked.last_busy) > running.part.silence:
            self.report(f"{running.part.name} gave no sign of work for {silent:.0f} s; ending it")
            running.process.send_signal(running.part.stop_signal)
            running.hung_at.append(now)
            running.killed_at = now + max(LONGEST_END, running.part.ends_within)

    def _call_a_person(self, running: _Running, now: float) -> None:
        """Say what to look at once a part hangs again and again; ending it more often helps nobody.

        What it stands on is ended no more than before: that it answers, and yet is at fault, a person sees.
        """
        running.hung_at = [at for at in running.hung_at if now - at <= HANGS_WITHIN]
        trouble = _trouble(running.part) if len(running.hung_at) >= HANGS else ""
        if trouble != running.trouble:
            running.trouble = trouble
            calm = f"{running.part.name} has not hung again and again for {HANGS_WITHIN / 60:.0f} min"
            self.report(trouble or calm)
            self._write_state()

    def _is_paused(self, name: str) -> bool:
        """Whether a living process asked for this part to stay down (a database being put in place)."""
        try:
            return _runs(psutil.Process(int(paused_marker(self.state, name).read_text())))
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            return False

    def _spawn(self, part: Part) -> subprocess.Popen[bytes]:
        log = self.log_of(part.name)
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with log.open("ab") as out:
            return subprocess.Popen(  # noqa: S603 - our own parts
                [*_dying_with_parent(part.stop_signal), *part.command()],
                env=dict(part.environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                # A session of its own: Ctrl-C reaches the supervisor, which then stops the parts in order.
                start_new_session=True,
            )

    def _write_state(self) -> None:
        parts = {
            name: {
                "pid": r.process.pid,
                "since": r.since,
                "restarts": r.restarts,
                "stop": int(r.part.stop_signal),
                "ends_within": r.part.ends_within,
                "trouble": r.trouble,
            }
            for name, r in self._running.items()
        }
        write_atomically(
            self.state / "run" / "parts.json", orjson.dumps({"supervisor": os.getpid(), "parts": parts})
        )


def paused_marker(state: Path, name: str) -> Path:
    """The file that keeps a part down: it holds the number of the process that wants it so."""
    return state / "run" / f"{name}.paused"


def parts_written(state: Path) -> dict[str, dict[str, Any]]:
    """The parts as the last supervisor left word of them; {} when none runs or it ended well."""
    try:
        content: dict[str, dict[str, dict[str, Any]]] = orjson.loads(
            (state / "run" / "parts.json").read_bytes()
        )
    except FileNotFoundError:
        return {}
    return content["parts"]


def troubles_written(state: Path) -> dict[str, str]:
    """For each part that hangs again and again, what a person is to look at."""
    # A supervisor of an earlier release wrote none.
    return {name: known["trouble"] for name, known in parts_written(state).items() if known.get("trouble")}


@contextmanager
def folder_held(state: Path) -> Iterator[bool]:
    """Whether this process is the one supervisor of `state`; the hold ends with it, however it ends."""
    (state / "run").mkdir(parents=True, exist_ok=True, mode=0o700)
    with (state / "run" / "supervisor.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        yield True


def supervisor_pid(state: Path) -> int | None:
    """The process that holds `state`, None when nobody does."""
    path = state / "run" / "supervisor.lock"
    if not path.exists():
        return None
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(lock.read() or 0)
        return None


def end_leftovers(state: Path, report: Callable[[str], None]) -> None:
    """Stop the parts that a killed supervisor left behind, after making sure that they are ours."""
    for name, known in reversed(parts_written(state).items()):
        pid = int(known["pid"])
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process = psutil.Process(pid)
            # The number may have gone to another program since: ours started when we wrote that it did.
            if abs(process.create_time() - known["since"]) < 2:  # noqa: PLR2004 - seconds between spawn and note
                report(f"{name} is left from a run that was cut short; stopping it")
                process.send_signal(signal.Signals(int(known["stop"])))
                # Who was killed may be of a release that did not note it.
                _wait_or_kill(process, max(LONGEST_LEFT, known.get("ends_within", 0.0)))
        _kill_group(pid, started=known["since"])


def _wait_or_kill(process: psutil.Process, seconds: float) -> None:
    if _still_running([process], seconds):
        process.kill()
        if _still_running([process], 5):
            text = (
                f"process {process.pid}, left from a run that was cut short, does not end even when killed."
            )
            raise Refusal(Kind.UNAVAILABLE, "still-stopping", text)


def _still_running(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those of `processes` that have not ended within so long."""
    deadline = time.monotonic() + seconds
    while (left := [process for process in processes if _runs(process)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def _runs(process: psutil.Process) -> bool:
    """Whether it holds anything yet. A zombie does not, and stays for ever where the first process of a
    container reaps nobody.
    """
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def refuse_taken_port(host: str, port: int, purpose: str, option: str) -> None:
    """Refuse, saying which option to give, when another program listens on `port`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            why = f"Port {port} ({purpose}) on {host} cannot be used: {error.strerror}."
            text = f"{why} Choose another with {option}."
            raise Refusal(Kind.UNAVAILABLE, "port-taken", text, port=port) from error


def _end(process: subprocess.Popen[bytes], part: Part) -> None:
    if process.poll() is None:
        process.send_signal(part.stop_signal)
        try:
            process.wait(max(LONGEST_STOP, part.ends_within))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    _kill_group(process.pid)


def _kill_group(leader: int, started: float | None = None) -> None:
    """End whatever the part itself started, and wait until it is gone.

    Granian's workers outlive a killed Granian.
    """
    killed = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            # Each part leads a session, so its children bear its number as theirs.
            led = process.pid != leader and os.getsid(process.pid) == leader
            if led and (started is None or process.create_time() >= started - 2):
                process.kill()
                killed.append(process)
    # A killed process holds its port until the kernel has taken it apart.
    _still_running(killed, 5)


def _trouble(part: Part) -> str:
    often = f"{part.name} hung {HANGS} times or more within {HANGS_WITHIN / 60:.0f} min"
    if not part.stands_on:
        return f"{often}: look at log/{part.name}.log."
    return (
        f"{often} although {part.stands_on} answers, which may be at fault all the same and is not ended"
        f" for it: look at log/{part.name}.log and log/{part.stands_on}.log."
    )


def _is_silent(running: _Running, now: float) -> bool:
    """Whether a part is down or overdue with its answer, so that those who stand on it cannot be judged."""
    if running.process.poll() is not None or running.killed_at < float("inf"):
        return True
    return running.asked is not None and now - running.asked.last > 3 * running.part.asked_every


def _dying_with_parent(stop_signal: signal.Signals) -> list[str]:
    """A supervisor that is killed takes its parts along, where the kernel can promise it.

    By a program in front of the part, not between fork and exec: questions are asked by threads.
    """
    setpriv = shutil.which("setpriv")
    return [] if setpriv is None else [setpriv, "--pdeathsig", stop_signal.name.removeprefix("SIG"), "--"]
