"""The whole log checked: what is inconsistent, and what it says itself that it has lost."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection

from directory.base.errors import Refusal
from pki.tlog import store
from pki.tlog.checkpoint import Head, open_note, read_notes, size_said
from pki.tlog.merkle import Frontier, append, leaf_hash, root_of
from pki.tlog.sequencer import line_bytes
from pki.tlog.store import Checkpoint, Epoch


@dataclass(frozen=True)
class Verified:
    """Everything wrong with the log, a sentence each, and what it says itself that it has lost."""

    findings: list[str]
    losses: list[str]


def verify(connection: Connection, public_key: Ed25519PublicKey, checkpoint_file: Path | None) -> list[str]:
    """Everything wrong with the log, a sentence each; [] when it is what was signed and tells every act."""
    return examine(connection, public_key, checkpoint_file).findings


def examine(connection: Connection, public_key: Ed25519PublicKey, checkpoint_file: Path | None) -> Verified:
    """As `verify`, with what was lost by restores and declared so.

    Recomputes every line. Call it first in a `read_only` transaction. The file must be read before the
    snapshot is taken, or a checkpoint published meanwhile would seem to be missing from the record.
    """
    notes, unreadable = ([], "") if checkpoint_file is None else read_notes(checkpoint_file)
    checkpoints, epochs = store.checkpoints(connection), store.epochs(connection)
    faults: list[str] = []
    if unreadable.strip():
        faults.append("the file of checkpoints holds something that is not a checkpoint")
    kept = list(_open(_without_lost(notes, epochs), public_key, "in the file", faults))
    stored = list(_open([checkpoint.note for checkpoint in checkpoints], public_key, "in the record", faults))
    walk = _walk(connection, {head.size for head in (*kept, *stored)})
    faults += walk.found
    faults += _against_checkpoints(walk, checkpoints, epochs)
    faults += _against_heads(walk, stored, "in the record")
    faults += _against_heads(walk, kept, "in the file")
    faults += _missing_heads(kept, stored)
    faults += (
        f"the checkpoint of {head.size} lines in the file is of a log that the record does not know"
        for head in kept
        if not _fits(head.note, epochs)
    )
    faults += (
        f"{kind} {subject}: {done} in the record, {told} in the log"
        for kind, subject, done, told in store.unequal_acts(connection)
    )
    faults += (
        f"certificate {serial}: its bytes are not those the log tells of"
        for serial in store.exchanged_certificates(connection)
    )
    return Verified(faults, [_loss(epoch) for epoch in epochs[1:]])


def _without_lost(notes: Sequence[str], epochs: Sequence[Epoch]) -> list[str]:
    """The heads of the file but those over lines that an epoch says are lost.

    The file is in the order of signing: what stands before the last lost head may be beyond what is left of
    its log. What stands after it must be of the log as it is.
    """
    lost = [epoch.lost_head for epoch in epochs[1:] if epoch.lost_head]
    cut = max((place for place, note in enumerate(notes, 1) if note in lost), default=0)
    return [note for place, note in enumerate(notes) if place >= cut or _fits(note, epochs)]


def _origin_at(length: int, epochs: Sequence[Epoch]) -> str:
    """Under which origin a head of so many lines is signed."""
    return [epoch.origin for epoch in epochs if epoch.begins < length or not epoch.begins][-1]


def _fits(note: str, epochs: Sequence[Epoch]) -> bool:
    """Whether a head of so many lines is signed under this origin here."""
    return note.startswith(f"{_origin_at(size_said(note), epochs)}\n")


def _loss(epoch: Epoch) -> str:
    line = epoch.line
    if line is None:
        raise TypeError("only the first epoch begins without a line")
    known = f"{size_said(epoch.lost_head)} lines" if epoch.lost_head else "an unknown number of lines"
    return (
        f"a log of {known} was cut to {epoch.begins} by a restored backup, declared by {line.actor} at"
        f" {line.at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}: {line.detail['reason']}"
    )


@dataclass
class _Walk:
    """The log as it stands: its length, its frontier at each length asked for, what is wrong with it."""

    length: int = 0
    frontiers: dict[int, Frontier] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)


def _walk(connection: Connection, sizes: set[int]) -> _Walk:
    """Recompute every line; the tree is made of stored hashes, so that one changed line is one finding."""
    walk, frontier, expected = _Walk(), Frontier(), 0
    for index, line in store.numbered(connection):
        if index != expected:
            walk.found.append(f"lines {expected} to {index - 1} are missing")
        expected = index + 1
        if leaf_hash(line_bytes(index, line)) != line.leaf_hash:
            walk.found.append(f"line {index} was changed")
        frontier = append(frontier, walk.length, line.leaf_hash)
        walk.length += 1
        if walk.length in sizes:
            walk.frontiers[walk.length] = frontier
    return walk


def _open(
    notes: Sequence[str], public_key: Ed25519PublicKey, where: str, faults: list[str]
) -> Iterator[Head]:
    for note in notes:
        try:
            yield open_note(note, public_key)
        except Refusal as refusal:
            faults.append(f"a checkpoint {where} is not ours: {refusal.text}")


def _against_checkpoints(
    walk: _Walk, checkpoints: Sequence[Checkpoint], epochs: Sequence[Epoch]
) -> Iterator[str]:
    """The columns beside a signed note must say what it says."""
    for checkpoint in checkpoints:
        said = f"{_origin_at(checkpoint.size, epochs)}\n{checkpoint.size}\n"
        frontier = walk.frontiers.get(checkpoint.size)
        if not checkpoint.note.startswith(said) or (
            frontier is not None and (checkpoint.root, checkpoint.frontier) != (root_of(frontier), frontier)
        ):
            yield f"the stored checkpoint of {checkpoint.size} lines does not agree with the log"
    last = checkpoints[-1].size if checkpoints else 0
    if walk.length > last:
        yield f"lines {last} to {walk.length - 1} were added: no checkpoint covers them"


def _against_heads(walk: _Walk, heads: Sequence[Head], where: str) -> Iterator[str]:
    """The first head that the log does not lead to (later ones follow), and the last beyond its end."""
    agreed = 0
    for head in sorted(heads, key=lambda head: head.size):
        if head.size > walk.length:
            break
        if root_of(walk.frontiers[head.size]) != head.root:
            yield f"lines {agreed} to {head.size - 1} are not those of the checkpoint {where} of {head.size}"
            break
        agreed = head.size
    longest = max((head.size for head in heads), default=0)
    if longest > walk.length:
        yield f"{longest - walk.length} lines were removed: a checkpoint {where} was signed over {longest}"


def _missing_heads(kept: Sequence[Head], stored: Sequence[Head]) -> Iterator[str]:
    held: Mapping[int, bytes] = {head.size: head.root for head in stored}
    for head in kept:
        if held.get(head.size) != head.root:
            yield f"the checkpoint of {head.size} lines in the file is not in the record"
