"""The rows of checks that are answered later: who asked, and how far each has come.

A check whose token was revoked is nobody's any more: nothing here gives it, and it is removed. No address
stands here (`check_files.py`).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from directory.access import Token
from directory.base.errors import Kind, Refusal
from directory.base.locks import lock_until_commit
from directory.tables import api_token
from pki.record.tables import recipient_check

KEPT = timedelta(hours=24)
# Of one token, that wait or are under way.
MOST_WAITING = 3
# A check over which the worker died so often is given up: others wait behind it.
MOST_ATTEMPTS = 5

_ROW = recipient_check.c
_OPEN = _ROW.state.in_(("waiting", "running"))


@dataclass(frozen=True)
class RecipientCheck:
    """A check as it stands; `size` and `sha256` are of its result, once there is one."""

    id: UUID
    token_id: int
    state: str
    included: str
    number: int
    decided: int
    attempts: int
    asked_at: datetime
    finished_at: datetime | None
    size: int | None
    sha256: bytes | None

    @property
    def kept_until(self) -> datetime:
        """When it is removed, with its result."""
        return self.asked_at + KEPT


def need_place(connection: Connection, token_id: int) -> None:
    """Refusal TOO_MANY `too-many-checks` where this token has its share waiting; it asks once at a time."""
    lock_until_commit(connection, f"recipient-checks:{token_id}")
    query = select(func.count()).where(_ROW.token_id == token_id, _OPEN)
    if connection.execute(query).scalar_one() >= MOST_WAITING:
        text = f"{MOST_WAITING} checks of this token wait or are under way: let one end, or delete one."
        raise Refusal(Kind.TOO_MANY, "too-many-checks", text, retry_after=30)


def add(
    connection: Connection, number: int, *, check_id: UUID, token_id: int, included: str, now: datetime
) -> RecipientCheck:
    """Write down a check of so many addresses, which waits from now on; refuses as `need_place`."""
    need_place(connection, token_id)
    row = {
        "id": check_id, "token_id": token_id, "state": "waiting", "included": included, "number": number,
        "asked_at": now,
    }  # fmt: skip
    made = connection.execute(insert(recipient_check).values(row).returning(recipient_check))
    return _check(made.mappings().one())


def find(connection: Connection, check_id: UUID, token: Token, now: datetime) -> RecipientCheck | None:
    """The check, if this token or another of its operator asked for it, and it is not over."""
    mine: ColumnElement[bool] = _ROW.token_id == token.id
    if token.operator_id is not None:
        mine = or_(mine, api_token.c.operator_id == token.operator_id)
    query = _living().where(_ROW.id == check_id, _ROW.asked_at > now - KEPT, mine)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _check(row)


def take(connection: Connection, now: datetime) -> RecipientCheck | None:
    """The oldest that waits, under way from now on; one that is under way already was cut off.

    One that was begun too often has failed, and the next is taken.
    """
    given_up = and_(_OPEN, _ROW.attempts >= MOST_ATTEMPTS)
    connection.execute(update(recipient_check).where(given_up).values(state="failed", finished_at=now))
    oldest = _living().where(_OPEN, _ROW.asked_at > now - KEPT).order_by(_ROW.asked_at, _ROW.id).limit(1)
    row = connection.execute(oldest).mappings().one_or_none()
    if row is None:
        return None
    begun = {"state": "running", "decided": 0, "attempts": _ROW.attempts + 1}
    query = update(recipient_check).where(_ROW.id == row["id"]).values(begun).returning(recipient_check)
    taken = connection.execute(query).mappings().one_or_none()
    return None if taken is None else _check(taken)


def progress(connection: Connection, check_id: UUID, decided: int) -> bool:
    """Write down how many are decided; False when it was deleted meanwhile, or its token revoked."""
    return _change(connection, check_id, decided=decided)


def finish(connection: Connection, check: RecipientCheck, size: int, sha256: bytes, now: datetime) -> bool:
    """Its result is there; False as `progress`."""
    return _change(
        connection, check.id, state="done", decided=check.number, finished_at=now, size=size, sha256=sha256
    )


def fail(connection: Connection, check_id: UUID, now: datetime) -> bool:
    """It cannot be decided any more; False as `progress`."""
    return _change(connection, check_id, state="failed", finished_at=now)


def put_back(connection: Connection, check_id: UUID) -> bool:
    """It waits again, through no fault of its own; False as `progress`."""
    return _change(connection, check_id, state="waiting", decided=0, attempts=_ROW.attempts - 1)


def remove(connection: Connection, check_id: UUID) -> None:
    """Forget a check; its files are for the caller, after the commit."""
    connection.execute(delete(recipient_check).where(_ROW.id == check_id))


def remove_ended(connection: Connection, now: datetime) -> list[UUID]:
    """Forget those that were kept long enough, and those whose token was revoked; which."""
    revoked = select(api_token.c.id).where(api_token.c.revoked_at.is_not(None))
    ended = or_(_ROW.asked_at <= now - KEPT, _ROW.token_id.in_(revoked))
    return list(connection.execute(delete(recipient_check).where(ended).returning(_ROW.id)).scalars())


def known(connection: Connection) -> set[UUID]:
    """All that there are."""
    return set(connection.execute(select(_ROW.id)).scalars())


def _living() -> Select[Any]:
    tables = recipient_check.join(api_token, api_token.c.id == _ROW.token_id)
    return select(recipient_check).select_from(tables).where(api_token.c.revoked_at.is_(None))


def _change(connection: Connection, check_id: UUID, **values: object) -> bool:
    live = select(api_token.c.id).where(api_token.c.id == _ROW.token_id, api_token.c.revoked_at.is_(None))
    query = update(recipient_check).where(_ROW.id == check_id, _ROW.state == "running", live.exists())
    return connection.execute(query.values(values)).rowcount > 0


def _check(row: RowMapping) -> RecipientCheck:
    return RecipientCheck(**row)
