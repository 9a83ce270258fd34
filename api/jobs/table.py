"""The table of jobs: what the worker does by the clock, each under a database lock, its last success kept.

Says when and in which order things are called; what they do lives in `directory` and `pki`.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from zoneinfo import ZoneInfo

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger
from sqlalchemy import Connection, Engine

from api.jobs import (
    audit_log,
    crl,
    expiry_mail,
    exports,
    feed,
    housekeeping,
    ldaps_certificate,
    ocsp,
    recipient_checks,
    register_freshness,
    register_increments,
    revocations,
    withdrawal,
)
from api.jobs import ldap as ldap_job
from api.jobs import registers as registers_job
from api.jobs import trust_list as trust_lists
from api.wiring import Container
from directory.base import job_runs
from directory.base.db import transaction, unpromised
from directory.base.errors import Kind, Refusal
from directory.base.locks import try_lock

FRANCE = ZoneInfo("Europe/Paris")
# Seconds. Above the longest wait for a lock and for a signature, and what one statement of a job may take.
SILENCE = 120.0
# One statement over a whole national file, one download: minutes are no sign that anything hangs.
LONG_SILENCE = 3600.0


@dataclass(frozen=True)
class When:
    """When a job runs, in words and for the scheduler.

    `apart` is the least time between two starts: with it two workers do each thing once.
    """

    words: str
    trigger: BaseTrigger
    apart: timedelta


@dataclass(frozen=True)
class Job:
    """One line of the table. `work` returns a sentence on what it did, '' when there was nothing to do.

    What publishes, signs or gives trust back `waits` while the record is behind what was shown of it; what
    takes trust away goes on. A run hangs when it makes no progress for `silence` seconds. `by_hand` is run
    instead of `work` where a person asks for it now: what the clock waits for is no reason to send him away.
    """

    name: str
    purpose: str
    when: When
    work: Callable[[Container], str]
    waits: bool = False
    by_hand: Callable[[Container], str] | None = None
    silence: float = SILENCE


def due_within() -> dict[str, float]:
    """For each job that comes due by an interval, the seconds within which a worker must run it again."""
    return {
        job.name: 2 * job.when.trigger.interval_length + SILENCE
        for job in JOBS.values()
        if isinstance(job.when.trigger, IntervalTrigger)
    }


def _every(seconds: int) -> When:
    return When(f"every {seconds} s", IntervalTrigger(seconds=seconds), timedelta(seconds=seconds * 0.5))


def _at(hour: int, minute: int) -> When:
    trigger = CronTrigger(hour=hour, minute=minute, timezone=FRANCE)
    return When(f"{hour:02}:{minute:02} {FRANCE}", trigger, timedelta(hours=1))


JOBS = MappingProxyType(
    {
        job.name: job
        for job in (
            Job("heartbeat", "Shows that no job of the worker hangs.", _every(3), housekeeping.heartbeat),
            Job(
                "completeness",
                "Fails while the record is behind what was published, as after a restored backup.",
                _every(10),
                housekeeping.watch_completeness,
            ),
            Job(
                "consequences",
                "Withdraws trust from those who left, moved, or are under a measure.",
                _every(1),
                withdrawal.consequences,
            ),
            Job(
                "withdrawals-due",
                "Revokes what has come to the end of its grace.",
                _every(60),
                withdrawal.withdraw_due,
            ),
            Job(
                "holds-end",
                "Revokes for good what was on hold for fourteen days.",
                _every(60),
                revocations.end_holds,
                waits=True,
            ),
            Job(
                "bulk-revocations",
                "Carries out revocations of many, a batch at a time.",
                _every(1),
                revocations.carry_on,
            ),
            Job(
                "measures-due",
                "Tells the feed of the measures that begin or end by their dates.",
                _every(1),
                housekeeping.measures_due,
            ),
            Job(
                "replacements",
                "Certifies anew what an annulled strike-off revoked.",
                _every(5),
                housekeeping.replace_revoked_in_error,
                waits=True,
            ),
            Job(
                "privacy-watch",
                "Lists what is held back from publication, for a person to correct.",
                _every(10),
                housekeeping.watch_privacy,
                silence=LONG_SILENCE,
            ),
            Job("due-changes", "Tells the feed what time alone changed.", _every(60), feed.due_changes),
            Job(
                "registers",
                "Fetches and takes in the newest national files.",
                _at(3, 30),
                registers_job.take_registers,
                silence=LONG_SILENCE,
            ),
            Job(
                "registers-late",
                "Asks sources again that were busy.",
                _every(60),
                registers_job.take_late_registers,
                silence=LONG_SILENCE,
            ),
            Job(
                "fhir-increment",
                "Asks the FHIR API of the Annuaire Santé what changed; off unless `sources_file` names it.",
                _every(900),
                register_increments.take_increments,
                silence=LONG_SILENCE,
            ),
            Job(
                "held-runs",
                "Takes up runs that were cut off, or held and let through.",
                _every(15),
                registers_job.resume_runs,
                silence=LONG_SILENCE,
            ),
            Job(
                register_freshness.FRESHNESS,
                "Says once when a register grows too old, and once when it is young again.",
                _every(60),
                register_freshness.watch_freshness,
            ),
            Job(
                "export",
                "Writes the public set into signed files, daily and after registers were applied.",
                _every(600),
                exports.export_if_due,
                waits=True,
                by_hand=exports.export_now,
                silence=LONG_SILENCE,
            ),
            Job(
                "withdrawn-exports",
                "Writes another export as soon as one is withdrawn, and removes the files of that.",
                _every(5),
                exports.replace_withdrawn,
                waits=True,
                silence=LONG_SILENCE,
            ),
            Job(
                "trust-list",
                "Signs a new version of the trust list when its content changed or the last one ages.",
                _every(5),
                trust_lists.publish,
                waits=True,
            ),
            Job(
                "expiry-notices",
                "Mails a notice 60, 30 and 7 days before a certificate ends that has no successor.",
                _every(300),
                expiry_mail.send_notices,
                waits=True,
            ),
            Job(
                "recipient-checks",
                "Carries out the checks of many recipients that are answered later.",
                _every(2),
                recipient_checks.carry_out,
                waits=True,
            ),
            Job(
                "recipient-checks-end",
                "Removes these checks and their results after 24 hours.",
                _every(60),
                recipient_checks.remove,
            ),
            Job("feed-housekeeping", "Removes changes older than promised.", _every(3600), feed.trim_feed),
            Job(
                "crl",
                "Publishes CRLs and deltas hourly and within 60 s of a revocation.",
                _every(5),
                crl.publish_crls,
                waits=True,
            ),
            Job(
                "crl-bytes",
                "Lets the bytes of old CRLs go, not their numbers and digests.",
                _every(600),
                crl.let_crl_bytes_go,
            ),
            Job(
                "ocsp-answers",
                "Signs OCSP answers before anyone asks.",
                _every(15),
                ocsp.presign_ocsp,
                waits=True,
            ),
            Job("ocsp-responders", "Renews the OCSP signers.", _every(60), ocsp.renew_responders, waits=True),
            Job(
                "ldaps-certificate",
                "Renews the LDAPS certificate in time and has slapd show it, without a restart.",
                _every(600),
                ldaps_certificate.renew,
            ),
            Job(
                "outside-view",
                "Judges a sample of what is published as a reader would, against the record.",
                _every(3600),
                housekeeping.look_from_outside,
                waits=True,
            ),
            Job(
                "idempotency-ends",
                "Forgets the answers of requests asked a day ago.",
                _every(3600),
                housekeeping.forget_requests,
            ),
            Job(
                "withdrawal-limits",
                "Closes what `attention` said of limits half used, once their hour has passed.",
                _every(60),
                housekeeping.let_withdrawals_go,
            ),
            Job(
                "earlier-keys",
                "Numbers keys that an earlier release certified; revokes what is on a reported one.",
                _every(60),
                housekeeping.number_earlier_keys,
            ),
            Job(
                "recovery",
                "Finds what was signed but not stored.",
                _every(120),
                housekeeping.recover_issuance,
            ),
            Job(
                "checkpoints",
                "Numbers audit lines and signs the log's checkpoint.",
                _every(1),
                audit_log.sign_checkpoint,
                waits=True,
            ),
            Job(
                "ldap-publication",
                "Brings LDAP in step with the feed.",
                _every(1),
                ldap_job.publish,
                waits=True,
            ),
            Job(
                "ldap-reconciliation",
                "Compares all of LDAP with the record.",
                _at(4, 30),
                ldap_job.reconcile,
                waits=True,
                silence=LONG_SILENCE,
            ),
        )
    }
)


def run_job(container: Container, name: str, *, forced: bool = False) -> str | None:
    """Run the job `name` unless another worker has it or just had it: its sentence, None when it did not run.

    Raises what the job raises, after noting the failure. `forced` ignores when it last started, never the
    lock, and is refused `record-behind` where the worker would let the job wait.
    """
    job = JOBS.get(name)
    if job is None:
        raise Refusal(Kind.NOT_FOUND, "unknown-job", f"There is no job {name!r}: see `sceau jobs list`.")
    if job.waits and forced:
        container.watch.need()
    with container.work.running(name, job.silence):
        return _run(container, job, forced=forced)


def _run(container: Container, job: Job, *, forced: bool) -> str | None:
    if job.waits and container.watch.lacks():
        return None
    with try_lock(container.engine, f"job:{job.name}") as free:
        now = container.clock()
        if not free or not (_start(container.engine, job, now, forced=forced)):
            return None
        started = time.monotonic()
        try:
            did = (job.by_hand if forced and job.by_hand else job.work)(container)
        except BaseException as error:
            _note_failure(container.engine, job, container.clock(), error)
            raise
        _note_success(container.engine, job, container.clock(), time.monotonic() - started)
        return did


@contextmanager
def _bookkeeping(engine: Engine) -> Iterator[Connection]:
    """A transaction that nobody was promised: losing the last half second of it costs one run too many."""
    with transaction(engine) as connection:
        unpromised(connection)
        yield connection


def _start(engine: Engine, job: Job, now: datetime, *, forced: bool) -> bool:
    with _bookkeeping(engine) as connection:
        last = job_runs.last_started(connection, job.name)
        if not forced and last is not None and timedelta() <= now - last < job.when.apart:
            return False
        job_runs.note_start(connection, job.name, now)
        return True


def _note_success(engine: Engine, job: Job, now: datetime, seconds: float) -> None:
    with _bookkeeping(engine) as connection:
        job_runs.note_success(connection, job.name, now, seconds)


def _note_failure(engine: Engine, job: Job, now: datetime, error: BaseException) -> None:
    words = error.text if isinstance(error, Refusal) else type(error).__name__
    with transaction(engine) as connection:
        job_runs.note_failure(connection, job.name, now, words)
