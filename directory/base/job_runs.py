"""When each job last began, ended well and failed: one row a job, whatever the job does.

What the jobs are, and when they are due, is for `api/jobs/table.py`.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

_LAST_STARTED = text("SELECT last_started FROM job_run WHERE name = :name")
_LAST_SUCCESS = text("SELECT last_success FROM job_run WHERE name = :name")
_START = text("""
    INSERT INTO job_run (name, last_started) VALUES (:name, :now)
    ON CONFLICT (name) DO UPDATE SET last_started = :now
""")
_SUCCESS = text("UPDATE job_run SET last_success = :now, last_duration = :seconds WHERE name = :name")
_FAILURE = text("UPDATE job_run SET last_failure = :now, last_error = :words WHERE name = :name")
_ALL = text("SELECT name, last_success, last_failure, last_error, last_duration FROM job_run ORDER BY name")
_FAILING = text(
    "SELECT name, last_error FROM job_run WHERE last_failure > coalesce(last_success, '-infinity')"
)


@dataclass(frozen=True)
class JobRun:
    """When a job last ended well, when it last failed and with what; `last_duration` is a success's."""

    last_success: datetime | None = None
    last_failure: datetime | None = None
    last_error: str | None = None
    last_duration: float | None = None


def last_started(connection: Connection, name: str) -> datetime | None:
    """When the job last began, None when it never did."""
    started_at: datetime | None = connection.execute(_LAST_STARTED, {"name": name}).scalar()
    return started_at


def last_success(connection: Connection, name: str) -> datetime | None:
    """When the job last ended well, None when it never did."""
    finished_at: datetime | None = connection.execute(_LAST_SUCCESS, {"name": name}).scalar()
    return finished_at


def note_start(connection: Connection, name: str, now: datetime) -> None:
    """Note that the job begins."""
    connection.execute(_START, {"name": name, "now": now})


def note_success(connection: Connection, name: str, now: datetime, seconds: float) -> None:
    """Note that the job ended well, after so long."""
    connection.execute(_SUCCESS, {"name": name, "now": now, "seconds": seconds})


def note_failure(connection: Connection, name: str, now: datetime, words: str) -> None:
    """Note that the job failed, and with what."""
    connection.execute(_FAILURE, {"name": name, "now": now, "words": words})


def job_runs(connection: Connection) -> dict[str, JobRun]:
    """What is known of each job that ever began, by its name, in the order of names."""
    return {name: JobRun(*known) for name, *known in connection.execute(_ALL)}


def failing(connection: Connection) -> dict[str, str]:
    """What each job failed with that has not ended well since."""
    return {row.name: row.last_error for row in connection.execute(_FAILING)}
