"""Rows of the audit log: lines that wait, numbered lines, signed heads, and the acts the lines tell of."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, Row, delete, func, insert, select, text

from directory.base.audit import Event
from directory.tables import audit_checkpoint, audit_entry, audit_pending
from pki.tlog.checkpoint import ORIGIN
from pki.tlog.merkle import Frontier

# One statement, however many there are.
_STORE_LINES = text("""
    INSERT INTO audit_entry (index, at, actor, event, subject, detail, leaf_hash)
    SELECT :first + place - 1, at, actor, event, subject, CAST(detail AS jsonb), leaf_hash
    FROM unnest(CAST(:ats AS timestamptz[]), CAST(:actors AS text[]), CAST(:events AS text[]),
                CAST(:subjects AS text[]), CAST(:details AS text[]), CAST(:hashes AS bytea[]))
         WITH ORDINALITY AS line (at, actor, event, subject, detail, leaf_hash, place)
    ORDER BY place
""")


@dataclass(frozen=True)
class Line:
    """One line: who did what to whom, when (`leaf_hash` as stored; b'' while it waits to be numbered)."""

    at: datetime
    actor: str
    event: str
    subject: str
    detail: Mapping[str, Any]
    leaf_hash: bytes = b""


@dataclass(frozen=True)
class Checkpoint:
    """A signed head as stored, with the frontier to go on from."""

    size: int
    root: bytes
    frontier: Frontier
    note: str


START = Checkpoint(0, b"", (), "")


@dataclass(frozen=True)
class Epoch:
    """A part of the log under an origin of its own, from line `begins` on, which says why it is one.

    `lost_head` is the last head known of the log that it follows and cannot continue; '' when none was kept.
    """

    origin: str
    begins: int
    lost_head: str
    line: Line | None = None


RECORD = "record"
# Found by the index on subjects. Nothing but `sequencer.begin_anew` numbers such a line.
_EPOCHS = text("""
    SELECT index, at, actor, event, subject, detail, leaf_hash FROM audit_entry
    WHERE subject = :subject AND event = :event ORDER BY index
""")
_KNOWS = text("""
    SELECT EXISTS (SELECT FROM audit_checkpoint WHERE size = :size AND note = :note) OR EXISTS (
        SELECT FROM audit_entry
        WHERE subject = :subject AND event = :event AND detail ->> 'lost_head' = :note)
""")


@dataclass(frozen=True)
class Act:
    """What counts as an act: the rows that hold it, a subject each, and the event that tells of each once.

    `undone_by` is the event of an act that takes such a row away again.
    """

    event: Event
    rows: str
    undone_by: Event | None = None


ACTS: Mapping[str, Act] = {
    "certificate": Act(Event.CERTIFICATE_ISSUED, "SELECT serial FROM certificate"),
    "revocation of": Act(
        Event.CERTIFICATE_REVOKED,
        "SELECT serial FROM revocation WHERE action = 'revoke' AND restates IS NULL",
    ),
    "corrected reason of": Act(
        Event.REVOCATION_RESTATED,
        "SELECT serial FROM revocation WHERE restates IS NOT NULL",
    ),
    "hold on": Act(Event.CERTIFICATE_HELD, "SELECT serial FROM revocation WHERE action = 'hold'"),
    "release of": Act(Event.CERTIFICATE_RELEASED, "SELECT serial FROM revocation WHERE action = 'release'"),
    "approved enrolment": Act(
        Event.ENROLMENT_APPROVED,
        "SELECT CAST(id AS text) FROM enrolment WHERE approved_at IS NOT NULL",
    ),
    # An annulled strike-off gives enrolments back: their rows say so no longer, the log says both.
    "ended enrolment": Act(
        Event.ENROLMENT_ENDED,
        "SELECT CAST(id AS text) FROM enrolment WHERE ended_at IS NOT NULL",
        undone_by=Event.ENROLMENT_RESTORED,
    ),
}
UNEQUAL = """SELECT subject, coalesce(done.n, 0), coalesce(told.n, 0)
FROM (SELECT subject, count(*) AS n FROM ({acts}) AS act (subject) GROUP BY subject) AS done
FULL JOIN (SELECT subject, sum(CASE event WHEN :event THEN 1 ELSE -1 END) AS n FROM (
    SELECT subject, event FROM audit_entry WHERE event IN (:event, :undone_by)
    UNION ALL SELECT subject, event FROM audit_pending WHERE event IN (:event, :undone_by)) AS line
    GROUP BY subject) AS told
