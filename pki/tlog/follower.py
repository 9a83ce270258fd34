"""The log followed from where one stopped: a reader of one kind of lines, who notices any rewrite of all.

He keeps how far he came and the frontier over it. So the whole log is read once, and later what is new. He
trusts neither rows nor signatures for what he has followed: a log that was told anew, with its own key too,
has another root. The heads that others hold are compared by `verifier.py` and outside.
"""

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection, String, bindparam, text

from directory.base.audit import Event
from directory.base.errors import Kind, Refusal
from pki.tlog.checkpoint import ORIGIN, open_note
from pki.tlog.merkle import EMPTY_ROOT, Frontier, append, leaf_hash, root_of
from pki.tlog.sequencer import PORTION, line_bytes
from pki.tlog.store import RECORD, Line

# One statement, so one snapshot: a line waits, or has a number below the head's size, and is never missed.
# The event is written out, or the index of such lines (migration 0049) could not serve.
_LOOK = text("""
    SELECT log.length, head.size, head.root, head.note, ours.root AS ours, waiting.told AS waiting
    FROM (SELECT coalesce(max(index) + 1, 0) AS length FROM audit_entry) AS log
    LEFT JOIN LATERAL (
        SELECT size, root, note FROM audit_checkpoint ORDER BY size DESC LIMIT 1) AS head ON true
    LEFT JOIN audit_checkpoint AS ours ON ours.size = :size
    LEFT JOIN LATERAL (
        SELECT CAST(json_agg(json_build_array(at, actor, subject, detail) ORDER BY id) AS text) AS told
        FROM audit_pending WHERE event = :event) AS waiting ON true
""").bindparams(bindparam("event", type_=String, literal_execute=True))
# As far as one portion goes, but to the end of a head, where alone there is a root to compare with.
_NEXT = text("""
    SELECT coalesce(max(size) FILTER (WHERE size <= :size + :portion), min(size)) FROM audit_checkpoint
    WHERE size > :size AND size <= :most
""")
_HEADS = text("SELECT size, root, note FROM audit_checkpoint WHERE size > :size AND size <= :most")
_LINES = text("""
    SELECT index, at, actor, event, subject, detail, leaf_hash FROM audit_entry
    WHERE index >= :size AND index < :most ORDER BY index
""")
_ABOUT = text("""
    SELECT index, at, actor, event, subject, detail, leaf_hash FROM audit_entry
    WHERE subject = :subject AND event = :event ORDER BY index
""")
_IS_HEAD = text("SELECT EXISTS (SELECT FROM audit_checkpoint WHERE size = :size AND root = :root)")


@dataclass(frozen=True)
class Position:
    """How far the log was followed: its length there, the frontier over it, whose heads it had."""

    size: int = 0
    frontier: Frontier = ()
    origin: str = ORIGIN

    @property
    def root(self) -> bytes:
        """The root of what was followed."""
        return root_of(self.frontier)


@dataclass(frozen=True)
class End:
    """Where the log ends now, and the lines of the kind followed that wait for a number, in their order."""

    size: int
    root: bytes
    note: str
    waiting: tuple[Line, ...]


def look(connection: Connection, position: Position, event: Event) -> End:
    """Where the log ends; refuses `log-rewritten` where what was followed does not stand there any more."""
    row = connection.execute(_LOOK, {"size": position.size, "event": event.value}).one()
    size = row.size or 0
    if size < position.size or (position.size and row.ours != position.root):
        rewritten(f"{position.size} lines were followed, and it no longer leads there", position)
    if row.length != size:
        rewritten(f"it has {row.length} lines, and {size} are signed", position)
    waiting = orjson.loads(row.waiting) if row.waiting else []
    lines = (
        Line(datetime.fromisoformat(at), actor, event.value, subject, detail)
        for at, actor, subject, detail in waiting
    )
    return End(size, row.root or EMPTY_ROOT, row.note or "", tuple(lines))


