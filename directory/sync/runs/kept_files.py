"""The file of a run: a private copy that alone is read, and for a held run one that stays.

The private copy has no name and goes with its process. The one that stays lies in a folder of the run's own,
and is found again and put away by the run's number. Without room the file where it was dropped holds the run.
When a run is held, and when it is over, is for `run.py` to say.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256 as new_sha256
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import IO

from directory.base import failpoints
from directory.base.durable_files import make_private, onto_disk
from directory.base.errors import Kind, Refusal
from directory.sync.formats.files import (
    BLOCK,
    LARGEST_FILE,
    RegisterFile,
    refused,
    register_file,
    sha256_of,
    unreadable,
)

# The record may lie on the same disk, and writes its logs by 16 MB.
RESERVE = 256 << 20
# The longest name that a folder takes leaves no room for more.
_DRAFT = ".draft"
_GONE = {errno.ENOENT, errno.ENOTDIR}


@contextmanager
def private_copy(file: RegisterFile, kept: Path | None) -> Iterator[tuple[RegisterFile, bytes]]:
    """The same file as bytes that nobody else can change, and their SHA-256; nothing of it outlives us.

    A run reads its file several times. Whoever dropped it may write into it between two readings: the log
    would name one file's SHA-256 beside another's rows. Refusal UNAVAILABLE `no-room` when no copy can
    be made, NOT_FOUND when the file cannot be read to an end, `too-large` when it has none.
    """
    folder = Path(gettempdir()) if kept is None else kept
    with ExitStack() as stack:
        try:
            _check_room(file, folder)
            make_private(folder)
            copy = stack.enter_context(TemporaryFile(dir=folder))
            sha256 = _copy_all(file, copy, "sync.copying")
        except OSError as error:
            text = f"No copy of {file.name} can be made, and nothing of it was read: {error}"
            raise Refusal(Kind.UNAVAILABLE, "no-room", text) from error
        yield RegisterFile(file.path, copy.fileno()), sha256


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
        make_private(folder)
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
    with draft.open("xb") as copy:
        if os.geteuid() == 0:
            owner = draft.parent.stat()
            os.fchown(copy.fileno(), owner.st_uid, owner.st_gid)
        digest = _copy_all(file, copy, "sync.keeping")
        os.fsync(copy.fileno())
    if digest != sha256:
        raise refused("kept-file-gone", f"{file.name} is no longer the file this run began with.")


def _copy_all(file: RegisterFile, copy: IO[bytes], step: str) -> bytes:
    """The SHA-256 of what was written, in one pass: what is hashed is what is there."""
    digest, given, copied = new_sha256(), os.fstat(file.descriptor), 0
    with file.content.open("rb", buffering=0) as source:
        while block := _block(file, source):
            failpoints.passing(step)
            copied += len(block)
            if copied > LARGEST_FILE:
                raise refused("too-large", f"{file.name} grows while it is read.")
            digest.update(block)
            copy.write(block)
    copy.flush()
    # A text that does not say when it was made is as old as its file.
    os.utime(copy.fileno(), ns=(given.st_atime_ns, given.st_mtime_ns))
    return digest.digest()


def _block(file: RegisterFile, source: IO[bytes]) -> bytes:
    try:
        return source.read(BLOCK)
    except OSError as error:
        raise unreadable(file.name, error) from error


@contextmanager
def found_again(run_id: int, path: Path, sha256: bytes, kept: Path | None) -> Iterator[RegisterFile | None]:
    """The file of a run that is taken up again: its copy, or what lies at `path`; None when both are gone.

    A run that was cut off before its row named the copy has one all the same. Gone is what is not there or
    has other bytes. Refusal `no-such-file` for what is there and cannot be read now.
    """
    with ExitStack() as stack:
        yield _first_whole(stack, run_id, path, sha256, kept)


def _first_whole(
    stack: ExitStack, run_id: int, path: Path, sha256: bytes, kept: Path | None
) -> RegisterFile | None:
    own = () if kept is None else (_folder(run_id, kept) / path.name,)
    unread: Refusal | None = None
    for place in dict.fromkeys([*own, path]):
        try:
            file = stack.enter_context(register_file(place))
            if place in own:
                digest = sha256_of(file)
            else:
                file, digest = stack.enter_context(private_copy(file, kept))
            if digest == sha256:
                return file
        except Refusal as refusal:
            if not _is_gone(refusal):
                unread = refusal
    if unread is not None:
        raise unread
    return None


def _is_gone(refusal: Refusal) -> bool:
    if refusal.kind is Kind.UNAVAILABLE:
        return False
    return isinstance(refusal.__cause__, OSError) and refusal.__cause__.errno in _GONE


def put_away(run_id: int, kept: Path | None) -> None:
    """Remove what is kept for a run that is over; a file that lies where it was dropped is left alone."""
    if kept is not None:
        with suppress(OSError):
            shutil.rmtree(_folder(run_id, kept))


def _folder(run_id: int, kept: Path) -> Path:
    return kept.absolute() / f"run-{run_id}"
