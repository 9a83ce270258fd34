"""A record dumped and loaded into another cluster, with PostgreSQL's own tools: its feed goes on there."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from api.embedded.postgres import BINARIES, EmbeddedPostgres
from api.installation import schema
from directory.base import rights
from directory.base.db import connect_engine, transaction
from directory.feed import outside_cursor, retention
from directory.feed import readers as feed
from directory.feed.changes import START, Place
from tests.factories import seed_practitioner


def run(*command: str, told: str = "") -> str:
    done = subprocess.run(command, input=told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def moved(engine: Engine, database_url: str, postgres: EmbeddedPostgres, passable: Path) -> Iterator[Engine]:
    """The same record in a cluster of its own; one part of the service had read the first change."""
    seed_practitioner(engine)
    with transaction(engine) as connection:
        first = feed.read_changes(connection, START)[0]
        feed.save_cursor(connection, "consequences", first.cursor, first.at)
    name = database_url.partition("?")[0].rpartition("/")[2]
    source = postgres.conninfo.replace("dbname=sceau", f"dbname={name}")
    assert name in source
    # The other cluster has none of our roles: `sceau migrate` makes them, and grants everything anew.
    dump = run(str(BINARIES / "pg_dump"), "--no-owner", "--no-privileges", source)
    other = EmbeddedPostgres(passable / "other")
    other.make()
    process = subprocess.Popen(
        other.command({"fsync": "off"}), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        other.wait_ready()
        run(str(BINARIES / "psql"), "--quiet", "--set=ON_ERROR_STOP=1", other.conninfo, told=dump)
        assert len(schema.migrate(other.url).roles) == len(rights.roles())
        made = connect_engine(other.url)
        with transaction(made) as connection:
            assert rights.granted(connection) == rights.wanted()
        yield made
        made.dispose()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)


def test_its_feed_begins_anew_and_no_older_cursor_leads_on(engine: Engine, moved: Engine) -> None:
    with transaction(engine, read_only=True) as connection:
        there = outside_cursor.cursor_of(
            outside_cursor.origin(connection), Place(outside_cursor.reached(connection))
        )
        assert outside_cursor.leads_on(connection, there)
        keys = {change.key for change in feed.read_changes(connection, START)[1:]}
    with transaction(moved) as connection:
        assert not outside_cursor.leads_on(connection, there)
        assert retention.begin_anew_if_moved(connection) > len(keys)
    with transaction(moved) as connection:
        assert {change.key for change in feed.read_changes(connection, START)} == keys
        assert feed.load_cursor(connection, "consequences") == START
        here = outside_cursor.cursor_of(
            outside_cursor.origin(connection), Place(outside_cursor.reached(connection))
        )
        assert outside_cursor.leads_on(connection, here)
