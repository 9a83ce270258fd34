"""Files that others read at any moment, or that a crash must not leave half written.

A file that was renamed into a folder may be lost again until the folder itself is on disk.
"""

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


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
            status = path.lstat()
            if status.st_uid == os.geteuid() and stat.S_IFMT(status.st_mode) in {stat.S_IFREG, stat.S_IFDIR}:
                closed = stat.S_IMODE(status.st_mode) & ~0o027
                if closed != stat.S_IMODE(status.st_mode):
                    path.chmod(closed)
        except FileNotFoundError:
            # Gone since it was listed.
            continue


def _below(folder: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        yield from (Path(here, name) for name in (*folders, *files))


def make_private(folder: Path) -> None:
    """Make a folder and those above it (0700); what root makes belongs to whom the folder above belongs.

    A command of root, beside a service with an account of its own, would shut that out of its own state.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(mode=0o700, exist_ok=True)
        if os.geteuid() == 0:
            above = place.parent.stat()
            os.chown(place, above.st_uid, above.st_gid, follow_symlinks=False)


def write_atomically(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file so that a reader sees the old or the new, never half of it; makes its folder (0700)."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with replacing(path, mode) as file:
        file.write(content)


@contextmanager
def replacing(path: Path, mode: int = 0o600, draft: Path | None = None) -> Iterator[IO[bytes]]:
    """A file to write into, which is on the disk and takes the name `path` once the block has ended well.

    `draft` is where it lies until then: beside, under one name for all who write, unless said otherwise.
    """
    draft = draft or path.with_suffix(".new")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        # The disk may be full, and what went wrong says more than that.
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def own_draft(path: Path) -> Path:
    """Where this thread alone writes: others may replace the same file at the same time."""
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.new")


def create_whole(path: Path, content: bytes) -> bool:
    """Make a file (0600), whole or not at all; False when there is one, which stays as it is."""
    draft = own_draft(path)
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        # Two processes may start at once: one of them makes the link, and never over a file that is there.
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True
