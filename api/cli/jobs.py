"""`sceau jobs`: what the worker does by the clock, when it last did it, and running one now."""

from pathlib import Path
from typing import Any

import click
from sqlalchemy import text

from api.cli.output import ago, answer, container, json_option, refusals_told, state_option
from api.installation.status import FAILING
from api.jobs.table import JOBS, run_job
from directory.base.db import transaction


@click.group()
def jobs() -> None:
    """What the worker does by the clock."""


@jobs.command("list")
@state_option
@json_option
def list_jobs(state: Path | None, as_json: bool) -> None:
    """List the jobs with their last success.

    \b
    Example:  sceau jobs list --json
    """
    parts = container(state)
    now = parts.clock()
    with refusals_told(as_json=as_json), transaction(parts.engine) as connection:
        runs = {row.name: row for row in connection.execute(text("SELECT * FROM job_run"))}
        failing = {row.name: row.last_error for row in connection.execute(text(FAILING))}
    found: list[dict[str, Any]] = [
        {
            "name": job.name,
            "purpose": job.purpose,
            "when": job.when.words,
            "last_success": getattr(runs.get(job.name), "last_success", None),
            "last_failure": getattr(runs.get(job.name), "last_failure", None),
            "last_error": getattr(runs.get(job.name), "last_error", None),
        }
        for job in JOBS.values()
    ]
    rows = [
        (j["name"], j["when"], ago(j["last_success"], now), failing.get(j["name"], ""), j["purpose"])
        for j in found
    ]
    answer(
        {"jobs": found},
        as_json=as_json,
        rows=rows,
        headers=("job", "when", "last success", "failing with", "purpose"),
    )


@jobs.command("run")
@click.argument("name")
@state_option
@json_option
def run(name: str, state: Path | None, as_json: bool) -> None:
    """Run the job NAME now, unless a worker is at it.

    \b
    Example:  sceau jobs run registers
    """
    with refusals_told(as_json=as_json):
        did = run_job(container(state), name, forced=True)
    outcome = "another worker is at it" if did is None else did or "nothing to do"
    answer(
        {"job": name, "ran": did is not None, "did": did or ""},
        as_json=as_json,
        rows=[(name, outcome)],
        headers=("job", "outcome"),
    )
