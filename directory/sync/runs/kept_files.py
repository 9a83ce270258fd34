"""The file of a held run: a copy in a folder of the run's own, found again and put away by the run's number.

A copy that the disk has no room for is not made: the run is held all the same, by the file where it was
dropped. When a run is held, and when it is over, is for `run.py` to say.
"""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256 as new_sha256
from pathlib import Path

from directory.base import failpoints
from directory.base.durable_files import onto_disk
from directory.base.errors import Refusal
from directory.sync.formats.files import BLOCK, RegisterFile, refused, register_file, sha256_of

# The record may lie on the same disk, and writes its logs by 16 MB.
RESERVE = 256 << 20
# The longest name that a folder takes leaves no room for more.
_DRAFT = ".draft"
_GONE = {errno.ENOENT, errno.ENOTDIR}


def keep(run_id: int, file: RegisterFile, sha256: bytes, kept: Path) -> Path:
    """The copy of a held run's file, under its own name, which holds its stamp; whole and on disk.

    A file that is that copy was hashed when its run began to read it. OSError when none can be made: nothing
    of it stays. Refusal `kept-file-gone` when the file is no longer the one that was read.
    """
    folder = _folder(run_id, kept)
    target = folder / file.name
    if file.path == target or _is_whole(target, sha256):
        return target
    try:
        _check_room(file, kept)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # No link: its name may lead to another file by now, and the night takes none that has two names.
        _copy(file, sha256, folder / _DRAFT)
        (folder / _DRAFT).replace(target)
        onto_disk(folder)
        onto_disk(kept)
    except BaseException:
        # The draft alone: a copy made before may be whole, and unreadable for a moment.
        with suppress(OSError):
            (folder / _DRAFT).unlink(missing_ok=True)
            folder.rmdir()
        raise
    failpoints.passing("sync.kept")
    return target


def _is_whole(copy: Path, sha256: bytes) -> bool:
    """Whether it is there and has these bytes: its name alone says nothing."""
    try:
        with register_file(copy) as file:
            return sha256_of(file) == sha256
    except Refusal:
        return False


def _check_room(file: RegisterFile, kept: Path) -> None:
    """OSError unless the disk has room for the copy, and for what others write."""
    wanted = os.fstat(file.descriptor).st_size + RESERVE
    there = next(folder for folder in (kept, *kept.parents) if folder.is_dir())
    if shutil.disk_usage(there).free < wanted:
        raise OSError(errno.ENOSPC, f"less than {wanted >> 20} MB are free")


def _copy(file: RegisterFile, sha256: bytes, draft: Path) -> None:
    draft.unlink(missing_ok=True)
    digest, given = new_sha256(), os.fstat(file.descriptor)
    with file.content.open("rb") as source, draft.open("xb") as copy:
        while block := source.read(BLOCK):
            failpoints.passing("sync.keeping")
            digest.update(block)
            copy.write(block)
        copy.flush()
        # A text that does not say when it was made is as old as its file.
        os.utime(copy.fileno(), ns=(given.st_atime_ns, given.st_mtime_ns))
        os.fsync(copy.fileno())
    if digest.digest() != sha256:
        raise refused("kept-file-gone", f"{file.name} is no longer the file this run began with.")


@contextmanager
def found_again(run_id: int, path: Path, sha256: bytes, kept: Path | None) -> Iterator[RegisterFile | None]:
    """The file of a run that is taken up again: its copy, or what lies at `path`; None when both are gone.

    A run that was cut off before its row named the copy has one all the same. Gone is what is not there or
    has other bytes. Refusal `no-such-file` for what is there and cannot be read now.
    """
    copies = [] if kept is None else [_folder(run_id, kept) / path.name]
    with ExitStack() as stack:
        yield _first_whole(stack, dict.fromkeys([*copies, path]), sha256)


def _first_whole(stack: ExitStack, places: Iterable[Path], sha256: bytes) -> RegisterFile | None:
    unreadable: Refusal | None = None
    for place in places:
        try:
            file = stack.enter_context(register_file(place))
            if sha256_of(file) == sha256:
                return file
        except Refusal as refusal:
            if not _is_gone(refusal):
                unreadable = refusal
    if unreadable is not None:
        raise unreadable
    return None


def _is_gone(refusal: Refusal) -> bool:
    return isinstance(refusal.__cause__, OSError) and refusal.__cause__.errno in _GONE


def put_away(run_id: int, kept: Path | None) -> None:
    """Remove what is kept for a run that is over; a file that lies where it was dropped is left alone."""
    if kept is not None:
        with suppress(OSError):
            shutil.rmtree(_folder(run_id, kept))


def _folder(run_id: int, kept: Path) -> Path:
    return kept.absolute() / f"run-{run_id}"
