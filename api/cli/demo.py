"""`sceau demo`: whom to try things with."""

from pathlib import Path

import click
import orjson

from api.cli.demonstration import demonstration
from api.cli.output import container, json_option, refusals_told, state_option


@click.group()
def demo() -> None:
    """People of the demo to try commands with."""


@demo.command()
@click.option(
    "--authority", default="CNOM", show_default=True, help="The body whose registrars would enrol them."
)
@click.option("--count", type=click.IntRange(1, 100), default=1, show_default=True)
@state_option
@json_option
def uncertified(authority: str, count: int, state: Path | None, as_json: bool) -> None:
    """Name people who practise and have a mailbox but no enrolment yet: national id, then address.

    \b
    Example:  sceau demo uncertified --authority CNOM
    """
    with refusals_told(as_json=as_json):
        people = demonstration().uncertified(container(state), authority, count)
    if as_json:
        click.echo(
            orjson.dumps({"people": [{"practitioner": who, "mailbox": where} for who, where in people]})
        )
    else:
        click.echo("\n".join(f"{who} {where}" for who, where in people))
