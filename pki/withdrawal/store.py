"""The rows behind withdrawals: enrolments touched, successors, what falls due when, who answered. SQL only.

Locks come in the order of `pki/record`: enrolments here, then reservations there, each by key.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from directory.model import MailboxKind
from pki.impediments.causes import Bond, WithdrawalCause
from pki.model import Serial

# What the mailbox was when the enrolment was asked for: two registrars vouched for that establishment. Where
# the record does not reach back so far, what it is now.
_ENROLMENTS = text("""
    SELECT e.id, e.practitioner, e.mailbox, past.kind, past.establishment
    FROM enrolment e
    LEFT JOIN LATERAL (
        SELECT m.kind, CASE WHEN m.structure_type IN ('1', '3') THEN m.structure_id END AS establishment
        FROM mailbox_at(e.requested_at) m WHERE m.address = e.mailbox
        ORDER BY m.sys_from DESC LIMIT 1
    ) AS past ON true
    WHERE e.state <> 'ended' AND e.id IN (
        SELECT x.id FROM unnest(CAST(:people AS text[])) AS asked (id)
        JOIN enrolment x ON x.practitioner = asked.id
        UNION SELECT x.id FROM unnest(CAST(:mailboxes AS text[])) AS asked (address)
        JOIN enrolment x ON x.mailbox = asked.address AND x.state <> 'ended')
    ORDER BY e.id
""")
_LOCKED_ENROLMENTS = text(f"{_ENROLMENTS.text} FOR UPDATE OF e")
_DUE = text("SELECT serial, cause, due_at FROM withdrawal_due WHERE serial = ANY(:serials)")
_NOTE_DUE = text("""
    INSERT INTO withdrawal_due (serial, cause, due_at)
    SELECT * FROM unnest(CAST(:serials AS text[]), CAST(:causes AS text[]), CAST(:due AS timestamptz[]))
    ON CONFLICT DO NOTHING
""")
_FORGET_DUE = text("""
    DELETE FROM withdrawal_due d WHERE d.serial = ANY(:touched) AND NOT EXISTS (
        SELECT FROM unnest(CAST(:serials AS text[]), CAST(:causes AS text[])) AS kept (serial, cause)
        WHERE kept.serial = d.serial AND kept.cause = d.cause)
""")
_FALLEN_DUE = text("""
    SELECT d.serial FROM withdrawal_due d WHERE d.due_at <= :now
    AND NOT EXISTS (SELECT FROM operator_certificate o WHERE o.serial = d.serial)
    GROUP BY d.serial ORDER BY min(d.due_at) LIMIT :limit
""")
_PENDING = text("""
    SELECT d.serial, min(d.due_at) AS due_at, c.practitioner, c.mailbox,
           (array_agg(d.cause ORDER BY d.due_at, d.cause))[1] AS cause
    FROM withdrawal_due d JOIN certificate c USING (serial) WHERE d.serial = ANY(:serials)
    GROUP BY d.serial, c.practitioner, c.mailbox
""")
# Mailboxes of establishments that somebody answers for, or did once: of others it is no news that nobody
# does.
_ANSWERED = text("""
    SELECT e.mailbox, array_agg(DISTINCT e.authority) FROM enrolment e
    JOIN mailbox m ON m.address = e.mailbox AND m.kind IN ('ORG', 'APP')
    WHERE e.approved_at IS NOT NULL AND e.mailbox IN (
        SELECT x.mailbox FROM unnest(CAST(:people AS text[])) AS asked (id)
        JOIN enrolment x ON x.practitioner = asked.id
        UNION ALL SELECT unnest(CAST(:mailboxes AS text[])))
    GROUP BY e.mailbox
""")
_RETIRED = text("""
    SELECT s.national_id, array_agg(DISTINCT e.authority) FROM succession s
    JOIN practitioner p ON p.national_id = s.national_id AND p.departed_at IS NOT NULL
    JOIN enrolment e ON e.practitioner = s.national_id AND e.approved_at IS NOT NULL
    WHERE s.successor IS NULL AND s.national_id = ANY(:people) GROUP BY s.national_id