def follow(
    connection: Connection, position: Position, end: End, event: Event, key: Ed25519PublicKey | None = None
) -> Iterator[tuple[Position, Sequence[tuple[int, Line]]]]:
    """Portion by portion: how far one came, and the lines of this kind in it, with their numbers.

    A portion is handed on when all of it fits. Refuses `log-rewritten` where a line is not what was hashed,
    or a root not that of a head. With `key` the last head must be signed by it.
    """
    if key is not None and end.size > position.size:
        _need_signed(end, key, position)
    while position.size < end.size:
        asked = {"size": position.size, "most": end.size, "portion": PORTION}
        most = connection.execute(_NEXT, asked).scalar_one()
        if most is None:
            rewritten(f"no head covers line {position.size}", position)
        position, lines = _portion(connection, position, most, event)
        yield position, lines
    if position.root != end.root and end.size:
        rewritten(f"its last head, of {end.size} lines, has another root", position)


def _portion(
    connection: Connection, position: Position, most: int, event: Event
) -> tuple[Position, list[tuple[int, Line]]]:
    asked = {"size": position.size, "most": most}
    heads = {size: (root, note) for size, root, note in connection.execute(_HEADS, asked)}
    found: list[tuple[int, Line]] = []
    with connection.execute(_LINES, asked, execution_options={"yield_per": PORTION}) as rows:
        for index, *columns in rows:
            line = Line(*columns)
            position = _with(position, index, line)
            if line.event == event.value:
                found.append((index, line))
            if position.size in heads:
                _need_head(position, *heads[position.size])
    if position.size != most:
        rewritten(f"lines {position.size} to {most - 1} are missing", position)
    return position, found


def _with(position: Position, index: int, line: Line) -> Position:
    """One line further."""
    if index != position.size:
        rewritten(f"line {position.size} is missing", position)
    # What stands in the row, not what is said to be its hash.
    leaf = leaf_hash(line_bytes(index, line))
    if leaf != line.leaf_hash:
        rewritten(f"line {index} was changed", position)
    frontier = append(position.frontier, index, leaf)
    if line.event == Event.RECORD_ACCEPTED.value and line.subject == RECORD:
        # A record restored and accepted goes on under another origin: nothing followed was lost, or `look`
        # had said so.
        return Position(index + 1, frontier, str(line.detail.get("origin")))
    return Position(index + 1, frontier, position.origin)


def _need_head(position: Position, root: bytes, note: str) -> None:
    written = f"{position.origin}\n{position.size}\n{b64encode(root).decode()}\n"
    if root != position.root or not note.startswith(written):
        rewritten(f"the head of {position.size} lines is not the head of these lines", position)


def _need_signed(end: End, key: Ed25519PublicKey, position: Position) -> None:
    try:
        head = open_note(end.note, key)
    except Refusal as refusal:
        rewritten(refusal.text.removesuffix("."), position)
    if (head.size, head.root) != (end.size, end.root):
        rewritten("its last head says something else than what is stored beside it", position)


def lines_about(connection: Connection, subject: str, event: Event) -> list[tuple[int, Line]]:
    """Every numbered line of this kind about this subject, whether or not it fits what was followed."""
    rows = connection.execute(_ABOUT, {"subject": subject, "event": event.value})
    return [(index, Line(*columns)) for index, *columns in rows]


def is_head(connection: Connection, size: int, root: bytes) -> bool:
    """Whether the log as it stands has had this head."""
    return bool(connection.execute(_IS_HEAD, {"size": size, "root": root}).scalar_one())


def rewritten(why: str, position: Position) -> NoReturn:
    """Refuse `log-rewritten`: the log is not the one that was followed so far."""
    text = f"The audit log is not the one that was followed: {why}. Run `sceau audit verify`."
    raise Refusal(Kind.UNAVAILABLE, "log-rewritten", text, followed=position.size, root=position.root.hex())
