"""`sceau crl`: publish revocation lists now."""

from datetime import timedelta
from pathlib import Path

import click

from api.cli.output import answer, container, json_option, refusals_told, state_option
from api.jobs import crl as crl_job


@click.group()
def crl() -> None:
    """Certificate revocation lists."""


@crl.command()
@click.option("--all", "every", is_flag=True, help="Every shard, due or not.")
@state_option
@json_option
def publish(every: bool, state: Path | None, as_json: bool) -> None:
    """Publish every shard that is due: revocations waiting, an hour old, or half its validity gone.

    \b
    Example:  sceau crl publish --all
    """
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json):
        count = crl_job.publish_shards(parts, every=every)
    hours = timedelta(hours=parts.settings.crl_hours)
    answer(
        {"published": count},
        as_json=as_json,
        rows=[(count, hours)],
        headers=("shards published", "valid for"),
    )
