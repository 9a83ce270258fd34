"""How the service is: /healthz (the process answers), /readyz (what it stands on), /metrics (figures).

Open to all. Nothing here names a person or an address.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from time import monotonic
from types import MappingProxyType
from typing import Any

from flask import Blueprint, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from api.database_timeout import impatient
from api.front.roads import Road, Trade, on_road
from api.health.register_metrics import register_families
from api.installation.bring_up import ldap_readers_of, slapd_of
from api.installation.supervisor import troubles_written
from api.wiring import Container
from directory import reading_quotas, withdrawal_limits
from directory.base import job_runs
from directory.base.beats import LOST_AFTER, WORKER, Beat, last_beat
from directory.base.db import schema_revision, transaction
from directory.base.errors import Refusal
from directory.base.instant import dated_by_database, is_dated_by_database
from directory.feed.readers import urgent_lag_seconds
from directory.ldap.publish import CONSUMER as LDAP
from directory.sync.runs.history import Condition, conditions
from pki.monitoring import service_expiry
from pki.monitoring.metrics import Figures, feed_lags, figures
from pki.rollback import detection
from pki.rollback.signing_clock import SigningClock

TEXT_FORMAT = "text/plain; version=0.0.4; charset=utf-8"
# Seconds: a scrape costs the database one pass over its counts, and anybody may ask.
METRICS_HOLD = 5.0
# Seconds of unpublished change from which the directory counts as behind.
FEED_LAG_TOLERATED = 60.0
# The same of what takes something away: for as long LDAP shows somebody who is struck off.
URGENT_LAG_TOLERATED = 15.0
# Seconds for each answer of the database: whoever asks whether it hangs must hear it in time.
PATIENCE = 5.0

Check = dict[str, Any]


def health(container: Container) -> Blueprint:
    """The three routes on `container`."""
    made = Blueprint("health", __name__)
    scraped = _Scraped(container)
    readiness = _Readiness(container)

    @made.get("/healthz")
    def healthz() -> dict[str, str | int]:
        # Which process it is: the supervisor asks all of them, and ends the one that does not answer.
        return {"state": "ok", "process": os.getpid()}

    @made.get("/readyz")
    def readyz() -> tuple[dict[str, Any], int]:
        checks = readiness.checks()
        state = _worst(checks)
        # Without the record nothing true can be said, without a worker nothing withdrawn is followed. Without
        # the signer, verdicts and status still can.
        return {"state": state, "checks": checks}, 503 if state == "failed" else 200

    @made.get("/metrics")
    def metrics() -> Response:
        return Response(scraped.text(), content_type=TEXT_FORMAT)

    for view in (healthz, readyz, metrics):
        on_road(view, Road(Trade.WATCH))
    return made


def migration_head() -> str:
    """The revision of the schema that this code was written for."""
    return (Path(__file__).resolve().parents[2] / "migrations" / "HEAD").read_text().strip()


class _Readiness:
    """What the service stands on, asked on connections of its own: those of the views may be what hangs."""

    def __init__(self, container: Container) -> None:
        self._container = container
        options = {"application_name": "sceau-readiness", "options": "-c timezone=UTC -c lock_timeout=2s"}
        self._engine = impatient(
            create_engine(container.engine.url, poolclass=NullPool, connect_args=options), PATIENCE
        )
        if is_dated_by_database(container.engine):
            dated_by_database(self._engine)
        self._watch = detection.Watch(self._engine, container.settings.kept)
        self._signing = SigningClock(self._engine, container.clock, container.settings.crl_floor.parent)
        self._counted: tuple[int, float] = (0, monotonic())

    def checks(self) -> dict[str, Check]:
        """Each check with its state; without the record, of the record and the parts alone."""
        container, now = self._container, self._container.clock()
        unwritten = container.writing.wrong()
        try:
            with transaction(self._engine, read_only=True) as connection:
                revision = schema_revision(connection)
                lags = feed_lags(connection, now)
                urgent = urgent_lag_seconds(connection, LDAP, now) if LDAP in lags else 0.0
                registers = conditions(connection, now, container.settings.freshness)
                own = service_expiry.ours(connection, now)
                beat = last_beat(connection, WORKER)
                error = job_runs.failing(connection).get("heartbeat")
            lacks = self._watch.look()
            clock = _clock(self._signing)
        except SQLAlchemyError as lost:
            failed = {"state": "failed", "reason": f"not reachable ({type(lost).__name__})"}
            return {"database": failed, "parts": _parts(container)}
        return {
            "database": {"state": "ok"},
            "parts": _parts(container),
            "writing": _writing(unwritten),
            "record": _record(lacks),
            "clock": clock,
            "migration": _migration(revision, migration_head()),
            "worker": self._worker(beat, error),
            "signer": _signer(container),
            "ldap": _ldap(container),
            "feed": _feed(lags, urgent),
            "registers": _registers(registers),
            "lifetimes": _lifetimes(own, now),
        }

    def _worker(self, beat: Beat | None, error: str | None) -> Check:
        """Failed when its sign is old by the database's clock, or stands still by ours."""
        number = 0 if beat is None else beat.number
        if number != self._counted[0]:
            self._counted = number, monotonic()
        if beat is None or beat.is_lost or monotonic() - self._counted[1] > LOST_AFTER:
            reason = "no sign of work" if beat is None else f"no sign of work for {abs(beat.age):.0f} s"
            return {"state": "failed", "reason": f"{reason}: {error}" if error else reason}
        return {"state": "failed", "reason": beat.wrong} if beat.wrong else {"state": "ok"}


