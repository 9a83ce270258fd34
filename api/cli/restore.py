"""`sceau restore`: the gaps of a record restored from a backup, how they are filled, who says it is
complete.
"""

from collections.abc import Sequence
from pathlib import Path

import click

from api.cli.output import answer, container, json_option, refusals_told, state_option
from api.jobs import audit_log
from directory.base.db import transaction
from pki.recovery import restore as restoring
from pki.tlog.store import last_checkpoint

_HEADERS = ("what", "serial", "since", "reason, source")
# More of them fill a screen and say no more.
_SHOWN = 50


@click.group()
def restore() -> None:
    """After the database was restored from a backup: find, bring back, accept."""


@restore.command()
@state_option
@json_option
def check(state: Path | None, as_json: bool) -> None:
    """Show whether the record is behind what was published, and by what; exit 1 when it is.

    Known from what lies outside the database: CRL numbers and the last CRLs, checkpoints of the audit log,
    the signer's journal.

    \b
    Example:  sceau restore check
    """
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json):
        lacks = parts.watch.look()
        plan = restoring.find(parts.engine, parts.signer, [], parts.present(), parts.settings.kept)
    answer(
        {"behind": bool(lacks), "lacks": lacks, **_counted(plan)},
        as_json=as_json,
        rows=[*_lacking(lacks), *_rows(plan)],
        headers=_HEADERS,
    )
    if lacks or not plan.is_empty:
        raise SystemExit(1)


@restore.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--apply", "applied", is_flag=True, help="Enter it; without this nothing is written.")
@state_option
@json_option
def replay(files: Sequence[Path], applied: bool, state: Path | None, as_json: bool) -> None:
    """Enter the revocations that our CRLs list and the record lacks, with their dates and reasons.

    FILES are CRLs or deltas in DER or PEM, from wherever one was kept. Those kept beside the high-water mark
    are read anyhow. Certificates in the signer's journal that the record lacks are stored again and revoked.
    Rows of the record are left as they are, so that you may run it again with other files.

    \b
    Example:  sceau restore replay persons-1-0.crl persons-1-1.crl --apply
    """
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json):
        contents = [file.read_bytes() for file in files]
        now = parts.present()
        plan = restoring.find(parts.engine, parts.signer, contents, now, parts.settings.kept)
        if applied:
            with transaction(parts.engine) as connection:
                restoring.enter(connection, plan, now=now)
    rows = _rows(plan) or [("nothing", "", "", "the record has all that these list")]
    if not applied and not plan.is_empty:
        rows.append(("to do", "", "", "nothing was written: add --apply"))
    answer({"applied": applied, **_counted(plan)}, as_json=as_json, rows=rows, headers=_HEADERS)


@restore.command()
@click.option("--reason", required=True, help="Why the record is held to be complete; it goes into the log.")
@state_option
@json_option
def accept(reason: str, state: Path | None, as_json: bool) -> None:
    """Declare the record complete: the service goes on, with CRL numbers above those of before.

    Refused while something that is kept outside the database could still be brought back. The audit log goes
    on under a new origin, whose first line names the last checkpoint of the one before.

    \b
    Example:  sceau restore accept --reason "disk lost, backup of 2 March, CRLs of 3 March replayed"
    """
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json):
        origin = restoring.accept(
            parts.engine, parts.signer, audit_log.audit_key(parts), parts.settings.kept,
            now=parts.signing.instant(), reason=reason,
        )  # fmt: skip
        with transaction(parts.engine, read_only=True) as connection:
            head = last_checkpoint(connection)
    rows = [("accepted", f"the audit log goes on as {origin}")]
    if parts.settings.anchors.exists():
        # Who follows powers by the log has followed lines that are gone: persons answer for that.
        draft = f"sceau person draft restore.accept --size {head.size} --root {head.root.hex()}"
        rows.append(("to sign", draft))
    told = {"accepted": True, "origin": origin, "size": head.size, "root": head.root.hex()}
    answer(told, as_json=as_json, rows=rows, headers=("record", ""))


def _counted(plan: restoring.Plan) -> dict[str, int]:
    return {"certificates": len(plan.certificates), "events": len(plan.events)}


def _lacking(lacks: Sequence[str]) -> list[tuple[str, str, str, str]]:
    return [("behind", "", "", lack) for lack in lacks] or [("complete", "", "", "nothing shows otherwise")]


def _rows(plan: restoring.Plan) -> list[tuple[str, str, str, str]]:
    rows: list[tuple[str, str, str, str]] = [
        (
            "certificate",
            certificate.reserved.serial,
            f"{certificate.reserved.reserved_at:%Y-%m-%d %H:%M:%S}Z",
            f"{certificate.reserved.profile}, in the signer's journal: stored again, and revoked",
        )
        for certificate in plan.certificates
    ]
    rows += [
        (
            "reason" if event.corrects else "hold" if event.holds else "revocation",
            event.told.serial,
            f"{event.told.at:%Y-%m-%d %H:%M:%S}Z",
            f"{event.reason.value}, CRL {event.told.number} of {event.told.authority.id}",
        )
        for event in plan.events
    ]
    if len(rows) > _SHOWN:
        rows[_SHOWN:] = [("…", "", "", f"and {len(rows) - _SHOWN} more")]
    return rows
