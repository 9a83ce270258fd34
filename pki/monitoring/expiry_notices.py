"""Who is to be told that a certificate runs out: at 60, 30 and 7 days, once each, unless it has a successor.

Decides which notices there are and what becomes of each; sending is handed in, since no network may happen
within a transaction. What this service itself stands on is `service_expiry`'s.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from sqlalchemy import Connection, Engine

from directory.base.db import transaction
from pki.model import Purpose, Serial
from pki.monitoring import expiry_store as store
from pki.monitoring.expiry_store import Ending, ExpiryQuery, Notice

STEPS = (60, 30, 7)
# Certificates without a mailbox that somebody outside must renew all the same.
PROFILES = ("operator-server", "operator-client")
# A mail server that is away for minutes costs minutes, one away for a week four tries a day.
SHORTEST, LONGEST = timedelta(minutes=5), timedelta(hours=6)
AT_ONCE = 200
_FIRST = (datetime.fromisoformat("1970-01-01T00:00:00+00:00"), "")


@dataclass(frozen=True)
class Letter:
    """One notice as it is to be sent; `days` are what is left, rounded up, `purposes` what runs out.

    `subject` is whose certificate it is where the recipient is not its mailbox, else ''.
    """

    notice: Notice
    not_after: datetime
    days: int
    purposes: frozenset[Purpose]
    subject: str = ""


# Sends letters; gives for each '' when the mail server took it, else why not.
Post = Callable[[Sequence[Letter]], Iterable[tuple[Letter, str]]]


@dataclass(frozen=True)
class Sent:
    """What became of a run's notices."""

    sent: int = 0
    failed: int = 0

    def __str__(self) -> str:
        told = [f"{self.sent} notices sent"] if self.sent else []
        return ", ".join([*told, *([f"{self.failed} to be tried again"] if self.failed else [])])


def ending(
    connection: Connection,
    now: datetime,
    asked: ExpiryQuery,
    *,
    after: tuple[datetime, str] | None = None,
    limit: int,
) -> list[Ending]:
    """Certificates that run out without a successor, the first to end first; a page, behind `after`."""
    return store.ending(connection, now, asked, PROFILES, after=after or _FIRST, limit=limit)


def counts(connection: Connection, now: datetime) -> dict[tuple[str, str], tuple[int, ...]]:
    """For each profile and authority, how many run out within 7, 30 and 60 days, each counted once."""
    counted: dict[tuple[str, str], list[int]] = {}
    bounds = [now + timedelta(days=days) for days in sorted(STEPS)]
    for profile, authority, end in store.ends_by_kind(connection, now, bounds[-1], PROFILES):
        band = next(place for place, bound in enumerate(bounds) if end <= bound)
        counted.setdefault((profile, authority), [0] * len(bounds))[band] += 1
    return {key: tuple(numbers) for key, numbers in sorted(counted.items())}


def untold(connection: Connection, now: datetime) -> int:
    """How many run out within the first step of which nobody can be told: their operator keeps no contact."""
    return store.untold(connection, now, now + timedelta(days=max(STEPS)), PROFILES)


def send_due(engine: Engine, post: Post, clock: Callable[[], datetime]) -> Sent:
    """Note what is due, then send what waits, a few at a time, until nothing is left for now.

    A notice is noted before it is sent and marked after: a crash in between sends it twice, never not at all.
    """
    with transaction(engine) as connection:
        store.note(connection, clock(), STEPS, PROFILES)
    sent = failed = 0
    reached = True
    while reached and (letters := _claimed(engine, clock())):
        # A mail server that took none of a batch would take none of the next.
        reached = False
        for letter, error in post(letters):
            with transaction(engine) as connection:
                if error:
                    store.mark_failed(connection, letter.notice, error)
                else:
                    store.mark_sent(connection, letter.notice, clock())
            sent, failed, reached = sent + (not error), failed + bool(error), reached or not error
    return Sent(sent, failed)


def _claimed(engine: Engine, now: datetime) -> list[Letter]:
    """The next letters; what has lost its use meanwhile is closed on the way."""
    while True:
        with transaction(engine) as connection:
            claimed = store.claim(connection, now, shortest=SHORTEST, longest=LONGEST, limit=AT_ONCE)
            serials = [notice.serial for notice in claimed]
            ends = store.still_ending(connection, now, timedelta(days=max(STEPS)), PROFILES, serials)
            letters = [_letter(notice, ends, now) for notice in claimed]
            for notice, letter in zip(claimed, letters, strict=True):
                if letter is None:
                    store.mark_over(connection, notice)
        wanted = [letter for letter in letters if letter is not None]
        if wanted or not claimed:
            return wanted


def _letter(
    notice: Notice, ends: dict[tuple[Serial, str], store.StillEnding], now: datetime
) -> Letter | None:
    """The notice as a letter; None when it is renewed, revoked, over, or the next step has come.

    Or when its recipient is no contact of the operator any more.
    """
    certificate = ends.get((notice.serial, notice.recipient))
    if certificate is None:
        return None
    left = certificate.not_after - now
    if any(days < notice.days and left <= timedelta(days=days) for days in STEPS):
        return None
    return Letter(
        notice,
        certificate.not_after,
        ceil(left / timedelta(days=1)),
        certificate.purposes,
        certificate.subject,
    )
