"""A night at national scale: first load, next day, what it costs who asks meanwhile, and how it grows.

`--size 1950000` is the nation. The registers are made once, beside the other temporary files, and used again.
"""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self
from urllib.parse import quote

from benches.harness import ROOT, Bench, Figure, fresh_record
from benches.plot import drawn, n_log_n
from sqlalchemy import Engine

from api.jobs.withdrawal import consequences
from api.wiring import Container
from directory.base.audit import Actor
from directory.base.db import connect_engine
from directory.sync.runs.bounds import RegisterBounds, load_bounds
from directory.sync.runs.run import RunReport, run_register

BENCH = Actor("bench")
DAY = "2026-09-01"
NOW = datetime(2026, 9, 3, tzinfo=UTC)
ORDER = ("rpps", "finess", "trusted-domains", "mailboxes")
PATTERNS = {
    "rpps": "PS_*.zip", "finess": "etalab*", "trusted-domains": "liste*", "mailboxes": "Extraction_Corr*",
}  # fmt: skip
LOAD = """
import sys, time, duckdb
started = time.monotonic()
link = duckdb.connect(sys.argv[2])
link.execute(
    "CREATE TABLE roll AS SELECT * FROM read_csv(?, delim='|', quote='', escape='', header=true,"
    " all_varchar=true, null_padding=true)", [sys.argv[1]])
print(time.monotonic() - started)
"""
ASKED_EACH_SECOND = 40
# A process of its own, on sockets as they are: the client must not take the machine from what it measures.
PACED = """
import json, re, socket, sys, threading, time
given, ended, took = json.loads(sys.stdin.readline()), threading.Event(), []
length = re.compile(rb"content-length: ([0-9]+)", re.IGNORECASE)
def ask(number):
    link = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    headers = "".join(f"{name}: {value}\\r\\n" for name, value in given["headers"].items())
    paths = given["paths"][number::given["connections"]]
    requests = [f"GET {path} HTTP/1.1\\r\\nHost: x\\r\\n{headers}\\r\\n".encode() for path in paths]
    pause, place = given["connections"] / given["each_second"], 0
    due = time.monotonic() + pause * number / given["connections"]
    while not ended.is_set():
        time.sleep(max(0, due - time.monotonic()))
        # From when it was due, not from when it was sent: a late answer delays the next question.
        link.sendall(requests[place % len(requests)])
        told = b""
        while b"\\r\\n\\r\\n" not in told:
            told += link.recv(65536)
        head, _, body = told.partition(b"\\r\\n\\r\\n")
        assert head.split()[1] == b"200", head
        missing = int(length.search(head)[1]) - len(body)
        while missing > 0:
            missing -= len(link.recv(65536))
        took.append(time.monotonic() - due)
        place, due = place + 1, due + pause
threads = [threading.Thread(target=ask, args=(number,)) for number in range(given["connections"])]
for thread in threads: thread.start()
sys.stdin.readline()
ended.set()
for thread in threads: thread.join()
print(json.dumps(took))
"""
MB = 1 << 20
# What the issue asks for.
LOAD_TIMES, LOAD_MB, DAY_TIMES, P99_TIMES = 30, 1024, 10, 2


