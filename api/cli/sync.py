"""`sceau sync`: take in a national register file, see what the nights did, let a held one go on."""

from pathlib import Path
from typing import Any

import click

from api.cli.enrolment import identity_option, who_acts
from api.cli.nights import finding_told, run_in_full_rows, run_in_full_told, run_told, sparkline
from api.cli.output import (
    COMMAND,
    NUMBER,
    answer,
    container,
    json_option,
    progress,
    refusals_told,
    state_option,
)
from api.jobs import registers as registers_job
from directory.base.db import transaction
from directory.store import REGISTERS
from directory.sync.runs import approvals
from directory.sync.runs import history as runs_of
from directory.sync.runs.history import Run, RunState
from directory.sync.runs.run import RunReport, due_to_resume


@click.group()
def sync() -> None:
    """National registers in: one file, what the nights did, and who lets a held one go on."""


@sync.command("run")
@click.argument("register", type=click.Choice(REGISTERS))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--apply", "apply_it", is_flag=True, help="Apply the plan; without it nothing changes.")
@state_option
@json_option
def run(register: str, file: Path, apply_it: bool, state: Path | None, as_json: bool) -> None:
    """Read FILE, compare it with the record, print the plan, and with --apply carry it out at once.

    \b
    Examples:
      sceau sync run rpps PS_LibreAcces_202608260200.zip
      sceau sync run rpps PS_LibreAcces_202608260200.zip --apply
    """
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json), progress(as_json) as show:
        report = registers_job.run_file(parts, register, file, actor=COMMAND, apply=apply_it, progress=show)
    answer(_told(report), as_json=as_json, rows=_rows(report), headers=(report.register, report.file_name))
    if report.state in ("refused", "held"):
        raise SystemExit(1)


@sync.command()
@click.option("--register", type=click.Choice(REGISTERS), default=None, help="Only this one.")
@click.option("--limit", type=click.IntRange(1, 1000), default=90, show_default=True, help="How many runs.")
@state_option
@json_option
def history(register: str | None, limit: int, state: Path | None, as_json: bool) -> None:
    """Show the last runs, newest first, and under them a line for each register, oldest run first.

    In the line a bar is as high as the night changed much; ✕ is a refused file, ◆ one that is held,
    ~ one cut off.

    \b
    Example:  sceau sync history --register rpps --limit 30
    """
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json), transaction(parts.engine, read_only=True) as connection:
        runs = runs_of.runs(connection, register=register, limit=limit)
    headers = ("run", "register", "state", "of", "lines", "created", "changed", "removed", "rejected", "took")
    rows = [_run_row(listed_run) for listed_run in runs]
    answer(
        {"runs": [run_told(listed_run) for listed_run in runs]}, as_json=as_json, rows=rows, headers=headers
    )
    for name in REGISTERS if not as_json else ():
        ours = [
            listed_run
            for listed_run in reversed(runs)
            if listed_run.register == name and listed_run.state is not RunState.PLANNED
        ]
        if ours:
            click.echo(f"{name:16}{sparkline(ours)}")


@sync.command()
@click.argument("run_id", metavar="RUN", type=NUMBER)
@state_option
@json_option
def show(run_id: int, state: Path | None, as_json: bool) -> None:
    """Show one run: counts beside those of the run before, steps, bounds passed, who agreed, rejected lines.

    A rejected line is cut to what the terminal shows; --json gives it whole.

    \b
    Example:  sceau sync show 41
    """
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json), transaction(parts.engine, read_only=True) as connection:
        full_run = runs_of.run(connection, run_id, samples=True)
    answer(
        run_in_full_told(full_run),
        as_json=as_json,
        rows=list(run_in_full_rows(full_run)),
        headers=("", "", "before"),
    )


