"""Whether anything was committed from this host since: eight octets in a file that all its processes share.

A memory that was true a moment ago may answer only while nobody beside it has changed the record. Who commits
leaves octets there that nobody else has. Other hosts are not heard: for their sake a memory must be young.
"""

import os
import weakref
from contextlib import suppress
from pathlib import Path

_OCTETS = 8


class Commits:
    """The file at `path`; OSError where it cannot be had."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        # Closed once no thread uses it: under the same number it would write into a file opened since.
        weakref.finalize(self, os.close, self._file)
        if os.geteuid() == 0:
            # A command of root's must not keep the service from it.
            folder = path.parent.stat()
            os.fchown(self._file, folder.st_uid, folder.st_gid)
        if not self.last():
            self.tell()

    def last(self) -> bytes:
        """What the last commit left; b'' where the file cannot be read, and says nothing."""
        try:
            told = os.pread(self._file, _OCTETS, 0)
        except OSError:
            return b""
        return told if len(told) == _OCTETS else b""

    def tell(self) -> None:
        """Called once a commit is one, before whoever asked for it is answered."""
        with suppress(OSError):
            os.pwrite(self._file, os.urandom(_OCTETS), 0)


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
    for commits in _told:
        commits.tell()


def last() -> bytes:
    """What the last commit of this host left; b'' where this process cannot know."""
    return _told[0].last() if _told else b""
