"""`sceau expiring`: which certificates run out without a successor."""

from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import click

from api.cli.output import answer, container, json_option, refusals_told, state_option
from directory.access import AUTHORITIES
from directory.base.db import transaction
from pki.monitoring import expiry_notices
from pki.monitoring.expiry_store import ExpiryQuery


@click.command()
@click.option("--within", type=click.IntRange(1, 400), default=60, show_default=True, help="Days ahead.")
@click.option(
    "--authority", type=click.Choice(sorted(AUTHORITIES)), help="Only what this Ordre or agency enrolled."
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@state_option
@json_option
def expiring(within: int, authority: str | None, limit: int, state: Path | None, as_json: bool) -> None:
    """List certificates that end soon and have no successor, the nearest first.

    \b
    Example:  sceau expiring --within 30 --authority CNOM
    """
    parts = container(state, as_json=as_json)
    now = parts.clock()
    asked = ExpiryQuery(now + timedelta(days=within), authority)
    with refusals_told(as_json=as_json), transaction(parts.engine, read_only=True) as connection:
        endings = expiry_notices.ending(connection, now, asked, limit=limit)
    rows = [
        (ending.not_after, ending.mailbox or ending.subject, ending.profile, ending.authority, ending.serial)
        for ending in endings
    ]
    headers = ("ends", "for", "profile", "enrolled by", "serial")
    answer({"items": [asdict(ending) for ending in endings]}, as_json=as_json, rows=rows, headers=headers)
