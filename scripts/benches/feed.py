"""How fast the public set leaves: whole as an export, and change by change through the feed."""

import gzip
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

from benches.country import people
from benches.harness import ROOT, Bench, Figure, fresh_record
from sqlalchemy import Engine, text

from api.app import create_app
from api.wiring import Container
from directory.access import Role, create_token
from directory.base.audit import Actor
from directory.base.clock import utc_now

MOST_MEGABYTES = 300
TABLES = ("practitioner", "profession", "skill", "practice", "organisation", "mailbox", "certificate")
# In a process of its own, so that its memory is its own.
EXPORT = """
import resource, sys, time
from pathlib import Path
from directory.base.clock import utc_now
from directory.base.db import connect_engine, transaction
from pki.publication.export import write_export
started = time.monotonic()
with transaction(connect_engine(sys.argv[1]), read_only=True) as connection:
    write_export(connection, Path(sys.argv[2]), utc_now())
print(time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def export(bench: Bench) -> Figure:
    """Seconds to export 100,000 people with a certified mailbox each, beside gzip of COPY of their rows.

    Their number is changed by --size.
    """
    with _country(bench) as engine:
        folder = bench.folder / "export"
        folder.mkdir()
        url = engine.url.render_as_string(hide_password=False)
        command = [sys.executable, "-c", EXPORT, url, str(folder)]
        told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        ours, megabytes = map(float, told.split())
        beside = _copied(engine, bench.folder / "rows.gz")
    others = {"COPY of the rows, gzip": beside, "our peak memory, MB": megabytes}
    target = f"peak memory < {MOST_MEGABYTES} MB"
    return Figure("export", ours, "s", others, beside / ours, target, ok=megabytes < MOST_MEGABYTES)


def feed(bench: Bench) -> Figure:
    """Changed mailboxes a second, served in pages of 5,000 with what shows of each, beside their rows alone.

    Their number is changed by --size.
    """
    with _country(bench) as engine:
        with engine.begin() as connection:
            connection.execute(
                text("INSERT INTO change (entity, key) SELECT 'mailbox', address FROM mailbox")
            )
        ours = _served(Container(bench.settings, engine, bench.container.signer, utc_now))
        started = time.monotonic()
        with engine.connect() as connection:
            rows = connection.execute(text("SELECT * FROM change ORDER BY xid, id")).fetchall()
        beside = len(rows) / (time.monotonic() - started)
    return Figure("feed", ours, "changes/s", {"their rows alone": beside}, ours / beside, "none yet", ok=True)


def _served(container: Container) -> float:
    """Lines a second until there is no more."""
    with container.engine.begin() as connection:
        _, secret = create_token(
            connection, now=utc_now(), actor=Actor("bench"), name="feed", role=Role.OPERATOR,
            lifetime=timedelta(days=1),
        )  # fmt: skip
    client, headers = create_app(container).test_client(), {"Authorization": f"Bearer {secret}"}
    count, ending, started = 0, {"more": True}, time.monotonic()
    while ending["more"]:
        place = {"cursor": ending["next"]} if "next" in ending else {}
        answer = client.get("/v1/changes", query_string=place | {"limit": 5000}, headers=headers)
        *lines, last = answer.data.splitlines()
        count, ending = count + len(lines), json.loads(last)
    return count / (time.monotonic() - started)


@contextmanager
def _country(bench: Bench) -> Iterator[Engine]:
    with fresh_record(bench) as engine:
        people(engine, bench.size or 100_000)
        yield engine


def _copied(engine: Engine, path: Path) -> float:
    started = time.monotonic()
    with (
        closing(engine.raw_connection()) as link,
        closing(link.cursor()) as cursor,
        gzip.open(path, "wb", 6) as file,
    ):
        for table in TABLES:
            with cursor.copy(f"COPY {table} TO STDOUT") as copy:
                for block in copy:
                    file.write(block)
    return time.monotonic() - started


FIGURES = {figure.__name__: figure for figure in (export, feed)}