""")
_CLAIMED_TWICE = text("""
    SELECT r.detail AS address, min(r.line_number) AS line,
           array_agg(DISTINCT p.code) FILTER (WHERE p.code IS NOT NULL)
    FROM register_rejection r
    LEFT JOIN mailbox m ON m.address = r.detail
    LEFT JOIN profession p ON p.national_id = m.holder
    WHERE r.reason = 'address-claimed-twice' AND r.run_id = (
        SELECT id FROM register_run WHERE register = 'mailboxes' AND state = 'applied' AND NOT increment
        ORDER BY finished_at DESC, id DESC LIMIT 1)
    GROUP BY r.detail
""")


@dataclass(frozen=True)
class LiveEnrolment:
    """An enrolment that has not ended, as the bond it is."""

    id: UUID
    bond: Bond


@dataclass(frozen=True)
class PendingWithdrawal:
    """A certificate that will be revoked at `due_at` unless `cause` is gone by then."""

    serial: Serial
    due_at: datetime
    practitioner: str
    mailbox: str
    cause: str


def live_enrolments(
    connection: Connection, *, people: Collection[str], mailboxes: Collection[str], lock: bool
) -> list[LiveEnrolment]:
    """The enrolments not ended of these people or for these mailboxes; `lock` holds them till the commit."""
    query = _LOCKED_ENROLMENTS if lock else _ENROLMENTS
    rows = connection.execute(query, {"people": list(people), "mailboxes": list(mailboxes)})
    return [
        LiveEnrolment(row.id, Bond(row.practitioner, row.mailbox, row.establishment, _kind(row.kind)))
        for row in rows
    ]


def due(connection: Connection, serials: Collection[Serial]) -> dict[Serial, dict[WithdrawalCause, datetime]]:
    """When each cause noted against these certificates falls due."""
    by_serial: dict[Serial, dict[WithdrawalCause, datetime]] = {}
    for serial, cause, due_at in connection.execute(_DUE, {"serials": list(serials)}):
        by_serial.setdefault(Serial(serial), {})[WithdrawalCause(cause)] = due_at
    return by_serial


def keep_due(
    connection: Connection,
    touched: Collection[Serial],
    pending: Iterable[tuple[Serial, WithdrawalCause, datetime]],
) -> None:
    """See that of the `touched` exactly these are noted; what was noted before keeps its day."""
    kept = list(pending)
    columns: Mapping[str, Any] = {
        "serials": [serial for serial, _, _ in kept],
        "causes": [cause.value for _, cause, _ in kept],
    }
    connection.execute(_FORGET_DUE, {"touched": list(touched), **columns})
    if kept:
        connection.execute(_NOTE_DUE, {**columns, "due": [due_at for _, _, due_at in kept]})


def fallen_due(connection: Connection, now: datetime, limit: int) -> list[Serial]:
    """Certificates of which something noted has fallen due, the longest due first.

    Those of operators are looked at whole, and by themselves (`pki/withdrawal/operators.py`).
    """
    rows = connection.execute(_FALLEN_DUE, {"now": now, "limit": limit}).scalars()
    return [Serial(serial) for serial in rows]


def pending_among(connection: Connection, serials: Collection[Serial]) -> list[PendingWithdrawal]:
    """Of these certificates, those that wait for the end of a grace."""
    rows = connection.execute(_PENDING, {"serials": list(serials)}).mappings()
    return [PendingWithdrawal(**row) for row in rows]


def answered_for(
    connection: Connection, *, people: Collection[str], mailboxes: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """The mailboxes of establishments touched that were ever answered for, and by whose enrolment."""
    asked = {"people": list(people), "mailboxes": list(mailboxes)}
    return {address: tuple(authorities) for address, authorities in connection.execute(_ANSWERED, asked)}


def retired_numbers(connection: Connection, people: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Of these, who was enrolled under a number that vanished without a successor, and by whom."""
    rows = connection.execute(_RETIRED, {"people": list(people)})
    return {national_id: tuple(authorities) for national_id, authorities in rows}


def claimed_twice(connection: Connection) -> list[tuple[str, int, tuple[str, ...]]]:
    """Addresses the last file gave to two holders: the line refused, the professions of who holds it."""
    rows = connection.execute(_CLAIMED_TWICE)
    return [(address, line, tuple(codes or ())) for address, line, codes in rows]


def _kind(value: str | None) -> MailboxKind | None:
    return None if value is None else MailboxKind(value)
