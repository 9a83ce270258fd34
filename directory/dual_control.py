"""Dual control: an act that gives trust back takes two persons. The first asks, another agrees within a week.

The one mechanism behind every such act. Each kind of act has a table of its own, keyed by its subject, with
the columns `reason`, `asked_by`, `asked_at`, `confirmed_by`, `confirmed_at`. Who is competent, and what
follows, is decided where the act is (`pki/withdrawal/measures.py`, `pki/revocation/release.py`,
`corrections.py`).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Column, Connection, Table, select, update
from sqlalchemy.dialects.postgresql import insert

from directory.access import Token
from directory.base.errors import Kind, Refusal

# A confirmation rests on what the first person saw: after a week somebody should look again.
ASKED_HOLDS = timedelta(days=7)


@dataclass(frozen=True)
class OpenRequest:
    """What one person asked for and nobody has agreed to yet; `by` is the number of that person's token."""

    by: int
    at: datetime
    reason: str


def still_holds(asked_at: datetime | None, now: datetime) -> bool:
    """Whether somebody asked, and not too long ago to be agreed to."""
    return asked_at is not None and asked_at > now - ASKED_HOLDS


def waiting(connection: Connection, table: Table, subject: int, now: datetime) -> OpenRequest | None:
    """What was asked of this subject and still waits for another person, or None."""
    columns = table.c
    query = select(columns.asked_by, columns.asked_at, columns.reason).where(
        _key(table) == subject, columns.confirmed_by.is_(None)
    )
    row = connection.execute(query).one_or_none()
    return OpenRequest(*row) if row is not None and still_holds(row.asked_at, now) else None


def ask(
    connection: Connection,
    table: Table,
    subject: int,
    *,
    token: Token,
    reason: str,
    now: datetime,
    **besides: Any,
) -> None:
    """Note that this person asks; one never agreed to in time, or done and asked once more, is asked anew.

    `besides` is what the act needs more, as columns of its table.
    """
    asked = {"reason": reason, "asked_by": token.id, "asked_at": now, **besides}
    asked |= {"confirmed_by": None, "confirmed_at": None}
    query = insert(table).values({_key(table).name: subject, **asked})
    connection.execute(query.on_conflict_do_update(index_elements=[_key(table)], set_=asked))


def check_is_another(asked: OpenRequest, token: Token) -> None:
    """Refuse `self-approval` to whoever asked: the second person is somebody else."""
    if asked.by == token.id:
        text = "Another person confirms, not the one who asked."
        raise Refusal(Kind.FORBIDDEN, "self-approval", text)


def confirm(connection: Connection, table: Table, subject: int, *, token: Token, now: datetime) -> None:
    """Note who agreed, and when; `check_is_another` comes first."""
    agreed = {"confirmed_by": token.id, "confirmed_at": now}
    connection.execute(update(table).where(_key(table) == subject).values(agreed))


def _key(table: Table) -> Column[int]:
    (key,) = table.primary_key.columns
    return key
