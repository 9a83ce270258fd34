"""`sceau keys`: lists of keys that must never be certified."""

from pathlib import Path

import click

from api.cli.output import COMMAND, answer, container, json_option, refusals_told, state_option
from directory.base.db import transaction
from pki.revocation import blocked_keys


@click.group()
def keys() -> None:
    """Keys that must never be certified."""


@keys.command()
@click.option(
    "--list", "path", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True,
    help="Digests in hexadecimal, one a line.",
)  # fmt: skip
@click.option("--name", default=None, help="The name of the list in refusals [name of the file].")
@click.option("--apply", "applies", is_flag=True, help="Do it; without, only count.")
@state_option
@json_option
def block(path: Path, name: str | None, applies: bool, state: Path | None, as_json: bool) -> None:
    """Take in a list of weak keys; nothing takes one off again.

    \b
    A line has 64 digits (SHA-256 of the SubjectPublicKeyInfo), 30 (badkeys) or 20 (Debian
    openssl-blacklist). The 30 are the first half of the SHA-256 of the modulus, or of the x of the EC point.

    \b
    Example:  sceau keys block --list blacklist.RSA-4096 --apply
    """
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json), path.open(encoding="ascii", errors="replace") as lines:
        listed = list(blocked_keys.read_list(lines))
        added = 0
        if applies:
            with transaction(parts.engine) as connection:
                added = blocked_keys.import_list(
                    connection, listed, name=name or path.name, now=parts.present(connection), actor=COMMAND
                )
    told = {"read": len(listed), "added": added}
    answer(told, as_json=as_json, rows=[tuple(told.values())], headers=tuple(told))
