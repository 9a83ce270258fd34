"""`sceau person`, `freeze`, `unfreeze`: who holds which power, and changes of it that persons signed."""

import re
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, BinaryIO

import click

from api.cli.output import (
    COMMAND,
    Command,
    answer,
    container,
    json_option,
    refusals_told,
    state_option,
)
from api.cli.sign import (
    FILE,
    draft_in,
    opened,
    passphrase_option,
    person_option,
    read_file,
    signed_now,
)
from api.settings import load_settings
from api.wiring import Container
from directory.base.db import transaction
from directory.base.durable_files import create_whole
from directory.base.errors import Kind, Refusal
from directory.rules import FRANCE
from pki.acts import key_file
from pki.acts.act import ActKind
from pki.acts.draft import Draft
from pki.acts.signature import LARGEST, credential_of
from pki.powers.anchors import pem_of, public_key, required_anchors
from pki.powers.change import change_powers
from pki.powers.followed import Followed
from pki.powers.needs import OF_POWERS, Role
from pki.powers.state import SHOWN, NoForceError, Powers, Tenure, person_of, subject_of

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HEADERS = ("person", "what", "since", "until")


def _name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if not _NAME.fullmatch(value):
        raise click.BadParameter("a name has letters, digits, _ and -: it names a file.", ctx, param)
    return value


def _names(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_name(ctx, param, name) for name in value)


def acts_options(command: Command) -> Command:
    """Add `--act FILE` and the demo's `--as NAME`, each as often as persons sign."""
    command = click.option(
        "--as",
        "names",
        callback=_names,
        multiple=True,
        help="In a demo: whoever has this key in state/persons signs, e.g. admin_a.",
    )(command)
    return click.option("--act", "acts", multiple=True, type=FILE, help="A signed act (`sceau sign`).")(
        command
    )


@click.group()
def person() -> None:
    """Persons: their credentials, their roles, and the acts that give and end them."""


@person.command()
@click.argument("name", callback=_name)
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), default=Path(), help="Where to write."
)
@passphrase_option
@click.option(
    "--plain", is_flag=True, help="No passphrase: for trying, or where something else guards the file."
)
@json_option
def key(name: str, folder: Path, passphrase_file: Path | None, plain: bool, as_json: bool) -> None:
    """Make a key of NAME: NAME.pem for its owner alone, NAME.public.pem for whoever gives it a power.

    A person is named by her first key. A second one is made in the same way, and added under her name.

    \b
    Example:  sceau person key anne
    """
    with refusals_told(as_json=as_json):
        made = key_file.make_key(folder / f"{name}.pem", _passphrase(passphrase_file, plain=plain))
        public = made.public_key()
        create_whole(folder / f"{name}.public.pem", pem_of(public).encode())
    credential = credential_of(public)
    told = {"person": person_of(credential), "credential": credential, "public_key": pem_of(public)}
    answer(told, as_json=as_json, rows=list(told.items()), headers=("key", ""))


def _passphrase(file: Path | None, *, plain: bool) -> bytes | None:
    if plain:
        return None
    if file is not None:
        return file.read_bytes().strip()
    asked: str = click.prompt(
        "Passphrase of the new key", hide_input=True, confirmation_prompt=True, err=True
    )
    return asked.encode()


@person.command()
@click.argument("kind", type=click.Choice([kind.value for kind in OF_POWERS]))
@person_option
@click.option("--role", type=click.Choice([role.value for role in Role]), help="For role.grant and role.end.")
@click.option("--authority", default="", help="The body a registrar acts for (CNOM, CNOP, …, ARS).")
@click.option("--public-key", type=FILE, help="For credential.add: the key's file.")
@click.option("--credential", help="For credential.revoke: its name, cred:…")
@click.option("--size", type=click.IntRange(1), help="For restore.accept: lines of the log as it stands.")
@click.option("--root", help="For restore.accept: its root there, in hexadecimal digits.")
@state_option
def draft(
    kind: str, person: str | None, role: str | None, authority: str, public_key: Path | None,
    credential: str | None, size: int | None, root: str | None, state: Path | None,
) -> None:  # fmt: skip
    """Print what persons are to sign for a change of KIND: one file, the same for each of them.

    credential.add names the person by this key where --person is not given.

    \b
    Examples:
      sceau person draft credential.add --public-key chloe.public.pem > chloe.json
      sceau person draft role.grant --person person:4f1c… --role registrar --authority CNOM > grant.json
      sceau person draft freeze > freeze.json
    """
    with refusals_told():
        here = required_anchors(load_settings(state).anchors).installation
        wanted = ActKind(kind)
        given = {
            "person": person, "role": role, "authority": authority, "credential": credential,
            "public_key": None if public_key is None else _pem(public_key), "installation": here,
            "size": size, "root": root,
        }  # fmt: skip
        if wanted is ActKind.CREDENTIAL_ADD and person is None and given["public_key"]:
            given["person"] = person_of(_credential(str(given["public_key"])))
        click.echo(_draft(wanted, given, here).text().decode())