def _writing(unwritten: str) -> Check:
    """Failed, since what cannot be written cannot be withdrawn."""
    return {"state": "failed", "reason": unwritten} if unwritten else {"state": "ok"}


def _parts(container: Container) -> Check:
    """Red, and not out of rotation: whether a part serves at this moment is for its own check."""
    troubles = troubles_written(container.settings.state)
    return {"state": "degraded", "reason": " ".join(troubles.values())} if troubles else {"state": "ok"}


def _ldap(container: Container) -> Check:
    """The slapd of this installation; one elsewhere shows by the feed that it does not follow."""
    if container.settings.ldap_url:
        return {"state": "ok"}
    slapds = {"ldap": slapd_of(container.settings), **ldap_readers_of(container.settings)}
    silent = [name for name, slapd in slapds.items() if slapd.socket.exists() and not slapd.answers()]
    if not silent:
        return {"state": "ok"}
    return {"state": "degraded", "reason": f"slapd does not answer on its socket ({', '.join(silent)})"}


def _record(lacks: list[str]) -> Check:
    """Red, and not out of rotation: what is revoked is still told, and the last CRLs are still given."""
    if lacks:
        return {"state": "degraded", "reason": detection.WHAT_TO_DO, "lacks": lacks}
    return {"state": "ok"}


def _clock(signing: SigningClock) -> Check:
    """Red, and not out of rotation: revocations are recorded, and what was signed is still given."""
    told: Check = {"state": "ok", "difference_seconds": signing.difference().total_seconds()}
    if reason := signing.wrong():
        told |= {"state": "degraded", "reason": reason}
    return told


def _migration(revision: str | None, wanted: str) -> Check:
    if revision == wanted:
        return {"state": "ok", "revision": revision}
    return {
        "state": "failed",
        "revision": revision,
        "reason": f"this release was written for revision {wanted}",
    }


def _signer(container: Container) -> Check:
    try:
        version = container.signer.ping()
    except Refusal as refusal:
        return {"state": "degraded", "reason": refusal.text}
    return {"state": "ok", "version": version}


def _feed(lags: dict[str, float], urgent: float) -> Check:
    behind = sorted(consumer for consumer, lag in lags.items() if lag > FEED_LAG_TOLERATED)
    reason = f"behind: {', '.join(behind)}" if behind else ""
    if urgent > URGENT_LAG_TOLERATED:
        reason = f"LDAP shows for {urgent:.0f} s what was taken away"
    return {"state": "degraded" if reason else "ok", "lag_seconds": lags, "urgent_lag_seconds": urgent} | (
        {"reason": reason} if reason else {}
    )


def _registers(registers: Sequence[Condition]) -> Check:
    ages = {
        condition.register: condition.age.total_seconds()
        for condition in registers
        if condition.age is not None
    }
    late = [condition.register for condition in registers if condition.late]
    if late:
        return {"state": "degraded", "age_seconds": ages, "reason": f"late: {', '.join(late)}"}
    return {"state": "ok", "age_seconds": ages}


def _lifetimes(own: Sequence[service_expiry.Lifetime], now: datetime) -> Check:
    """Red before anything of ours runs out; what only comes near is named."""
    named = {
        condition: [lifetime.label for lifetime in own if lifetime.condition(now) is condition]
        for condition in service_expiry.Condition
    }
    told: Check = {"state": "ok"}
    if soon := named[service_expiry.Condition.SOON]:
        told["soon"] = soon
    if due := named[service_expiry.Condition.DUE]:
        told |= {"state": "degraded", "reason": f"to be renewed now: {', '.join(due)}"}
    return told


def _worst(checks: dict[str, Check]) -> str:
    states = {check["state"] for check in checks.values()}
    return next((state for state in ("failed", "degraded") if state in states), "ok")


@dataclass
class _Scraped:
    """The last text of /metrics, made anew when it is older than METRICS_HOLD; one process makes one at a
    time.
    """

    container: Container
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _made: tuple[datetime, bytes] | None = None

    def text(self) -> bytes:
        with self._lock:
            now = self.container.clock()
            if self._made is None or not 0 <= (now - self._made[0]).total_seconds() < METRICS_HOLD:
                with transaction(self.container.engine, read_only=True) as connection:
                    counted = figures(connection, now)
                    registers = conditions(connection, now, self.container.settings.freshness)
                    own = service_expiry.ours(connection, now)
                    used = withdrawal_limits.shares(connection, self.container.settings.allowance, now)
                    read = reading_quotas.shares(connection, self.container.settings.reading_quotas, now)
                behind = bool(self.container.watch.lacks())
                signing = self.container.signing
                clock = Skew(signing.difference(), signing.ahead())
                self._made = (
                    now,
                    exposition(counted, registers, own, behind=behind, used=used, clock=clock, read=read),
                )
            return self._made[1]


