#!/usr/bin/env python3
"""Write the reference pages that the program itself can tell: commands, settings, bounds, rights, addresses.

A test fails while they differ from the program; run this, read the difference, commit both together.
"""

from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from click.testing import CliRunner

from api.cli.main import main as sceau
from api.settings import Settings
from directory.base import rights
from directory.model import MailboxFacts
from directory.sync.runs.bounds import NEVER, Bound, load_bounds
from pki.verdict import trial_addresses
from pki.verdict.decide import Occasion, Party, decide, side_of
from pki.verdict.trial_addresses import Trial

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference"
COMMANDS = """\
# Commands

Every command that acts on an installation takes `--state DIR` (default `./var`, or `SCEAU_STATE`); `sign`,
`person key` and `anchors make` need none. Most take `--json` and then print one JSON object on standard
output, with words for people on standard error. Exit codes: **0** done, or the answer is yes; **1** refused,
or the answer is no; **2** misused, or something is out of reach. Each
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
Secrets are no settings and are never kept in `settings.toml`. The passphrase of the CA keys, or the PIN of
their token, is read from `SCEAU_CA_PASSPHRASE`, that of the OCSP and audit keys from
`SCEAU_WEB_PASSPHRASE`. Else each is read from its file. `sceau up` hands each to the parts that need it
and to no other. It makes a file, with a warning, only where neither is there; a PIN it never makes.
"""


