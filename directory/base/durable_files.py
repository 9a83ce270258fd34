"""Files that others read at any moment, or that a crash must not leave half written.

A file that was renamed into a folder may be lost again until the folder itself is on disk.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path


def onto_disk(folder: Path) -> None:
    """Return once the names in `folder` would survive a loss of power; OSError when it is no folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def close_to_others(folder: Path) -> None:
    """Take from everybody else what our files and folders below `folder` gave them, and writing from a group.

    What belongs to another account stays as it is (PostgreSQL of root's), and so does what a link leads to.
    """
    for path in (folder, *_below(folder)):
        try:
            found = path.lstat()
            if found.st_uid == os.geteuid() and stat.S_IFMT(found.st_mode) in {stat.S_IFREG, stat.S_IFDIR}:
                closed = stat.S_IMODE(found.st_mode) & ~0o027
                if closed != stat.S_IMODE(found.st_mode):
                    path.chmod(closed)
        except FileNotFoundError:
            # Gone since it was listed.
            continue


def _below(folder: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        yield from (Path(here, name) for name in (*folders, *files))


def write_atomically(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file so that a reader sees the old or the new, never half of it; makes its folder (0700)."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
