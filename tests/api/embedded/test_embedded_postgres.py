"""The private cluster: what was committed survives a kill, a foreign pid stops nothing, deep folders work."""

import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from api.embedded import unprivileged
from api.embedded.postgres import BINARIES, EmbeddedPostgres, buffers, password_of
from api.embedded.slapd import EmbeddedSlapd
from directory.base.errors import Refusal
from directory.base.unix_sockets import LONGEST_SOCKET, make_folder, postgres_password, socket_path

ROOT = Path(__file__).resolve().parents[3]
# The settings of real life, fsync among them, but for the memory.
SMALL = {"shared_buffers": "16MB", "max_connections": "20"}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root must become somebody else")
needs_way_in = pytest.mark.skipif(
    not all(folder.stat().st_mode & 0o001 for folder in BINARIES.resolve().parents),
    reason="this clone lies below a folder that no other account enters; sceau refuses there, see below",
)


@contextmanager
def running(cluster: EmbeddedPostgres) -> Iterator[subprocess.Popen[bytes]]:
    log = cluster.folder / "log"
    with (
        log.open("ab") as out,
        subprocess.Popen(cluster.command(SMALL), stdout=out, stderr=out, start_new_session=True) as process,
    ):
        try:
            cluster.wait_ready()
            yield process
        finally:
            process.send_signal(signal.SIGINT)


def kill(process: subprocess.Popen[bytes], cluster: EmbeddedPostgres) -> None:
    """Kill -9, and wait for its backends, which notice a moment later, as a later restart would."""
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while any(one.info["cwd"] == str(cluster.data) for one in psutil.process_iter(["cwd"])):
        assert time.monotonic() < deadline, "a backend outlived its server"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def cluster(passable: Path) -> EmbeddedPostgres:
    made = EmbeddedPostgres(passable / "cluster")
    made.make()
    return made


@pytest.mark.parametrize(
    ("machine", "limit", "expected"),
    [
        (24 << 30, "max", "3072MB"),
        (24 << 30, "", "3072MB"),
        (256 << 30, "max", "4096MB"),
        # A container on a large machine: it would be killed for want of memory.
        (256 << 30, str(2 << 30), "256MB"),
        (512 << 20, "max", "128MB"),
    ],
)
def test_buffers_are_an_eighth_of_what_there_is(machine: int, limit: str, expected: str) -> None:
    assert buffers(machine, limit) == expected


def test_committed_rows_survive_kill_9(cluster: EmbeddedPostgres) -> None:
    with running(cluster) as process:
        with psycopg.connect(cluster.conninfo, autocommit=True) as link:
            link.execute("DROP TABLE IF EXISTS kept")
            link.execute("CREATE TABLE kept (n int)")
            link.execute("INSERT INTO kept SELECT generate_series(1, 1000)")
        with psycopg.connect(cluster.conninfo) as open_one:
            open_one.execute("INSERT INTO kept VALUES (0)")
            kill(process, cluster)
            with pytest.raises(psycopg.OperationalError):
                open_one.execute("SELECT 1")
    with running(cluster), psycopg.connect(cluster.conninfo) as link:
        assert link.execute("SELECT count(*), min(n) FROM kept").fetchone() == (1000, 1)


def test_a_pid_file_that_names_another_program_does_not_stop_the_start(cluster: EmbeddedPostgres) -> None:
    with running(cluster) as process:
        pid_file = cluster.data / "postmaster.pid"
        lines = pid_file.read_text().split("\n")
        kill(process, cluster)
    # After a reboot, the number of the killed server may be anybody's: here, ours.
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]))
    with running(cluster):
        assert pid_file.read_text().split("\n")[0] != str(os.getpid())


def test_the_pid_file_of_a_server_that_runs_is_left_alone(cluster: EmbeddedPostgres) -> None:
    with running(cluster):
        before = (cluster.data / "postmaster.pid").read_text()
        second = subprocess.run(cluster.command(SMALL), capture_output=True, text=True, check=False)
        assert second.returncode != 0
        assert "already" in second.stderr or "Is another" in second.stderr
        assert (cluster.data / "postmaster.pid").read_text() == before
        with psycopg.connect(cluster.conninfo) as link:
            assert link.execute("SELECT 1").fetchone() == (1,)


def test_a_cluster_half_made_is_made_again(passable: Path) -> None:
    half = EmbeddedPostgres(passable / "half")
    half.data.mkdir(parents=True)
    (half.data / "PG_VERSION").write_text("18\n")
    half.make()
    with running(half):
        pass


def test_a_made_cluster_is_never_made_again(cluster: EmbeddedPostgres) -> None:
    version = cluster.data / "PG_VERSION"
    before = version.stat().st_mtime_ns
    cluster.make()
    assert version.stat().st_mtime_ns == before