@sync.command()
@click.argument("run_id", metavar="RUN", type=NUMBER)
@click.option("--comment", required=True, help="The evidence you looked at; kept in the audit log.")
@identity_option
@state_option
@json_option
def approve(
    run_id: int, comment: str, name: str | None, secret: str | None,
    state: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Let a held RUN go on, in your own name; once as many have agreed as are needed, it goes on at once.

    \b
    Examples:
      sceau sync show 41
      sceau sync approve 41 --comment "departures seen with the Ordre" --token-file ~/admin.token
    """
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json), transaction(parts.engine) as connection:
        token = who_acts(parts, connection, name, secret)
        told = approvals.approve(
            connection, now=parts.present(connection), token=token, run_id=run_id, comment=comment
        )
    enough = told.approvals >= told.needed
    report = None
    if enough:
        with refusals_told(as_json=as_json), progress(as_json) as show:
            report = registers_job.resumed_unless_taken(parts, run_id, actor=COMMAND, progress=show)
    rows: list[tuple[Any, ...]] = [("approvals", f"{told.approvals} of {told.needed}")]
    waits = "the worker is at it" if enough else "somebody else must agree"
    rows += [("next", waits)] if report is None else _rows(report)
    value = {**vars(told), "run": None if report is None else _told(report)}
    answer(value, as_json=as_json, rows=rows, headers=("run", str(run_id)))
    if report is not None and report.state != "applied":
        raise SystemExit(1)


@sync.command()
@click.argument("run_id", metavar="[RUN]", type=NUMBER, required=False)
@state_option
@json_option
def resume(run_id: int | None, state: Path | None, as_json: bool) -> None:
    """Take up RUN again, or all that were let through or cut off; the worker does the same by itself.

    \b
    Example:  sceau sync resume
    """
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json):
        with transaction(parts.engine, read_only=True) as connection:
            due = due_to_resume(connection) if run_id is None else [run_id]
        reports = []
        for due_id in due:
            with progress(as_json) as show:
                reports.append(registers_job.resume(parts, due_id, actor=COMMAND, progress=show))
    rows = [(report.run_id, report.register, report.state, report.text) for report in reports]
    answer(
        {"runs": [_told(report) for report in reports]},
        as_json=as_json,
        rows=rows or [("", "", "nothing waits", "")],
        headers=("run", "register", "state", ""),
    )
    if any(report.state != "applied" for report in reports):
        raise SystemExit(1)


def _told(report: RunReport) -> dict[str, Any]:
    return {
        "run": report.run_id,
        "register": report.register,
        "layout": report.layout,
        "file": report.file_name,
        "generated_at": report.generated_at,
        "state": report.state,
        "reason": report.reason,
        "text": report.text,
        "counts": report.counts,
        "approvals_needed": report.approvals_needed,
        "findings": [vars(finding) for finding in report.findings],
        "rejections": [
            {"line": r.line_number, "reason": r.reason, "detail": r.detail} for r in report.rejections
        ],
    }


def _rows(report: RunReport) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = [
        ("run", report.run_id),
        ("state", report.state),
        ("of", report.generated_at),
        ("layout", report.layout),
        *report.counts.items(),
    ]
    rows += [(f"line {r.line_number}", f"{r.reason}: {r.detail}") for r in report.rejections[:10]]
    rows += [(finding.name, finding_told(finding.sentence, finding.needed)) for finding in report.findings]
    if report.state == "planned":
        rows.append(("next", "nothing has changed; run again with --apply"))
    if report.state == "held":
        words = f"nothing has changed; persons who must let it through: {report.approvals_needed};"
        rows.append(("next", f"{words} sceau sync approve {report.run_id} --comment … --token-file …"))
    if report.reason:
        rows.append((report.reason, report.text))
    return rows


def _run_row(run: Run) -> tuple[Any, ...]:
    counts = [run.counts.get(name, "") for name in ("lines", "created", "changed", "removed", "rejected")]
    took = "" if run.duration is None else f"{run.duration.total_seconds():.1f} s"
    state = run.state.value if run.reason is None else f"{run.state.value}: {run.reason}"
    return (run.id, run.register, state, f"{run.generated_at:%Y-%m-%d %H:%M}Z", *counts, took)
