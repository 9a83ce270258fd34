"""The tamper-evident log: numbers the lines that acts queued, signs the log's head, and finds any rewrite.

Acts never wait for it (`directory/base/audit.py` queues their lines). The tree is `pki/tlog/merkle.py`, the
head's form and key `pki/tlog/checkpoint.py`. An outsider checks us against one old checkpoint: so checkpoints
leave here.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection, Engine

from directory.base.audit import Actor, Event
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.base.locks import lock_until_commit
from pki.tlog import store
from pki.tlog.checkpoint import (
    ORIGIN,
    AuditKey,
    append_checkpoint_file,
    ensure_key,
    last_note,
    open_note,
    size_said,
)
from pki.tlog.merkle import Frontier, append, leaf_hash, root_of
from pki.tlog.store import Checkpoint, Line, size

__all__ = [
    "AuditKey",
    "begin_anew",
    "ensure_key",
    "line_bytes",
    "publish_heads",
    "sequence",
    "size",
]

PORTION = 5000


def line_bytes(index: int, line: Line) -> bytes:
    """What is hashed: JSON in UTF-8, keys sorted, no spaces, the instant in UTC to the microsecond.

    The standard library's JSON, so that an auditor can do the same in five lines of any Python.
    """
    content = {
        "actor": line.actor,
        "at": line.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "detail": line.detail,
        "event": line.event,
        "index": index,
        "subject": line.subject,
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sequence(
    connection: Connection, key: AuditKey, *, now: datetime, checkpoint_file: Path | None = None
) -> int:
    """Number every line that waits, without gaps, and sign the new head; gives how many lines that were.

    Refuses `log-inconsistent`, and signs nothing, when the log differs from its last checkpoint, or from the
    last one in `checkpoint_file`. A log that signs two histories is worth nothing (C2SP tlog-checkpoint).
    """
    # 1. One sequencer at a time.
    lock_until_commit(connection, "audit-sequencer")
    # 2. Go on only from what was signed.
    last = store.last_checkpoint(connection)
    epoch = store.epochs(connection)[-1]
    _need_consistent(connection, last, key.public_key(), epoch.origin)
    note = last_note(checkpoint_file) if checkpoint_file else None
    if note and not store.knows_note(connection, size_said(note), note):
        raise _inconsistent("a published checkpoint is not in the record")
    # 3. Number, hash, append.
    length, frontier = last.size, last.frontier
    while waiting := store.waiting(connection, PORTION):
        if any(line.event == Event.RECORD_ACCEPTED.value for _, line in waiting):
            raise _inconsistent("a line waits that only `sceau restore accept` may write")
        numbered = [line for _, line in waiting]
        frontier = _number(connection, length, frontier, numbered)
        store.forget_waiting(connection, [queue_id for queue_id, _ in waiting])
        length += len(numbered)
    # 4. Sign.
    if length > last.size:
        _sign(connection, key, length, frontier, now=now, origin=epoch.origin)
    return length - last.size


def begin_anew(
    connection: Connection,
    key: AuditKey,
    *,
    now: datetime,
    actor: Actor,
    reason: str,
    checkpoint_file: Path,
    detail: Mapping[str, Any],
) -> str:
    """Go on under a new origin, where lines that a kept head covers are lost; gives the origin.

    The lines that are left stay where they are, and so do the heads over them. The first new line names the
    last head kept of the log that ends: no head of that origin is ever signed again. Refuses
    `log-inconsistent` when what is left is not what was signed.
    """
    lock_until_commit(connection, "audit-sequencer")
    last = store.last_checkpoint(connection)
    _need_consistent(connection, last, key.public_key(), store.epochs(connection)[-1].origin)
    note = last_note(checkpoint_file)
    lost = note if note and not store.knows_note(connection, size_said(note), note) else ""
    origin = f"{ORIGIN}/{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    told = {"origin": origin, "lost_head": lost, "lines": last.size, "reason": reason, **detail}
    line = Line(now, actor.name, Event.RECORD_ACCEPTED.value, store.RECORD, told)
    frontier = _number(connection, last.size, last.frontier, [line])
    _sign(connection, key, last.size + 1, frontier, now=now, origin=origin)
    return origin


def publish_heads(engine: Engine, checkpoint_file: Path) -> int:
    """Bring `checkpoint_file` up to date with the signed heads of the record; gives how many it lacked."""
    note = last_note(checkpoint_file)
    with transaction(engine, read_only=True) as connection:
        after = _after(connection, note) if note else 0
        missing = [head.note for head in store.checkpoints(connection, after=after)]
    if missing:
        append_checkpoint_file(checkpoint_file, missing)
    return len(missing)


def _after(connection: Connection, note: str) -> int:
    """The size of the last head in the record that is as old as this one."""
    begun = [epoch.begins for epoch in store.epochs(connection) if epoch.lost_head == note]
    return begun[-1] if begun else size_said(note)


def _number(connection: Connection, length: int, frontier: Frontier, lines: Sequence[Line]) -> Frontier:
    """Store these lines from index `length` on; gives the frontier after them."""
    hashed = [
        replace(line, leaf_hash=leaf_hash(line_bytes(index, line)))
        for index, line in enumerate(lines, length)
    ]
    store.store_lines(connection, length, hashed)
    for index, line in enumerate(hashed, length):
        frontier = append(frontier, index, line.leaf_hash)
    return frontier


def _sign(
    connection: Connection, key: AuditKey, length: int, frontier: Frontier, *, now: datetime, origin: str
) -> None:
    head = key.sign(length, root_of(frontier), origin)
    store.store_checkpoint(connection, Checkpoint(head.size, head.root, frontier, head.note), now)


def _need_consistent(
    connection: Connection, last: Checkpoint, public_key: Ed25519PublicKey, origin: str
) -> None:
    if store.size(connection) != last.size:
        raise _inconsistent("the number of lines is not the one that was signed")
    if last.size:
        _need_signed(last, public_key, origin)


def _need_signed(last: Checkpoint, public_key: Ed25519PublicKey, origin: str) -> None:
    try:
        head = open_note(last.note, public_key)
    except Refusal as refusal:
        raise _inconsistent(refusal.text) from refusal
    if (head.size, head.root) != (last.size, last.root) or root_of(last.frontier) != head.root:
        raise _inconsistent("the stored checkpoint is not the one that was signed")
    if head.origin != origin:
        raise _inconsistent("the stored checkpoint is not of the log that goes on")


def _inconsistent(why: str) -> Refusal:
    text = f"The audit log does not agree with what was signed: {why}. Run `sceau audit verify`."
    return Refusal(Kind.CONFLICT, "log-inconsistent", text)
