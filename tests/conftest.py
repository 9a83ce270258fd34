"""One PostgreSQL for each process of a run; a fresh database, cloned, for each test that asks."""

import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine

from api.embedded.postgres import EmbeddedPostgres
from directory.base import rights
from directory.base.audit import Actor
from directory.base.db import connect_engine
from tests.parts import act_as_parts

ROOT = Path(__file__).resolve().parents[1]
# A fixed instant for tests that only need "some" time.
NOON = datetime(2026, 9, 1, 12, tzinfo=UTC)
# fsync costs the suite minutes; the crash tests start clusters of their own with it on.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"}
SHARED_MEMORY, ROOM = Path("/dev/shm"), 4 << 30
COSTLY = frozenset({"postgres", "memory", "installation", "passable"})
_numbers = itertools.count(1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep on one of the suite's processes what shares a costly fixture: a file, an installation.

    Before xdist looks at the marks: of one put later it learns nothing.
    """
    for item in items:
        names = getattr(item, "fixturenames", ())
        shared = "installation" in names
        if not COSTLY.intersection(names):
            item.add_marker(pytest.mark.pure)
        item.add_marker(pytest.mark.xdist_group("installation" if shared else item.path.name))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse a run whose groups are torn apart: it takes twice the time, and two installations one port."""
    if getattr(session.config.option, "loadgroup", False):
        apart = [item.nodeid for item in session.items if "@" not in item.nodeid]
        assert not apart, f"pytest-xdist left these in no group: {apart[:3]}"


def migrate(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    # As an installation does: each migration in a transaction of its own.
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        rights.make_roles(connection)
        rights.grant(connection)
        connection.commit()


@pytest.fixture(scope="session")
def passable() -> Iterator[Path]:
    """A folder that every account may pass through: run by root, PostgreSQL may need one of its own."""
    with passable_folder() as folder:
        yield folder


@contextmanager
def passable_folder(place: Path | None = None) -> Iterator[Path]:
    with TemporaryDirectory(prefix="sceau-tests-", dir=place) as made:
        folder = Path(made)
        folder.chmod(0o711)
        yield folder


def in_memory() -> Path | None:
    """Where files cost no disk, when there is room: databases were a third of the suite's time."""
    try:
        roomy = shutil.disk_usage(SHARED_MEMORY).free > ROOM
    except OSError:
        return None
    return SHARED_MEMORY if roomy and os.access(SHARED_MEMORY, os.W_OK | os.X_OK) else None


@pytest.fixture(scope="session")
def memory() -> Iterator[Path]:
    with passable_folder(in_memory()) as folder:
        yield folder


@pytest.fixture(scope="session")
def postgres(memory: Path) -> Iterator[EmbeddedPostgres]:
    cluster = EmbeddedPostgres(memory / "postgres")
    cluster.make()
    log = (cluster.folder / "log").open("wb")
    process = subprocess.Popen(cluster.command(FAST), stderr=log, stdout=log)
    try:
        cluster.wait_ready()
        with psycopg.connect(cluster.conninfo, autocommit=True) as link:
            link.execute("CREATE DATABASE template")
        template = connect_engine(cluster.url.replace("/sceau?", "/template?"))
        migrate(template)
        template.dispose()
        act_as_parts()
        yield cluster
    finally:
        if _administration.cache_info().currsize:
            _administration(cluster.conninfo).close()
        # PostgreSQL's fast shutdown: SIGTERM would wait for the last client, of a failed test too.
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)
        log.close()


@pytest.fixture
def database_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """URL of a fresh, migrated, empty database that is dropped afterwards."""
    with fresh_database(postgres) as url:
        yield url


@contextmanager
def fresh_database(postgres: EmbeddedPostgres, template: str = "template") -> Iterator[str]:
    name = f"t{os.getpid()}_{next(_numbers)}"
    yield copy_database(postgres, name, template)
    _administration(postgres.conninfo).execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def fresh_engine(postgres: EmbeddedPostgres) -> Iterator[Engine]:
    """A record for more than one test, on which nothing is open afterwards."""
    with fresh_database(postgres) as url:
        made = connect_engine(url)
        try:
            yield made
        finally:
            made.dispose()


def copy_database(postgres: EmbeddedPostgres, name: str, template: str = "template") -> str:
    """Its URL; nobody may be in the template. Files copied, where nothing is flushed, take half the time."""
    _administration(postgres.conninfo).execute(
        f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy"
    )
    return postgres.url.replace("/sceau?", f"/{name}?")


@cache
def _administration(conninfo: str) -> psycopg.Connection:
    """One for the whole run: a new one for each database costs as much as the copy."""
    return psycopg.connect(conninfo, autocommit=True)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = connect_engine(database_url)
    yield made
    made.dispose()


@pytest.fixture
def now() -> datetime:
    return NOON


@pytest.fixture
def actor() -> Actor:
    return Actor("test:someone")
