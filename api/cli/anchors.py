"""`sceau anchors`: the ceremony of the anchors, and what they say."""

from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any

import click

from api.cli.output import answer, json_option, refusals_told, state_option
from api.cli.sign import FILE
from api.settings import load_settings
from directory.base.durable_files import create_whole, make_private
from directory.base.errors import Kind, Refusal
from pki.acts.signature import PublicKey, credential_of
from pki.powers.anchors import Anchors, public_key, required_anchors
from pki.powers.state import person_of

NAME = "anchors.json"
_HEADERS = ("anchor", "person", "credential")


@click.group()
def anchors() -> None:
    """The anchors: installation, first administrators, recovery keys. Every power leads back to them."""


@anchors.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--administrator", "administrators", multiple=True, required=True, metavar="NAME=FILE",
    help="An administrator and the file of her public key; two at least.",
)  # fmt: skip
@click.option(
    "--recovery", multiple=True, type=FILE, required=True, help="A recovery key's public key; three."
)
@click.option("--installation", default=None, help="Its name, 32 hexadecimal digits [default: a new one].")
@click.option("--demo", is_flag=True, help="For trying: keys that lie in the state folder count.")
@json_option
def make(
    folder: Path, administrators: Sequence[str], recovery: Sequence[Path], installation: str | None,
    demo: bool, as_json: bool,
) -> None:  # fmt: skip
    """Write anchors.json into FOLDER, and show what it says; refused where one person could turn it alone.

    NAME is for this table alone: the file names a person by her key. Compare it with what each of them holds,
    then put it beside signer and log.

    \b
    Example:
      sceau anchors make . --administrator anne=anne.public.pem --administrator bruno=bruno.public.pem \\
        --recovery r1.public.pem --recovery r2.public.pem --recovery r3.public.pem
    """
    with refusals_told(as_json=as_json):
        named = dict(_named(given) for given in administrators)
        if len(named) < len(administrators):
            raise _bad("two administrators have one name")
        try:
            made = Anchors(
                installation or token_hex(16),
                {person_of(credential_of(key)): key for key in named.values()},
                tuple(map(_key, recovery)), demo,
            )  # fmt: skip
        except ValueError as error:
            raise _bad(str(error)) from error
        make_private(folder)
        if not create_whole(folder / NAME, made.text()):
            text = f"{folder / NAME} is there already, and stays as it is."
            raise Refusal(Kind.CONFLICT, "anchors-exist", text)
    _show(made, {person_of(credential_of(key)): name for name, key in named.items()}, as_json=as_json)


@anchors.command()
@state_option
@json_option
def show(state: Path | None, as_json: bool) -> None:
    """Show what the anchors of this installation say.

    \b
    Example:  sceau anchors show
    """
    with refusals_told(as_json=as_json):
        found = required_anchors(load_settings(state).anchors)
    _show(found, {}, as_json=as_json)


def _named(given: str) -> tuple[str, PublicKey]:
    name, equals, path = given.partition("=")
    if not (name and equals and Path(path).is_file()):
        raise _bad(f"{given!r} is no NAME=FILE of a public key")
    return name, _key(Path(path))


def _key(path: Path) -> PublicKey:
    try:
        return public_key(path.read_text(errors="replace"))
    except ValueError as error:
        raise _bad(f"{path} is no public key on P-256 or Ed25519") from error


def _bad(why: str) -> Refusal:
    return Refusal(Kind.UNACCEPTABLE, "bad-anchors", f"These are no anchors: {why}.")


def _show(found: Anchors, names: dict[str, str], *, as_json: bool) -> None:
    administrators = {person: credential_of(key) for person, key in found.administrators.items()}
    recovery = [credential_of(key) for key in found.recovery]
    told: dict[str, Any] = {
        "installation": found.installation, "demo": found.demo, "administrators": administrators,
        "recovery": recovery,
    }  # fmt: skip
    rows = [
        ("installation", found.installation, "demo" if found.demo else ""),
        *(
            (f"administrator {names.get(person, '')}".strip(), person, cred)
            for person, cred in administrators.items()
        ),
        *(("recovery key", "", credential) for credential in recovery),
    ]
    answer(told, as_json=as_json, rows=rows, headers=_HEADERS)