@dataclass(frozen=True)
class Skew:
    """How far this host's clock is ahead of the database's, and what it signed last ahead of its clock."""

    difference: timedelta = timedelta()
    signed_ahead: timedelta = timedelta()


_EVEN = Skew()


def exposition(
    counted: Figures,
    registers: Sequence[Condition],
    own: Sequence[service_expiry.Lifetime] = (),
    *,
    behind: bool = False,
    used: Mapping[str, float] = MappingProxyType({}),
    clock: Skew = _EVEN,
    read: Mapping[tuple[str, str], float] = MappingProxyType({}),
) -> bytes:
    """The figures as Prometheus reads them."""
    registry = CollectorRegistry()
    told = (
        _families(counted),
        register_families(registers),
        _own_families(own, counted.at),
        [_behind(behind), _used(used), _read(read), *_skew(clock)],
    )
    registry.register(_Fixed(lambda: chain(*told)))
    return generate_latest(registry)


@dataclass(frozen=True)
class _Fixed:
    families: Callable[[], Iterator[Metric]]

    def collect(self) -> Iterator[Metric]:
        return self.families()


def _families(counted: Figures) -> Iterator[Metric]:
    jobs = counted.jobs.items()
    yield _gauge(
        "sceau_job_last_success_timestamp_seconds", "When each job last ended well; 0 for never.", "job",
        {name: job.last_success.timestamp() if job.last_success else 0.0 for name, job in jobs},
    )  # fmt: skip
    yield _gauge(
        "sceau_job_last_failure_timestamp_seconds", "When each job last failed; 0 for never.", "job",
        {name: job.last_failure.timestamp() if job.last_failure else 0.0 for name, job in jobs},
    )  # fmt: skip
    yield _gauge(
        "sceau_job_last_duration_seconds", "How long each job's last run took.", "job",
        {name: job.last_duration or 0.0 for name, job in jobs},
    )  # fmt: skip
    yield _gauge(
        "sceau_feed_lag_seconds", "Age of the oldest change a consumer has not dealt with.", "consumer",
        dict(counted.feed_lag),
    )  # fmt: skip
    yield _gauge("sceau_certificates", "Certificates ever issued.", "profile", dict(counted.certificates))
    yield _gauge(
        "sceau_revocation_events", "Revocations, holds and releases.", "action", dict(counted.revocations)
    )
    yield _gauge(
        "sceau_crl_remaining_seconds", "How long each shard's newest CRL holds; below 0, overdue.", "crl",
        {name: left.total_seconds() for name, left in counted.crl_left.items()},
    )  # fmt: skip
    yield GaugeMetricFamily(
        "sceau_audit_entries", "Numbered lines of the audit log.", value=counted.audit_entries
    )
    yield GaugeMetricFamily("sceau_audit_pending", "Lines not yet numbered.", value=counted.audit_pending)


def _skew(clock: Skew) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "sceau_clock_difference_seconds",
        "How far this host's clock is ahead of the database's; beyond 60 either way, nothing is signed here.",
        value=clock.difference.total_seconds(),
    )
    yield GaugeMetricFamily(
        "sceau_clock_signed_ahead_seconds",
        "How far the last instant signed on this host lies in the future; beyond 60, nothing is signed here.",
        value=clock.signed_ahead.total_seconds(),
    )


def _behind(behind: bool) -> Metric:  # noqa: FBT001 - the one figure
    return GaugeMetricFamily(
        "sceau_record_behind", "1 while the record is behind what was published, else 0.", value=int(behind)
    )


def _used(shares: Mapping[str, float]) -> Metric:
    text_ = (
        "Largest share of a limit on taking trust away used within the hour; 0.5 and more is in attention."
    )
    return _gauge("sceau_withdrawal_limit_used_ratio", text_, "scope", dict(shares))


def _read(shares: Mapping[tuple[str, str], float]) -> Metric:
    text_ = "Largest share of a quota of reading that is used or drawn within the hour; 1 is refused."
    family = GaugeMetricFamily("sceau_reading_quota_used_ratio", text_, labels=["reading", "scope"])
    for labels, share in sorted(shares.items()):
        family.add_metric(labels, share)
    return family


def _own_families(own: Sequence[service_expiry.Lifetime], now: datetime) -> Iterator[Metric]:
    states = list(service_expiry.Condition)
    yield _gauge(
        "sceau_own_end_timestamp_seconds", "When each thing that the service stands on runs out.", "what",
        {lifetime.label: lifetime.ends.timestamp() for lifetime in own},
    )  # fmt: skip
    yield _gauge(
        "sceau_own_end_state", "0 well, 1 to be planned, 2 to be renewed now (or run out).", "what",
        {lifetime.label: states.index(lifetime.condition(now)) for lifetime in own},
    )  # fmt: skip


def _gauge(name: str, text: str, label: str, values: dict[str, float] | dict[str, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for word, value in sorted(values.items()):
        family.add_metric([word], value)
    return family
