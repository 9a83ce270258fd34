"""How every command speaks: tables for people, JSON for machines, refusals as sentences with an exit code."""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import click
import orjson
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import OperationalError

from api.settings import load_settings
from api.wiring import Container, build
from directory.base.audit import Actor
from directory.base.errors import Kind, Refusal
from directory.sync.runs.history import HIGHEST_ID

people = Console(stderr=True, highlight=False)
Command = Callable[..., Any]
COMMAND = Actor("command")
# One more would not fit where numbers of rows are kept.
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))
# Less of a line than this says nothing.
_LEAST_EXCERPT = 30
NUMBER = click.IntRange(1, HIGHEST_ID)


def state_option(command: Command) -> Command:
    """Add `--state DIR`, which every command takes."""
    return click.option(
        "--state",
        type=click.Path(file_okay=False, path_type=Path),
        default=None,
        help="State folder [default: ./var, or SCEAU_STATE].",
    )(command)


def json_option(command: Command) -> Command:
    """Add `--json`: one JSON object on standard output instead of a table."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")(
        command
    )


def container(
    state: Path | None, *, as_json: bool = False, complete: bool = False, gives: bool = False
) -> Container:
    """What a command needs to act upon the installation in `state`; bad settings are told and end it.

    `complete` is for what answers, publishes or gives trust: refused (`record-behind`) while the record is
    behind what was published, as over REST. `gives` is for what gives trust: refused `frozen`, too, once an
    administrator has said so.
    """
    with refusals_told(as_json=as_json):
        made = build(load_settings(state), application="sceau-command")
        if complete or gives:
            made.watch.need()
        if gives:
            made.need_thawed()
        return made


def answer(
    value: Mapping[str, Any],
    *,
    as_json: bool,
    rows: Sequence[tuple[Any, ...]],
    headers: Sequence[str],
    beside: bool = False,
) -> None:
    """Print `value` as JSON, or `rows` as a table under `headers`.

    `beside` puts the table on standard error, where standard output carries the result itself.
    """
    if as_json:
        sys.stdout.write(
            orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z, default=str).decode() + "\n"
        )
        return
    table = Table(*headers, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(_cell(cell) for cell in row))
    # Into a pipe or a file whole lines go, however long: somebody is about to search them.
    stream = sys.stderr if beside else sys.stdout
    Console(highlight=False, stderr=beside, width=None if stream.isatty() else 1000).print(table)


def excerpt(text: str, beside: int) -> str:
    """The text cut to what a terminal shows in one line, where `beside` columns are taken by others."""
    room = max(_LEAST_EXCERPT, shutil.get_terminal_size().columns - beside)
    return text if len(text) <= room else f"{text[: room - 1]}…"


def ago(instant: datetime | None, now: datetime) -> str:
    """How long ago, in the one unit that says it: `3 s ago`; `never` for None."""
    if instant is None:
        return "never"
    seconds = (now - instant).total_seconds()
    # Another host's clock may be a moment ahead.
    count, unit = next(
        ((seconds / size, unit) for size, unit in _UNITS if seconds >= 2 * size), (max(0.0, seconds), "s")
    )
    return f"{count:.0f} {unit} ago"


def _cell(value: Any) -> Text:
    """A cell as it is: names and addresses come from outside, and brackets in them are no markup."""
    if isinstance(value, datetime):
        # To the microsecond with --json.
        return Text(f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z")
    return value if isinstance(value, Text) else Text("" if value is None else str(value))


def refuse(refusal: Refusal, *, as_json: bool) -> NoReturn:
    """Say what was refused and end: 2 when something was out of reach, 1 when the answer is no."""
    if as_json:
        problem = {"type": refusal.code, "detail": refusal.text, **refusal.details}
        sys.stdout.write(orjson.dumps(problem, default=str).decode() + "\n")
    people.print(Text.assemble((refusal.code, "red"), ": ", refusal.text), soft_wrap=True)
    sys.exit(2 if refusal.kind is Kind.UNAVAILABLE else 1)


@contextmanager
def refusals_told(*, as_json: bool = False) -> Iterator[None]:
    """Turn a refusal inside the block into its sentence and exit code; a bug stays a traceback."""
    try:
        yield
    except Refusal as refusal:
        refuse(refusal, as_json=as_json)
    except OperationalError as error:
        words = str(error.orig).strip().split("\n", 1)[0]
        text = f"PostgreSQL says: {words} (is it up? `sceau status`, `sceau up`)."
        refuse(Refusal(Kind.UNAVAILABLE, "record-out-of-reach", text), as_json=as_json)


@contextmanager
def progress(quiet: bool = False) -> Iterator[Callable[[str, int], None]]:  # noqa: FBT002 - a display switch
    """A bar for anything long: call the given function with what is being done and how many are done."""
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(show_speed=True),
        TextColumn("{task.completed:.0f}"), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=people, transient=True, disable=quiet) as bar:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=None)
            bar.update(tasks[what], completed=done)

        yield show
