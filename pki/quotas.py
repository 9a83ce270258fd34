"""How many certificates one registrar's token, and one body, may have made in an hour and in a day.

A stolen token makes certificates for whoever was approved; that it soon stops leaves time to notice. Counted
in the database with the reservation, so that no number of workers or parallel requests goes beyond.
Hours are those of the clock: a burst over the turn of the hour gets two hours' worth, and no more.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, select
from sqlalchemy.dialects.postgresql import insert

from directory.access import Token
from directory.base.audit import Event, record
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from pki.tables import quota_use

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Quotas:
    """The most certificates, per token and per body (an Ordre), in an hour and in 24 hours."""

    token_hour: int = 300
    token_day: int = 2_000
    authority_hour: int = 2_000
    authority_day: int = 10_000

    def __post_init__(self) -> None:
        """Refuse what would let nothing through, or a day that is over before its hour."""
        for hour, day in ((self.token_hour, self.token_day), (self.authority_hour, self.authority_day)):
            if not 0 < hour <= day:
                raise ValueError("a quota is above zero, and that of a day no less than that of an hour")


def charge(connection: Connection, quotas: Quotas, token: Token, *, now: datetime, number: int = 1) -> None:
    """Count certificates against the token's and its body's quotas; call it last before the commit.

    Whoever charges the same token waits for the commit of the other. Refuses `quota-reached`, with `scope`,
    `opens_at` and `retry_after` (s).
    """
    # The token, then its body: in one order everywhere, so that two can only queue.
    _charge(
        connection, f"token:{token.id}", hourly=quotas.token_hour, daily=quotas.token_day, now=now,
        number=number,
    )  # fmt: skip
    _charge(
        connection, f"authority:{token.authority}", hourly=quotas.authority_hour,
        daily=quotas.authority_day, now=now, number=number,
    )  # fmt: skip


@contextmanager
def told(engine: Engine, token: Token, now: datetime) -> Iterator[None]:
    """See that a quota reached inside is written into the log: the transaction that met it is undone.

    Once for each scope and hour, or a burst would fill the log as well.
    """
    try:
        yield
    except Refusal as refusal:
        if refusal.code == "quota-reached":
            _tell(engine, refusal, token, now)
        raise


def _tell(engine: Engine, refusal: Refusal, token: Token, now: datetime) -> None:
    scope = refusal.details["scope"]
    row = {"scope": scope, "hour": _hour(now), "used": 0, "told_at": now}
    query = (
        insert(quota_use)
        .values(row)
        .on_conflict_do_update(
            index_elements=[quota_use.c.scope, quota_use.c.hour],
            set_={"told_at": now},
            where=quota_use.c.told_at.is_(None),
        )
        .returning(quota_use.c.scope)
    )
    with transaction(engine) as connection:
        if connection.execute(query).one_or_none() is not None:
            detail = {name: refusal.details[name] for name in ("limit", "within_hours", "opens_at")}
            record(
                connection, now=now, actor=token.actor, event=Event.QUOTA_REACHED, subject=scope,
                detail=detail,
            )  # fmt: skip


def _charge(
    connection: Connection, scope: str, *, hourly: int, daily: int, now: datetime, number: int
) -> None:
    hour = _hour(now)
    add = insert(quota_use).values(scope=scope, hour=hour, used=number)
    add = add.on_conflict_do_update(
        index_elements=[quota_use.c.scope, quota_use.c.hour], set_={"used": quota_use.c.used + number}
    )
    used = connection.execute(add.returning(quota_use.c.used)).scalar_one()
    if used > hourly:
        raise _reached(scope, hourly, 1, hour + HOUR, now)
    query = select(quota_use.c.hour, quota_use.c.used).where(
        quota_use.c.scope == scope, quota_use.c.hour > hour - DAY, quota_use.c.hour <= hour
    )
    by_hour = connection.execute(query.order_by(quota_use.c.hour)).all()
    excess = sum(row.used for row in by_hour) - daily
    if excess <= 0:
        return
    for row in by_hour:
        excess -= row.used
        if excess <= 0:
            raise _reached(scope, daily, 24, row.hour + DAY, now)


def _reached(scope: str, limit: int, hours: int, opens_at: datetime, now: datetime) -> Refusal:
    whose = "This token" if scope.startswith("token:") else "This authority"
    text = f"{whose} has had its {limit} certificates in {hours} h; more from {opens_at:%Y-%m-%d %H:%M} UTC."
    return Refusal(
        Kind.TOO_MANY, "quota-reached", text, scope=scope, limit=limit, within_hours=hours,
        opens_at=opens_at.isoformat(), retry_after=max(1, int((opens_at - now).total_seconds()) + 1),
    )  # fmt: skip


def _hour(now: datetime) -> datetime:
    return now.replace(minute=0, second=0, microsecond=0)