def _draft(kind: ActKind, given: dict[str, Any], here: str) -> Draft:
    shown = {field: given[field] for field in sorted(SHOWN[kind])}
    if missing := [field.replace("_", "-") for field, value in shown.items() if value is None]:
        raise click.UsageError(f"{kind.value} needs {', '.join(f'--{field}' for field in missing)}.")
    try:
        return Draft(kind, here, (subject_of(kind, shown, here),), shown)
    except NoForceError as error:
        raise Refusal(Kind.UNACCEPTABLE, error.code, str(error)) from error


def _pem(path: Path) -> str:
    try:
        return pem_of(public_key(path.read_text(errors="replace")))
    except ValueError as error:
        text = f"{path} is no public key on P-256 or Ed25519."
        raise Refusal(Kind.UNACCEPTABLE, "bad-key", text) from error


def _credential(pem: str) -> str:
    return credential_of(public_key(pem))


@person.command()
@click.argument("file", type=click.File("rb"))
@acts_options
@state_option
@json_option
def change(
    file: BinaryIO, acts: Sequence[Path], names: Sequence[str], state: Path | None, as_json: bool
) -> None:
    """Hand in the change that FILE says, with the act of each person who signed it.

    What would have no force is refused, and says why. What takes a power away holds at once, what gives one
    within seconds, once its line of the audit log has a number.

    \b
    Examples:
      sceau person change grant.json --act anne.act --act bruno.act
      sceau person change grant.json --as admin_a --as admin_b
    """
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json):
        _hand_in(parts, draft_in(read_file(file)), acts, names, as_json=as_json)


@click.command()
@acts_options
@state_option
@json_option
def freeze(acts: Sequence[Path], names: Sequence[str], state: Path | None, as_json: bool) -> None:
    """Stop at once, everywhere, what gives trust: the act of one administrator. Two let it go on.

    \b
    Examples:
      sceau person draft freeze | sceau sign - --key anne.pem --yes > anne.act
      sceau freeze --act anne.act
    """
    _of_installation(ActKind.FREEZE, acts, names, state, as_json=as_json)


@click.command()
@acts_options
@state_option
@json_option
def unfreeze(acts: Sequence[Path], names: Sequence[str], state: Path | None, as_json: bool) -> None:
    """Let what gives trust go on: the acts of two administrators, or of two recovery keys.

    \b
    Example:  sceau unfreeze --act anne.act --act bruno.act
    """
    _of_installation(ActKind.UNFREEZE, acts, names, state, as_json=as_json)


def _of_installation(
    kind: ActKind, acts: Sequence[Path], names: Sequence[str], state: Path | None, *, as_json: bool
) -> None:
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json):
        here = required_anchors(parts.settings.anchors).installation
        _hand_in(parts, _draft(kind, {"installation": here}, here), acts, names, as_json=as_json)


def _hand_in(
    parts: Container, draft: Draft, acts: Sequence[Path], names: Sequence[str], *, as_json: bool
) -> None:
    following = followed(parts)
    # The one change that is made because the log is another.
    restored = draft.kind is ActKind.RESTORE_ACCEPT
    powers = following.remembered() if restored else following.current()
    signed = [*map(read_act, acts), *(signed_in_demo(parts, powers, draft, name) for name in names)]
    with transaction(parts.engine) as connection:
        change_powers(
            connection, now=parts.present(connection), powers=powers, kind=draft.kind, signed=signed,
            shown=draft.shown, actor=COMMAND,
        )  # fmt: skip
    told = {"changed": draft.kind.value, **draft.shown, "acts": len(signed)}
    answer(told, as_json=as_json, rows=list(told.items()), headers=("change", ""))


def followed(parts: Container) -> Followed:
    """What follows the powers here; refuses `anchors-missing`."""
    required_anchors(parts.settings.anchors)
    if parts.powers is None:
        raise TypeError("anchors without powers")
    return parts.powers


