"""A small disk of its own for a real PostgreSQL, and what fills it."""

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine

from api.embedded.postgres import EmbeddedPostgres
from directory.base.db import connect_engine

# The cluster with one day takes 150 MB; its log of writes is kept short.
DISK = "size=320m,mode=0711"
LEAN = {"max_wal_size": "32MB", "min_wal_size": "32MB", "wal_keep_size": "0", "shared_buffers": "16MB"}


@contextmanager
def small_disk(folder: Path, options: str = DISK) -> Iterator[Path]:
    """A disk mounted at `folder`; the test is left out where nobody may mount one."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        folder.rmdir()
        pytest.skip(f"a disk of our own needs the right to mount one: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


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


def fill(file: Path, left: int = 0) -> None:
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
