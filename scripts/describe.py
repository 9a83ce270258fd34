#!/usr/bin/env python3
"""Write the reference pages that the program itself can tell: commands (their --help) and settings.

A test fails while they differ from the program; run this, read the difference, commit both together.
"""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
from click.testing import CliRunner

from api.cli.main import main as sceau
from api.settings import Settings

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference"
COMMANDS = """\
# Commands

Every command takes `--state DIR` (default `./var`, or `SCEAU_STATE`); most take `--json` and then print
one JSON object on standard output, with words for people on standard error. Exit codes: **0** done, or
the answer is yes; **1** refused, or the answer is no; **2** misused, or something is out of reach. Each
section below is the command's own `--help`.
"""
SETTINGS = """\
# Settings

Each is read from `settings.toml` in the state folder, then from the environment (`SCEAU_` and the name
in capitals, e.g. `SCEAU_PORT=8081`), which wins. They are checked when a process starts; nonsense
refuses to start. `api/settings.py` is the only reader.

| setting | default | what it is, what losing or changing it means |
|---|---|---|
"""
SECRETS = """
Secrets are no settings and are never kept in `settings.toml`. The passphrase of the CA keys is read from
`SCEAU_CA_PASSPHRASE`, that of the OCSP and audit keys from `SCEAU_WEB_PASSPHRASE`, else each from its file.
`sceau up` hands each to the parts that need it and to no other, and makes a file, with a warning, only where
neither is there.
"""


def words_of(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command below this one."""
    if words:
        yield words
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from words_of(child, (*words, name))


def help_of(words: tuple[str, ...]) -> str:
    """What the command says of itself."""
    return CliRunner().invoke(sceau, [*words, "--help"], prog_name="sceau").output.rstrip()


def commands_page() -> str:
    """docs/reference/commands.md."""
    sections = [f"## `sceau {' '.join(words)}`\n\n```\n{help_of(words)}\n```\n" for words in words_of(sceau)]
    return "\n".join([COMMANDS, *sections])


def settings_page() -> str:
    """docs/reference/settings.md."""
    rows = [
        f"| `{field.name}` | {'(empty)' if field.default == '' else field.default}"
        f" | {field.metadata['doc']} |\n"
        for field in fields(Settings)
    ]
    return "".join([SETTINGS, *rows, SECRETS])


if __name__ == "__main__":
    (REFERENCE / "commands.md").write_text(commands_page())
    (REFERENCE / "settings.md").write_text(settings_page())
