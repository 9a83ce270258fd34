"""The publisher: follows the change feed and brings LDAP in step with the record, one pass at a time.

Level-triggered: a change says which entry to look at, the present record says what should stand there. A pass
cut short anywhere is repeated whole, which changes nothing that was done. Revocations, departures and
unlistings overtake everything else. The network is used between transactions, never inside one. When a pass
is due is for the worker to say.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from sqlalchemy import Connection, Engine

from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.base.locks import held_if_free
from directory.changes import START, Change, Cursor, Entity
from directory.feed import horizon, load_cursor, read_changes, read_unsettled, read_urgent, save_cursor
from directory.ldap.entry import Entry, Key, base_entries
from directory.ldap.plan import Add, Delete, Modify, Operation, base_plan, plan, version_of
from directory.ldap.wanted import AuthoritiesOf, CertificatesOf, CrlsOf, Record, Target, Wanted

log = logging.getLogger("sceau.ldap")

CONSUMER = LOCK = "ldap-publisher"
# About a third of a second of writing: what arrives meanwhile and is urgent waits no longer than that.
BATCH = 250
# Somebody else writes the same entry again and again: three looks, then it is written anew.
LOOKS = 3


class Writer(Protocol):
    """What the publisher needs of an LDAP client."""

    def read(self, dn: str) -> Entry | None:
        """The entry, None when absent."""

    def apply(self, operation: Operation) -> bool:
        """Carry it out; False when the entry was not as read."""

    def walk(self, base: str, page: int = 500) -> Iterator[list[Entry]]:
        """Everything below `base`."""


@dataclass(frozen=True)
class PublishReport:
    """What one pass did. `more`: changes are waiting. `refused`: names LDAP would not have, and why."""

    changes: int = 0
    added: int = 0
    modified: int = 0
    deleted: int = 0
    refused: tuple[tuple[str, str], ...] = ()
    more: bool = False

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
        )


@dataclass(frozen=True)
class _Batch:
    """What one pass looks at, and where the feed has been read to once it is done."""

    keys: tuple[Key, ...]
    cursor: Cursor
    urgent: Cursor
    early: frozenset[Cursor]
    changes: int
    more: bool


class Publisher:
    """Brings the tree below `suffix` in step with the record; one at a time in the whole system."""

    def __init__(
        self,
        engine: Engine,
        client: Writer,
        suffix: str,
        *,
        certificates_of: CertificatesOf,
        authorities_of: AuthoritiesOf,
        crls_of: CrlsOf,
    ) -> None:
        self.engine = engine
        self.client = client
        self.record = Record(suffix, certificates_of, authorities_of, crls_of)
        # All three only spare work: forgotten with the process, their changes are looked at once more.
        self._left = START
        self._urgent = START
        self._early: frozenset[Cursor] = frozenset()

    def publish_once(self, now: datetime) -> PublishReport:
        """One pass over the next changes; an empty report when there are none or another publisher works.

        Refusal UNAVAILABLE when LDAP cannot be reached: the place in the feed is then kept, nothing is lost.
        """
        with held_if_free(self.engine, LOCK) as mine:
            return self.pass_while_locked(now) if mine else PublishReport()

    def pass_while_locked(self, now: datetime, *, overwrite: bool = False) -> PublishReport:
        """`publish_once` for who holds the lock already."""
        with transaction(self.engine, read_only=True) as connection:
            start = load_cursor(connection, CONSUMER)
            self._go_on_from(start)
            batch = self._read(connection, start)
            wanted = self.record.wanted(connection, batch.keys, now)
        if not batch.changes:
            return PublishReport()
        report = PublishReport(changes=batch.changes, more=batch.more)
        if self.plant() and start != START:
            report += self._publish_all(now)
        report += self.bring_in_step(wanted, overwrite=overwrite)
        if batch.cursor != start:
            with transaction(self.engine) as connection:
                save_cursor(connection, CONSUMER, batch.cursor, now)
        self._left, self._urgent, self._early = batch.cursor, batch.urgent, batch.early
        return replace(report, more=batch.more)

    def drain(self, now: datetime, *, overwrite: bool = False) -> PublishReport:
        """Passes until no change is waiting, for who holds the lock."""
        report = self.pass_while_locked(now, overwrite=overwrite)
        while report.more:
            report += self.pass_while_locked(now, overwrite=overwrite)
        return report

    def plant(self) -> bool:
        """Make sure that the base entries stand; True when the tree was empty."""
        made = False
        for entry in base_entries(self.record.suffix):
            operation = base_plan(entry, self.client.read(entry.dn))
            if operation is not None:
                made = self.client.apply(operation) or made
        return made

    def bring_in_step(self, wanted: Wanted, *, overwrite: bool = False) -> PublishReport:
        """Write each target that is not as wanted; with `overwrite` even over what a later state wrote."""
        report = PublishReport()
        for target in wanted.targets:
            report += self._converge(target, wanted.version, overwrite=overwrite)
        return report

    def _go_on_from(self, start: Cursor) -> None:
        """Forget what was looked at ahead of the queue when somebody else moved our place in it.

        After a rebuild the tree is another one, which has seen none of it.
        """
        if start < self._left:
            self._urgent = START
        if start != self._left:
            self._early = frozenset()
        self._left = start

    def _read(self, connection: Connection, start: Cursor) -> _Batch:
        """Urgent changes from anywhere in the queue, those behind an open transaction, the next in order."""
        settled = read_changes(connection, start, BATCH)
        urgent = read_urgent(connection, max(start, self._urgent), BATCH)
        early = read_unsettled(connection, self._early, BATCH)
        settled_to = horizon(connection) if self._early else START
        seen = {change.cursor: change for change in (*urgent, *early, *settled)}
        return _Batch(
            keys=_coalesced(seen.values()),
            cursor=settled[-1].cursor if settled else start,
            urgent=urgent[-1].cursor if urgent else self._urgent,
            early=frozenset(
                (*(cursor for cursor in self._early if cursor > settled_to), *(each.cursor for each in early))
            ),
            changes=len(seen),
            more=BATCH in (len(settled), len(urgent), len(early)),
        )

    def _publish_all(self, now: datetime) -> PublishReport:
        """Write the whole record into a tree that lost everything after the feed had been followed.

        Cut short, it leaves the rest to the nightly comparison.
        """
        report = PublishReport()
        for keys in self.record.all_keys(self.engine):
            with transaction(self.engine, read_only=True) as connection:
                wanted = self.record.wanted(connection, keys, now)
            report += self.bring_in_step(wanted)
        return report

    def _converge(self, target: Target, version: int, *, overwrite: bool) -> PublishReport:
        for _ in range(LOOKS):
            found = self.client.read(target.dn)
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
                if self.client.apply(operation):
                    return _done(operation)
            except Refusal as refusal:
                if refusal.kind is not Kind.UNACCEPTABLE:
                    raise
                return self._replace(target, version, refusal)
        return self._replace(target, version, None)

    def _replace(self, target: Target, version: int, refusal: Refusal | None) -> PublishReport:
        """Take away what cannot be changed and write it anew; when that is refused too, nothing stays.

        An entry that could not be updated might show a certificate that was revoked: none is better.
        """
        operation = plan(target.entry, None, version)
        try:
            self.client.apply(Delete(target.dn))
            if operation is None or self.client.apply(operation):
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
            keys.setdefault((Entity.AUTHORITY, change.key.partition("/")[0]))
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
