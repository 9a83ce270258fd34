"""How many certificates one registrar's token, and one body, may have made in an hour and in a day.

A stolen token makes certificates for whoever was approved; that it soon stops leaves time to notice. Counted
in the database with the reservation, so that no number of workers or parallel requests goes beyond.
Hours are those of the clock: a burst over the turn of the hour gets two hours' worth, and no more.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine
from sqlalchemy.dialects.postgresql import insert

from directory.access import Token
from directory.base.audit import Event, record
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.base.prepared_statement import Statement
from pki.record.tables import quota_use

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
# The token, then its body: in one order everywhere, so that two can only queue.
_CHARGE = Statement("""
    WITH charged AS (
        INSERT INTO quota_use (scope, hour, used)
        SELECT asked.scope, CAST(:hour AS timestamptz), CAST(:number AS integer)
        FROM unnest(CAST(:scopes AS text[])) WITH ORDINALITY AS asked (scope, place) ORDER BY asked.place
        ON CONFLICT (scope, hour) DO UPDATE SET used = quota_use.used + excluded.used
        RETURNING scope, hour, used
    )
    SELECT scope, hour, used FROM charged
    UNION ALL SELECT scope, hour, used FROM quota_use
    WHERE scope = ANY(CAST(:scopes AS text[])) AND hour > :since AND hour < :hour
    ORDER BY hour
""")


@dataclass(frozen=True)
class Quotas:
    """The most certificates, per token and per body (an Ordre), in an hour and in 24 hours."""

    token_hour: int = 1_000
    token_day: int = 2_000
    authority_hour: int = 2_000
    authority_day: int = 10_000

    def __post_init__(self) -> None:
        """Refuse what would let nothing through, or a day that is over before its hour."""
        for hour, day in ((self.token_hour, self.token_day), (self.authority_hour, self.authority_day)):
            if not 0 < hour <= day:
                raise ValueError("a quota is above zero, and that of a day no less than that of an hour")


@dataclass(frozen=True)
class Charged:
    """Whose quotas an issuance counts against, and when."""

    token: Token
    quotas: Quotas
    now: datetime


def charge(connection: Connection, quotas: Quotas, token: Token, *, now: datetime, number: int = 1) -> None:
    """Count certificates against the token's and its body's quotas; call it last before the commit.

    Whoever charges the same token waits for the commit of the other. Refuses `quota-reached`, with `scope`,
    `opens_at` and `retry_after` (s).
    """
    hour = _hour(now)
    limits = {
        f"token:{token.id}": (quotas.token_hour, quotas.token_day),
        f"authority:{token.authority}": (quotas.authority_hour, quotas.authority_day),
    }
    asked = {"scopes": list(limits), "hour": hour, "since": hour - DAY, "number": number}
    used = _CHARGE.rows(connection, asked)
    for scope, (hourly, daily) in limits.items():
        mine = {counted_in: count for whose, counted_in, count in used if whose == scope}
        _check(scope, mine, hourly, daily, now)


@contextmanager
def audit_quota_refusals(engine: Engine, token: Token, now: datetime) -> Iterator[None]:
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


def _check(scope: str, by_hour: Mapping[datetime, int], hourly: int, daily: int, now: datetime) -> None:
    """Refuse what goes beyond; `by_hour` holds the last 24 hours that had any, the oldest first."""
    hour = _hour(now)
    if by_hour[hour] > hourly:
        raise _reached(scope, hourly, 1, hour + HOUR, now)
    excess = sum(by_hour.values()) - daily
    if excess <= 0:
        return
    for then, used in by_hour.items():
        excess -= used
        if excess <= 0:
            raise _reached(scope, daily, 24, then + DAY, now)


def _reached(scope: str, limit: int, hours: int, opens_at: datetime, now: datetime) -> Refusal:
    whose = "This token" if scope.startswith("token:") else "This authority"
    text = f"{whose} has had its {limit} certificates in {hours} h; more from {opens_at:%Y-%m-%d %H:%M} UTC."
    return Refusal(
        Kind.TOO_MANY, "quota-reached", text, scope=scope, limit=limit, within_hours=hours,
        opens_at=opens_at.isoformat(), retry_after=max(1, int((opens_at - now).total_seconds()) + 1),
    )  # fmt: skip


def _hour(now: datetime) -> datetime:
    return now.replace(minute=0, second=0, microsecond=0)
