"""How fast a register file becomes the record."""

import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime

import psycopg
from benches.harness import ROOT, Bench, Figure
from psycopg.conninfo import make_conninfo

from api.embedded.postgres import EmbeddedPostgres
from api.first_run import migrate
from directory.base.audit import Actor
from directory.base.db import connect_engine
from directory.sync.run import run_register


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


FIGURES = {one.__name__: one for one in (registers,)}
