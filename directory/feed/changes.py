"""The vocabulary of the change feed: what changed, whose, and where a reader stands in it.

The feed says *that* something changed, never how. Each reader takes the present state from the record, so a
row read late, twice or out of order can do no harm.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum


class Entity(Enum):
    """What a change row is about; its key is an address, a FINESS, a national id, a CA id, `CA/shard`."""

    MAILBOX = "mailbox"
    ORGANISATION = "organisation"
    PRACTITIONER = "practitioner"
    AUTHORITY = "authority"
    CRL = "crl"


# As `place_of_crl` spells it, of a row of a CA's shard; the triggers of migration 0001 write it so.
PLACE_OF_CRL = "{row}.authority_id || '/' || {row}.shard"


def place_of_crl(authority_id: str, shard: int) -> str:
    """How the CRL of one shard is named: `CA/shard`."""
    return f"{authority_id}/{shard}"


def crl_at(place: str) -> tuple[str, int]:
    """The CA and the shard of a place; ValueError for what is none."""
    authority_id, _, shard = place.rpartition("/")
    return authority_id, int(shard)


@dataclass(frozen=True, order=True)
class Cursor:
    """A place in the feed: transaction number, then row number. Rows at or before it have been dealt with."""

    xid: int
    id: int


START = Cursor(0, 0)


@dataclass(frozen=True)
class Change:
    """One row of the feed; `urgent` when it takes something away (revocation, departure, unlisting)."""

    cursor: Cursor
    at: datetime
    entity: Entity
    key: str
    urgent: bool


@dataclass(frozen=True)
class Seen:
    """Whose changes a reader has been told: of all transactions numbered below `below`, but the `open` ones.

    The form of PostgreSQL's own snapshots. With it, a commit behind an older transaction is told at once and
    once. The older one's changes are told when it commits, however late.
    """

    below: int
    open: tuple[int, ...] = ()

    def __contains__(self, xid: int) -> bool:
        """Whether all that this transaction changed has been told."""
        return xid < self.below and xid not in self.open

    @property
    def first_unseen(self) -> int:
        """The lowest transaction number of which something may still have to be told."""
        return min((*self.open, self.below))

    def clamped(self, below: int) -> "Seen":
        """The same, of transactions numbered below `below` only."""
        return Seen(min(self.below, below), tuple(xid for xid in self.open if xid < below))

    def missing(self, until: "Seen") -> list[tuple[int, int]]:
        """The runs of transaction numbers, ends included, told in `until` and not yet in this one."""
        runs = [(xid, xid) for xid in sorted(self.open) if xid in until]
        first = self.below
        for still_open in (*sorted(xid for xid in until.open if xid >= first), until.below):
            if first < still_open:
                runs.append((first, still_open - 1))
            first = still_open + 1
        return runs


@dataclass(frozen=True)
class Place:
    """Where a reader outside stands: `seen` entirely, and of what `until` adds to it, up to and with `at`.

    `ahead`: as far as urgent changes were told before their turn, while a long stretch is walked.
    """

    seen: Seen
    until: Seen | None = None
    at: Cursor = START
    ahead: Seen | None = None


BEGINNING = Place(Seen(1))
