"""`sceau sync`: take in a national register file, after showing what it would change."""

from pathlib import Path

import click

from api.cli.output import COMMAND, answer, container, json_option, progress, refusals_told, state_option
from directory.sync.run import run_register


@click.group()
def sync() -> None:
    """National registers in."""


@sync.command("run")
@click.argument("register", type=click.Choice(["rpps", "finess", "mailboxes", "trusted-domains"]))
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
        report = run_register(
            parts.engine,
            register=register,
            path=file,
            now=parts.clock(),
            actor=COMMAND,
            apply=apply_it,
            strict_rpps=parts.settings.strict_rpps,
            bounds=parts.bounds,
            progress=show,
        )
    told = {
        "run": report.run_id,
        "register": report.register,
        "layout": report.layout,
        "file": report.file_name,
        "generated_at": report.generated_at,
        "state": report.state,
        "reason": report.reason,
        "text": report.text,
        "counts": report.counts,
        "rejections": [
            {"line": r.line_number, "reason": r.reason, "detail": r.detail} for r in report.rejections
        ],
    }
    rows = [
        ("state", report.state),
        ("of", report.generated_at),
        ("layout", report.layout),
        *report.counts.items(),
    ]
    rows += [(f"line {r.line_number}", f"{r.reason}: {r.detail}") for r in report.rejections[:10]]
    if report.state == "planned":
        rows.append(("next", "nothing has changed; run again with --apply"))
    if report.reason:
        rows.append((report.reason, report.text))
    answer(told, as_json=as_json, rows=rows, headers=(report.register, report.file_name))
    if report.state == "refused":
        raise SystemExit(1)
