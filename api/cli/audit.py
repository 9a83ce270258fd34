"""`sceau audit`: is the history what it was when it was signed?"""

from pathlib import Path

import click

from api.cli.output import answer, container, json_option, refusals_told, state_option
from api.jobs.audit_log import verify_log


@click.group()
def audit() -> None:
    """The tamper-evident log of who did what."""


@audit.command()
@state_option
@json_option
def verify(state: Path | None, as_json: bool) -> None:
    """Recompute the whole log and compare it with every checkpoint; exit 1 when anything was rewritten.

    Lines lost by a restored backup are told, and are no finding once a person has answered for them
    (`sceau restore accept`).

    \b
    Example:  sceau audit verify
    """
    with refusals_told(as_json=as_json):
        size, examination = verify_log(container(state))
    findings = examination.findings
    rows = [("finding", finding) for finding in findings] or [
        ("intact", f"{size} lines, every checkpoint agrees")
    ]
    rows += [("lost", loss) for loss in examination.losses]
    answer(
        {"intact": not findings, "size": size, "findings": findings, "losses": examination.losses},
        as_json=as_json,
        rows=rows,
        headers=("audit", ""),
    )
    if findings:
        raise SystemExit(1)
