"""Whether anything was committed on this host since: eight octets in a file that all its processes share.

A memory that was true a moment ago may answer only while nobody beside it has changed the record. Who commits
leaves octets there that nobody else has. Other hosts are not heard: for their sake a memory must be young.
"""

import os
import weakref
from contextlib import suppress
from pathlib import Path

from directory.base.durable_files import make_private

_OCTETS = 8


class Commits:
    """The file at `path`; OSError where it cannot be had."""

    def __init__(self, path: Path) -> None:
        self.path = path
        make_private(path.parent)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        # Closed once no thread uses it, and not where a process ends while threads do: they would write into
        # whatever has the same number since.
        weakref.finalize(self, os.close, self._file).atexit = False
        if os.geteuid() == 0:
            # A command of root's must not keep the service from it.
            folder = path.parent.stat()
            os.fchown(self._file, folder.st_uid, folder.st_gid)
        self._is_told = True
        if not self.last():
            self.tell()

    def last(self) -> bytes:
        """What the last commit left; b'' where that cannot be known."""
        try:
            told = os.pread(self._file, _OCTETS, 0)
        except OSError:
            return b""
        return told if self._is_told and len(told) == _OCTETS else b""

    def tell(self) -> None:
        """Called once a commit is one, before whoever asked for it is answered."""
        try:
            self._is_told = os.pwrite(self._file, os.urandom(_OCTETS), 0) == _OCTETS
        except OSError:
            # Others may go on for as long as a memory counts; this process does not.
            self._is_told = False

    def is_in_place(self) -> bool:
        """Whether this is the file that another process would open now."""
        try:
            there, ours = self.path.lstat(), os.fstat(self._file)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


# Of this process, empty until `tell_at`.
_told: list[Commits] = []


def tell_at(path: Path) -> None:
    """From now on this process tells of its commits in this file; where it cannot be had, nowhere."""
    tell_nowhere()
    with suppress(OSError):
        _told.append(Commits(path))


def tell_nowhere() -> None:
    """From now on this process tells nobody."""
    _told.clear()


def committed() -> None:
    """A transaction that may have written was committed."""
    for commits in tuple(_told):
        _in_place(commits).tell()


def last() -> bytes:
    """What the last commit of this host left; b'' where this process cannot know."""
    for commits in tuple(_told):
        return commits.last()
    return b""


def here() -> bytes:
    """As `last`, once it was seen that other processes still open the same file."""
    for commits in tuple(_told):
        return _in_place(commits).last()
    return b""


def _in_place(commits: Commits) -> Commits:
    """The file at its place, opened anew where it was removed or put back by another."""
    if not commits.is_in_place():
        with suppress(OSError):
            _told[:] = [Commits(commits.path)]
            return _told[0]
    return commits
