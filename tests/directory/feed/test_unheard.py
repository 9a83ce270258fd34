"""After a crash PostgreSQL gives numbers of transactions out again: a memory must not take them for heard."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from api.embedded.postgres import EmbeddedPostgres
from directory.base.db import asking, connect_engine
from pki.verdict.memory import NOTHING_MISSED
from pki.verdict.present import Head, head_of
from tests.conftest import migrate

# Commits that promise nothing stay in memory: a crash within seconds loses them.
SMALL = {"shared_buffers": "16MB", "max_connections": "20", "wal_writer_delay": "10s"}


@pytest.fixture
def cluster(passable: Path) -> Iterator[EmbeddedPostgres]:
    """One of its own: its processes are killed."""
    made = EmbeddedPostgres(passable / "cluster")
    made.make()
    process = subprocess.Popen(made.command(SMALL), stderr=subprocess.DEVNULL)
    try:
        made.wait_ready()
        yield made
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)


def test_a_crash_shows_where_numbers_come_again(cluster: EmbeddedPostgres) -> None:
    engine = connect_engine(cluster.url)
    migrate(engine)
    before = look(cluster)
    with psycopg.connect(cluster.conninfo, autocommit=True) as lost:
        lost.execute("SET synchronous_commit = off")
        lost.execute("CREATE TABLE lost (number integer)")
        for number in range(50):
            lost.execute("INSERT INTO lost VALUES (%s)", [number])
        told = look(cluster)
        os.kill(lost.info.backend_pid, signal.SIGKILL)
    assert told.origin == before.origin
    deadline = time.monotonic() + 20
    while (after := look_or_none(cluster)) is None or after.origin == told.origin:
        assert time.monotonic() < deadline
    assert after.snapshot.below < told.snapshot.below
    engine.dispose()


def look(cluster: EmbeddedPostgres) -> Head:
    engine = connect_engine(cluster.url)
    try:
        with asking(engine) as connection:
            return head_of(connection, seen=NOTHING_MISSED, now=datetime.now(UTC))
    finally:
        engine.dispose()


def look_or_none(cluster: EmbeddedPostgres) -> Head | None:
    """None while the server recovers."""
    try:
        return look(cluster)
    except OperationalError:
        return None
