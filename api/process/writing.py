"""Whether what is decided now could be written down: a row into the record and back, and room on the disks.

A withdrawal that cannot be written is none. So nothing good is promised beyond `TRUSTED_SECONDS` after the
last row that went through, and nothing good is said from then on.
"""

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path

import psycopg

from api.database_timeout import CONNECT_SECONDS, ImpatientConnection
from directory.base.db import libpq
from directory.base.errors import Kind, Refusal
from directory.base.write_probe import keeps_rows

_LOG = logging.getLogger("sceau.writing")
# A look counts for so long: what it costs is one row for each process and interval.
HOLD_SECONDS = 3.0
# Three looks that failed are no longer chance: from here on what is given out is cut short.
SHORTENED_AFTER = 10.0
# From here on nothing good is said.
TRUSTED_SECONDS = 60.0
# Of silence, from the database; a disk that hangs says nothing.
PATIENCE = 3.0
# What a CRL, an export's page or a journal's line may want next.
ROOM = 1 << 20
APPLICATION = "sceau-readiness"

# A session that is open says nothing of the next one, which a pool may need: one is tried so often.
_KEPT_SECONDS = 8.0
# A server that ended a session says so at once; one that hangs has had its time.
_AT_ONCE = 1.0


class Writing:
    """Looks now and then, for all threads of a process; `folders` are those whose disks must have room.

    `ticks` counts seconds, as `time.monotonic` does. `keeps` says that one session serves several looks, as
    it does once somebody follows.
    """

    def __init__(
        self,
        url: str,
        folders: Iterable[Path] = (),
        ticks: Callable[[], float] = time.monotonic,
        *,
        keeps: bool = False,
    ) -> None:
        self._conninfo = libpq(url)
        self._folders = tuple(folders)
        self._ticks = ticks
        self._wrote_at = self._looked_at = float("-inf")
        self._wrong = ""
        self._keeps = keeps
        self._link: ImpatientConnection | None = None
        self._linked_at = float("-inf")
        self._looking = threading.Lock()

    @property
    def silent_for(self) -> float:
        """Seconds since the record last took a row, as of the last look that has ended."""
        self.wrong()
        return self._ticks() - self._wrote_at

    def looked_lately(self) -> bool:
        """Whether `wrong` can tell without a look of its own, which takes the time of the record."""
        return self._ticks() - self._looked_at < HOLD_SECONDS

    def wrong(self) -> str:
        """Why nothing can be written, as of the last seconds; '' when it can."""
        age = self._ticks() - self._looked_at
        if age >= HOLD_SECONDS and self._looking.acquire(blocking=self._looked_at == float("-inf")):
            # Others go on with the last look: a database that hangs would hold every thread for as long.
            try:
                if self._ticks() - self._looked_at >= HOLD_SECONDS:
                    self._look()
            finally:
                self._looking.release()
        return self._wrong

    def shortened(self, lifetime: timedelta) -> timedelta:
        """How long what is given out now may be kept instead of `lifetime`; zero when nothing may be said."""
        silent = self.silent_for
        if silent <= SHORTENED_AFTER:
            return lifetime
        # In whole seconds, as ASN.1 counts; a silence without a beginning is one without an end.
        return min(lifetime, timedelta(seconds=max(0, int(TRUSTED_SECONDS - min(silent, TRUSTED_SECONDS)))))

    def needed(self, lifetime: timedelta) -> timedelta:
        """The same; Refusal `record-not-written` (UNAVAILABLE) instead of zero."""
        left = self.shortened(lifetime)
        if not left:
            text = (
                f"For more than {TRUSTED_SECONDS:.0f} s nothing could be written, so that nobody's trust"
                f" could be withdrawn: nobody is vouched for until it can ({self._wrong})."
            )
            raise Refusal(Kind.UNAVAILABLE, "record-not-written", text)
        return left

    def close(self) -> None:
        """End the session that is kept, and keep none from now on."""
        with self._looking:
            self._keeps = False
            if self._link is not None:
                self._link.close()
                self._link = None

    def follow(self) -> None:
        """Look again and again from now on, in a thread of its own, so that no request waits for a look."""
        self._keeps = True
        threading.Thread(target=self._follow, name="writing", daemon=True).start()

    def _follow(self) -> None:
        while True:
            with self._looking:
                self._look()
            time.sleep(HOLD_SECONDS / 2)

    def _look(self) -> None:
        asked_at = self._ticks()
        wrong = self._unwritten() or next(filter(None, map(without_room, self._folders)), "")
        if wrong and not self._wrong:
            # Once for each time: the log may lie on the very disk that is full.
            _LOG.error("nothing can be written: %s", wrong)
        if not wrong:
            self._wrote_at = asked_at
        self._wrong, self._looked_at = wrong, self._ticks()

    def _unwritten(self) -> str:
        """Why the record does not take a row, '' when it does."""
        link, self._link = self._link, None
        if link is not None:
            asked_at = time.monotonic()
            if asked_at - self._linked_at < _KEPT_SECONDS:
                told = self._told_over(link)
                if not told or time.monotonic() - asked_at > _AT_ONCE:
                    return told
            link.close()
        try:
            link = _connect(self._conninfo)
        except psycopg.Error as error:
            return _refused(error)
        self._linked_at = time.monotonic()
        return self._told_over(link)

    def _told_over(self, link: ImpatientConnection) -> str:
        """The same over this session, which is kept when all went well, and closed otherwise."""
        try:
            told = _taken(link)
        except psycopg.Error as error:
            told = _refused(error)
        if self._keeps and not told:
            self._link = link
        else:
            link.close()
        return told


def _refused(error: psycopg.Error) -> str:
    return f"the record takes no row ({type(error).__name__})"


def _taken(link: ImpatientConnection) -> str:
    return "" if keeps_rows(link) else "the record lost a row that it had taken"


def _connect(conninfo: str) -> ImpatientConnection:
    limits = {"statement_timeout": "3s", "lock_timeout": "2s", "work_mem": "64kB"}
    options = " ".join(f"-c {name}={value}" for name, value in limits.items())
    link = ImpatientConnection.connect(
        conninfo, autocommit=True, connect_timeout=CONNECT_SECONDS, application_name=APPLICATION,
        options=options,
    )  # fmt: skip
    link.patience = PATIENCE
    return link


def without_room(folder: Path) -> str:
    """Why nothing can be written into a folder; '' when it can, is not there, or is another account's."""
    try:
        # Without a name: nothing is left behind, however this process ends.
        file = os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o600)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.EACCES, errno.EPERM}:
            return ""
        return f"nothing can be written into {folder.name}: {error.strerror}"
    try:
        os.posix_fallocate(file, 0, ROOM)
    except OSError as error:
        return f"no room in {folder.name}: {error.strerror}"
    finally:
        os.close(file)
    return ""
