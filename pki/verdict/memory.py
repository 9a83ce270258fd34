"""What a process remembers of mailboxes, and how it knows that it is still true.

Nothing tells it of changes: a look at the record asks for what changed since the last one, in the statement
that looks up who asks (`present.py`). What is remembered is then as true as what is read, whoever changed it
and on whichever host. For how long a look counts is for who asks. Knows no SQL.
"""

import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from directory.feed.changes import Entity, Seen
from pki.model import Purpose, Serial
from pki.verdict.certificate_bytes import CertificateBytes
from pki.verdict.model import CertificateFacts, Side
from pki.verdict.present import Fact, Head

# Serial, digest, begin, end and revocation in microseconds, purposes and suspension in bits.
_CERTIFICATE = struct.Struct(">20s32sqqqB")
_BITS = {Purpose.SIGNATURE: 1, Purpose.ENCRYPTION: 2}
_ON_HOLD = 4
_PURPOSES = tuple(frozenset(purpose for purpose, bit in _BITS.items() if bits & bit) for bits in range(4))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What an entry weighs without its certificates: its address, its places in two tables, its own parts.
_WEIGHT = 360
# Whoever answers for it is found by a table of his own.
_OF_A_PERSON = 400
# Rows of the feed are kept for longer than this: a memory that asked within it has missed none.
_KNOWS_SECONDS = 600.0
# Nobody has been told of anything: what a question without a memory asks with.
NOTHING_MISSED = Seen(1 << 62)
# The generation of a mark whose look is to be kept nowhere.
_NEVER = -1
# This share of a full memory is emptied at a time.
_SPARE = 32
DEFAULT_OCTETS = 448 << 20

# Standing, its change, its end, who answers; its certificates, and their bytes, b'' where nobody read them.
_Entry = tuple[tuple[str, ...], datetime | None, datetime | None, tuple[str, ...], bytes, bytes]


@dataclass(frozen=True, slots=True)
class Mark:
    """What a memory had heard when a question began."""

    seen: Seen
    generation: int


