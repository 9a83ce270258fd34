"""The supervisor keeps real processes alive, stops them in order, and is the only one of its folder."""

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import orjson
import psutil
import psycopg
import pytest

from api.embedded.postgres import EmbeddedPostgres
from api.installation import questions
from api.installation.supervisor import (
    Part,
    Supervisor,
    end_leftovers,
    folder_held,
    parts_written,
    paused_marker,
    refuse_taken_port,
    supervisor_pid,
    troubles_written,
)
from directory.base.durable_files import write_atomically
from directory.base.errors import Refusal

ROOT = Path(__file__).resolve().parents[3]
SLEEPS = ["sleep", "600"]
# A supervisor of its own process, to be killed: parts that outlive it, as where the kernel promises nothing.
KILLED = """
import os, sys, time
from pathlib import Path
from api.installation.supervisor import Part, Supervisor, folder_held
with folder_held(Path(sys.argv[1])) as mine:
    supervisor = Supervisor(Path(sys.argv[1]), print)
    for name, command in (("one", sys.argv[2:]), ("two", sys.argv[2:])):
        supervisor.start(Part(name, lambda c=command: c, lambda: True, os.environ))
    print(mine, flush=True)
    time.sleep(600)
"""
# What the first process of many containers is: orphans become its children, and it reaps none of them.
REAPS_NOBODY = """
import ctypes, subprocess, sys, time
PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
subprocess.Popen([sys.executable, "-c", *sys.argv[1:]])
time.sleep(600)
"""


def part(name: str, *command: str, answers: Callable[[], bool] = lambda: True) -> Part:
    return Part(name, lambda: list(command), answers, os.environ)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def supervisor(tmp_path: Path, told: list[str]) -> Iterator[Supervisor]:
    made = Supervisor(tmp_path, told.append)
    yield made
    made.stop_all()


def watch_until(supervisor: Supervisor, what: Callable[[], bool], seconds: float = 15) -> None:
    """Watch, in this thread as in real life, until `what()` holds; fail when it does not in time."""
    found = threading.Event()

    def look() -> None:
        deadline = time.monotonic() + seconds
        try:
            while not found.is_set() and time.monotonic() < deadline:
                if what():
                    found.set()
                time.sleep(0.02)
        finally:
            supervisor.ask_to_stop()

    watcher = threading.Thread(target=look)
    supervisor._stopping = False
    watcher.start()
    supervisor.watch()
    watcher.join()
    assert found.is_set(), f"not within {seconds} s"


def pid_of(state: Path, name: str) -> int:
    return int(parts_written(state)[name]["pid"])


