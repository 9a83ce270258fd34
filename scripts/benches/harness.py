"""What every figure is taken with: an installation of its own, a load generator, a bare Granian beside it."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from sqlalchemy import Engine

from api.embedded.postgres import EmbeddedPostgres
from api.installation.bring_up import migrate
from api.settings import Settings, load_settings
from api.wiring import Container, build
from directory.base.db import connect_engine

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
REQUESTS = """
local requests, next_one = {}, 0
for line in io.lines("%(file)s") do
  local method, path, body = line:match("(%%S+) (%%S+) ?(%%S*)")
  body = body:gsub("%%x%%x", function(pair) return string.char(tonumber(pair, 16)) end)
  requests[#requests + 1] = wrk.format(method, path, %(headers)s, method == "POST" and body or nil)
end
function init(args) next_one = math.random(#requests) end
function request() next_one = next_one %% #requests + 1; return requests[next_one] end
"""


@dataclass(frozen=True)
class Figure:
    """One measured value beside another of the same run; `target` bounds the ratio, or the value it names."""

    name: str
    value: float
    unit: str
    beside: dict[str, float]
    ratio: float
    target: str
    ok: bool

    def show(self) -> None:
        """Print it as one line of JSON."""
        print(json.dumps(vars(self)), flush=True)


@dataclass(frozen=True)
class Bench:
    """What figures are taken on: an installation with the demo, a folder for scraps, how long, how large."""

    settings: Settings
    folder: Path
    seconds: int
    size: int

    @property
    def container(self) -> Container:
        """The installation's parts, as a command has them."""
        return build(self.settings)

    @property
    def web(self) -> str:
        """Where the installation's web part answers."""
        return f"http://{self.settings.host}:{self.settings.port}"

    @property
    def postgres(self) -> EmbeddedPostgres:
        """The installation's own PostgreSQL."""
        return EmbeddedPostgres(self.settings.state / "postgres")

    def rows(self, query: str, *parameters: object) -> list[tuple]:
        """All rows of a query on the installation's record."""
        with psycopg.connect(self.postgres.conninfo) as link:
            return link.execute(query, parameters).fetchall()

    @property
    def operator(self) -> dict[str, str]:
        """HTTP headers of an operator who asks in JSON."""
        secrets = json.loads((self.settings.state / "demo-credentials.json").read_text())
        return {"Authorization": f"Bearer {secrets['operator']}", "Content-Type": "application/json"}


def until_followed(bench: Bench, seconds: int = 120) -> None:
    """Wait until the worker has followed what was written to prepare a figure."""
    query = """SELECT EXISTS (SELECT FROM audit_pending) OR EXISTS (SELECT FROM feed_cursor c
        WHERE (c.xid, c.id) < (SELECT xid, id FROM change ORDER BY xid DESC, id DESC LIMIT 1))"""
    deadline = time.monotonic() + seconds
    while bench.rows(query)[0][0]:
        if time.monotonic() > deadline:
            raise SystemExit(f"the worker has not followed within {seconds} s")
        time.sleep(0.2)


def free_port() -> int:
    """A TCP port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wrk(  # noqa: PLR0917 - what is asked of whom
    bench: Bench,
    url: str,
    requests: list[str],
    headers: dict[str, str] | None = None,
    connections: int = 16,
    told: dict[str, float] | None = None,
    threads: int = 2,
) -> float:
    """Requests a second over these lines (`METHOD path [body in hex]`); fails unless all are answered 2xx.

    Into `told` goes `p99`, in milliseconds. Of very many lines ask with one of wrk's threads: the first asks
    while the second still reads them, which is counted and not timed.
    """
    lines, script = bench.folder / "requests.txt", bench.folder / "requests.lua"
    lines.write_text("\n".join(requests) + "\n")
    # Go refuses requests without Host, which wrk adds only to those it formats itself.
    named = {"Host": url.removeprefix("http://")} | (headers or {})
    table = "{" + ", ".join(f'["{name}"] = "{value}"' for name, value in named.items()) + "}"
    script.write_text(REQUESTS % {"file": lines, "headers": table})
    command = [
        "wrk",
        f"-t{threads}",
        f"-c{connections}",
        f"-d{bench.seconds}s",
        "--latency",
        "-s",
        str(script),
        url,
    ]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if bad := re.search(r"(Non-2xx.*|Socket errors.*)", said):
        raise SystemExit(f"{url}: {bad[0]}")
    if told is not None:
        number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)\b", said).groups()
        told["p99"] = float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]
    return float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])


@contextmanager
def fresh_record(bench: Bench, name: str = "fresh") -> Iterator[Engine]:
    """An empty record beside the installation's own, in the same PostgreSQL."""
    conninfo = bench.postgres.conninfo
    with psycopg.connect(conninfo, autocommit=True) as link:
        link.execute(f"CREATE DATABASE {name}")
    try:
        url = bench.postgres.url.replace("/sceau?", f"/{name}?")
        migrate(url)
        engine = connect_engine(url)
        try:
            yield engine
        finally:
            engine.dispose()
    finally:
        with psycopg.connect(conninfo, autocommit=True) as link:
            link.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def granian(bench: Bench, target: str, source: str) -> Iterator[str]:
    """A bare application under the same Granian with the same workers, for comparison."""
    (bench.folder / f"{target}.py").write_text(source)
    port = free_port()
    command = [
        sys.executable, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port),
        "--workers", str(bench.settings.web_workers), "--blocking-threads", "4",
        "--no-access-log", "--log-level", "critical", f"{target}:application",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=bench.folder)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


# How fast it goes is asked here, by one hand for many; where a token is to stop has tests of its own.
_UNLIMITED = {
    "SCEAU_QUOTA_TOKEN_HOUR": "2000", "SCEAU_WITHDRAWALS_TOKEN_HOUR": "1000000",
    "SCEAU_WITHDRAWALS_AUTHORITY_HOUR": "1000000",
    **{
        f"SCEAU_READING_{what}_HOUR": "1000000000"
        for what in ("SEARCHES", "ADDRESSES", "NUMBERS", "FEEDS", "DOWNLOADS")
    },
}  # fmt: skip


@contextmanager
def installation(folder: Path) -> Iterator[Settings]:
    """`sceau up --demo` in a folder of its own, stopped afterwards; its CRLs as a nation has them."""
    state, sceau = folder / "var", str(BIN / "sceau")
    folder.chmod(0o711)  # run by root, PostgreSQL may need an account of its own, which must pass here
    ports = ["--port", str(free_port()), "--ldap-port", str(free_port()), "--ldaps-port", str(free_port())]
    try:
        # Standard output is for figures alone.
        up = [sceau, "up", "--demo", "--detach", "--crl-form", "national", "--state", str(state), *ports]
        subprocess.run(up, stdout=sys.stderr, check=True, env={**os.environ, **_UNLIMITED})
        yield load_settings(state, {**os.environ, **_UNLIMITED})
    finally:
        subprocess.run([sceau, "down", "--state", str(state)], stdout=sys.stderr, check=False)
