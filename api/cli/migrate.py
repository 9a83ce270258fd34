"""`sceau migrate`: the schema and the rights of this release, by the owner's connection."""

from dataclasses import asdict
from pathlib import Path

import click

from api.cli.output import answer, json_option, refusals_told, state_option
from api.installation import schema
from api.settings import load_settings
from api.wiring import database_url


@click.command()
@state_option
@json_option
def migrate(state: Path | None, as_json: bool) -> None:
    """Bring the database to this release: its schema, its roles, and who may do what in it.

    \b
    It connects by `database_url`, as the owner of the tables. `sceau up` does the same when it starts.
    Done twice, it changes nothing; after a restored dump it grants again what the dump did not hold.
    Example:  sceau migrate --state /srv/sceau
    """
    with refusals_told(as_json=as_json):
        done = schema.migrate(database_url(load_settings(state)))
    rows = [(done.before or "empty", done.now, ", ".join(done.roles) or "none", done.granted)]
    headers = ("from", "now at", "roles made", "objects whose rights changed")
    answer(asdict(done), as_json=as_json, rows=rows, headers=headers)
