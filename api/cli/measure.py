"""`sceau measure`: suspend, strike off, for a time or not, give back, from a terminal, as over REST."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import click

from api.cli.enrolment import identity_option, who_acts, withdrawing
from api.cli.output import NUMBER, answer, container, json_option, refusals_told, state_option
from directory import periods
from directory.base.db import transaction
from directory.base.errors import Refusal
from directory.identifiers import read_national_id
from directory.model import MeasureKind
from directory.periods import Moment
from pki.withdrawal import measures as use_cases
from pki.withdrawal.measures import Measure

HEADERS = ("id", "practitioner", "kind", "authority", "state", "since", "until", "asked", "reason")


def _moment(ctx: click.Context, param: click.Parameter, value: str | None) -> Moment | None:
    """A day of Paris or an instant with its offset; a usage error for anything else."""
    try:
        # Tables of other commands have a space there (RFC 3339 5.6).
        return None if value is None else periods.read(value.strip().replace(" ", "T", 1))
    except Refusal as refusal:
        raise click.BadParameter(refusal.text, ctx, param) from refusal


def _instant(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """An instant as the measure shows it, to the microsecond."""
    if value is None:
        return None
    try:
        # With a time: a day alone would be its midnight in silence, which nobody asked for.
        instant = datetime.combine(date.fromisoformat(value[:10]), time.fromisoformat(value[11:]))
    except ValueError as error:
        raise click.BadParameter("give the instant as `sceau measure list` shows it.", ctx, param) from error
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


until_option = click.option(
    "--until",
    callback=_moment,
    help="Last day (of Paris), or the instant at which it ends; else until lifted.",
)


@click.group()
def measure() -> None:
    """Suspend or strike off a person, for a time or not, give it back, see what stands."""


@measure.command()
@click.argument("practitioner")
@click.option("--kind", type=click.Choice([kind.value for kind in MeasureKind]), required=True)
@click.option("--reason", required=True, help="Why; seen by registrars of the authority and auditors.")
@click.option(
    "--from", "begins", callback=_moment, help="Day (of Paris) or instant at which it begins; else now."
)
@until_option
@identity_option
@state_option
@json_option
def take(
    practitioner: str, kind: str, reason: str, begins: Moment | None, until: Moment | None, name: str | None,
    secret: str | None, state: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Suspend or strike off PRACTITIONER (national id), at once or from a day to come.

    \b
    Examples:
      sceau measure take 810099000019 --kind suspended --reason "decision 117" --as registrar_a
      sceau measure take 810099000019 --kind suspended --from 2027-01-01 --until 2027-03-31 \\
        --reason "decision 117" --as registrar_a
    """
    _act(
        state, name, secret, lambda parts, **acting: use_cases.take(
            **acting, national_id=read_national_id(practitioner, strict=parts.settings.strict_rpps),
            kind=MeasureKind(kind), reason=reason, graces=parts.graces, begins=begins, until=until,
        ), as_json=as_json,
    )  # fmt: skip


