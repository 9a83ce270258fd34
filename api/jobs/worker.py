"""The worker process: APScheduler runs the table of jobs, a listener wakes those that follow the feed.

Holds no rule and no schedule of its own. Two workers may run side by side: each job has its database lock.
"""

import logging
import threading
import time

import psycopg
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from api.jobs.table import JOBS, due_within, run_job
from api.wiring import Container
from directory import measures_due
from directory.base.asked_to_stop import asked_to_stop
from directory.base.db import asking, libpq
from directory.base.errors import Refusal
from directory.base.notifications import heard, listen
from directory.feed.readers import is_urgent_waiting
from directory.ldap import publish
from pki.withdrawal import reconcile

log = logging.getLogger("sceau.worker")
# What must follow a change at once; everything else waits for its hour.
WOKEN_BY_THE_FEED = ("ldap-publication", "consequences")
WOKEN_BY_THE_CLOCK = ("measures-due",)
# What restores promises after a stop does not wait for its first interval. What began or ended while no
# worker ran is taken up before anything else.
AT_THE_START = (
    *WOKEN_BY_THE_CLOCK, "consequences", "heartbeat", "completeness", "recovery", "ocsp-responders", "crl",
    "ocsp-answers",
)  # fmt: skip
FOLLOWERS = (publish.CONSUMER, reconcile.CONSUMER)
# The first change of many is followed at once, and a withdrawal in its quarter of a second. The others are
# followed together, since each run costs as much as what it follows.
_BREATH = 0.25
_BREATHS = 4
_LONGEST_WAIT = 1.0
_A_HAIR = 0.005
# Jobs at a time by the clock; beside them run the heartbeat, those of the start and those the feed wakes.
_BY_THE_CLOCK = 10
_BEAT = "heartbeat"
AT_A_TIME = _BY_THE_CLOCK + 3
# A job's lock has a connection of its own, so has each lock it takes within, and its transaction one more.
DEEPEST = 4
# With fewer, jobs that each hold one and wait for the next stood still for 30 s, revocations among them. It
# was a minute at which twelve came due.
CONNECTIONS = AT_A_TIME * DEEPEST
# What the jobs that come due together every five seconds hold.
KEPT = 2 * AT_A_TIME


def run_worker(container: Container) -> None:
    """Run jobs until SIGTERM or SIGINT, then let the running ones end."""
    wait = asked_to_stop()
    scheduler = BackgroundScheduler(
        executors={"default": ThreadPoolExecutor(_BY_THE_CLOCK), _BEAT: ThreadPoolExecutor(1)},
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": 3600},
        timezone="UTC",
    )
    for job in JOBS.values():
        # A thread of its own: that ten jobs take long is no reason for the eleventh to seem dead.
        seat = _BEAT if job.name == _BEAT else "default"
        scheduler.add_job(_run, job.when.trigger, args=(container, job.name), id=job.name, executor=seat)
    # The worker alone listens: each statement and commit of such an engine takes longer for it.
    container.work.follow(container.engine)
    container.work.expect(due_within())
    scheduler.start()
    for name in AT_THE_START:
        _run(container, name)
    stop = threading.Event()
    woken = threading.Thread(target=_follow_feed, args=(container, stop), name="feed", daemon=True)
    woken.start()
    wait()
    stop.set()
    scheduler.shutdown(wait=True)


def _run(container: Container, name: str, *, forced: bool = False) -> None:
    """One run whose failure is a line in the log: the job table keeps it, and the next run may succeed."""
    try:
        did = run_job(container, name, forced=forced)
    except (Refusal, OperationalError) as error:
        log.warning("job %s: %s", name, error)
    except Exception:
        # The outermost edge: a bug in one job stops neither the others nor the listener.
        log.exception("job %s failed", name)
    else:
        if did:
            log.info("job %s: %s", name, did)


def _until_due(container: Container) -> float:
    """Seconds until a measure begins or ends, at most one: what is recorded meanwhile is heard of."""
    with asking(container.engine) as connection:
        wait = measures_due.next_within(connection, container.present(connection))
    # A hair later than the instant itself, before which nothing is due.
    return _LONGEST_WAIT if wait is None else min(wait + _A_HAIR, _LONGEST_WAIT)


def _breathe(container: Container, stop: threading.Event) -> None:
    """Let changes gather, for as long as they can wait, or until a measure begins or ends."""
    due = time.monotonic() + _until_due(container)
    for _ in range(_BREATHS):
        # A measure that is recorded meanwhile waits for the end of the breath: a second at most.
        if stop.wait(_BREATH) or time.monotonic() >= due:
            return
        with asking(container.engine) as connection:
            if is_urgent_waiting(connection, FOLLOWERS):
                return


def _follow_feed(container: Container, stop: threading.Event) -> None:
    """Run the followers as soon as a change commits; their intervals bound the wait when this link is cut."""
    conninfo = libpq(container.engine.url)
    while not stop.is_set():
        try:
            with psycopg.connect(conninfo, autocommit=True) as connection:
                listen(connection, "sceau_change")
                while not stop.is_set():
                    wait = _until_due(container)
                    told = heard(connection, wait)
                    if is_due := wait < _LONGEST_WAIT:
                        for name in WOKEN_BY_THE_CLOCK:
                            _run(container, name, forced=True)
                    if told or is_due:
                        for name in WOKEN_BY_THE_FEED:
                            _run(container, name, forced=True)
                        _breathe(container, stop)
        except (psycopg.OperationalError, SQLAlchemyError) as error:
            log.warning("feed listener: %s", error)
            stop.wait(1)
