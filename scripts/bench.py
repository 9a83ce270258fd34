#!/usr/bin/env python3
"""Figures of this machine, each beside a peer or a bare engine of the same run: one JSON object per line.

    scripts/bench.py [--list] [--only NAME]... [--size N] [--seconds S]

Starts an installation of its own in a temporary folder, with the demo, and stops it. Needs `wrk` and
`ldapsearch`. Ratios are ours over beside's (rates) or beside's over ours (durations): above 1 is better than
beside.
"""

import argparse
import hashlib
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import psycopg
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from psycopg.conninfo import make_conninfo
from sqlalchemy import text

from api import demo
from api.embedded.postgres import EmbeddedPostgres
from api.embedded.slapd import EmbeddedSlapd
from api.first_run import migrate
from api.settings import Settings, load_settings
from api.wiring import Container, build
from directory.base.audit import Actor
from directory.base.db import connect_engine
from directory.sync.run import run_register

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
OCSP_TARGET = 10_000
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

    def rows(self, query: str, *parameters: object) -> list[tuple]:
        """All rows of a query on the installation's record."""
        with psycopg.connect(EmbeddedPostgres(self.settings.state / "postgres").conninfo) as link:
            return link.execute(query, parameters).fetchall()

    @property
    def operator(self) -> dict[str, str]:
        """HTTP headers of an operator who asks in JSON."""
        secrets = json.loads((self.settings.state / "demo-credentials.json").read_text())
        return {"Authorization": f"Bearer {secrets['operator']}", "Content-Type": "application/json"}


def free_port() -> int:
    """A TCP port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wrk(
    bench: Bench, url: str, requests: list[str], headers: dict[str, str] | None = None, connections: int = 16
) -> float:
    """Requests a second over these lines (`METHOD path [body in hex]`); fails unless all are answered 2xx."""
    lines, script = bench.folder / "requests.txt", bench.folder / "requests.lua"
    lines.write_text("\n".join(requests) + "\n")
    table = "{" + ", ".join(f'["{name}"] = "{value}"' for name, value in (headers or {}).items()) + "}"
    script.write_text(REQUESTS % {"file": lines, "headers": table})
    command = ["wrk", "-t2", f"-c{connections}", f"-d{bench.seconds}s", "-s", str(script), url]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if bad := re.search(r"(Non-2xx.*|Socket errors.*)", told):
        raise SystemExit(f"{url}: {bad[0]}")
    return float(re.search(r"Requests/sec:\s+([\d.]+)", told)[1])


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


BARE_CALLABLE = """
body = bytes(%d)
headers = [("Content-Type", "application/ocsp-response"), ("Content-Length", str(len(body)))]
def application(environ, start_response):
    if environ["REQUEST_METHOD"] == "POST":
        environ["wsgi.input"].read()
    start_response("200 OK", headers)
    return [body]
"""
EMPTY_FLASK = """
from flask import Flask
application = Flask("empty")
@application.get("/<path:anything>")
def view(anything):
    return {"verdict": "allowed"}