BOUNDS = """\
# Bounds: when a night waits for somebody

Before a register file is applied, its effects are counted (`directory/sync/runs/measuring.py`) and
compared with the bounds below (`directory/sync/runs/bounds.toml`). Beyond one, the run is **held**: nothing
changes, its file is kept, its report says which bound and by how much. It goes on when a named person with
the role `admin` lets it through, or two of them. Each has a token of their own and gives a comment, by
`sceau sync approve` or `POST /v1/registers/runs/<id>/approvals`. A run that nobody may let through is
**refused**, under the name of the bound. A share equal to its bound passes. A count up to the floor needs
nobody, so that a small register is not stopped for three departures. The word of a token revoked since counts
no more. A later run that is applied closes an older one that waits.

An operator's own figures go into a file of the same shape (setting `bounds_file`). It may give `one`,
`two`, `refuse`, `floor` and `refuse_floor` of any bound, and more codes. `inf` is never:

    [rpps.too-many-arrivals]
    one = 0.08 # the psychologists arrive this month

    [codes]
    profession = ["99"]

Below, n of m: what is counted, of how many. A dash: this level is not there.
"""
TRIALS = """\
# Addresses to try every answer with

An installation with the setting [`trial_addresses`](settings.md) answers a check of each address below with
exactly the verdict and the reason beside it; the demo does. So whoever connects a mail service can see all of
them, over REST and by `sceau check`:

    TOKEN=$(python3 -c 'import json; print(json.load(open("var/demo-credentials.json"))["operator"])')
    curl -s -w '\\n' -H "Authorization: Bearer $TOKEN" \\
        http://127.0.0.1:8080/v1/recipients/holder-suspended@reasons.test

- Given as `sender`, with `allowed@reasons.test` as the recipient, an address is answered with the same reason
  after `sender-` (`sender-holder-suspended`); `before-our-records` stays as it is. As senders they count
  towards one another alone. Towards any other recipient they are of an unknown domain:
  `sender-domain-not-trusted`, `sender-mailbox-unknown`.
- As recipients they may be tried with the sender you have. A sender of the record is judged as ever: with
  nothing against it, `allowed@reasons.test` is `allowed`. No message arrives there.
- The domain is reserved (RFC 2606): nobody has a mailbox there. The addresses are no part of the record. No
  search, LDAP entry, feed, export or trust list has them, and nobody can be enrolled for one.
- The certificate of `allowed@reasons.test` protects nothing: its private key is public by design. No
  authority made it, and it names nobody. Who follows its chain, or asks OCSP, does not trust it. It has a
  critical extension that no program knows: even who trusts it must refuse it (RFC 5280 4.2). Encrypt nothing
  real with it. To try a chain, take an address of the demo.
- Elsewhere, and of any other address below `reasons.test`, the answer is that of an unknown domain:
  `domain-not-trusted`, `mailbox-unknown`.

| address | verdict | reasons |
|---|---|---|
"""
RIGHTS = """\
# Database rights

PostgreSQL refuses a part whatever does not stand below (SQLSTATE 42501). `sceau migrate` and `sceau up` make
the roles and grant these rights, by the owner's connection. `directory/base/rights.toml` is what they grant.

- The roles have no login. Each part is given a login that is a member of its role. None is superuser, makes
  roles or databases, reads files of the server, or alters a table or a trigger.
- The owner has all rights. TRUNCATE, TRIGGER, REFERENCES and MAINTAIN are nobody else's.
- What triggers write, they write with the owner's rights: histories, the feed, what is searched, what is to
  be signed. Nobody may call their functions, or attach them to another table.
- `lock`: UPDATE of one column, of a table whose trigger refuses every UPDATE. PostgreSQL asks for it before
  it locks a row; it changes nothing.
- In brackets stand the columns that are meant, where it is not the whole row.
- PUBLIC may connect, and see which tables there are. It has no right on any.

| role | for |
|---|---|
"""
RIGHTS_OF = """
## `{role}`

| table, view or function | rights |
|---|---|
"""
LEVELS = """
| bound | what | floor | one person | two persons | nobody | why |
|---|---|---|---|---|---|---|
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


def level(number: float, bound: Bound, above: float = NEVER) -> str:
    """A level as people read it, a dash for one that is not there."""
    if number in (NEVER, above):
        return "-"
    return f"{100 * number:g} %" if bound.whole else f"{number:g}"


def bounds_table(bounds: tuple[Bound, ...]) -> str:
    """The bounds of one register."""
    rows = [
        f"| `{b.name}` | {b.says.format(count='n', whole='m')} | {b.floor:g} | {level(b.one, b, b.two)}"
        f" | {level(b.two, b, b.refuse)} | {level(b.refuse, b)}"
        f"{f' (above {b.refuse_floor:g})' if b.refuse_floor else ''} | {b.why} |\n"
        for b in bounds
    ]
    return "".join([LEVELS, *rows])


def bounds_page() -> str:
    """docs/reference/bounds.md."""
    registers = load_bounds().values()
    tables = [f"\n## `{of.register}`\n{bounds_table(of.bounds)}" for of in registers]
    codes = next(iter(registers)).codes
    known = [f"- `{cell}`: `{', '.join(sorted(codes[cell]))}`\n" for cell in codes]
    return "".join([BOUNDS, *tables, "\n## Codes in use\n\n", *known])


def rights_of(part: str) -> str:
    """What one role may do: where it writes first, then what it only reads, then what it may call."""
    given = {name: words[part] for name, words in rights.objects().items() if part in words}
    writes_first = sorted(given.items(), key=lambda item: item[1].startswith("select") and "," not in item[1])
    rows = [f"| `{name}` | `{words}` |\n" for name, words in writes_first]
    calls = [
        f"| `{name}()` | `execute` |\n" for name, callers in rights.functions().items() if part in callers
    ]
    return "".join([RIGHTS_OF.format(role=rights.PREFIX + part), *rows, *calls])


def rights_page() -> str:
    """docs/reference/database-rights.md."""
    rows = [f"| `{rights.PREFIX}{part}` | {words} |\n" for part, words in rights.parts().items()]
    return "".join([RIGHTS, *rows, *map(rights_of, rights.parts())])


def trials_page() -> str:
    """docs/reference/trial-addresses.md."""
    now = datetime(2026, 12, 1, tzinfo=UTC)
    rows = []
    for word in trial_addresses.words():
        address = trial_addresses.address_of(word)
        trial = trial_addresses.trial_of(address, now) or Trial(MailboxFacts(address, well_formed=False))
        occasion = Occasion(now, now, timedelta(minutes=15), {}, trial.recorded)
        found = decide(
            address, side_of(Party(trial.facts, trial.certificates), occasion.as_of), None, occasion
        )
        told = ", ".join(f"`{reason}`" for reason in found.reasons) or "none"
        rows.append(f"| `{address}` | `{found.answer.value}` | {told} |\n")
    return "".join([TRIALS, *rows])


if __name__ == "__main__":
    (REFERENCE / "trial-addresses.md").write_text(trials_page())
    (REFERENCE / "commands.md").write_text(commands_page())
    (REFERENCE / "settings.md").write_text(settings_page())
    (REFERENCE / "bounds.md").write_text(bounds_page())
    (REFERENCE / "database-rights.md").write_text(rights_page())
