"""From what should stand in LDAP and what does, the one operation that makes them agree, or none.

Pure, and idempotent: once applied, the next plan for the same entry is empty. Values are compared as bytes
and taken away one by one, so that a revocation removes exactly its certificate.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from directory.base.errors import Kind, Refusal
from directory.ldap.entry import Attributes, Entry

VERSION = "sceauVersion"
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
    """Take an entry away."""

    dn: str


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
    to find, so that the server refuses it when somebody wrote in between. An entry from a later state than
    `version` stands for ever unless `overwrite` says that the record itself went back.
    """
    if wanted is None:
        return None if found is None else Delete(found.dn)
    if found is None:
        return Add(wanted.dn, {**wanted.attributes, VERSION: (_written(version),)})
    changes = _changes(wanted.attributes, found.attributes)
    if not changes and not (overwrite and version_of(found) > version):
        return None
    before = _lowered(found.attributes).get(VERSION.lower(), ())
    return Modify(found.dn, {VERSION: (before, (_written(version),)), **changes})


def base_plan(wanted: Entry, found: Entry | None) -> Operation | None:
    """The same for a base entry, which carries no version and is never changed once it stands."""
    return Add(wanted.dn, wanted.attributes) if found is None else None


def version_of(found: Entry) -> int:
    """The state of the record the entry was written from; 0 when it carries none."""
    values = _lowered(found.attributes).get(VERSION.lower(), ())
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
    names.pop(VERSION.lower(), None)
    wants, finds = _lowered(wanted), _lowered(found)
    changes = {}
    for lowered, name in sorted(names.items()):
        want, find = wants.get(lowered, ()), finds.get(lowered, ())
        gone, new = set(find) - set(want), set(want) - set(find)
        if gone or new:
            changes[name] = (tuple(sorted(gone)), tuple(sorted(new)))
    return changes


def _lowered(attributes: Attributes) -> dict[str, tuple[bytes, ...]]:
    return {name.lower(): tuple(values) for name, values in attributes.items()}


def _written(version: int) -> bytes:
    return str(version).encode()