"""


def ocsp_requests(bench: Bench, *, nonce: bool) -> list[bytes]:
    """A question, in DER, about each live certificate of the issuing CA."""
    issuer = x509.load_der_x509_certificate(
        bench.rows("SELECT der FROM authority WHERE id = 'persons-1'")[0][0]
    )
    made = []
    for number, (der,) in enumerate(bench.rows("SELECT der FROM certificate WHERE mailbox IS NOT NULL")):
        builder = ocsp.OCSPRequestBuilder().add_certificate(
            x509.load_der_x509_certificate(der),
            issuer,
            hashes.SHA1(),  # noqa: S303 - what clients send
        )
        if nonce:
            builder = builder.add_extension(
                x509.OCSPNonce(hashlib.sha256(str(number).encode()).digest()), critical=False
            )
        made.append(builder.build().public_bytes(serialization.Encoding.DER))
    return made


def ocsp_get(bench: Bench) -> Figure:
    """Pre-signed OCSP answers by GET, requests a second, beside a bare callable of the same answer size."""
    lines = [
        f"GET /ocsp/{quote(b64encode(one).decode(), safe='')}" for one in ocsp_requests(bench, nonce=False)
    ]
    ours = wrk(bench, bench.web, lines)
    with granian(bench, "bare_get", BARE_CALLABLE % 1000) as url:
        bare = wrk(bench, url, lines)
    target, ok = f">= {OCSP_TARGET}/s", ours >= OCSP_TARGET
    return Figure("ocsp_get", ours, "requests/s", {"bare callable": bare}, ours / bare, target, ok)


def ocsp_nonce(bench: Bench) -> Figure:
    """OCSP with a nonce, signed live, requests a second, beside a bare callable reading the same bodies."""
    lines = [f"POST /ocsp {one.hex()}" for one in ocsp_requests(bench, nonce=True)]
    headers = {"Content-Type": "application/ocsp-request"}
    ours = wrk(bench, bench.web, lines, headers)
    with granian(bench, "bare_post", BARE_CALLABLE % 1000) as url:
        bare = wrk(bench, url, lines, headers)
    return Figure("ocsp_nonce", ours, "requests/s", {"bare callable": bare}, ours / bare, "none yet", ok=True)


def verdict_single(bench: Bench) -> Figure:
    """Verdicts one by one over REST, a second, beside an empty Flask view under the same Granian."""
    lines = [
        f"GET /v1/recipients/{quote(a)}"
        for (a,) in bench.rows("SELECT address FROM mailbox ORDER BY address LIMIT 500")
    ]
    ours = wrk(bench, bench.web, lines, bench.operator)
    with granian(bench, "empty_flask", EMPTY_FLASK) as url:
        bare = wrk(bench, url, lines)
    return Figure(
        "verdict_single", ours, "verdicts/s", {"empty Flask view": bare}, ours / bare, "none yet", ok=True
    )


def verdict_bulk(bench: Bench) -> Figure:
    """Verdicts by 10,000 in one request, a second, beside reading the same rows from PostgreSQL."""
    known = [a for (a,) in bench.rows("SELECT address FROM mailbox ORDER BY address")]
    addresses = (known + [f"nobody{n}@{known[0].partition('@')[2]}" for n in range(10_000)])[:10_000]
    started, rounds = time.monotonic(), 3
    for _ in range(rounds):
        body = json.dumps({"addresses": addresses}).encode()
        asked = urllib.request.Request(f"{bench.web}/v1/recipients/check", body, bench.operator)  # noqa: S310 - ours
        with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310 - same
            answer.read()
    ours = rounds * len(addresses) / (time.monotonic() - started)
    started = time.monotonic()
    for _ in range(rounds):
        bench.rows("SELECT * FROM mailbox WHERE address = ANY(%s)", addresses)
    bare = rounds * len(addresses) / (time.monotonic() - started)
    return Figure("verdict_bulk", ours, "verdicts/s", {"rows read": bare}, ours / bare, "none yet", ok=True)


def searches(bench: Bench, url: str, mails: list[str]) -> float:
    """Exact searches a second by two ldapsearch processes, each on one connection, over these addresses."""
    filters = bench.folder / "mails.txt"
    filters.write_text("\n".join(mails) + "\n")
    command = [
        "ldapsearch", "-LLL", "-x", "-H", url, "-b", bench.settings.suffix,
        "-f", str(filters), "(mail=%s)", "mail",
    ]  # fmt: skip
    started = time.monotonic()
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = []
    readers = [
        threading.Thread(target=lambda p=p: found.append(p.stdout.read().count("\nmail: "))) for p in running
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    seconds = time.monotonic() - started
    if sum(found) < 2 * len(mails):
        raise SystemExit(f"{url}: {sum(found)} of {2 * len(mails)} searches found their entry")
    return 2 * len(mails) / seconds


def ldap_search(bench: Bench) -> Figure:
    """Exact searches a second in our slapd, beside a bare slapd with the same tree.

    Bare: without limits, access rules and replication.
    """
    dumped = bench.folder / "tree.ldif"
    ours_slapd = EmbeddedSlapd(bench.settings.state / "ldap", suffix=bench.settings.suffix)
    config = str(ours_slapd.folder / "config")
    slapcat = ["slapcat", "-o", "ldif-wrap=no", "-F", config, "-b", bench.settings.suffix]
    with dumped.open("w") as out:
        subprocess.run(slapcat, stdout=out, check=True)
    bare = EmbeddedSlapd(bench.folder / "bare", suffix=bench.settings.suffix, port=free_port(), bare=True)
    bare.make()
    bare.load(dumped)
    bare.swap()
    mails = re.findall(r"^mail: (\S+)$", dumped.read_text(), re.MULTILINE)
    mails = (mails * (40_000 // len(mails) + 1))[:40_000]
    process = subprocess.Popen(bare.command())
    try:
        bare.wait_ready()
        url = f"ldap://{bench.settings.host}:{bench.settings.ldap_port}"
        pairs = [(searches(bench, url, mails), searches(bench, bare.public_urls[0], mails)) for _ in range(3)]
    finally:
        process.terminate()
        process.wait()
    ours, beside = max(a for a, _ in pairs), max(b for _, b in pairs)
    return Figure(
        "ldap_search",
        ours,
        "searches/s",
        {"bare slapd": beside},
        ours / beside,
        ">= 0.8 x bare",
        ours >= 0.8 * beside,
    )


def certificates(bench: Bench) -> Figure:
    """Certificates a second through the whole road, beside building and signing alone.

    The road: request, approval, reserve, lint, sign, store.
    """
    container = bench.container
    count = bench.size or 200
    with container.engine.begin() as connection:
        chosen = connection.execute(text(demo.CHOSEN), {"count": 10_000}).all()
        registrars = {
            authority: [
                demo.registrar(container, connection, authority, f"bench {authority} {n}") for n in (1, 2)
            ]
            for authority in {demo.authority_of(row.profession) for row in chosen}
        }
    chosen = chosen[:count]
    started = time.monotonic()
    for row in chosen:
        demo.certify_one(
            container, registrars[demo.authority_of(row.profession)], row.practitioner, row.address
        )
    ours = len(chosen) / (time.monotonic() - started)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bare")])
    started = time.monotonic()
    for _ in range(2000):
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        builder = (
            builder.serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + timedelta(1))
        )
        builder.sign(key, hashes.SHA256())
    bare = 2000 / (time.monotonic() - started)
    return Figure(
        "certificates",
        ours,
        "certificates/s",
        {"built and signed alone": bare},
        ours / bare,
        "none yet",
        ok=True,
    )


def registers(bench: Bench) -> Figure:
    """Seconds to import 100,000 practitioners into an empty record, beside COPY of the same lines.

    Their number is changed by --size.
    """
    count = bench.size or 100_000
    folder = bench.folder / "registers"
    subprocess.run(
        [
            sys.executable, str(ROOT / "scripts" / "make_registers.py"), str(folder),
            "--practitioners", str(count), "--organisations", "10", "--mailboxes", "10", "--seed", "7",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    (file,) = folder.glob("PS_LibreAcces*.zip")
    conninfo = EmbeddedPostgres(bench.settings.state / "postgres").conninfo
    with psycopg.connect(conninfo, autocommit=True) as link:
        link.execute("CREATE DATABASE bench")
    url = EmbeddedPostgres(bench.settings.state / "postgres").url.replace("/sceau?", "/bench?")
    migrate(url)
    engine = connect_engine(url)
    started = time.monotonic()
    report = run_register(
        engine, register="rpps", path=file, now=datetime.now(UTC), actor=Actor("bench"), apply=True
    )
    ours = time.monotonic() - started
    if report.state != "applied":
        raise SystemExit(f"import {report.state}: {report.reason}")
    engine.dispose()
    shutil.unpack_archive(file, bench.folder / "lines")
    lines = next((bench.folder / "lines").glob("*Personne_activite*"))
    with psycopg.connect(make_conninfo(conninfo, dbname="bench")) as link, link.cursor() as cursor:
        started = time.monotonic()
        link.execute("CREATE TABLE lines (line text)")
        with (
            cursor.copy("COPY lines FROM STDIN (FORMAT csv, DELIMITER E'\\x01', QUOTE E'\\x02')") as copy,
            lines.open("rb") as source,
        ):
            while block := source.read(1 << 20):
                copy.write(block)
        link.commit()
        bare = time.monotonic() - started
    with psycopg.connect(conninfo, autocommit=True) as link:
        link.execute("DROP DATABASE bench WITH (FORCE)")
    return Figure(
        "registers",
        ours,
        f"s for {count} practitioners",
        {"bare COPY, s": bare},
        bare / ours,
        "none yet",
        ok=True,
    )


FIGURES: dict[str, Callable[[Bench], Figure]] = {
    made.__name__: made
    for made in (ocsp_get, ocsp_nonce, verdict_single, verdict_bulk, ldap_search, certificates, registers)
}


@contextmanager
def installation(folder: Path) -> Iterator[Settings]:
    """`sceau up --demo` in a folder of its own, stopped afterwards."""
    state, sceau = folder / "var", str(BIN / "sceau")
    folder.chmod(0o711)  # run by root, PostgreSQL may need an account of its own, which must pass here
    ports = ["--port", str(free_port()), "--ldap-port", str(free_port()), "--ldaps-port", str(free_port())]
    subprocess.run([sceau, "up", "--demo", "--detach", "--state", str(state), *ports], check=True)
    try:
        yield load_settings(state)
    finally:
        subprocess.run([sceau, "down", "--state", str(state)], check=False)


def main() -> None:
    """Read the command line, bring an installation up, take the figures asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="name the figures and stop")
    parser.add_argument(
        "--only",
        action="append",
        choices=list(FIGURES),
        metavar="NAME",
        help="take only this one (repeatable)",
    )
    parser.add_argument(
        "--size", type=int, default=0, help="practitioners or certificates, where a figure depends on them"
    )
    parser.add_argument("--seconds", type=int, default=8, help="how long each rate is measured")
    given = parser.parse_args()
    if given.list:
        for name, figure in FIGURES.items():
            print(f"{name:16} {(figure.__doc__ or '').splitlines()[0]}")
        return
    for tool, package in (("wrk", "wrk"), ("ldapsearch", "ldap-utils")):
        if shutil.which(tool) is None:
            raise SystemExit(f"needs {tool}: apt-get install {package}")
    with tempfile.TemporaryDirectory(prefix="sceau-bench-") as folder, installation(Path(folder)) as settings:
        scraps = Path(folder) / "scraps"
        scraps.mkdir()
        bench = Bench(settings, scraps, given.seconds, given.size)
        for name in given.only or FIGURES:
            FIGURES[name](bench).show()


if __name__ == "__main__":
    main()
