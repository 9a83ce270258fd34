"""`sceau ldap`: compare LDAP with the record, or make it anew."""

from dataclasses import asdict
from pathlib import Path

import click

from api.cli.output import COMMAND, answer, container, json_option, progress, refusals_told, state_option
from api.jobs import ldap as ldap_job


@click.group()
def ldap() -> None:
    """The public directory."""


@ldap.command()
@click.option("--apply", "apply_it", is_flag=True, help="Repair what differs.")
@click.option("--force", is_flag=True, help="Repair even when it would delete a large share.")
@click.option("--quick", is_flag=True, help="Compare the digest of each entry, not its values.")
@state_option
@json_option
def reconcile(apply_it: bool, force: bool, quick: bool, state: Path | None, as_json: bool) -> None:
    """Compare every entry with the record; exit 1 when something differs and was not repaired.

    \b
    Example:  sceau ldap reconcile --apply
    """
    with refusals_told(as_json=as_json), progress(as_json) as show:
        report = ldap_job.compare(
            container(state, as_json=as_json, complete=apply_it),
            apply=apply_it,
            force=force,
            quick=quick,
            progress=lambda done: show("entries compared", done),
        )
    rows = [
        ("compared", report.compared),
        ("missing", report.missing),
        ("extra", report.extra),
        ("different", report.different),
        ("repaired", report.repaired),
        *(("", example) for example in report.examples),
    ]
    if report.empty:
        rows.append(("the rest", "not looked at, so much is missing: `sceau ldap rebuild` loads it whole"))
    answer({**asdict(report), "agrees": report.agrees}, as_json=as_json, rows=rows, headers=("entries", ""))
    if report.empty or not (report.agrees or apply_it):
        raise SystemExit(1)


@ldap.command()
@state_option
@json_option
def rebuild(state: Path | None, as_json: bool) -> None:
    """Make the whole tree anew from the record and put it in the place of the old one.

    \b
    Example:  sceau ldap rebuild
    """
    with refusals_told(as_json=as_json), progress(as_json) as show:
        report = ldap_job.rebuild(
            container(state, as_json=as_json, complete=True),
            COMMAND,
            lambda done: show("entries written", done),
        )
    answer(asdict(report), as_json=as_json, rows=list(asdict(report).items()), headers=("rebuild", ""))
