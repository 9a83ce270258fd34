"""Two administrators void the last instant signed, where a clock that jumped ahead left it in the future.

One asks, another confirms. From then on what was signed later than now holds back nothing: marks in hosts'
files (`signing_clock`), CRLs in the record, OCSP answers signed ahead. Numbers go on rising. Withdrawals that
tokens used of their hour in the future count as used now; reading there is forgotten.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from directory import reading_quotas, withdrawal_limits
from directory.access import Role, Token
from directory.base.audit import Event, record
from directory.base.comments import check_reason
from directory.base.errors import Kind, Refusal
from directory.base.instant import not_before, present
from directory.base.locks import lock_until_commit

# A confirmation rests on what the first one saw: after a day the clock may be another.
ASKED_HOLDS = timedelta(days=1)
# So long before now do CRLs of the future count as made: as old as one that is due.
_AS_OLD = timedelta(hours=1)
_COLUMNS = "id, reason, asked_by, asked_at, confirmed_by, confirmed_at"
_OPEN = text(
    f"SELECT {_COLUMNS} FROM clock_reset WHERE confirmed_at IS NULL AND asked_at > :since"  # noqa: S608 - names of this module
    " ORDER BY id DESC LIMIT 1"
)
_ALL = text(f"SELECT {_COLUMNS} FROM clock_reset ORDER BY id DESC LIMIT 100")  # noqa: S608 - same
_ASK = text(
    "INSERT INTO clock_reset (reason, asked_by, asked_at) VALUES (:reason, :token, :now)"  # noqa: S608 - same
    f" RETURNING {_COLUMNS}"
)
_CONFIRM = text(
    "UPDATE clock_reset SET confirmed_by = :token, confirmed_at = :now WHERE id = :id"  # noqa: S608 - same
    f" RETURNING {_COLUMNS}"
)
_REDATE = text("""
    INSERT INTO crl_redated (authority_id, shard, number, at)
    SELECT authority_id, shard, max(number), :at FROM crl
    WHERE coalesce(made_at, this_update) > :now
    GROUP BY authority_id, shard
    ON CONFLICT (authority_id, shard) DO UPDATE SET number = excluded.number, at = excluded.at
""")
# By a function: who may empty an answer that was signed ahead may not put another in its place.
_UNSIGN = text("SELECT sceau_unsign_answers(:now)")


@dataclass(frozen=True)
class Reset:
    """What was asked, by whom, and by whom confirmed; the tokens by their numbers."""

    id: int
    reason: str
    asked_by: int
    asked_at: datetime
    confirmed_by: int | None
    confirmed_at: datetime | None


def reset(connection: Connection, *, now: datetime, token: Token, reason: str) -> Reset:
    """Ask for a reset, or confirm what another administrator asked within `ASKED_HOLDS`.

    Refuses `role-lacking`, `reason-missing`, `reason-too-long`, and `self-approval` to whoever asked.
    """
    _check_admin(token)
    check_reason(reason)
    lock_until_commit(connection, "clock-reset")
    now = present(connection, now)
    asked = connection.execute(_OPEN, {"since": now - ASKED_HOLDS}).one_or_none()
    if asked is None:
        made = Reset(
            **connection.execute(_ASK, {"reason": reason.strip(), "token": token.id, "now": now})
            .mappings()
            .one()
        )
        _tell(connection, Event.CLOCK_RESET_ASKED, made, token, now)
        return made
    if asked.asked_by == token.id:
        raise Refusal(
            Kind.FORBIDDEN, "self-approval", "Another administrator confirms, not the one who asked."
        )
    now = not_before(now, asked.asked_at)
    made = Reset(
        **connection.execute(_CONFIRM, {"id": asked.id, "token": token.id, "now": now}).mappings().one()
    )
    connection.execute(_REDATE, {"now": now, "at": now - _AS_OLD})
    connection.execute(_UNSIGN, {"now": now})
    withdrawal_limits.redate(connection, now)
    reading_quotas.forget(connection, now)
    _tell(connection, Event.CLOCK_RESET, made, token, now)
    return made


def resets(connection: Connection, *, token: Token) -> list[Reset]:
    """The last hundred, newest first, for administrators and auditors; refuses `role-lacking`."""
    if token.role is not Role.AUDITOR:
        _check_admin(token)
    return [Reset(**row) for row in connection.execute(_ALL).mappings()]


def _check_admin(token: Token) -> None:
    if token.role is not Role.ADMIN:
        text = "Only administrators void the last instant signed, two of them."
        raise Refusal(Kind.FORBIDDEN, "role-lacking", text, roles=[Role.ADMIN.value])


def _tell(connection: Connection, event: Event, made: Reset, token: Token, now: datetime) -> None:
    record(
        connection, now=now, actor=token.actor, event=event, subject=str(made.id),
        detail={"reason": made.reason},
    )  # fmt: skip