@measure.command()
@click.argument("measure_id", type=NUMBER)
@click.option("--reason", required=True, help="Why it lasts longer.")
@until_option
@identity_option
@state_option
@json_option
def prolong(
    measure_id: int, reason: str, until: Moment | None, name: str | None, secret: str | None,
    state: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Have the suspension MEASURE_ID end later, or, without --until, when it is lifted: one registrar does.

    \b
    Example:  sceau measure prolong 12 --until 2027-06-30 --reason "decision 9" --as registrar_a
    """
    _act(
        state, name, secret, lambda _, **acting: use_cases.prolong(
            **acting, measure_id=measure_id, until=until, reason=reason
        ), as_json=as_json,
    )  # fmt: skip


@measure.command()
@click.argument("measure_id", type=NUMBER)
@click.option("--reason", required=True, help="Why it ends earlier.")
@click.option("--until", callback=_moment, required=True, help="The earlier last day (of Paris), or instant.")
@click.option(
    "--confirm",
    "confirms",
    callback=_moment,
    help="Agree to what a colleague asked: that last day, or what `sceau measure list` has under `asked`.",
)
@identity_option
@state_option
@json_option
def shorten(
    measure_id: int, reason: str, until: Moment, confirms: Moment | None, name: str | None,
    secret: str | None, state: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Ask for an earlier end of the suspension MEASURE_ID, or confirm the end that another asked.

    To confirm, give --confirm. Without it a colleague's request is refused, not confirmed unread.

    \b
    Examples:
      sceau measure shorten 12 --until 2027-02-15 --reason "appeal" --as registrar_a
      sceau measure shorten 12 --until 2027-02-15 --reason "appeal" --as registrar_b \\
        --confirm 2027-02-15
    """
    _act(
        state, name, secret, lambda parts, **acting: use_cases.shorten(
            **acting, measure_id=measure_id, until=until, reason=reason, confirms=confirms,
            graces=parts.graces,
        ), as_json=as_json, gives_back=True,
    )  # fmt: skip


@measure.command()
@click.argument("measure_id", type=NUMBER)
@click.option("--reason", required=True, help="Why it was an error.")
@click.option(
    "--confirm",
    "confirms",
    callback=_instant,
    help="Agree to what a colleague asked: the instant under `asked` of `sceau measure list`.",
)
@identity_option
@state_option
@json_option
def annul(
    measure_id: int,
    reason: str,
    confirms: datetime | None,
    name: str | None,
    secret: str | None,
    state: Path | None,
    as_json: bool,
) -> None:
    """Say that MEASURE_ID was an error, or confirm what another registrar said: everything comes back.

    To confirm, give --confirm. Without it a colleague's request is refused, not confirmed unread.
    Certificates revoked by a strike-off are issued anew on the same key; with --json `sceau measure list`
    shows the serials.

    \b
    Examples:
      sceau measure annul 12 --reason "a namesake" --as registrar_a
      sceau measure annul 12 --reason "a namesake" --as registrar_b \\
        --confirm 2026-12-01T09:30:00.123456Z
    """
    _act(
        state, name, secret, lambda parts, **acting: use_cases.annul(
            **acting, measure_id=measure_id, reason=reason, confirms=confirms, graces=parts.graces
        ), as_json=as_json, gives_back=True,
    )  # fmt: skip


@measure.command()
@click.argument("measure_id", type=NUMBER)
@click.option("--reason", required=True, help="Why it ends.")
@identity_option
@state_option
@json_option
def lift(
    measure_id: int, reason: str, name: str | None, secret: str | None, state: Path | None, as_json: bool
) -> None:
    """Ask for the end of MEASURE_ID, or confirm what another registrar of the authority asked.

    \b
    Examples:
      sceau measure lift 12 --reason "appeal upheld" --as registrar_a
      sceau measure lift 12 --reason "appeal upheld" --as registrar_b
    """
    _act(
        state, name, secret, lambda parts, **acting: use_cases.lift(
            **acting, measure_id=measure_id, reason=reason, graces=parts.graces
        ), as_json=as_json, gives_back=True,
    )  # fmt: skip


@measure.command(name="list")
@click.argument("practitioner")
@identity_option
@state_option
@json_option
def list_measures(
    practitioner: str, name: str | None, secret: str | None, state: Path | None, as_json: bool
) -> None:
    """List every measure ever taken against PRACTITIONER: those of one's authority, to an auditor all.

    Instants are UTC (Z): 1 December in Paris begins at 2026-11-30T23:00:00Z, and a last day ends so too. They
    are written as --from, --until and --confirm take them.

    \b
    Example:  sceau measure list 810099000019 --as registrar_a
    """
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json), transaction(parts.engine, read_only=True) as connection:
        measures = use_cases.measures_seen(
            connection,
            token=who_acts(parts, connection, name, secret),
            national_id=read_national_id(practitioner, strict=parts.settings.strict_rpps),
            now=parts.present(connection),
        )
    told = {"items": [_told(listed_measure) for listed_measure in measures]}
    answer(told, as_json=as_json, rows=[_row(listed_measure) for listed_measure in measures], headers=HEADERS)


def _act(
    state: Path | None,
    name: str | None,
    secret: str | None,
    act: Callable[..., Measure],
    *,
    as_json: bool,
    gives_back: bool = False,
) -> None:
    """Do it in the name of the acting person, and show the measure as it is then.

    `act` takes the parts, and by name the connection, the instant and the token.
    """
    parts = container(state, as_json=as_json, gives=gives_back)
    with withdrawing(parts, as_json=as_json) as connection:
        token = who_acts(parts, connection, name, secret)
        made = act(parts, connection=connection, now=parts.present(connection), token=token)
    answer(_told(made), as_json=as_json, rows=[_row(made)], headers=HEADERS)


def _told(listed_measure: Measure) -> dict[str, Any]:
    revisions = [{**asdict(made), "act": made.act.value} for made in listed_measure.revisions]
    return {
        **asdict(listed_measure),
        "kind": listed_measure.kind.value,
        "state": listed_measure.state.value,
        "revisions": revisions,
    }


def _row(listed_measure: Measure) -> tuple[Any, ...]:
    # To the microsecond: it is given back with --confirm.
    asked = _written(listed_measure.annulment_asked or listed_measure.shortening_asked, "auto")
    since, until = _written(listed_measure.starts_at, "seconds"), _written(listed_measure.ends_at, "seconds")
    return (
        listed_measure.id, listed_measure.practitioner, listed_measure.kind.value,
        listed_measure.authority, listed_measure.state.value, since, until, asked, listed_measure.reason,
    )  # fmt: skip


def _written(instant: datetime | None, to: str) -> str | None:
    """As the options of these commands take it."""
    if instant is None:
        return None
    return instant.astimezone(UTC).isoformat(timespec=to).replace("+00:00", "Z")