def alive(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_a_part_that_dies_is_restarted_and_reported(
    supervisor: Supervisor, tmp_path: Path, told: list[str]
) -> None:
    supervisor.start(part("web", *SLEEPS))
    first = pid_of(tmp_path, "web")
    os.kill(first, signal.SIGKILL)
    watch_until(supervisor, lambda: parts_written(tmp_path)["web"]["restarts"] == 1)
    second = pid_of(tmp_path, "web")
    assert second != first
    assert alive(second)
    assert told == ["web ended (-9); restarting"]


def test_a_part_that_keeps_dying_is_tried_ever_more_slowly(supervisor: Supervisor, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    starts.touch()
    supervisor.start(part("web", "sh", "-c", f"date +%s.%N >>{starts}; exit 3"))
    watch_until(supervisor, lambda: len(starts.read_text().split()) >= 5)
    times = [float(one) for one in starts.read_text().split()[:5]]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(later > earlier * 1.3 for earlier, later in itertools.pairwise(pauses)), pauses


def test_what_a_dead_part_started_goes_before_it_is_started_again(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    child = tmp_path / "child"
    supervisor.start(part("web", "sh", "-c", f"sleep 600 & echo $! >{child}; wait", answers=child.exists))
    watch_until(supervisor, lambda: child.read_text().strip().isdigit())
    orphan = int(child.read_text())
    os.kill(pid_of(tmp_path, "web"), signal.SIGKILL)
    watch_until(supervisor, lambda: parts_written(tmp_path)["web"]["restarts"] == 1)
    assert not alive(orphan)


def test_a_part_that_ends_at_once_is_refused_with_its_last_words(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    with pytest.raises(Refusal, match=r"ended at once \(3\).*web\.log: no such luck") as refused:
        supervisor.start(part("web", "sh", "-c", "echo no such luck; exit 3", answers=lambda: False))
    assert refused.value.code == "part-not-started"
    assert (tmp_path / "log" / "web.log").read_text() == "no such luck\n"


def test_a_part_that_never_answers_is_refused(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.installation.supervisor.LONGEST_START", 0.3)
    with pytest.raises(Refusal, match="did not answer"):
        supervisor.start(part("web", *SLEEPS, answers=lambda: False))


def test_parts_stop_in_the_reverse_of_their_start_each_by_its_own_signal(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    log = tmp_path / "stops"
    script = "trap 'echo {0} {1} >>{2}; exit' {1}; touch {2}.{0}; while :; do sleep 0.02; done"
    for name, number in (("record", signal.SIGINT), ("keys", signal.SIGTERM), ("web", signal.SIGTERM)):
        words = script.format(name, number.name.removeprefix("SIG"), log)
        ready = Path(f"{log}.{name}")
        # Whoever started the tests in the background had them ignore SIGINT, which bash could not trap then.
        shell = ["env", "--default-signal=INT", "bash", "-c", words]
        supervisor.start(Part(name, lambda s=shell: s, ready.exists, os.environ, number))
    supervisor.stop_all()
    assert log.read_text().split("\n") == ["web TERM", "keys TERM", "record INT", ""]
    assert parts_written(tmp_path) == {}


def test_a_paused_part_stays_down_while_its_maker_lives(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start(part("ldap", *SLEEPS))
    with subprocess.Popen(SLEEPS) as maker:
        paused_marker(tmp_path, "ldap").write_text(str(maker.pid))
        stopped = pid_of(tmp_path, "ldap")
        os.kill(stopped, signal.SIGTERM)
        later = time.monotonic() + 1.5
        watch_until(supervisor, lambda: time.monotonic() > later)
        assert pid_of(tmp_path, "ldap") == stopped
        maker.kill()
    # The marker is still there: nobody is left to take it away, and nobody needs to.
    watch_until(supervisor, lambda: pid_of(tmp_path, "ldap") != stopped)
    assert parts_written(tmp_path)["ldap"]["restarts"] == 0


def test_parts_left_by_a_killed_supervisor_are_ended_and_others_are_not(
    tmp_path: Path, told: list[str]
) -> None:
    # Without this, the kernel would end them with their supervisor, and nothing would be left to see.
    command = ["setpriv", "--pdeathsig=clear", "--", *SLEEPS]
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), *command], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stdout
        assert killed.stdout.readline() == "True\n"
        assert supervisor_pid(tmp_path) == killed.pid
        until_on_their_own(tmp_path)
        killed.kill()
    assert supervisor_pid(tmp_path) is None
    left = [pid_of(tmp_path, name) for name in ("one", "two")]
    assert all(map(alive, left))
    with subprocess.Popen(SLEEPS, start_new_session=True) as stranger:
        # A third line names a process that has since taken the number of one of ours.
        written = orjson.loads((tmp_path / "run" / "parts.json").read_bytes())
        written["parts"]["three"] = {
            **written["parts"]["two"],
            "pid": stranger.pid,
            "since": time.time() - 900,
        }
        write_atomically(tmp_path / "run" / "parts.json", orjson.dumps(written))
        end_leftovers(tmp_path, told.append)
        assert stranger.poll() is None
        stranger.kill()
    assert not any(map(alive, left))
    assert [line.split()[0] for line in told] == ["two", "one"]


def until_on_their_own(folder: Path) -> None:
    """Until `setpriv` ran: before, a part ends with its supervisor, as the kernel was told."""
    while any("setpriv" in psutil.Process(pid_of(folder, name)).cmdline() for name in ("one", "two")):
        time.sleep(0.02)


@pytest.fixture
def unreaped(tmp_path: Path) -> Iterator[None]:
    """A supervisor was killed, and whoever inherits its parts reaps nobody."""
    words = [KILLED, str(tmp_path), "setpriv", "--pdeathsig=clear", "--", *SLEEPS]
    first = subprocess.Popen(
        [sys.executable, "-c", REAPS_NOBODY, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert first.stdout
        assert first.stdout.readline() == "True\n"
        supervisor = supervisor_pid(tmp_path)
        assert supervisor is not None
        until_on_their_own(tmp_path)
        os.kill(supervisor, signal.SIGKILL)
        while supervisor_pid(tmp_path) is not None:
            time.sleep(0.02)
        yield
    finally:
        for process in (*psutil.Process(first.pid).children(recursive=True), first):
            process.kill()
        first.communicate()


@pytest.mark.usefixtures("unreaped")
def test_leftovers_that_nobody_reaps_count_as_gone_once_they_ended(tmp_path: Path, told: list[str]) -> None:
    left = [pid_of(tmp_path, name) for name in ("one", "two")]
    assert all(map(alive, left))
    end_leftovers(tmp_path, told.append)
    assert [psutil.Process(pid).status() for pid in left] == [psutil.STATUS_ZOMBIE] * 2
    assert [line.split()[0] for line in told] == ["two", "one"]


def test_a_part_is_paused_by_nobody_who_ended_and_was_not_reaped(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir(exist_ok=True)
    maker = subprocess.Popen(SLEEPS)
    try:
        paused_marker(tmp_path, "ldap").write_text(str(maker.pid))
        assert supervisor._is_paused("ldap")
        maker.kill()
        while alive(maker.pid):
            time.sleep(0.02)
        assert not supervisor._is_paused("ldap")
    finally:
        maker.kill()
        maker.wait()


def test_parts_end_with_a_killed_supervisor_where_the_kernel_promises_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), *SLEEPS], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stdout
        killed.stdout.readline()
        killed.kill()
    deadline = time.monotonic() + 30
    while any(alive(pid_of(tmp_path, name)) for name in ("one", "two")):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_second_supervisor_does_not_get_the_folder_until_the_first_is_dead(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), *SLEEPS], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout
        first.stdout.readline()
        with folder_held(tmp_path) as mine:
            assert not mine
        assert supervisor_pid(tmp_path) == first.pid
        first.kill()
    with folder_held(tmp_path) as mine:
        assert mine
        assert supervisor_pid(tmp_path) == os.getpid()


def test_a_taken_port_is_refused_with_the_option_that_helps() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Refusal, match=f"Port {port} .web. .*Choose another with --port") as refused:
            refuse_taken_port("127.0.0.1", port, "web", "--port")
        assert refused.value.details == {"port": port}
    refuse_taken_port("127.0.0.1", port, "web", "--port")


def test_what_is_written_over_is_old_or_new_and_never_half(tmp_path: Path) -> None:
    path, old, new = tmp_path / "file", b"o" * 300_000, b"n" * 300_000
    write_atomically(path, old)

    def write() -> None:
        for _ in range(30):
            write_atomically(path, new)
            write_atomically(path, old)

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while writer.is_alive():
        seen.add(path.read_bytes())
    assert seen <= {old, new}
    assert path.stat().st_mode & 0o777 == 0o600


def counting(folder: Path, name: str) -> tuple[list[str], Callable[[], bool]]:
    """A program whose work is to count, and the question whether its count went on."""
    count, seen = folder / name, [""]
    script = f"i=0; while :; do i=$((i+1)); echo $i >{count}; sleep 0.1; done"

    def gets_on() -> bool:
        before, seen[0] = seen[0], count.read_text()
        return seen[0] != before

    return ["sh", "-c", script], gets_on


def hangable(
    folder: Path,
    name: str,
    *,
    silence: float = 2,
    stands_on: str = "",
    recovers: Callable[[], bool] = lambda: False,
) -> Part:
    command, gets_on = counting(folder, name)
    return Part(
        name,
        lambda: command,
        (folder / name).exists,
        os.environ,
        works=gets_on,
        silence=silence,
        stands_on=stands_on,
        recovers=recovers,
    )


@pytest.fixture
def impatient_supervisor(monkeypatch: pytest.MonkeyPatch, supervisor: Supervisor) -> Supervisor:
    for name, seconds in (("ASKED_EVERY", 0.3), ("LONGEST_END", 1.0), ("LONGEST_START", 6.0)):
        monkeypatch.setattr(f"api.installation.supervisor.{name}", seconds)
    return supervisor


def test_a_part_that_hangs_is_ended_and_started_again(
    impatient_supervisor: Supervisor, tmp_path: Path, told: list[str]
) -> None:
    impatient_supervisor.start(hangable(tmp_path, "worker"))
    impatient_supervisor.start(hangable(tmp_path, "other"))
    hung, other = pid_of(tmp_path, "worker"), pid_of(tmp_path, "other")
    os.kill(hung, signal.SIGSTOP)
    watch_until(impatient_supervisor, lambda: parts_written(tmp_path)["worker"]["restarts"] == 1)
    assert not alive(hung)
    before = (tmp_path / "worker").read_text()
    watch_until(impatient_supervisor, lambda: (tmp_path / "worker").read_text() not in (before, ""))
    assert pid_of(tmp_path, "other") == other
    assert told[0].startswith("worker gave no sign of work for ")
    assert told[1:] == ["worker ended (-9); restarting"]


def test_a_question_that_hangs_holds_up_nobody(impatient_supervisor: Supervisor, tmp_path: Path) -> None:
    for_ever = threading.Event()
    asked = Part("web", lambda: SLEEPS, lambda: True, os.environ, works=for_ever.wait, silence=2)
    impatient_supervisor.start(asked)
    impatient_supervisor.start(part("worker", *SLEEPS))
    os.kill(pid_of(tmp_path, "worker"), signal.SIGKILL)
    watch_until(impatient_supervisor, lambda: parts_written(tmp_path)["worker"]["restarts"] == 1)
    # To hang over a question is to give no answer to it.
    watch_until(impatient_supervisor, lambda: parts_written(tmp_path)["web"]["restarts"] == 1)
    for_ever.set()


def test_a_part_is_not_judged_while_what_it_stands_on_is_silent(
    impatient_supervisor: Supervisor, tmp_path: Path
) -> None:
    impatient_supervisor.start(hangable(tmp_path, "postgres", silence=30))
    impatient_supervisor.start(hangable(tmp_path, "worker", stands_on="postgres"))
    watch_until(impatient_supervisor, (tmp_path / "worker").exists)
    os.kill(pid_of(tmp_path, "postgres"), signal.SIGSTOP)
    later = time.monotonic() + 2
    watch_until(impatient_supervisor, lambda: time.monotonic() > later)
    os.kill(pid_of(tmp_path, "worker"), signal.SIGSTOP)
    later = time.monotonic() + 4
    watch_until(impatient_supervisor, lambda: time.monotonic() > later)
    assert parts_written(tmp_path)["worker"]["restarts"] == 0
    os.kill(pid_of(tmp_path, "postgres"), signal.SIGCONT)
    watch_until(impatient_supervisor, lambda: parts_written(tmp_path)["worker"]["restarts"] == 1)
    assert parts_written(tmp_path)["postgres"]["restarts"] == 0


@pytest.mark.long
def test_a_part_that_hangs_again_leaves_alone_what_it_stands_on_and_answers(
    impatient_supervisor: Supervisor, tmp_path: Path, told: list[str]
) -> None:
    impatient_supervisor.start(hangable(tmp_path, "postgres", silence=30))
    impatient_supervisor.start(hangable(tmp_path, "worker", stands_on="postgres"))
    for restarts in (1, 2):
        os.kill(pid_of(tmp_path, "worker"), signal.SIGSTOP)
        watch_until(
            impatient_supervisor,
            lambda n=restarts: parts_written(tmp_path)["worker"]["restarts"] == n,  # type: ignore[misc]
            30,
        )
    later = time.monotonic() + 3
    watch_until(impatient_supervisor, lambda: time.monotonic() > later)
    assert parts_written(tmp_path)["postgres"]["restarts"] == 0
    assert not [line for line in told if line.startswith("postgres")]


def test_a_part_that_hangs_again_while_what_it_stands_on_answers_is_a_matter_for_a_person(
    impatient_supervisor: Supervisor, tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL answered and was at fault; the worker was ended without end, and nothing said why."""
    impatient_supervisor.start(hangable(tmp_path, "postgres", silence=30))
    impatient_supervisor.start(hangable(tmp_path, "worker", stands_on="postgres"))
    watch_until(impatient_supervisor, (tmp_path / "worker").exists)
    for restarts in (1, 2):
        assert troubles_written(tmp_path) == {}, "once is chance"
        os.kill(pid_of(tmp_path, "worker"), signal.SIGSTOP)
        watch_until(
            impatient_supervisor,
            lambda n=restarts: parts_written(tmp_path)["worker"]["restarts"] == n,  # type: ignore[misc]
            30,
        )
    (trouble,) = troubles_written(tmp_path).values()
    assert trouble.startswith("worker hung 2 times or more within 5 min although postgres answers")
    assert trouble.endswith("look at log/worker.log and log/postgres.log.")
    assert (tmp_path / "log" / "postgres.log").exists()
    assert told.count(trouble) == 1
    # It is gone once it has been quiet for long enough.
    monkeypatch.setattr("api.installation.supervisor.HANGS_WITHIN", 0.0)
    watch_until(impatient_supervisor, lambda: troubles_written(tmp_path) == {})
    assert parts_written(tmp_path)["postgres"]["restarts"] == 0


def test_a_part_that_recovers_is_waited_for_and_those_above_are_not_judged(
    impatient_supervisor: Supervisor, tmp_path: Path
) -> None:
    recovering = threading.Event()
    recovering.set()
    below = hangable(tmp_path, "postgres", recovers=recovering.is_set)
    impatient_supervisor.start(below)
    impatient_supervisor.start(hangable(tmp_path, "worker", stands_on="postgres"))
    for name in ("postgres", "worker"):
        os.kill(pid_of(tmp_path, name), signal.SIGSTOP)
        # Stopped in this order, so that the worker is never the only one to be silent.
        later = time.monotonic() + 4
        watch_until(impatient_supervisor, lambda at=later: time.monotonic() > at)  # type: ignore[misc]
    assert [parts_written(tmp_path)[name]["restarts"] for name in ("postgres", "worker")] == [0, 0]
    os.kill(pid_of(tmp_path, "worker"), signal.SIGCONT)
    recovering.clear()
    watch_until(impatient_supervisor, lambda: parts_written(tmp_path)["postgres"]["restarts"] == 1)


def recover_again(cluster: EmbeddedPostgres) -> None:
    """Have the next start recover from the archive."""
    signalled, owner = cluster.data / "recovery.signal", cluster.data.stat()
    signalled.touch()
    os.chown(signalled, owner.st_uid, owner.st_gid)


@pytest.fixture
def recovering_cluster(passable: Path) -> tuple[EmbeddedPostgres, Path]:
    """A cluster whose recovery lasts until a file is there: it waits for that file of its archive."""
    cluster = EmbeddedPostgres(passable / f"recovering-{time.monotonic_ns()}")
    cluster.make()
    archive = cluster.folder / "archive"
    with (cluster.data / "postgresql.auto.conf").open("a") as conf:
        conf.write(f"restore_command = 'while [ ! -e {archive} ]; do sleep 0.05; done; exit 1'\n")
        conf.write("hot_standby = off\nmax_connections = 20\nshared_buffers = '16MB'\n")
    recover_again(cluster)
    return cluster, archive


def is_ready(cluster: EmbeddedPostgres) -> bool:
    try:
        cluster.wait_ready(0)
    except Refusal:
        return False
    return True


def record_of(cluster: EmbeddedPostgres) -> Part:
    """The part as `sceau up` starts it, but for its patience."""
    return Part(
        "postgres",
        cluster.command,
        lambda: is_ready(cluster),
        os.environ,
        signal.SIGINT,
        works=questions.postgres(cluster),
        silence=3,
        recovers=questions.recovering(cluster),
        ends_within=30,
    )


@pytest.mark.long
def test_postgresql_is_not_ended_while_it_recovers_however_long_that_takes(
    impatient_supervisor: Supervisor, recovering_cluster: tuple[EmbeddedPostgres, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, told: list[str],
) -> None:  # fmt: skip
    cluster, archive = recovering_cluster
    monkeypatch.setattr("api.installation.supervisor.LONGEST_START", 3.0)
    opened = threading.Timer(8, archive.touch)
    opened.start()
    # 1. At its first start: the wait for an answer is over long before it has recovered.
    impatient_supervisor.start(record_of(cluster))
    opened.join()
    # 2. After it was killed, under the supervisor.
    archive.unlink()
    recover_again(cluster)
    os.kill(pid_of(tmp_path, "postgres"), signal.SIGKILL)
    recovering = questions.recovering(cluster)
    watch_until(impatient_supervisor, recovering, 30)
    second = pid_of(tmp_path, "postgres")
    later = time.monotonic() + 9
    watch_until(impatient_supervisor, lambda: time.monotonic() > later)
    assert recovering()
    assert pid_of(tmp_path, "postgres") == second
    archive.touch()
    watch_until(impatient_supervisor, questions.postgres(cluster), 30)
    assert told == ["postgres ended (-9); restarting"]


def test_postgresql_answers_when_all_its_connections_are_in_use(
    impatient_supervisor: Supervisor, recovering_cluster: tuple[EmbeddedPostgres, Path]
) -> None:
    cluster, archive = recovering_cluster
    archive.touch()
    impatient_supervisor.start(record_of(cluster))
    answers, held = questions.postgres(cluster), list[psycopg.Connection]()
    try:
        with pytest.raises(psycopg.OperationalError, match="too many clients"):
            held.extend(psycopg.connect(cluster.conninfo) for _ in range(1000))
        assert answers()
        assert not questions.recovering(cluster)()
    finally:
        for link in held:
            link.close()


def test_a_signer_that_hangs_up_before_it_reads_the_question_is_well(tmp_path: Path) -> None:
    path = tmp_path / "signer.sock"
    well = questions.signer(path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert not well(), "nobody listens"
        server.listen()

        def hang_up() -> None:
            # Before the question comes, or with it unread.
            link, _ = server.accept()
            link.close()

        hanging_up = threading.Thread(target=hang_up)
        hanging_up.start()
        assert well()
        hanging_up.join()


def test_a_part_is_given_its_own_time_to_end(supervisor: Supervisor, tmp_path: Path, told: list[str]) -> None:
    ready, ended = tmp_path / "ready", tmp_path / "ended"
    slowly = f"trap 'sleep 2; touch {ended}; exit' TERM; touch {ready}; while :; do sleep 0.02; done"
    patient = Part("record", lambda: ["bash", "-c", slowly], ready.exists, os.environ, ends_within=20)
    with pytest.MonkeyPatch.context() as patched:
        for name in ("LONGEST_END", "LONGEST_STOP", "LONGEST_LEFT"):
            patched.setattr(f"api.installation.supervisor.{name}", 0.2)
        # 1. Ended as hung.
        supervisor.start(replace(patient, works=lambda: False, silence=0.5))
        watch_until(supervisor, lambda: any("restarting" in line for line in told))
        assert told[-1] == "record ended (0); restarting"
        assert ended.exists()
        # 2. Stopped with all the others.
        ended.unlink()
        supervisor.stop_all()
        ended.unlink(missing_ok=True)
        ready.unlink()
        supervisor.start(patient)
        supervisor.stop_all()
        assert ended.exists()
        # 3. Left behind.
        ended.unlink()
        ready.unlink()
        supervisor.start(patient)
        reaper = threading.Thread(target=supervisor._running["record"].process.wait)
        reaper.start()
        end_leftovers(tmp_path, told.append)
        reaper.join()
        assert ended.exists()
