"""From what should stand in LDAP and what does, the one operation that makes them agree, or none.

Pure, and idempotent: once applied, the next plan for the same entry is empty. Values are compared as bytes
and taken away one by one, so that a revocation removes exactly its certificate.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from directory.base.errors import Kind, Refusal
from directory.feed.changes import START, Cursor
from directory.ldap.entry import Attributes, Entry, digest

# What entries say and how they are indexed: a tree of another form is made anew. A number that only rises.
FORM = "2"
VERSION, DIGEST, PLACE = "sceauVersion", "sceauDigest", "sceauPlace"
# What belongs to the act of writing, not to what the record says.
OF_WRITING = (VERSION, DIGEST, PLACE)
# Kept by the server: who wrote last.
MODIFIER = "modifiersName"
# A nightly comparison that would delete more than this looks at a broken source, not at the truth.
DELETIONS_ALWAYS_ALLOWED = 20
DELETIONS_ALLOWED_SHARE = 0.05


@dataclass(frozen=True)
class Add:
    """Write an entry that is not there."""

    dn: str
    attributes: Attributes


@dataclass(frozen=True)
class Delete:
    """Take an entry away, unless it was written from a later state of the record than `version`.

    None takes it away whatever it was written from.
    """

    dn: str
    version: int | None = None


@dataclass(frozen=True)
class Modify:
    """Per attribute the values to remove and the values to add; all of it happens or nothing does."""

    dn: str
    changes: Mapping[str, tuple[tuple[bytes, ...], tuple[bytes, ...]]]


Operation = Add | Delete | Modify


def plan(
    wanted: Entry | None, found: Entry | None, version: int, *, overwrite: bool = False
) -> Operation | None:
    """The operation that turns `found` into `wanted`; None when they agree.

    `version` is the state of the record `wanted` was read from. A modification names the version it expects
    to find, a deletion the last one it may meet. So the server refuses them when somebody wrote in between.
    An entry from a later state than `version` stands for ever unless `overwrite` says that the record itself
    went back. Then a digest that does not fit is put right too.
    """
    if wanted is None:
        return None if found is None else Delete(found.dn, None if overwrite else version)
    mark = (digest(wanted.attributes),)
    if found is None:
        return Add(wanted.dn, {**wanted.attributes, VERSION: (_written(version),), DIGEST: mark})
    changes = _changes(wanted.attributes, found.attributes)
    marked = _of(found, DIGEST)
    if not changes and not (overwrite and (version_of(found) > version or marked != mark)):
        return None
    if marked != mark:
        changes[DIGEST] = (marked, mark)
    return Modify(found.dn, {VERSION: (_of(found, VERSION), (_written(version),)), **changes})


def base_plan(wanted: Entry, found: Entry | None) -> Operation | None:
    """The same for a base entry, which carries no version; what others added to it stays."""
    if found is None:
        return Add(wanted.dn, wanted.attributes)
    changes = {}
    for name, values in wanted.attributes.items():
        held = set(_of(found, name))
        # The registers change; of what names and classes the entry, others may have more.
        gone = held - set(values) if name == "sceauRegister" else set[bytes]()
        if gone or not held >= set(values):
            changes[name] = (tuple(sorted(gone)), tuple(sorted(set(values) - held)))
    return Modify(found.dn, changes) if changes else None


def place_plan(entry: Entry, place: Cursor, form: str) -> Modify | None:
    """Note in the topmost entry how far the tree has followed the feed, and in which form all of it is.

    None when it says so already.
    """
    written = f"{place.xid}/{place.id}/{form}" if form else f"{place.xid}/{place.id}"
    before, after = _of(entry, PLACE), (written.encode(),)
    return None if before == after else Modify(entry.dn, {PLACE: (before, after)})


def place_of(entry: Entry) -> Cursor | None:
    """How far the tree has followed the feed, as its topmost entry says; None when it does not."""
    for value in _of(entry, PLACE):
        xid, _, rest = value.decode().partition("/")
        number = rest.partition("/")[0]
        return Cursor(int(xid), int(number)) if number.isdecimal() and xid.isdecimal() else START
    return None


def form_of(entry: Entry) -> str:
    """The form that all entries of the tree have, as the topmost says; '' before there were such."""
    for value in _of(entry, PLACE):
        return value.decode().partition("/")[2].partition("/")[2]
    return ""


def in_step(wanted: Entry, found: Entry, version: int, writer: str) -> bool:
    """Whether `found` is as `wanted` by its marks alone: digest, version, and the publisher wrote last.

    `found` needs only those; `writer` is the publisher's name as the server notes it.
    """
    last = b"".join(_of(found, MODIFIER)).decode(errors="replace")
    return (
        _of(found, DIGEST) == (digest(wanted.attributes),)
        and version_of(found) <= version
        and last.lower() == writer.lower()
    )


def version_of(entry: Entry) -> int:
    """The state of the record the entry was written from; 0 when it carries none."""
    values = _of(entry, VERSION)
    return int(values[0]) if values else 0


def brake(deletions: int, entries: int, *, force: bool) -> None:
    """Refuse to delete a large share of the tree unless a person insists."""
    allowed = max(DELETIONS_ALWAYS_ALLOWED, int(entries * DELETIONS_ALLOWED_SHARE))
    if deletions > allowed and not force:
        text = (
            f"{deletions} of {entries} entries would be deleted; without a person {allowed} may be."
            " Look at the registers first; `--force` deletes them."
        )
        raise Refusal(Kind.CONFLICT, "too-many-deletions", text, deletions=deletions, entries=entries)


def _changes(wanted: Attributes, found: Attributes) -> dict[str, tuple[tuple[bytes, ...], tuple[bytes, ...]]]:
    """Attribute names are compared without case, as LDAP does."""
    names = {name.lower(): name for name in (*found, *wanted)} | {name.lower(): name for name in wanted}
    for name in OF_WRITING:
        names.pop(name.lower(), None)
    wants, finds = _lowered(wanted), _lowered(found)
    changes = {}
    for lowered, name in sorted(names.items()):
        want, find = wants.get(lowered, ()), finds.get(lowered, ())
        gone, new = set(find) - set(want), set(want) - set(find)
        if gone or new:
            changes[name] = (tuple(sorted(gone)), tuple(sorted(new)))
    return changes


def _of(entry: Entry, attribute: str) -> tuple[bytes, ...]:
    return _lowered(entry.attributes).get(attribute.lower(), ())


def _lowered(attributes: Attributes) -> dict[str, tuple[bytes, ...]]:
    return {name.lower(): tuple(values) for name, values in attributes.items()}


def _written(version: int) -> bytes:
    return str(version).encode()