def made(practitioners: int) -> tuple[Path, Path]:
    """The folders of two days of invented registers, half a percent apart."""
    base = Path(tempfile.gettempdir()) / f"sceau-registers-{practitioners}"
    sizes = ["--practitioners", str(practitioners), "--organisations", str(practitioners // 20)]
    sizes += [
        "--mailboxes",
        str(practitioners * 536 // 1950),
        "--domains",
        "8655",
        "--seed",
        "1",
        "--day",
        DAY,
    ]
    shares = ["--next-day", "--arrivals", "0.15%", "--moves", "0.2%", "--departures", "0.15%"]
    for day, more in (("day1", []), ("day2", shares)):
        if not (base / day).exists():
            program = str(ROOT / "scripts" / "make_registers.py")
            part = base / f"{day}.part"
            subprocess.run(
                [sys.executable, program, str(part), *sizes, *more], check=True, capture_output=True
            )
            part.rename(base / day)
    return base / "day1", base / "day2"


def unbounded() -> dict[str, RegisterBounds]:
    """No bound holds here: invented days are no believable ones."""
    return {name: dataclasses.replace(bounds, bounds=()) for name, bounds in load_bounds().items()}


def take(engine: Engine, folder: Path, register: str) -> RunReport:
    """Bring one register to what its file in `folder` says; ends the bench when it is not applied."""
    (file,) = folder.glob(PATTERNS[register])
    report = run_register(
        engine, register=register, path=file, now=NOW, actor=BENCH, apply=True, bounds=unbounded()
    )
    if report.state != "applied":
        raise SystemExit(f"{file.name} {report.state}: {report.reason} {report.text}")
    return report


class Memory:
    """The most that this process and its backends held at once, shared pages counted once."""

    def __init__(self, engine: Engine) -> None:
        self._database = engine.url.database or ""
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._look)
        self.peak = 0

    def __enter__(self) -> Self:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watch.join()

    def _look(self) -> None:
        while not self._ended.wait(0.5):
            ours = [os.getpid(), *self._backends()]
            self.peak = max(self.peak, sum(map(self._held, ours)))

    def _backends(self) -> list[int]:
        found = []
        for line in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if f"postgres: sceau {self._database} " in line.read_text():
                    found.append(int(line.parent.name))
            except OSError:
                continue  # It ended meanwhile.
        return found

    def _held(self, pid: int) -> int:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            return 0
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


@contextmanager
def unpacked(bench: Bench, archive: Path) -> Iterator[Path]:
    """The roll of an archive as a file of its own, for as long as the block lasts."""
    roll = bench.folder / "roll.txt"
    with zipfile.ZipFile(archive) as members, roll.open("wb") as out:
        name = next(name for name in members.namelist() if "Personne_activite" in name)
        with members.open(name) as text:
            shutil.copyfileobj(text, out, MB)
    yield roll
    roll.unlink()


def by_duckdb(bench: Bench, archive: Path) -> float:
    """Seconds in which DuckDB loads the same roll, unpacked, into one table."""
    with unpacked(bench, archive) as roll:
        command = [sys.executable, "-c", LOAD, str(roll), str(bench.folder / "roll.duckdb")]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(told.split()[-1])  # Before it, a bar of progress.


def by_plain_loop(archive: Path) -> float:
    """Seconds in which a plain loop hashes every line of the roll and of the know-how in the archive."""
    started = time.monotonic()
    with zipfile.ZipFile(archive) as members:
        for name in members.namelist():
            if "Dipl" not in name:
                with members.open(name) as text:
                    hash_each(text)
    return time.monotonic() - started


def by_loop_unpacked(bench: Bench, archive: Path) -> float:
    """The same over the roll alone, unpacked beforehand."""
    with unpacked(bench, archive) as roll, roll.open("rb") as text:
        started = time.monotonic()
        hash_each(text)
        return time.monotonic() - started


def hash_each(lines: Iterable[bytes]) -> None:
    """Hash every line, and nothing else."""
    for line in lines:
        hashlib.blake2b(line, digest_size=16).digest()


def first_load(bench: Bench) -> Figure:
    """Seconds to load the roll into an empty record, history and feed included, beside DuckDB alone.

    DuckDB loads the same rows, unpacked, into one table without a key.
    """
    day1, _ = made(bench.size or 100_000)
    (archive,) = day1.glob(PATTERNS["rpps"])
    beside = by_duckdb(bench, archive)
    with fresh_record(bench) as engine, Memory(engine) as memory:
        started = time.monotonic()
        take(engine, day1, "rpps")
        ours = time.monotonic() - started
    peak = memory.peak / MB
    ok = ours <= LOAD_TIMES * beside and peak <= LOAD_MB
    told = {"DuckDB, s": beside, "peak memory, MB": peak}
    return Figure("first_load", ours, "s", told, beside / ours, "<= 30 x DuckDB, <= 1024 MB", ok)


def next_day(bench: Bench) -> Figure:
    """Seconds for the next day's four files and all that follows in trust, beside hashing every line.

    Beside: a plain Python loop over the lines of the new roll and know-how.
    """
    day1, day2 = made(bench.size or 100_000)
    (archive,) = day2.glob(PATTERNS["rpps"])
    with fresh_record(bench) as engine:
        container = dataclasses.replace(bench.container, engine=engine)
        with Memory(engine) as loading:
            for register in ORDER:
                take(engine, day1, register)
        settle(container)
        with Memory(engine) as memory:
            started = time.monotonic()
            counts = {ORDER[0]: take(engine, day2, ORDER[0]).counts}
            roll = time.monotonic() - started
            counts |= {register: take(engine, day2, register).counts for register in ORDER[1:]}
            settle(container)
            ours = time.monotonic() - started
    beside = by_plain_loop(archive)
    changed = sum(counts["rpps"][what] for what in ("created", "changed", "removed"))
    told = {
        "plain loop, s": beside, "the roll alone, s": roll,
        "plain loop over the roll unpacked, s": by_loop_unpacked(bench, archive), "people changed": changed,
        "peak memory, MB": memory.peak / MB, "peak memory of the load, MB": loading.peak / MB,
    }  # fmt: skip
    return Figure("next_day", ours, "s", told, beside / ours, "<= 10 x the loop", ours <= DAY_TIMES * beside)


def settle(container: Container) -> None:
    """Let trust follow the record until there is nothing left to follow."""
    while consequences(container):
        pass


def verdict_during_night(bench: Bench) -> Figure:
    """p99 in ms of verdicts over REST while the next day's roll comes in, beside the same at rest.

    Both at a steady pace, into the record that is being asked.
    """
    day1, day2 = made(bench.size or 100_000)
    engine = connect_engine(bench.postgres.url)
    paths = [
        f"/v1/recipients/{quote(address)}"
        for (address,) in bench.rows("SELECT address FROM mailbox ORDER BY address LIMIT 500")
    ]
    unstamped(bench, day2)
    take(engine, restamped(bench, day1, 1), "rpps")
    # What follows in trust and in LDAP is over before anything is timed.
    time.sleep(20)
    with Asking(bench, paths) as rest:
        time.sleep(max(20, bench.seconds))
    with Asking(bench, paths) as night:
        ended = time.monotonic() + max(20, bench.seconds)
        day = 2
        while time.monotonic() < ended:
            take(engine, restamped(bench, (day2, day1)[day % 2], day), "rpps")
            day += 1
    engine.dispose()
    ratio = night.p99 / rest.p99
    told = {"at rest": rest.p99, "asked": night.count, "p50 at rest": rest.p50, "p50": night.p50}
    return Figure("verdict_during_night", night.p99, "ms", told, ratio, "<= 2 x at rest", ratio <= P99_TIMES)


def restamped(bench: Bench, folder: Path, day: int) -> Path:
    """The same roll under a name of days to come: newer than the demo's, and than the one before."""
    target = bench.folder / f"again-{day}"
    target.mkdir()
    stamp = datetime.now(UTC) + timedelta(days=2, hours=day)
    (target / f"PS_LibreAcces_{stamp:%Y%m%d%H%M}.zip").symlink_to(unstamped(bench, folder))
    return target


def unstamped(bench: Bench, folder: Path) -> Path:
    """The roll's archive with texts that tell no day, so that its own name does."""
    made = bench.folder / f"unstamped-{folder.name}.zip"
    if not made.exists():
        (file,) = folder.glob(PATTERNS["rpps"])
        with (
            zipfile.ZipFile(file) as told,
            zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out,
        ):
            for name in told.namelist():
                with told.open(name) as text, out.open(re.sub(r"_20[0-9]{10}", "", name), "w") as copy:
                    shutil.copyfileobj(text, copy, MB)
    return made


class Asking:
    """Someone who asks for verdicts at a steady pace, and notes how long each answer took."""

    def __init__(
        self, bench: Bench, paths: list[str], each_second: int = ASKED_EACH_SECOND, *, connections: int = 1
    ) -> None:
        self._bench, self._paths = bench, paths
        self._each_second, self._connections = each_second, connections
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._took: list[float] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._took.sort()

    @property
    def count(self) -> int:
        """How many answers came."""
        return len(self._took)

    @property
    def p50(self) -> float:
        """Milliseconds that half the answers took at most."""
        return 1000 * self._took[len(self._took) // 2]

    @property
    def p99(self) -> float:
        """Milliseconds that 99 of 100 answers took at most."""
        return 1000 * self._took[len(self._took) * 99 // 100]

    def _ask(self) -> None:
        command = [sys.executable, "-c", PACED, self._bench.settings.host, str(self._bench.settings.port)]
        given = {
            "paths": self._paths, "headers": self._bench.operator, "each_second": self._each_second,
            "connections": self._connections,
        }  # fmt: skip
        # A process of its own: in this one the import would keep it from looking at the clock.
        asking = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        asking.stdin.write(json.dumps(given) + "\n")
        asking.stdin.flush()
        self._ended.wait()
        told, _ = asking.communicate("\n")
        self._took = json.loads(told)


def growth(bench: Bench) -> Figure:
    """Seconds of a first load and of a next day from 100,000 people up to --size, drawn for the docs.

    Beside: what n log n from the smallest would give at the largest, and the most memory any load took.
    """
    largest = bench.size or 400_000
    sizes = [size for size in (100_000, 200_000, 400_000) if size < largest] + [largest]
    first, again, peak = [], [], 0
    for size in sizes:
        day1, day2 = made(size)
        with fresh_record(bench) as engine, Memory(engine) as memory:
            for folder, taken in ((day1, first), (day2, again)):
                started = time.monotonic()
                take(engine, folder, "rpps")
                taken.append(time.monotonic() - started)
        peak = max(peak, memory.peak)
    (ROOT / "docs" / "figures").mkdir(exist_ok=True)
    (ROOT / "docs" / "figures" / "growth.svg").write_text(
        drawn(sizes, {"first load": first, "next day": again})
    )
    expected = n_log_n(sizes, first)[-1]
    told = {f"{size}": seconds for size, seconds in zip(sizes, first, strict=True)}
    told |= {"n log n, s": expected, "next day, s": again[-1], "peak memory, MB": peak / MB}
    return Figure("growth", first[-1], "s", told, expected / first[-1], "<= n log n", first[-1] <= expected)


FIGURES = {figure.__name__: figure for figure in (first_load, next_day, verdict_during_night, growth)}