def test_a_deep_folder_serves_through_a_short_socket(passable: Path) -> None:
    deep = EmbeddedPostgres(passable / ("d" * 60) / ("e" * 60))
    deep.make()
    try:
        with running(deep), psycopg.connect(deep.conninfo) as link:
            assert link.execute("SELECT 1").fetchone() == (1,)
    finally:
        for path in deep.socket_folder.iterdir():
            path.unlink()
        deep.socket_folder.rmdir()


def test_a_silent_server_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="did not answer within 0 s") as refused:
        EmbeddedPostgres(tmp_path).wait_ready(0)
    assert refused.value.code == "postgres-silent"


def test_a_socket_lies_beside_its_data_while_it_fits(tmp_path: Path) -> None:
    room = LONGEST_SOCKET - len(str(tmp_path)) - len("/") - len("/s")
    fits = tmp_path / ("x" * room) / "s"
    assert socket_path(fits) == fits
    short = socket_path(tmp_path / ("x" * (room + 1)) / "s")
    assert len(str(short)) < 60
    assert short.name == "s"


def test_two_deep_folders_have_two_sockets_and_one_folder_always_the_same(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    assert socket_path(deep / "one" / "s") == socket_path(deep / "one" / ".." / "one" / "s")
    assert socket_path(deep / "one" / "s") != socket_path(deep / "two" / "s")
    assert len(str(EmbeddedSlapd(deep).socket)) < 60


def test_letters_outside_ascii_count_as_the_bytes_they_are(tmp_path: Path) -> None:
    accented = tmp_path / ("é" * ((LONGEST_SOCKET - len(str(tmp_path))) // 2 + 1)) / "s"
    assert len(str(accented)) <= LONGEST_SOCKET
    assert len(str(socket_path(accented))) < 60


@needs_root
def test_a_socket_folder_that_somebody_else_made_is_refused(tmp_path: Path) -> None:
    taken, real = tmp_path / "taken", tmp_path / "real"
    taken.mkdir()
    os.chown(taken, 65534, 65534)
    with pytest.raises(Refusal) as refused:
        make_folder(taken, tmp_path)
    assert refused.value.code == "socket-folder-taken"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    with pytest.raises(Refusal):
        make_folder(tmp_path / "link", tmp_path)


@pytest.fixture
def without_namespaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a container is like: `unshare` is there and is not allowed."""
    (tmp_path / "unshare").write_text(
        "#!/bin/sh\necho 'unshare failed: Operation not permitted' >&2\nexit 1\n"
    )
    (tmp_path / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


@needs_root
@needs_way_in
@pytest.mark.usefixtures("without_namespaces")
def test_where_root_may_make_no_namespace_an_account_of_its_own_runs_the_server(passable: Path) -> None:
    state = passable / "state"
    state.mkdir(mode=0o700)
    cluster = EmbeddedPostgres(state / "postgres")
    cluster.make(state)
    account = pwd.getpwnam(unprivileged.ACCOUNT)
    with running(cluster) as process:
        with psycopg.connect(cluster.conninfo) as link:
            assert link.execute("SELECT current_user").fetchone() == ("sceau",)
        uids = Path(f"/proc/{process.pid}/status").read_text().partition("Uid:")[2].split()[:4]
        assert uids == [str(account.pw_uid)] * 4
    # It owns the cluster and passes through the state folder; all else there stays root's.
    assert cluster.data.stat().st_uid == account.pw_uid
    found = state.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (0, account.pw_gid, 0o710)


@pytest.fixture
def unmade() -> Iterator[str]:
    """The name of an account that nobody has made yet."""
    name = f"sceau-test-{os.getpid()}"
    yield name
    subprocess.run(["/usr/sbin/userdel", name], check=False, capture_output=True)


@needs_root
@pytest.mark.parametrize("_round", range(3))
def test_processes_that_make_the_account_at_once_find_the_same_one(unmade: str, _round: int) -> None:
    program = (
        "import sys\n"
        "from api.embedded import unprivileged\n"
        "unprivileged.ACCOUNT = sys.argv[1]\n"
        "print('ready', flush=True)\n"
        "input()\n"
        "print(*unprivileged._account())\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, unmade], cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(6)
    ]  # fmt: skip
    for process in started:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60) for process in started]
    made = pwd.getpwnam(unmade)
    assert told == [(f"{made.pw_uid} {made.pw_gid}\n", "")] * len(started)


@needs_root
@needs_way_in
def test_a_cluster_made_under_root_is_handed_over_and_stays_so(
    passable: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    cluster = EmbeddedPostgres(passable / "moved")
    cluster.make()
    if cluster.folder.stat().st_uid != 0:
        pytest.skip("no namespace is allowed here: the first owner is the account already")
    with running(cluster), psycopg.connect(cluster.conninfo, autocommit=True) as link:
        link.execute("CREATE TABLE kept AS SELECT 42 AS n")
    path = os.environ["PATH"]
    request.getfixturevalue("without_namespaces")
    cluster.make()
    with running(cluster), psycopg.connect(cluster.conninfo) as link:
        assert link.execute("SELECT n FROM kept").fetchone() == (42,)
    monkeypatch.setenv("PATH", path)
    cluster.make()
    with running(cluster), psycopg.connect(cluster.conninfo) as link:
        assert link.execute("SELECT n FROM kept").fetchone() == (42,)


@needs_root
@pytest.mark.usefixtures("without_namespaces")
def test_the_first_folder_that_the_account_cannot_enter_is_named(passable: Path) -> None:
    closed = passable / "closed"
    (closed / "below").mkdir(parents=True)
    closed.chmod(0o700)
    cluster = EmbeddedPostgres(closed / "below" / "postgres")
    with pytest.raises(Refusal, match=f"cannot enter {closed}: .*--state /var/lib/sceau") as refused:
        cluster.make(closed / "below")
    assert refused.value.code == "postgres-refuses-root"
    # Nothing was given away before it was refused.
    assert cluster.folder.stat().st_uid == 0
    assert closed.stat().st_mode & 0o777 == 0o700


def test_the_binaries_are_those_of_the_release_that_the_cluster_was_made_by() -> None:
    shown = subprocess.run([BINARIES / "postgres", "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("postgres (PostgreSQL) 18.")


def without_password(cluster: EmbeddedPostgres, user: str = "sceau") -> str:
    return make_conninfo(host=str(cluster.socket_folder), user=user, dbname="postgres", passfile="/dev/null")


def as_release_0_3_0_left_it(cluster: EmbeddedPostgres) -> None:
    """Whoever reaches the socket is the superuser, and no password is anywhere."""
    cluster.make()
    (cluster.data / "pg_hba.conf").write_text("local all all trust\nlocal replication all trust\n")
    postgres_password(cluster.folder).unlink()
    with running(cluster), psycopg.connect(without_password(cluster), autocommit=True) as link:
        link.execute("ALTER ROLE sceau PASSWORD NULL")
        link.execute("CREATE TABLE kept AS SELECT 42 AS n")


def test_nobody_is_let_in_without_a_password(cluster: EmbeddedPostgres) -> None:
    rules = (cluster.data / "pg_hba.conf").read_text()
    assert {line.split()[-1] for line in rules.splitlines()} == {"scram-sha-256"}
    file = postgres_password(cluster.folder)
    assert file.stat().st_mode & 0o777 == 0o600
    assert cluster.folder not in file.parents
    # 256 bits, in letters of six.
    assert len(file.read_text().strip().rpartition(":")[2]) == 43
    with running(cluster):
        for user in ("sceau", "sceau_web", "postgres"):
            with pytest.raises(psycopg.OperationalError, match=r"no password supplied|authentication failed"):
                psycopg.connect(without_password(cluster, user))


def test_a_cluster_of_0_3_0_is_closed_and_loses_nothing(passable: Path) -> None:
    cluster = EmbeddedPostgres(passable / "of-0-3-0" / "postgres")
    as_release_0_3_0_left_it(cluster)
    cluster.make()
    with running(cluster):
        with psycopg.connect(make_conninfo(cluster.conninfo, dbname="postgres")) as link:
            assert link.execute("SELECT n FROM kept").fetchone() == (42,)
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(without_password(cluster))


def test_a_password_whose_file_was_lost_is_made_anew(passable: Path) -> None:
    cluster = EmbeddedPostgres(passable / "forgot" / "postgres")
    cluster.make()
    file = postgres_password(cluster.folder)
    before = file.read_text()
    file.unlink()
    cluster.make()
    assert file.read_text() != before
    with running(cluster), psycopg.connect(cluster.conninfo) as link:
        assert link.execute("SELECT 1").fetchone() == (1,)


def test_a_cluster_half_closed_is_closed_by_the_next_start(passable: Path) -> None:
    """Ended between the password and the rules: the password of the file is the one that is set."""
    cluster = EmbeddedPostgres(passable / "half-closed" / "postgres")
    as_release_0_3_0_left_it(cluster)
    password_of(postgres_password(cluster.folder), "sceau")
    cluster.make()
    with running(cluster), psycopg.connect(make_conninfo(cluster.conninfo, dbname="postgres")) as link:
        assert link.execute("SELECT n FROM kept").fetchone() == (42,)
