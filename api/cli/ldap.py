"""`sceau ldap`: compare LDAP with the record, or make it anew."""

from pathlib import Path

import click

from api import publication
from api.cli.output import answer, container, json_option, refusals_told, state_option


@click.group()
def ldap() -> None:
    """The public directory."""


@ldap.command()
@click.option("--apply", "apply_it", is_flag=True, help="Repair what differs.")
@click.option("--force", is_flag=True, help="Repair even when it would delete a large share.")
@state_option
@json_option
def reconcile(apply_it: bool, force: bool, state: Path | None, as_json: bool) -> None:
    """Compare every entry with the record; exit 1 when something differs and was not repaired.

    \b
    Example:  sceau ldap reconcile --apply
    """
    with refusals_told(as_json=as_json):
        report = publication.compare(container(state), apply=apply_it, force=force)
    told = {
        "missing": list(report.missing),
        "extra": list(report.extra),
        "different": list(report.different),
        "repaired": report.repaired,
    }
    rows = [(kind, name) for kind in ("missing", "extra", "different") for name in told[kind][:20]]
    answer(told, as_json=as_json, rows=rows or [("in step", "")], headers=("finding", "entry"))
    if any(told[kind] for kind in ("missing", "extra", "different")) and not report.repaired:
        raise SystemExit(1)


@ldap.command()
@state_option
@json_option
def rebuild(state: Path | None, as_json: bool) -> None:
    """Make the whole tree anew from the record and put it in the place of the old one.

    \b
    Example:  sceau ldap rebuild
    """
    with refusals_told(as_json=as_json):
        count = publication.rebuild(container(state))
    answer({"entries": count}, as_json=as_json, rows=[(count,)], headers=("entries",))
