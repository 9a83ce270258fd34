"""`sceau correct`: corrections in place of a register's words, from a terminal, by the rules of REST."""

from dataclasses import asdict
from pathlib import Path

import click

from api.cli.enrolment import identity_option, who_acts, withdrawing
from api.cli.output import NUMBER, answer, container, json_option, refusals_told, state_option
from directory import corrections as use_cases
from directory.base.db import transaction
from directory.corrections import Correction
from directory.feed.changes import Entity
from directory.precedence import CORRECTABLE
from pki.withdrawal.void_enrolments import void_of

HEADERS = ("id", "entity", "key", "field", "value", "register says", "by", "since", "ending")
ENTITIES = click.Choice([entity.value for entity in CORRECTABLE])


@click.group()
def correct() -> None:
    """Correct what a register has wrong, see what is corrected, give it back to the register."""


@correct.command()
@click.argument("entity", type=ENTITIES)
@click.argument("key")
@click.argument("field")
@click.argument("value")
@click.option("--reason", required=True, help="Why; seen by the authority, administrators and auditors.")
@identity_option
@state_option
@json_option
def make(
    entity: str, key: str, field: str, value: str, *, reason: str, name: str | None, secret: str | None,
    state: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Say VALUE of this FIELD instead of the register, from now on and over the nights to come.

    \b
    Examples:
      sceau correct make practitioner 810099000019 family_name MARTIN --reason "diploma" --as registrar_a
      sceau correct make mailbox camille.martin@one.example listed false --reason "asked" --as registrar_a
    """
    parts = container(state, as_json=as_json, gives=True)
    with withdrawing(parts, as_json=as_json) as connection:
        made = use_cases.correct(
            connection,
            now=parts.present(connection),
            token=who_acts(parts, connection, name, secret),
            entity=Entity(entity),
            key=key,
            field=field,
            value=value,
            reason=reason,
            void_of=void_of,
        )
    answer(asdict(made), as_json=as_json, rows=[_row(made)], headers=HEADERS)


@correct.command()
@click.argument("correction_id", type=NUMBER)
@identity_option
@state_option
@json_option
def withdraw(
    correction_id: int, name: str | None, secret: str | None, state: Path | None, as_json: bool
) -> None:
    """Give the field of CORRECTION_ID back to the register: it shows what the register said last.

    A closing day that somebody else said takes two persons: the second gives the same command within a week.

    \b
    Example:  sceau correct withdraw 7 --as registrar_a
    """
    parts = container(state, as_json=as_json, gives=True)
    with withdrawing(parts, as_json=as_json) as connection:
        ended = use_cases.withdraw_correction(
            connection,
            now=parts.present(connection),
            token=who_acts(parts, connection, name, secret),
            correction_id=correction_id,
            void_of=void_of,
        )
    answer(asdict(ended), as_json=as_json, rows=[_row(ended)], headers=HEADERS)


@correct.command(name="list")
@click.option("--entity", type=ENTITIES, default=None, help="Only of these.")
@click.option("--key", default=None, help="Only of this one: national number, FINESS number or address.")
@click.option("--ended", is_flag=True, help="Those that have ended besides.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@identity_option
@state_option
@json_option
def list_corrections(
    *, entity: str | None, key: str | None, ended: bool, limit: int, name: str | None, secret: str | None,
    state: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """List what is corrected here, oldest first: a registrar sees what his authority corrected.

    \b
    Example:  sceau correct list --entity practitioner --as registrar_a
    """
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json), transaction(parts.engine, read_only=True) as connection:
        corrections = use_cases.corrections_made(
            connection,
            token=who_acts(parts, connection, name, secret),
            entity=None if entity is None else Entity(entity),
            key=key,
            ended=ended,
            limit=limit,
        )
    told = {"items": [asdict(correction) for correction in corrections]}
    answer(told, as_json=as_json, rows=[_row(correction) for correction in corrections], headers=HEADERS)


def _row(correction: Correction) -> tuple[object, ...]:
    return (
        correction.id, correction.entity, correction.key, correction.field, correction.value,
        correction.register_value, correction.authority or correction.made_by, correction.made_at,
        correction.ending,
    )  # fmt: skip
