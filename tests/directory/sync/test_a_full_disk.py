"""A disk that fills up in the middle of a night: the old day stands, the new one comes when there is room."""

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import psycopg
import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from api.embedded.postgres import EmbeddedPostgres
from directory.base.db import connect_engine
from directory.sync.run import resume_run
from tests.conftest import NOON, migrate
from tests.directory.sync.test_a_run_cut_off_is_taken_up import SOMEONE, content, due, take

# The cluster with one day takes 150 MB; its log of writes is kept short.
DISK = "size=320m,mode=0711"
LEAN = {"max_wal_size": "32MB", "min_wal_size": "32MB", "wal_keep_size": "0", "shared_buffers": "16MB"}


@pytest.fixture
def disk(passable: Path) -> Iterator[Path]:
    folder = passable / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", DISK, "none", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"a disk of our own needs the right to mount one: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
    folder.rmdir()


@pytest.fixture(scope="module")
def file(maker: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = maker.Plan(practitioners=8000, organisations=10, mailboxes=10, seed=5)
    made: Path = maker.make(tmp_path_factory.mktemp("day"), plan)["rpps"]
    return made


@contextmanager
def serving(cluster: EmbeddedPostgres) -> Iterator[Engine]:
    process = subprocess.Popen(cluster.command(LEAN), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        cluster.wait_ready()
        engine = connect_engine(cluster.url)
        try:
            yield engine
        finally:
            engine.dispose()
    finally:
        # At once, whatever it is at: asked politely in the middle of its recovery, PostgreSQL 18 may wait for
        # its own I/O workers for ever.
        process.send_signal(signal.SIGQUIT)
        process.wait(timeout=30)


def fill(file: Path, left: int) -> None:
    """Take all room on the disk but `left` bytes."""
    with file.open("wb") as filler:
        while True:
            room = os.statvfs(file.parent)
            try:
                os.posix_fallocate(filler.fileno(), 0, max(1, room.f_bavail * room.f_frsize - left))
            except OSError as error:
                # The server writes on by itself: the room has shrunk since it was measured.
                if error.errno != errno.ENOSPC:
                    raise
            else:
                return


@pytest.mark.parametrize("left", [0, 4 << 20, 12 << 20])
def test_a_disk_that_fills_up_leaves_the_old_day_and_the_new_one_comes_when_there_is_room(
    left: int, disk: Path, file: Path
) -> None:
    cluster = EmbeddedPostgres(disk / "postgres")
    cluster.make()
    with serving(cluster) as engine:
        migrate(engine)
        fill(disk / "filler", left)
        # The server may end one session, or stop altogether to recover: both are its own business.
        with pytest.raises((DBAPIError, psycopg.Error)):
            take(engine, file)
        (disk / "filler").unlink()
    with serving(cluster) as engine:
        there = content(engine)
        assert [there[table] for table in ("practitioner", "practice", "register_known", "change")] == [
            []
        ] * 4
        interrupted = due(engine)
        for run_id in interrupted:
            assert resume_run(engine, run_id=run_id, now=NOON, actor=SOMEONE).state == "applied"
        if not interrupted:
            # So full that not even the run's beginning was written: the next look into the folder does it.
            assert take(engine, file).state == "applied"
        assert len(content(engine)["practitioner"]) == 8000
