"""`sceau status`: is everything well, and if not, what."""

from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from api.cli.output import ago, answer, json_option, refusals_told, state_option
from api.front.unnamed import WHAT_TO_DO
from api.installation.status import at_rest, look
from api.settings import load_settings
from api.words.figures import age
from directory.base.clock import utc_now


@click.command()
@state_option
@json_option
def status(state: Path | None, as_json: bool) -> None:
    """Show every part, register, job and lag; exit 1 unless all is well.

    \b
    Example:  sceau status --json
    """
    with refusals_told(as_json=as_json):
        settings = load_settings(state)
        if not as_json and at_rest(settings):
            # In one line: why each part does not answer is no news.
            click.echo(f"nothing runs (state folder {settings.state}): `sceau up` starts it again")
            raise SystemExit(1)
        installation = look(settings)
    answer(
        installation,
        as_json=as_json,
        rows=_rows(installation, utc_now()),
        headers=("what", "state", "detail"),
    )
    if installation["state"] != "ok":
        raise SystemExit(1)


def _rows(installation: dict[str, Any], now: datetime) -> list[tuple[str, str | Text, str]]:
    rows: list[tuple[str, str | Text, str]] = [
        ("web", "", installation["web"]),
        ("ldap", "", installation["ldap"]),
        ("ldaps", "", installation["ldaps"]),
    ]
    for name, part in installation["parts"].items():
        colour = "green" if part["state"] == "ok" else "red"
        known = [f"{key} {part[key]}" for key in ("pid", "restarts") if key in part]
        detail = ", ".join([part.get("detail") or part["reason"], *known])
        rows.append((name, Text(part["state"], colour), detail))
    rows += [(name, Text("hangs", "red"), trouble) for name, trouble in installation["troubles"].items()]
    rows += [("record", Text("behind", "red"), lack) for lack in installation["record"].get("lacks", ())]
    if reason := installation["record"].get("reason"):
        rows.append(("record", Text("behind", "red"), reason))
    if reason := installation["clock"].get("reason"):
        rows.append(("clock", Text("differs", "red"), reason))
    if reason := installation["powers"].get("reason"):
        state = installation["powers"]["state"]
        rows.append(("powers", Text(state, "yellow" if state == "none" else "red"), reason))
    elif forceless := installation["powers"].get("without_force"):
        rows.append(("powers", Text("ok", "yellow"), f"{forceless} lines without force: `sceau person list`"))
    rows += [_register(name, register, now) for name, register in installation["registers"].items()]
    rows += [
        ("drop folder", Text(repr(name), "yellow"), "no register's file: nobody reads it")
        for name in installation["strangers"]
    ]
    if parts := installation["as_owner"]:
        words = "with the owner's rights in the database: see docs/how-to/database-roles.md"
        rows.append(("database", Text("one login", "yellow"), f"{', '.join(parts)} act {words}"))
    if (peer := installation["unnamed_proxy"]) is not None:
        rows.append(("proxy", Text(peer, "red"), WHAT_TO_DO))
    rows += [
        _lifetime(name, lifetime)
        for name, lifetime in installation["lifetimes"].items()
        if lifetime["state"] != "ok"
    ]
    rows += [("feed lag", name, f"{seconds:.1f} s") for name, seconds in installation["feed"].items()]
    rows += [
        ("job", name, job["last_error"] or f"last success {ago(job['last_success'], now)}")
        for name, job in installation["jobs"].items()
    ]
    return rows


def _lifetime(name: str, lifetime: dict[str, Any]) -> tuple[str, Text, str]:
    """Something of ours that runs out: yellow while it is to be planned, red when it is to be renewed now."""
    colour = "red" if lifetime["state"] == "due" else "yellow"
    told = "renew it now" if lifetime["state"] == "due" else "to be planned"
    return ("holds until", Text(name, colour), f"{lifetime['ends']:%Y-%m-%d %H:%M}Z: {told}")


def _register(name: str, register: dict[str, Any], now: datetime) -> tuple[str, str | Text, str]:
    """A register's line: its name turns red when it is late; a run that waits for somebody is named."""
    if register["generated_at"] is None:
        return ("register", name, "never read")
    made = register["generated_at"]
    told = f"generated {made:%Y-%m-%d %H:%M}Z, {age(now - made).en}"
    if register["held"] is not None:
        told += f"; run {register['held']} is held: `sceau sync show {register['held']}`"
    return (
        "register",
        Text(name, "red") if register["late"] else name,
        told + (", late" if register["late"] else ""),
    )
