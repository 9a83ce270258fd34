"""`sceau measure`: suspend, strike off, lift, from a terminal, by the same rules as over REST."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from api.cli.enrolment import identity_option, who_acts, withdrawing
from api.cli.output import NUMBER, answer, container, json_option, refusals_told, state_option
from directory.base.db import transaction
from directory.identifiers import read_national_id
from directory.model import MeasureKind
from pki import measures as use_cases
from pki.measures import Measure

HEADERS = ("id", "practitioner", "kind", "authority", "state", "since", "until", "reason")


@click.group()
def measure() -> None:
    """Suspend or strike off a person, lift it again, see what stands."""


@measure.command()
@click.argument("practitioner")
@click.option("--kind", type=click.Choice([kind.value for kind in MeasureKind]), required=True)
@click.option("--reason", required=True, help="Why; seen by registrars of the authority and auditors.")
@identity_option
@state_option
@json_option
def take(
    practitioner: str, kind: str, reason: str, name: str | None, secret: str | None, state: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Suspend or strike off PRACTITIONER (national id), at once: somebody is waiting for it.

    \b
    Example:  sceau measure take 810099000019 --kind suspended --reason "decision 117" --as registrar_a
    """
    parts = container(state, as_json=as_json)
    with withdrawing(parts, as_json=as_json) as connection:
        made = use_cases.take(
            connection,
            now=parts.present(connection),
            token=who_acts(parts, connection, name, secret),
            national_id=read_national_id(practitioner, strict=parts.settings.strict_rpps),
            kind=MeasureKind(kind),
            reason=reason,
            graces=parts.graces,
        )
    answer(_told(made), as_json=as_json, rows=[_row(made)], headers=HEADERS)


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
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json), transaction(parts.engine) as connection:
        made = use_cases.lift(
            connection,
            now=parts.present(connection),
            token=who_acts(parts, connection, name, secret),
            measure_id=measure_id,
            reason=reason,
            graces=parts.graces,
        )
    answer(_told(made), as_json=as_json, rows=[_row(made)], headers=HEADERS)


@measure.command(name="list")
@click.argument("practitioner")
@identity_option
@state_option
@json_option
def list_measures(
    practitioner: str, name: str | None, secret: str | None, state: Path | None, as_json: bool
) -> None:
    """List every measure ever taken against PRACTITIONER: those of one's authority, to an auditor all.

    \b
    Example:  sceau measure list 810099000019 --as registrar_a
    """
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json), transaction(parts.engine, read_only=True) as connection:
        found = use_cases.measures_seen(
            connection,
            token=who_acts(parts, connection, name, secret),
            national_id=read_national_id(practitioner, strict=parts.settings.strict_rpps),
            now=parts.present(connection),
        )
    told = {"items": [_told(one) for one in found]}
    answer(told, as_json=as_json, rows=[_row(one) for one in found], headers=HEADERS)


def _told(one: Measure) -> dict[str, Any]:
    return {**asdict(one), "kind": one.kind.value, "state": one.state.value}


def _row(one: Measure) -> tuple[Any, ...]:
    return (
        one.id, one.practitioner, one.kind.value, one.authority, one.state.value, one.starts_at, one.ends_at,
        one.reason,
    )  # fmt: skip
