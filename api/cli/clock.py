"""`sceau clock`: how this host's clock stands, and how the last instant signed is voided."""

from dataclasses import asdict
from pathlib import Path

import click

from api.cli.enrolment import identity_option, who_acts
from api.cli.output import answer, container, json_option, refusals_told, state_option
from directory.base.db import transaction
from pki.rollback import clock_reset

_HEADERS = ("id", "reason", "asked by", "asked at", "confirmed by", "confirmed at")


@click.group()
def clock() -> None:
    """See whether this host's clock lets it sign; void an instant signed in the future."""


@clock.command()
@state_option
@json_option
def show(state: Path | None, as_json: bool) -> None:
    """Show how far this host's clock and its last signature are ahead; exit 1 where it signs nothing.

    \b
    Example:  sceau clock show
    """
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json):
        told = {
            "difference_seconds": parts.signing.difference().total_seconds(),
            "signed_ahead_seconds": parts.signing.ahead().total_seconds(),
            "reason": parts.signing.wrong(),
        }
    rows = [
        ("ahead of the database", f"{told['difference_seconds']:.3f} s"),
        ("last signature ahead of the clock", f"{told['signed_ahead_seconds']:.3f} s"),
        ("signs", told["reason"] or "yes"),
    ]
    answer(told, as_json=as_json, rows=rows, headers=("clock", ""))
    if told["reason"]:
        raise SystemExit(1)


@clock.command()
@click.option("--reason", required=True, help="Why what was signed in the future counts no more.")
@identity_option
@state_option
@json_option
def reset(reason: str, name: str | None, secret: str | None, state: Path | None, as_json: bool) -> None:
    """Void the last instants signed that lie in the future: one administrator asks, another confirms.

    Set the clocks right first. The next CRLs are numbered above those of the future and made at once; OCSP
    answers again. Readers may keep a CRL of the future until it ends.

    \b
    Example:  sceau clock reset --reason "time server gave next year for an hour" --as admin_a
    """
    parts = container(state, as_json=as_json, gives=True)
    with refusals_told(as_json=as_json), transaction(parts.engine) as connection:
        made = clock_reset.reset(
            connection,
            now=parts.present(connection),
            token=who_acts(parts, connection, name, secret),
            reason=reason,
        )
    answer(asdict(made), as_json=as_json, rows=[tuple(asdict(made).values())], headers=_HEADERS)