USING (subject) WHERE coalesce(done.n, 0) <> coalesce(told.n, 0) ORDER BY subject"""
# The line of an issuance names the certificate's hash; the bytes kept must still be those.
EXCHANGED = """SELECT c.serial FROM certificate c JOIN (
    SELECT subject, detail FROM audit_entry WHERE event = :event
    UNION ALL SELECT subject, detail FROM audit_pending WHERE event = :event) AS line
ON line.subject = c.serial WHERE line.detail ->> 'sha256' <> encode(sha256(c.der), 'hex') ORDER BY c.serial"""
_UNEQUAL = {name: (act, text(UNEQUAL.format(acts=act.rows))) for name, act in ACTS.items()}


def waiting(connection: Connection, limit: int) -> list[tuple[int, Line]]:
    """Lines that wait for a number, in the order they were queued, with their queue ids."""
    rows = connection.execute(select(audit_pending).order_by(audit_pending.c.id).limit(limit))
    return [(row.id, Line(row.at, row.actor, row.event, row.subject, row.detail)) for row in rows]


def store_lines(connection: Connection, first: int, lines: Sequence[Line]) -> None:
    """Number these lines from `first` on."""
    rows = {
        "first": first,
        "ats": [line.at for line in lines],
        "actors": [line.actor for line in lines],
        "events": [line.event for line in lines],
        "subjects": [line.subject for line in lines],
        "details": [orjson.dumps(line.detail).decode() for line in lines],
        "hashes": [line.leaf_hash for line in lines],
    }
    connection.execute(_STORE_LINES, rows)


def forget_waiting(connection: Connection, queue_ids: Sequence[int]) -> None:
    """Take lines that have a number out of the queue."""
    connection.execute(delete(audit_pending).where(audit_pending.c.id == func.any(list(queue_ids))))


def numbered(connection: Connection) -> Iterator[tuple[int, Line]]:
    """Every numbered line in order, read in portions: the log may be longer than memory."""
    rows = connection.execution_options(yield_per=5000).execute(
        select(audit_entry).order_by(audit_entry.c.index)
    )
    for index, *columns in rows:
        yield index, Line(*columns)


def size(connection: Connection) -> int:
    """How many lines have a number."""
    counted: int = connection.execute(
        select(func.coalesce(func.max(audit_entry.c.index) + 1, 0))
    ).scalar_one()
    return counted


def checkpoints(connection: Connection, after: int = 0) -> list[Checkpoint]:
    """Signed heads of more than `after` lines, shortest first."""
    chosen = select(audit_checkpoint).where(audit_checkpoint.c.size > after)
    return [_checkpoint(row) for row in connection.execute(chosen.order_by(audit_checkpoint.c.size))]


def last_checkpoint(connection: Connection) -> Checkpoint:
    """The longest signed head; START when the log has none."""
    row = connection.execute(
        select(audit_checkpoint).order_by(audit_checkpoint.c.size.desc()).limit(1)
    ).one_or_none()
    return START if row is None else _checkpoint(row)


def knows_note(connection: Connection, length: int, note: str) -> bool:
    """Whether this is the signed head of `length` lines, or one that an epoch says is lost."""
    asked = {"size": length, "note": note, "subject": RECORD, "event": Event.RECORD_ACCEPTED.value}
    return bool(connection.execute(_KNOWS, asked).scalar_one())


def epochs(connection: Connection) -> list[Epoch]:
    """The log's epochs in order; the first has no line that begins it."""
    asked = {"subject": RECORD, "event": Event.RECORD_ACCEPTED.value}
    later = [
        Epoch(line.detail["origin"], index, line.detail["lost_head"], line)
        for index, *columns in connection.execute(_EPOCHS, asked)
        for line in (Line(*columns),)
    ]
    return [Epoch(ORIGIN, 0, ""), *later]


def store_checkpoint(connection: Connection, made: Checkpoint, now: datetime) -> None:
    """Keep a signed head."""
    row = {**vars(made), "frontier": list(made.frontier), "signed_at": now}
    connection.execute(insert(audit_checkpoint).values(row))


def unequal_acts(connection: Connection) -> Iterator[tuple[str, str, int, int]]:
    """Acts the log tells of more or fewer times than the record holds them: kind, subject, done, told."""
    for kind, (act, query) in _UNEQUAL.items():
        asked = {"event": act.event.value, "undone_by": (act.undone_by or act.event).value}
        for subject, done, told in connection.execute(query, asked):
            yield kind, subject, done, told


def exchanged_certificates(connection: Connection) -> list[str]:
    """Serials of certificates whose bytes are not those the log told of when they were issued."""
    return list(connection.execute(text(EXCHANGED), {"event": Event.CERTIFICATE_ISSUED.value}).scalars())


def _checkpoint(row: Row[Any]) -> Checkpoint:
    return Checkpoint(row.size, row.root, tuple(row.frontier), row.note)
