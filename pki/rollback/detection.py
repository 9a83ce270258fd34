"""Whether the record still knows all that was shown of it: a database restored from an older backup does not.

It is compared with the high-water marks outside the database and its backups. They are the CRL numbers given
out and the last checkpoint of the audit log. Every part that answers, signs or publishes asks `Watch`; what
is missing exactly, and how it comes back, is `pki/recovery/restore.py`'s matter.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from sqlalchemy import Connection, Engine, text

from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.feed.changes import crl_at
from pki.rollback import high_water
from pki.tlog.checkpoint import last_note, size_said
from pki.tlog.store import knows_note, size

# How long one look counts: a restore under a running service is noticed after that.
HOLD_SECONDS = 5.0
# While another thread looks, what was seen before counts so long.
_STALE_SECONDS = 30.0
WHAT_TO_DO = (
    "The record is older than what was published from it, as after a restored backup. Nothing that gives"
    " trust is said or done until it is complete again (`sceau restore check`)."
)
# A number is committed before the floor hears of it, and never taken back: one below it is a row of the past.
_FORGOTTEN = text("""
    SELECT count(*) FROM unnest(CAST(:authorities AS text[]), CAST(:shards AS smallint[]),
        CAST(:numbers AS bigint[])) AS kept (authority_id, shard, number)
    LEFT JOIN crl_shard s USING (authority_id, shard)
    WHERE coalesce(s.last_number, 0) < kept.number
""")


@dataclass(frozen=True)
class OutsideMemory:
    """Where the memory outside the database lies: the file of floors, the file of signed heads."""

    floor: Path
    heads: Path


@dataclass(frozen=True)
class Memory:
    """What the files say; `wrong` when one of them cannot be read, else ''."""

    numbers: dict[str, int]
    note: str | None
    wrong: str = ""


def remembered(kept: OutsideMemory) -> Memory:
    """Both files as they are now; files that are not there remember nothing."""
    try:
        return Memory(high_water.numbers(kept.floor), last_note(kept.heads))
    except (OSError, ValueError, Refusal) as error:
        # Not the error's words: these are shown to anyone, and may hold a path.
        return Memory({}, None, f"what is kept outside the record cannot be read ({type(error).__name__})")


def lacking(connection: Connection, memory: Memory) -> list[str]:
    """What shows that the record is behind, a sentence each; [] when nothing does.

    `memory` must have been read before the transaction saw anything, or what is written meanwhile would seem
    to be missing.
    """
    faults = [memory.wrong] if memory.wrong else []
    if memory.numbers:
        authorities, shards = zip(*map(crl_at, memory.numbers), strict=True)
        asked = {"authorities": list(authorities), "shards": list(shards),
                 "numbers": list(memory.numbers.values())}  # fmt: skip
        if forgotten := connection.execute(_FORGOTTEN, asked).scalar_one():
            faults.append(f"CRLs of {forgotten} of {len(shards)} shards were numbered that it does not know")
    if memory.note and not knows_note(connection, size_said(memory.note), memory.note):
        faults.append(
            f"the last checkpoint of the audit log tells of {size_said(memory.note)} lines,"
            f" the record has {size(connection)} and not that checkpoint"
        )
    return faults


def behind() -> Refusal:
    """The refusal of everything that a record which is behind must not say or do."""
    return Refusal(Kind.UNAVAILABLE, "record-behind", WHAT_TO_DO)


class Watch:
    """Looks now and then, for all threads of a process; `ticks` counts seconds, as `time.monotonic` does.

    Raises what the database raises: not to know is not to be complete.
    """

    def __init__(
        self, engine: Engine, kept: OutsideMemory, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        self.kept = kept
        self._engine = engine
        self._ticks = ticks
        self._found: list[str] = []
        self._looked_at = float("-inf")
        self._looking = Lock()

    def is_known_complete(self) -> bool:
        """Whether the last look found nothing and still counts; costs nothing."""
        return not self._found and self._ticks() - self._looked_at < HOLD_SECONDS

    def lacks(self) -> list[str]:
        """What shows that the record is behind, as of the last seconds."""
        age = self._ticks() - self._looked_at
        if age < HOLD_SECONDS:
            return self._found
        alone = self._looking.acquire(blocking=False)
        try:
            # Never waited for: a database that hangs would hold every thread for as long.
            return self.look() if alone or age >= _STALE_SECONDS else self._found
        finally:
            if alone:
                self._looking.release()

    def look(self) -> list[str]:
        """The same as of now."""
        asked_at = self._ticks()
        memory = remembered(self.kept)
        faults: list[str] = [memory.wrong] if memory.wrong else []
        if memory.numbers or memory.note:
            with transaction(self._engine, read_only=True) as connection:
                faults = lacking(connection, memory)
        self._found, self._looked_at = faults, asked_at
        return faults

    def need(self) -> None:
        """Refuse `record-behind` unless the record is complete."""
        # Looked at again before anything is refused: it may have been accepted a moment ago.
        if self.lacks() and self.look():
            raise behind()
