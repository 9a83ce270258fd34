"""`sceau limits`: the withdrawals of the hour, and a second person's word that more may follow."""

from dataclasses import asdict
from pathlib import Path

import click

from api.cli.enrolment import identity_option, who_acts
from api.cli.output import NUMBER, answer, container, json_option, refusals_told, state_option
from directory import withdrawal_limits
from directory.base.db import transaction


@click.group()
def limits() -> None:
    """See how much trust was taken away within the hour, agree that a colleague takes more."""


@limits.command(name="list")
@identity_option
@state_option
@json_option
def list_limits(name: str | None, secret: str | None, state: Path | None, as_json: bool) -> None:
    """List what tokens and bodies used within 60 minutes: one's own; to administrators and auditors all.

    \b
    Example:  sceau limits list --as registrar_a
    """
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json), transaction(parts.engine, read_only=True) as connection:
        token = who_acts(parts, connection, name, secret)
        uses = withdrawal_limits.standings_seen(connection, token=token, now=parts.present(connection))
    rows = [(use.scope, use.used, use.limit, use.agreed, use.left) for use in uses]
    told = {"items": [asdict(use) | {"left": use.left} for use in uses]}
    answer(told, as_json=as_json, rows=rows, headers=("scope", "used", "limit", "agreed", "left"))


@limits.command()
@click.argument("token_id", type=NUMBER)
@click.option("--reason", required=True, help="The evidence you saw or checked; kept.")
@identity_option
@state_option
@json_option
def agree(
    token_id: int, reason: str, name: str | None, secret: str | None, state: Path | None, as_json: bool
) -> None:
    """Open one more allotment for an hour to the token TOKEN_ID, of a colleague of the same body.

    \b
    Example:  sceau limits agree 12 --reason "incident 31, list read again" --as registrar_b
    """
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json), transaction(parts.engine) as connection:
        token = who_acts(parts, connection, name, secret)
        made = withdrawal_limits.agree(
            connection, now=parts.present(connection), token=token, token_id=token_id, reason=reason
        )
    told = asdict(made)
    rows = [(made.token, made.number, made.until, made.agreed_by)]
    answer(told, as_json=as_json, rows=rows, headers=("token", "more", "until", "agreed by"))