class Memory:
    """Facts of known mailboxes, at most some `octets` of them; those kept first give way.

    Certificates' bytes are kept where they were read, packed to less than half (`certificate_bytes.py`).

    A question calls `begin`, looks at the record, then tells `hear` what changed. From then on `get` gives
    what was true in that look, and `keep` takes what was read in it. Any thread may call.
    """

    def __init__(self, octets: int = DEFAULT_OCTETS, ticks: Callable[[], float] = time.monotonic) -> None:
        self._most, self._ticks = octets, ticks
        self._lock = threading.Lock()
        self._kept: dict[str, _Entry] = {}
        self._of_person: defaultdict[str, set[str]] = defaultdict(set)
        self._bytes = CertificateBytes()
        self._octets = 0
        self._generation = 0
        self._seen = NOTHING_MISSED
        self._origin = ""
        self._heard_at = float("-inf")

    def __len__(self) -> int:
        """How many mailboxes are remembered."""
        return len(self._kept)

    def begin(self) -> Mark:
        """Called before the look."""
        with self._lock:
            if self._ticks() - self._heard_at > _KNOWS_SECONDS:
                self._empty()
            return Mark(self._seen, self._generation)

    def hear(self, mark: Mark, head: Head) -> Mark:
        """Drop what changed until the look whose head this is; called before `get`, which wants the mark."""
        with self._lock:
            others = self._generation - mark.generation
            if head.changed is None or self._is_strange(mark.seen, head.origin):
                self._empty()
            elif _is_behind(head.snapshot, mark.seen):
                # Of a transaction begun before others heard of changes: nobody will be told of those again.
                return Mark(self._seen, _NEVER)
            elif head.changed:
                self._forget(head.changed)
            if self._seen in {mark.seen, NOTHING_MISSED}:
                self._seen = head.snapshot
            self._origin = head.origin
            self._heard_at = self._ticks()
            # What others dropped meanwhile, this look may have read before it changed.
            return Mark(self._seen, self._generation if not others else mark.generation)

    def _is_strange(self, seen: Seen, origin: str) -> bool:
        """Whether nobody can say what changed since what is remembered here was read."""
        if seen == NOTHING_MISSED:
            # Others remembered something while this one asked for no changes.
            return self._seen != NOTHING_MISSED
        # The record was put back, or another server answers.
        return origin != self._origin

    def holds(self, address: str, *, whole: bool = False) -> bool:
        """Whether `get` may find this mailbox."""
        entry = self._kept.get(address)
        return entry is not None and not (whole and entry[4] and not entry[5])

    def get(self, address: str, now: datetime, mark: Mark, *, whole: bool = False) -> Side | None:
        """What is remembered of this (canonical) address and holds at `now`, by the database's clock.

        `whole` wants the certificates' bytes along, and gives nothing where they are not remembered. Nothing
        once others dropped something since the look of this mark: beside what was read in it, what they read
        since would be of another instant.
        """
        entry = self._kept.get(address)
        if entry is None or mark.generation != self._generation:
            return None
        standing, changes_at, until, _, packed, octets = entry
        if (until is not None and until <= now) or (whole and packed and not octets):
            return None
        certificates = tuple([_certificate(fields) for fields in _CERTIFICATE.iter_unpack(packed)])
        if whole and packed:
            of_each = zip(certificates, self._bytes.unpacked(octets), strict=True)
            certificates = tuple([certificate._replace(der=der) for certificate, der in of_each])
        return Side(standing, is_known=True, certificates=certificates, changes_at=changes_at)

    def keep(self, facts: Iterable[tuple[str, Fact]], mark: Mark) -> None:
        """Store what was read in the look of this mark, unless something was dropped since it began."""
        known = [(address, fact) for address, fact in facts if fact.side.is_known]
        entries = [(address, self._entry(fact)) for address, fact in known]
        with self._lock:
            if mark.generation != self._generation:
                return
            for address, entry in entries:
                self._drop(address)
                self._kept[address] = entry
                self._octets += _weight(entry)
                for person in entry[3]:
                    self._of_person[person].add(address)
            if self._octets > self._most:
                self._make_room()

    def keep_bytes(self, sides: Iterable[tuple[str, Side]], mark: Mark) -> None:
        """Store the bytes of certificates of sides that `get` gave without them for this mark."""
        if mark.generation != self._generation:
            return
        read = [(address, self._packed(side)) for address, side in sides]
        with self._lock:
            if mark.generation != self._generation:
                return
            for address, octets in read:
                entry = self._kept.get(address)
                if entry is not None and not entry[5]:
                    self._kept[address] = (*entry[:5], octets)
                    self._octets += len(octets)
            if self._octets > self._most:
                self._make_room()

    def _entry(self, fact: Fact) -> _Entry:
        side = fact.side
        packed = b"".join(map(_packed, side.certificates))
        return side.standing, side.changes_at, fact.until, fact.people, packed, self._packed(side)

    def _packed(self, side: Side) -> bytes:
        """The bytes of its certificates; b'' where one has none, or is too long to be kept."""
        if not all(certificate.der for certificate in side.certificates):
            return b""
        with suppress(ValueError):
            return self._bytes.packed(certificate.der for certificate in side.certificates)
        return b""

    def _make_room(self) -> None:
        """Drop the oldest, more than is needed: who looks for the first steps over all that were dropped."""
        wanted = self._most - self._most // _SPARE
        while self._octets > wanted and self._kept:
            for address in list(islice(self._kept, 1 + len(self._kept) // _SPARE)):
                self._drop(address)

    def _forget(self, changed: Iterable[tuple[str, str]]) -> None:
        self._generation += 1
        for entity, key in changed:
            if entity == Entity.MAILBOX.value:
                self._drop(key)
            elif entity == Entity.PRACTITIONER.value:
                for address in tuple(self._of_person.get(key, ())):
                    self._drop(address)

    def _empty(self) -> None:
        self._generation += 1
        self._kept.clear()
        self._of_person.clear()
        self._octets = 0
        self._seen = NOTHING_MISSED

    def _drop(self, address: str) -> None:
        entry = self._kept.pop(address, None)
        if entry is None:
            return
        self._octets -= _weight(entry)
        for person in entry[3]:
            self._of_person[person].discard(address)
            if not self._of_person[person]:
                del self._of_person[person]


def _is_behind(snapshot: Seen, seen: Seen) -> bool:
    """Whether this snapshot lacks transactions of which all was told."""
    return seen != NOTHING_MISSED and (
        snapshot.below < seen.below or any(xid in seen for xid in snapshot.open)
    )


def _weight(entry: _Entry) -> int:
    return _WEIGHT + _OF_A_PERSON * len(entry[3]) + len(entry[4]) + len(entry[5])


def _packed(certificate: CertificateFacts) -> bytes:
    bits = sum(_BITS[purpose] for purpose in certificate.purposes) | _ON_HOLD * certificate.on_hold
    revoked = 0 if certificate.revoked_at is None else _microseconds(certificate.revoked_at)
    return _CERTIFICATE.pack(
        bytes.fromhex(certificate.serial), certificate.sha256,
        _microseconds(certificate.not_before), _microseconds(certificate.not_after), revoked, bits,
    )  # fmt: skip


def _certificate(fields: Sequence[Any]) -> CertificateFacts:
    serial, sha256, begins, ends, revoked, bits = fields
    return CertificateFacts(
        Serial(serial.hex()), b"", sha256, _instant(begins), _instant(ends), _PURPOSES[bits & 3],
        revoked_at=_instant(revoked) if revoked else None, on_hold=bits >= _ON_HOLD,
    )  # fmt: skip


def _microseconds(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(microseconds=1)


def _instant(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
