"""`sceau jobs`: the worker's tasks by the clock, their last runs, and running one now."""

from pathlib import Path
from typing import Any

import click

from api.cli.output import ago, answer, container, json_option, refusals_told, state_option
from api.jobs.table import JOBS, run_job
from directory.base import job_runs
from directory.base.db import transaction


@click.group()
def jobs() -> None:
    """The worker's tasks by the clock."""


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
        runs, failing = job_runs.job_runs(connection), job_runs.failing(connection)
    items: list[dict[str, Any]] = [
        {
            "name": job.name,
            "purpose": job.purpose,
            "when": job.when.words,
            "last_success": run.last_success,
            "last_failure": run.last_failure,
            "last_error": run.last_error,
        }
        for job in JOBS.values()
        for run in [runs.get(job.name, job_runs.JobRun())]
    ]
    rows = [
        (
            item["name"],
            item["when"],
            ago(item["last_success"], now),
            failing.get(item["name"], ""),
            item["purpose"],
        )
        for item in items
    ]
    answer(
        {"jobs": items},
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
