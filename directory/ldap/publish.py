"""The publisher: follows the change feed and brings LDAP in step with the record, one pass at a time.

Level-triggered: a change says which entry to look at, the present record says what should stand there. A pass
cut short anywhere is repeated whole, which changes nothing that was done. Revocations, departures and
unlistings overtake everything else. The tree itself says how far it has followed the feed. So the next pass
notices one that was lost or put back from a copy, changes or none. The network is used between transactions,
never inside one. When a pass is due is for the worker to say.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from sqlalchemy import Connection, Engine

from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.base.locks import try_lock
from directory.base.pools import Pool
from directory.feed.changes import START, Change, Cursor, Entity, crl_at
from directory.feed.follower import Follower
from directory.feed.places import floor
from directory.feed.readers import (
    save_cursor,
    urgent_waiting,
)
from directory.ldap.entry import MAILBOXES, Entry, Key, base_entries
from directory.ldap.names import Name, split
from directory.ldap.plan import (
    FORM,
    Add,
    Delete,
    Modify,
    Operation,
    base_plan,
    form_of,
    place_of,
    place_plan,
    plan,
    version_of,
)
from directory.ldap.wanted import (
    AuthoritiesOf,
    CertificatesOf,
    CrlsOf,
    DesiredEntries,
    Record,
    Target,
    more_mailboxes_than,
)
from directory.store import sources

log = logging.getLogger("sceau.ldap")

CONSUMER = LOCK = "ldap-publisher"
# Less than a second of writing: what arrives meanwhile and is urgent waits no longer than that.
BATCH = 500
# Fewer targets are written before threads for them have started.
WORTH_SHARING = 20
LOOKED_UP = 40
# A publisher's pass is over in about a second; longer means that it hangs.
PATIENCE_SECONDS = 30
# One entry changed takes as long as so many loaded with the whole tree.
_LOADED_MEANWHILE = 10
# Somebody else writes the same entry again and again: three looks, then it is written anew.
LOOKS = 3


class Writer(Protocol):
    """What the publisher needs of an LDAP client."""

    def read(self, dn: str) -> Entry | None:
        """The entry, None when absent."""

    def found(self, dns: Sequence[str], attributes: Sequence[str] = ...) -> dict[Name, Entry]:
        """Those that exist, by name."""

    def bases(self, base: str) -> dict[Name, Entry]:
        """The entries that everything else hangs from."""

    def apply(self, operation: Operation) -> bool:
        """Carry it out; False when the entry was not as read."""

    def walk(self, base: str, page: int = 500, attributes: Sequence[str] = ...) -> Iterator[list[Entry]]:
        """Everything below `base`."""

    def identity(self) -> str:
        """The name the server knows us by."""


@dataclass(frozen=True)
class PublishReport:
    """What one pass did. `more`: changes are waiting. `refused`: names LDAP would not have, and why.

    `whole`: nothing was done, since the whole tree is sooner loaded than so many entries are written one by
    one (`Publisher.fills`, `floods`). `flooded`: because so much is taken away, not because it is missing.
    """

    changes: int = 0
    added: int = 0
    modified: int = 0
    deleted: int = 0
    refused: tuple[tuple[str, str], ...] = ()
    more: bool = False
    whole: bool = False
    flooded: bool = False

    @property
    def written(self) -> int:
        """Entries that were not as they should be."""
        return self.added + self.modified + self.deleted

    def __add__(self, other: "PublishReport") -> "PublishReport":
        return PublishReport(
            self.changes + other.changes,
            self.added + other.added,
            self.modified + other.modified,
            self.deleted + other.deleted,
            (*self.refused, *other.refused),
            other.more,
            other.whole,
            other.flooded,
        )


@dataclass(frozen=True)
class _Tree:
    """How the tree stands: how far it says it followed, whether it is without mailboxes, of which form it is.

    `made`: it had to be made, or part of what everything hangs from.
    """

    place: Cursor | None
    bare: bool
    made: bool
    form: str


class Publisher:
    """Brings the tree below `suffix` in step with the record; one at a time in the whole system.

    Entries are written over `client` and the `lanes` beside it at once. `fills`: with more mailboxes than
    that to write into a tree without any, a pass does nothing and says `whole`. A caller that can load a
    whole tree then does. So it does while more than `floods` urgent changes wait that are a good part of the
    tree. None writes them one by one.
    """

    def __init__(
        self,
        engine: Engine,
        client: Writer,
        suffix: str,
        *,
        certificates_of: CertificatesOf,
        authorities_of: AuthoritiesOf,
        crls_of: CrlsOf,
        lanes: Sequence[Writer] = (),
        fills: int | None = None,
        floods: int | None = None,
    ) -> None:
        self.engine = engine
        self.client = client
        self.fills, self.floods = fills, floods
        # Whether a tree of a former form is left to whoever can load a whole one.
        self.renews = False
        self._lanes = (client, *lanes)
        self.record = Record(suffix, certificates_of, authorities_of, crls_of)
        self._feed = Follower(CONSUMER, BATCH)

    def publish_once(self, now: datetime) -> PublishReport:
        """One pass over the next changes; an empty report when there are none or another publisher works.

        Refusal UNAVAILABLE when LDAP cannot be reached: the place in the feed is then kept, nothing is lost.
        """
        with try_lock(self.engine, LOCK) as mine:
            return self.pass_while_locked(now) if mine else PublishReport()

    def pass_while_locked(self, now: datetime, *, overwrite: bool = False) -> PublishReport:
        """`publish_once` for who holds the lock already."""
        with transaction(self.engine, read_only=True) as connection:
            batch = self._feed.read(connection)
            start, changes = batch.start, len(batch.changes)
            if batch.more and self._is_flooded(connection, batch.urgent_after):
                return PublishReport(changes=changes, whole=True, flooded=True)
            registers = sources(connection)
            wanted = self.record.wanted(connection, _coalesced(batch.changes), now)
        tree = self.look(registers)
        if self.renews and tree.form != FORM and not tree.bare:
            log.warning("LDAP is of a former form: the tree is made anew")
            return PublishReport(changes=changes, whole=True)
        lost = start != START and (tree.made or (tree.place is not None and tree.place < start))
        if (lost or batch.more) and tree.bare and self._too_many():
            return PublishReport(changes=changes, whole=True)
        report = PublishReport(changes=changes)
        if lost and not self._filled(tree, now):
            return replace(report, more=True)
        if changes:
            report += self.bring_in_step(wanted, overwrite=overwrite)
        self._keep_place(tree, start, batch.reached, now)
        self._feed.finish(batch)
        return replace(report, more=batch.more)

    def drain(self, now: datetime, *, overwrite: bool = False) -> PublishReport:
        """Passes until no change is waiting, for who holds the lock."""
        report = self.pass_while_locked(now, overwrite=overwrite)
        while report.more:
            report += self.pass_while_locked(now, overwrite=overwrite)
        return report

    def look(self, registers: Mapping[str, datetime | None]) -> _Tree:
        """How the tree stands, after making sure that the base entries do and name these `registers`."""
        suffix, made = self.record.suffix, False
        held = self.client.bases(suffix)
        wanted = base_entries(suffix, registers)
        for entry in wanted:
            # An entry without our class is not among them: made by an earlier release, or by hand.
            found = held.get(entry.name) or self.client.read(entry.dn)
            operation = base_plan(entry, found)
            if operation is not None:
                self.client.apply(operation)
                made = made or isinstance(operation, Add)
        top = held.get(split(suffix))
        mailboxes = held.get(split(f"{MAILBOXES},{suffix}"))
        bare = mailboxes is None or mailboxes.attributes.get("hasSubordinates") == (b"FALSE",)
        form = "" if top is None else form_of(top)
        # What is written into an empty tree is of the present form.
        return _Tree(None if made or top is None else place_of(top), bare, made, FORM if bare else form)

    def bring_in_step(self, wanted: DesiredEntries, *, overwrite: bool = False) -> PublishReport:
        """Write each target that is not as wanted; with `overwrite` even over what a later state wrote."""
        shares = self._shares(wanted.targets)
        if len(shares) == 1:
            return self._write(self.client, shares[0], wanted.version, overwrite=overwrite)
        report = PublishReport()
        with Pool(len(shares)) as pool:
            running = [
                pool.submit(self._write, lane, share, wanted.version, overwrite=overwrite)
                for lane, share in zip(self._lanes, shares, strict=True)
            ]
        for future in running:
            report += future.result()
        return report

    def _shares(self, targets: Sequence[Target]) -> list[list[Target]]:
        """Targets dealt out to the lanes, the first first in each; CAs and their CRLs in one, in order."""
        lanes = len(self._lanes) if len(targets) >= WORTH_SHARING else 1
        shares: list[list[Target]] = [[] for _ in range(lanes)]
        for number, target in enumerate(targets):
            alone = target.key is not None and target.key[0] in (Entity.AUTHORITY, Entity.CRL)
            shares[0 if alone else number % lanes].append(target)
        return shares

    def _write(
        self, lane: Writer, targets: Sequence[Target], version: int, *, overwrite: bool
    ) -> PublishReport:
        report = PublishReport()
        for start in range(0, len(targets), LOOKED_UP):
            page = targets[start : start + LOOKED_UP]
            entries = lane.found([target.dn for target in page])
            for target in page:
                seen = entries.get(split(target.dn))
                report += self._converge(lane, target, seen, version, overwrite=overwrite)
        return report

    def _is_flooded(self, connection: Connection, after: Cursor) -> bool:
        """Whether so much is taken away that the last of it would stand for longer than a load takes."""
        if self.floods is None:
            return False
        waiting = urgent_waiting(connection, after, _LOADED_MEANWHILE * self.floods)
        return waiting > self.floods and not more_mailboxes_than(connection, _LOADED_MEANWHILE * waiting)

    def _too_many(self) -> bool:
        """Whether more mailboxes are wanted than are written one by one."""
        if self.fills is None:
            return False
        with transaction(self.engine, read_only=True) as connection:
            return more_mailboxes_than(connection, self.fills)

    def _filled(self, tree: _Tree, now: datetime) -> bool:
        """Bring a tree that knows less than was thought to where it was thought to be; False: not yet there.

        Back in the feed while that has all the tree missed, else the whole record. Cut short, it begins
        again: until it has caught up, the tree says where it stands.
        """
        place = START if tree.made or tree.place is None else tree.place
        log.warning("LDAP knows the feed no further than %s: bringing it in step", place)
        self._note_place(place, tree.form)
        with transaction(self.engine) as connection:
            if START < place >= floor(connection):
                save_cursor(connection, CONSUMER, place, now)
                return False
        self._publish_all(now)
        return True

    def _keep_place(self, tree: _Tree, start: Cursor, reached: Cursor, now: datetime) -> None:
        """First the record, then the tree: cut short in between, the tree claims less than it knows."""
        if reached != start:
            with transaction(self.engine) as connection:
                save_cursor(connection, CONSUMER, reached, now)
        if reached not in (tree.place, START):
            self._note_place(reached, tree.form)

    def note_form(self) -> None:
        """Say in the tree that every entry has the present form: for who has just compared them all."""
        top = self.client.read(self.record.suffix)
        if top is not None and (place := place_of(top)) is not None:
            self._note_place(place, FORM)

    def _note_place(self, place: Cursor, form: str) -> None:
        top = self.client.read(self.record.suffix)
        if top is not None and (operation := place_plan(top, place, form)) is not None:
            self.client.apply(operation)

    def _publish_all(self, now: datetime) -> None:
        """Write the whole record; what stands and should not is left to the nightly comparison."""
        for keys in self.record.all_keys(self.engine):
            with transaction(self.engine, read_only=True) as connection:
                wanted = self.record.wanted(connection, keys, now)
            self.bring_in_step(wanted)

    def _converge(
        self, lane: Writer, target: Target, found: Entry | None, version: int, *, overwrite: bool
    ) -> PublishReport:
        for _ in range(LOOKS):
            operation = plan(target.entry, found, version, overwrite=overwrite)
            if operation is None:
                return PublishReport()
            if found is not None and version_of(found) > version and not overwrite:
                text = (
                    f"{target.dn!r} was written from a later state of the record than the present one"
                    " (restored from a backup?): `sceau ldap reconcile --apply` writes it anew."
                )
                raise Refusal(Kind.CONFLICT, "ldap-newer-than-record", text, dn=target.dn)
            try:
                if lane.apply(operation):
                    return _done(operation)
            except Refusal as refusal:
                if refusal.kind is not Kind.UNACCEPTABLE:
                    raise
                return _replace(lane, target, version, refusal)
            found = lane.read(target.dn)
        return _replace(lane, target, version, None)


@contextmanager
def deferred(engine: Engine) -> Iterator[None]:
    """The publisher's lock, waited for: no other writes to the tree within the block.

    Refusal CONFLICT `ldap-publisher-busy` when another keeps it.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with try_lock(engine, LOCK) as mine:
            if mine:
                yield
                return
        if time.monotonic() > deadline:
            text = f"Another publisher has held LDAP for {PATIENCE_SECONDS} s: try again when it is done."
            raise Refusal(Kind.CONFLICT, "ldap-publisher-busy", text)
        time.sleep(0.05)


