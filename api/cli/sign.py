"""`sceau sign`: an act under a person's own key, on any machine, without the record and without a network."""

import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from secrets import token_urlsafe
from typing import Any, BinaryIO

import click
from rich.text import Text

from api.cli.output import people, refusals_told
from directory.base.clock import utc_now
from directory.base.errors import Kind, Refusal
from pki.acts import key_file
from pki.acts.act import PERSON
from pki.acts.draft import Draft, read_draft
from pki.acts.signature import PrivateKey, credential_of
from pki.powers.state import person_of

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
# What one signs at one sitting; a draft that is carried about needs longer.
MINUTES, LONGEST = 10, 1440
# An act on a thousand subjects with what was shown of them.
_LARGEST = 4 << 20


def _person(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not PERSON.fullmatch(value):
        raise click.BadParameter("a person is person: and 32 hexadecimal digits.", ctx, param)
    return value


person_option = click.option(
    "--person", callback=_person, help="The person [default: the one named by this key, her first]."
)
passphrase_option = click.option(
    "--passphrase-file", type=FILE, help="Where the key's passphrase is [default: it is asked for]."
)


@click.command()
@click.argument("file", type=click.File("rb"))
@click.option("--key", "key_path", type=FILE, required=True, help="Your key (PEM).")
@passphrase_option
@person_option
@click.option("--minutes", type=click.IntRange(1, LONGEST), default=MINUTES, show_default=True,
              help="How long the act may be handed in.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Sign without the question: you read it elsewhere.")
def sign(
    file: BinaryIO, key_path: Path, passphrase_file: Path | None, person: str | None, minutes: int, yes: bool
) -> None:
    """Show what FILE (- for standard input) says, ask, and print your signed act (JWS).

    It needs neither state folder nor network. What is shown is what is signed: the act holds its digest.

    \b
    Examples:
      sceau person draft freeze > freeze.json
      sceau sign freeze.json --key anne.pem > anne.act
    """
    with refusals_told():
        draft = _read(file)
        key = opened(key_path, passphrase_file)
        who = person or person_of(credential_of(key.public_key()))
        people.print(Text("\n".join(in_words(draft, who, minutes))), soft_wrap=True)
        if not (yes or _agreed(file)):
            raise Refusal(Kind.UNACCEPTABLE, "not-signed", "Nothing was signed.")
        click.echo(signed_now(draft, key, who, minutes).decode())


def signed_now(draft: Draft, key: PrivateKey, person: str, minutes: int = MINUTES) -> bytes:
    """The act of this person, from now on for so long; refuses `no-act`."""
    try:
        return draft.signed_by(
            key, person, now=utc_now(), lifetime=timedelta(minutes=minutes), nonce=token_urlsafe(16)
        )
    except ValueError as error:
        raise Refusal(Kind.UNACCEPTABLE, "no-act", f"This is no act that can be signed: {error}.") from error


def opened(path: Path, passphrase_file: Path | None) -> PrivateKey:
    """The key; a passphrase that no file holds is asked for on the terminal."""
    passphrase = None if passphrase_file is None else passphrase_file.read_bytes().strip()
    if passphrase is None and key_file.is_locked(path):
        passphrase = click.prompt(f"Passphrase of {path}", hide_input=True, err=True).encode()
    return key_file.load_key(path, passphrase)


def in_words(draft: Draft, person: str, minutes: int) -> Iterator[str]:
    """What is about to be signed, line by line."""
    yield f"{person} signs {draft.kind.value}, to be handed in within {minutes} min"
    yield f"  installation  {draft.installation}"
    for subject in draft.subjects:
        yield f"  subject       {_plain(subject)}"
    yield "  shown"
    for name, value in draft.shown.items():
        first, *more = _plain(value).splitlines() or [""]
        yield f"    {_plain(name)}  {first}"
        yield from (f"      {line}" for line in more)


def _plain(value: Any) -> str:
    """As a terminal shows it: what is shown must not move the cursor over what is signed."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in str(value))


def read_file(file: BinaryIO) -> bytes:
    """The whole of a small file; refuses one that is none."""
    text = file.read(_LARGEST + 1)
    if len(text) > _LARGEST:
        raise Refusal(Kind.TOO_LARGE, "draft-too-large", "What is to be signed has 4 MiB at most.")
    return text


def draft_in(text: bytes) -> Draft:
    """The draft; refuses `bad-draft`."""
    try:
        return read_draft(text)
    except ValueError as error:
        raise Refusal(Kind.UNACCEPTABLE, "bad-draft", f"This is nothing to be signed: {error}.") from error


def _read(file: BinaryIO) -> Draft:
    return draft_in(read_file(file))


def _agreed(file: BinaryIO) -> bool:
    if file is sys.stdin.buffer or not sys.stdin.isatty():
        raise click.UsageError("No terminal to ask on: give --yes once you have read it.")
    return str(click.prompt("Sign this? (yes)", default="", show_default=False, err=True)) == "yes"
