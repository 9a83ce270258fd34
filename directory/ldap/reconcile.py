"""The nightly look at everything: each key of the record in the tree, each name of the tree in the record.

For what the publisher cannot see: an entry somebody touched, one that nobody asked for. Two sweeps, page by
page, keep no list of all names. Every value is compared. By marks alone (its digest, its version, who wrote
last) it takes less time, and misses changes under the publisher's own name.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from directory.base.db import transaction
from directory.feed.changes import Entity
from directory.ldap.entry import Entry, Key, base_entries, key_of
from directory.ldap.names import split
from directory.ldap.plan import (
    DIGEST,
    MODIFIER,
    VERSION,
    Add,
    Delete,
    Modify,
    Operation,
    brake,
    in_step,
    plan,
)
from directory.ldap.publish import Publisher, deferred
from directory.ldap.wanted import DesiredEntries, Target, may_stand

PAGE = 500
EXAMPLES = 20
# Names kept for deletion: far above what the brake lets through; with `force` a second run takes the rest.
EXTRAS_KEPT = 100_000
MARKS = (VERSION, DIGEST, MODIFIER)
NAMES_ONLY = ("1.1",)
WORDS = {Add: "missing", Delete: "extra", Modify: "different"}

Progress = Callable[[int], None]
# What looks wrong: its name, and the key of the record it should come from (None for what is not ours).
Suspect = tuple[str, Key | None]


@dataclass(frozen=True)
class ReconcileReport:
    """What a comparison of every entry found: names missing, extra or different, and how many were put right.

    `examples` are the first of those names with what was wrong with each. `empty`: so much is missing that it
    was left to whoever can load a whole tree (`Publisher.fills`), and the rest was not looked at.
    """

    compared: int
    missing: int
    extra: int
    different: int
    repaired: int
    examples: tuple[str, ...]
    empty: bool = False

    @property
    def agrees(self) -> bool:
        """Whether nothing was wrong."""
        return not (self.missing or self.extra or self.different)


@dataclass
class _Found:
    """What has been found so far."""

    compared: int = 0
    repaired: int = 0
    wrong: dict[type[Operation], int] = field(default_factory=lambda: dict.fromkeys(WORDS, 0))
    examples: list[str] = field(default_factory=list)
    extras: dict[str, Key | None] = field(default_factory=dict)

    def note(self, suspect: Suspect, operation: Operation) -> None:
        self.wrong[type(operation)] += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{WORDS[type(operation)]} {suspect[0]}")
        if isinstance(operation, Delete) and len(self.extras) < EXTRAS_KEPT:
            self.extras[suspect[0]] = suspect[1]

    def report(self, *, empty: bool = False) -> ReconcileReport:
        return ReconcileReport(
            self.compared, self.wrong[Add], self.wrong[Delete], self.wrong[Modify], self.repaired,
            tuple(self.examples), empty,
        )  # fmt: skip


def reconcile(
    publisher: Publisher,
    *,
    now: datetime,
    apply: bool,
    force: bool = False,
    quick: bool = False,
    progress: Progress = lambda _: None,
) -> ReconcileReport:
    """Compare every entry that should stand with every entry that does; put right what differs with `apply`.

    Publication goes on meanwhile. A suspect entry is looked at again with the publisher stopped and up to
    date. So a change on its way is not taken for damage. Deletions come last and only below the brake
    (CONFLICT `too-many-deletions`), unless forced. `quick` goes by marks.
    """
    with deferred(publisher.engine):
        publisher.drain(now, overwrite=apply)
    found, writer = _Found(), publisher.client.identity() if quick else None
    for keys in publisher.record.all_keys(publisher.engine, PAGE):
        suspects = list(_suspects(publisher, keys, now, writer if quick else None))
        _mend(publisher, suspects, found, now, apply=apply)
        if publisher.fills is not None and found.wrong[Add] > publisher.fills:
            return found.report(empty=True)
    for page in publisher.client.walk(publisher.record.suffix, PAGE, NAMES_ONLY):
        _mend(publisher, _strangers(publisher, page, found), found, now, apply=apply)
        progress(found.compared)
    if apply and found.extras:
        brake(found.wrong[Delete], found.compared, force=force)
        found.repaired += _delete(publisher, list(found.extras.items()), now)
    if apply:
        with deferred(publisher.engine):
            publisher.note_form()
    return found.report()


def _suspects(
    publisher: Publisher, keys: Sequence[Key], now: datetime, writer: str | None
) -> Iterator[Suspect]:
    """Those of these keys whose entry is not as the record wants it; by marks when `writer` is given."""
    wanted = _wanted(publisher, keys, now)
    dns = [target.dn for target in wanted.targets]
    entries = publisher.client.found(dns) if writer is None else publisher.client.found(dns, MARKS)
    for target in wanted.targets:
        entry = entries.get(split(target.dn))
        if writer is None:
            agrees = plan(target.entry, entry, wanted.version, overwrite=True) is None
        else:
            agrees = _fits(target.entry, entry, wanted.version, writer)
        if not agrees:
            yield target.dn, target.key


def _fits(wanted: Entry | None, found: Entry | None, version: int, writer: str) -> bool:
    if wanted is None or found is None:
        return wanted is found
    return in_step(wanted, found, version, writer)


def _strangers(publisher: Publisher, page: Sequence[Entry], found: _Found) -> list[Suspect]:
    """The names of this page that no key of the record stands for."""
    suffix = publisher.record.suffix
    base = {entry.name for entry in base_entries(suffix)}
    keys = {entry.dn: key_of(entry.name, suffix) for entry in page if entry.name not in base}
    found.compared += len(keys)
    with transaction(publisher.engine, read_only=True) as connection:
        known = may_stand(connection, [key for key in keys.values() if key is not None])
        if any(key is not None and key[0] in (Entity.AUTHORITY, Entity.CRL) for key in keys.values()):
            known.update(publisher.record.pki_keys(connection))
    return [(dn, key) for dn, key in keys.items() if key not in known and dn not in found.extras]


def _mend(
    publisher: Publisher, suspects: Sequence[Suspect], found: _Found, now: datetime, *, apply: bool
) -> None:
    """Count what is wrong indeed; with `apply` put right what is missing or different, at once."""
    for start in range(0, len(suspects), PAGE):
        for suspect, operation, wanted in _look_again(
            publisher, suspects[start : start + PAGE], now, apply=apply
        ):
            found.note(suspect, operation)
            if apply and not isinstance(operation, Delete):
                found.repaired += publisher.bring_in_step(wanted, overwrite=True).written


def _look_again(
    publisher: Publisher, suspects: Sequence[Suspect], now: datetime, *, apply: bool
) -> Iterator[tuple[Suspect, Operation, DesiredEntries]]:
    """What is wrong even with the publisher held and up to date: the operation that mends it, its target."""
    with deferred(publisher.engine):
        publisher.drain(now, overwrite=apply)
        wanted = _wanted(publisher, [key for _, key in suspects if key is not None], now)
        targets = {target.key: target for target in wanted.targets}
        stands = publisher.client.found([dn for dn, key in suspects if key is not None])
        for dn, key in suspects:
            target = Target(key, dn, None) if key is None else targets[key]
            entry = publisher.client.read(dn) if key is None else stands.get(split(dn))
            operation = plan(target.entry, entry, wanted.version, overwrite=True)
            if operation is not None:
                yield (dn, key), operation, DesiredEntries((target,), wanted.version)


def _delete(publisher: Publisher, extras: Sequence[Suspect], now: datetime) -> int:
    """Delete what is still extra, children before their parents; gives how many."""
    deleted = 0
    deepest_first = sorted(extras, key=lambda suspect: -len(split(suspect[0])))
    for start in range(0, len(deepest_first), PAGE):
        page = deepest_first[start : start + PAGE]
        for _, operation, _ in _look_again(publisher, page, now, apply=True):
            if isinstance(operation, Delete):
                deleted += publisher.client.apply(operation)
    return deleted


def _wanted(publisher: Publisher, keys: Sequence[Key], now: datetime) -> DesiredEntries:
    with transaction(publisher.engine, read_only=True) as connection:
        return publisher.record.wanted(connection, keys, now)