def signed_in_demo(parts: Container, powers: Powers, draft: Draft, name: str) -> bytes:
    """The act of whoever has this key in the state folder; refuses `no-demo`, `unknown-person`."""
    if not powers.anchors.demo:
        text = "Only in a demo do keys of a state folder count: give --act FILE (`sceau sign`)."
        raise Refusal(Kind.FORBIDDEN, "no-demo", text)
    path = parts.settings.persons / f"{name}.pem"
    if not path.is_file():
        raise Refusal(Kind.NOT_FOUND, "unknown-person", f"{path} is not there.")
    return signed_with(powers, draft, path)


def signed_with(powers: Powers, draft: Draft, path: Path) -> bytes:
    """The act of whoever has the key in this file, under the name that the powers know her by."""
    made = opened(path, None)
    credential = credential_of(made.public_key())
    known = powers.credentials().get(credential)
    return signed_now(draft, made, known.person if known else person_of(credential))


def read_act(path: Path) -> bytes:
    """A signed act in a file; a longer one is none."""
    with path.open("rb") as file:
        return file.read(LARGEST + 1).strip()


@person.command("list")
@click.option(
    "--on", "day", type=click.DateTime(["%Y-%m-%d"]), help="What was in force on this day (of Paris) alone."
)
@state_option
@json_option
def list_persons(day: datetime | None, state: Path | None, as_json: bool) -> None:
    """List every person with credentials and roles: since and until when, by which line of the audit log.

    Below stand the last lines that had no force, with the code that says why. An access review compares the
    list of a day with who should have had which power on it.

    \b
    Examples:
      sceau person list
      sceau person list --on 2026-12-01
    """
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json):
        following = followed(parts)
        powers, forceless = following.current(), following.without_force()
    persons = _persons(powers, None if day is None else day.date())
    told = {
        "installation": powers.anchors.installation, "frozen": powers.frozen, "persons": persons,
        "without_force": [{"line": index, "code": code} for index, code in forceless.items()],
    }  # fmt: skip
    rows = [
        *_rows(persons),
        *((f"line {index}", code, "no force", "") for index, code in forceless.items()),
    ]
    if powers.frozen:
        rows.insert(0, ("all", "frozen: nothing that gives trust is done", "", ""))
    answer(told, as_json=as_json, rows=rows, headers=_HEADERS)


def _persons(powers: Powers, day: date | None) -> list[dict[str, Any]]:
    persons: dict[str, dict[str, Any]] = {}

    def of(person: str) -> dict[str, Any]:
        return persons.setdefault(person, {"person": person, "credentials": [], "roles": []})

    for name, credential in powers.credentials().items():
        if _in_force(credential.tenure, day):
            of(credential.person)["credentials"].append({"credential": name, **_span(credential.tenure)})
    for held, tenures in powers.roles().items():
        for tenure in tenures:
            if _in_force(tenure, day):
                role = {"role": held.role.value, "authority": held.authority}
                of(held.person)["roles"].append({**role, **_span(tenure)})
    return list(persons.values())


def _in_force(tenure: Tenure, day: date | None) -> bool:
    """Whether at any moment of this day; None is every day."""
    if day is None:
        return True
    begins, ends = (
        None if line is None else line.at.astimezone(FRANCE).date() for line in (tenure.since, tenure.until)
    )
    return (begins is None or begins <= day) and (ends is None or day <= ends)


def _span(tenure: Tenure) -> dict[str, Any]:
    return {
        bound: None if line is None else {"line": line.index, "at": line.at}
        for bound, line in (("since", tenure.since), ("until", tenure.until))
    }


def _rows(persons: Sequence[dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    for listed in persons:
        for role in listed["roles"]:
            yield listed["person"], f"{role['role']} {role['authority']}".strip(), *_bounds(role)
        for credential in listed["credentials"]:
            yield listed["person"], credential["credential"], *_bounds(credential)


def _bounds(listed: dict[str, Any]) -> tuple[str, str]:
    return _bound(listed["since"], "anchors"), _bound(listed["until"], "")


def _bound(told: dict[str, Any] | None, otherwise: str) -> str:
    if told is None:
        return otherwise
    line = "waits for its number" if told["line"] is None else f"line {told['line']}"
    return f"{told['at']:%Y-%m-%d %H:%M:%S}Z, {line}"
