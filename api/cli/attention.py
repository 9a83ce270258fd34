"""`sceau attention`: the matters that no rule can settle, for a person to look at."""

from dataclasses import asdict
from pathlib import Path

import click

from api.cli.output import answer, container, json_option, refusals_told, state_option
from directory.access import AUTHORITIES
from directory.attention import Concern, matters_noted
from directory.base.db import transaction


@click.command()
@click.option("--kind", type=click.Choice([kind.value for kind in Concern]), help="Only this kind.")
@click.option(
    "--authority", type=click.Choice(sorted(AUTHORITIES)), help="Only what touches this Ordre or agency."
)
@click.option("--closed", is_flag=True, help="Those that are gone besides.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@state_option
@json_option
def attention(
    kind: str | None, authority: str | None, closed: bool, limit: int, state: Path | None, as_json: bool
) -> None:
    """List the matters that need a look, oldest first. Nobody answers for it, two claim it, it is about to be
    revoked, it was approved under another name. With --json each says what differs, or what is to come.

    \b
    Examples:
      sceau attention --kind no-answerable-professional
      sceau attention --kind enrolment-void --authority CNOM --json
    """
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json), transaction(parts.engine, read_only=True) as connection:
        matters = matters_noted(
            connection, authority=authority, kind=kind, closed=closed, after=None, limit=limit
        )
    rows = [
        (
            matter.id,
            matter.kind,
            matter.subject,
            " ".join(matter.authorities),
            matter.since,
            matter.resolved_at,
        )
        for matter in matters
    ]
    headers = ("id", "kind", "subject", "authorities", "since", "closed")
    answer({"items": [asdict(matter) for matter in matters]}, as_json=as_json, rows=rows, headers=headers)
