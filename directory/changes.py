"""The vocabulary of the change feed: what changed, whose, and where a reader stands in it.

The feed says *that* something changed, never how: each reader takes the present state from the record, so
a row read late, twice or out of order can do no harm.
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