def _replace(lane: Writer, target: Target, version: int, refusal: Refusal | None) -> PublishReport:
    """Take away what cannot be changed and write it anew; when that is refused too, nothing stays.

    An entry that could not be updated might show a certificate that was revoked: none is better.
    """
    operation = plan(target.entry, None, version)
    try:
        lane.apply(Delete(target.dn))
        if operation is None or lane.apply(operation):
            return PublishReport(modified=1)
    except Refusal as again:
        if again.kind is not Kind.UNACCEPTABLE:
            raise
        refusal = again
    words = refusal.text if refusal else "somebody else writes it too"
    log.error("LDAP will not have an entry: %s", words)
    return PublishReport(refused=((target.dn, words),))


def _coalesced(changes: Iterable[Change]) -> tuple[Key, ...]:
    """Each key once, urgent ones first; the CA of a CRL before it, since parents are added first."""
    ordered = sorted(changes, key=lambda change: not change.urgent)
    keys: dict[Key, None] = {}
    for change in ordered:
        if change.entity is Entity.CRL:
            keys.setdefault((Entity.AUTHORITY, crl_at(change.key)[0]))
        if change.entity is not Entity.PRACTITIONER:
            keys.setdefault((change.entity, change.key))
    return tuple(keys)


def _done(operation: Operation) -> PublishReport:
    match operation:
        case Add():
            return PublishReport(added=1)
        case Modify():
            return PublishReport(modified=1)
        case Delete():
            return PublishReport(deleted=1)
