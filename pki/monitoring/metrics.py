"""What the service counts about itself, in one look: ages, lags, numbers. For /metrics, /readyz and `sceau
status`.

Reads only; what figure is good enough is for whoever watches.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from directory.base.job_runs import job_runs
from directory.feed.changes import PLACE_OF_CRL
from directory.feed.readers import lag_seconds
from directory.store import sources


@dataclass(frozen=True)
class JobFigures:
    """When a job last ended well or badly, and how long its last run took in seconds; None for never."""

    last_success: datetime | None
    last_failure: datetime | None
    last_duration: float | None


@dataclass(frozen=True)
class Figures:
    """Everything counted at `at`.

    `feed_lag` is seconds by consumer; `registers` when each file was generated; `certificates` numbers by
    profile; `revocations` numbers by action. `crl_left` is how long the newest CRL of each `authority/shard`
    still holds, and the newest delta of each `authority/shard-delta`.
    """

    at: datetime
    jobs: Mapping[str, JobFigures]
    feed_lag: Mapping[str, float]
    registers: Mapping[str, datetime | None]
    certificates: Mapping[str, int]
    revocations: Mapping[str, int]
    crl_left: Mapping[str, timedelta]
    audit_entries: int
    audit_pending: int


def figures(connection: Connection, now: datetime) -> Figures:
    """Count; about as long as it takes to pass once over the certificates' index."""
    return Figures(
        at=now,
        jobs=_jobs(connection),
        feed_lag=feed_lags(connection, now),
        registers=sources(connection),
        certificates=_counted(connection, "SELECT profile, count(*) FROM certificate GROUP BY profile"),
        revocations=_counted(connection, "SELECT action, count(*) FROM revocation GROUP BY action"),
        crl_left=_crl_left(connection, now),
        audit_entries=_number(connection, "SELECT coalesce(max(index) + 1, 0) FROM audit_entry"),
        audit_pending=_number(connection, "SELECT count(*) FROM audit_pending"),
    )


def feed_lags(connection: Connection, now: datetime) -> dict[str, float]:
    """For each consumer of the change feed, the age in seconds of the oldest change it has not dealt with."""
    consumers = connection.execute(text("SELECT consumer FROM feed_cursor ORDER BY consumer")).scalars().all()
    return {consumer: lag_seconds(connection, consumer, now) for consumer in consumers}


def _jobs(connection: Connection) -> dict[str, JobFigures]:
    return {
        name: JobFigures(run.last_success, run.last_failure, run.last_duration)
        for name, run in job_runs(connection).items()
    }


def _counted(connection: Connection, query: str) -> dict[str, int]:
    return {word: number for word, number in connection.execute(text(query))}  # noqa: C416 - dict() of rows is untyped


def _crl_left(connection: Connection, now: datetime) -> dict[str, timedelta]:
    rows = connection.execute(
        text(
            f"SELECT {PLACE_OF_CRL.format(row='s')} || k.word AS name, last.next_update FROM crl_shard s"  # noqa: S608 - of our own
            " CROSS JOIN (VALUES (false, ''), (true, '-delta')) AS k (delta, word) CROSS JOIN LATERAL ("
            " SELECT c.next_update FROM crl c WHERE c.authority_id = s.authority_id AND c.shard = s.shard"
            " AND c.der IS NOT NULL AND (c.base IS NOT NULL) = k.delta ORDER BY c.number DESC LIMIT 1"
            ") AS last ORDER BY s.authority_id, s.shard, k.delta"
        )
    )
    return {row.name: row.next_update - now for row in rows}


def _number(connection: Connection, query: str) -> int:
    return int(connection.execute(text(query)).scalar_one())
