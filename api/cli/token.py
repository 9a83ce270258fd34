"""`sceau token`: who may ask and act over REST."""

from datetime import timedelta
from pathlib import Path

import click

from api.cli.output import COMMAND, NUMBER, answer, container, json_option, refusals_told, state_option
from api.ldap import gate as ldap_gate
from directory import access
from directory.base.db import transaction


@click.group()
def token() -> None:
    """Bearer tokens: only their hash is kept, so a secret is shown once."""


@token.command()
@click.argument("name")
@click.option("--role", type=click.Choice([role.value for role in access.Role]), required=True)
@click.option("--authority", default="", help="A registrar's Ordre (CNOM, CNOP, …) or ARS.")
@click.option("--operator", default="", help="Certificate name of the operator this token acts for.")
@click.option("--person", help="Whose it is (person:…): acts handed in under it must be hers.")
@click.option("--days", type=click.IntRange(1, 366), default=365, show_default=True)
@state_option
@json_option
def create(
    name: str,
    role: str,
    authority: str,
    operator: str,
    person: str | None,
    days: int,
    state: Path | None,
    as_json: bool,
) -> None:
    """Make a token called NAME and show its secret, this once.

    An operator asks for its own certificates only with a token that names it, as the trusted list does.

    \b
    Example:  sceau token create "Hospital gateway" --role operator
    Example:  sceau token create "Proxy" --role operator --operator "CN=mx.example.org,O=Operator,C=FR"
    Example:  sceau token create "Anne" --role registrar --authority CNOM --person person:4f1c…
    """
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json), transaction(parts.engine) as connection:
        made, secret = access.create_token(
            connection,
            now=parts.present(connection),
            actor=COMMAND,
            name=name,
            role=access.Role(role),
            authority=authority,
            lifetime=timedelta(days=days),
            operator=operator,
            person=person,
        )
    told = {
        "id": made.id,
        "name": made.name,
        "role": made.role.value,
        "expires_at": made.expires_at,
        "person": person,
        "ldap": ldap_gate.name_of(made, parts.settings.suffix),
        "secret": secret,
    }
    answer(
        told,
        as_json=as_json,
        rows=[(made.id, made.name, made.role.value, told["ldap"], secret)],
        headers=("id", "name", "role", "name in LDAP", "secret"),
    )


@token.command("list")
@state_option
@json_option
def list_tokens(state: Path | None, as_json: bool) -> None:
    """List the tokens; no secret is ever shown again."""
    with refusals_told(as_json=as_json), transaction(container(state).engine) as connection:
        tokens, persons = access.list_tokens(connection), access.persons_of_tokens(connection)
    told = [
        {
            "id": token.id,
            "name": token.name,
            "role": token.role.value,
            "authority": token.authority,
            "expires_at": token.expires_at,
            "revoked_at": token.revoked_at,
            "person": persons.get(token.id),
        }
        for token in tokens
    ]
    rows = [tuple(listed_token.values()) for listed_token in told]
    answer(
        {"tokens": told},
        as_json=as_json,
        rows=rows,
        headers=("id", "name", "role", "authority", "expires", "revoked", "person"),
    )


@token.command()
@click.argument("token_id", type=NUMBER)
@state_option
@json_option
def revoke(token_id: int, state: Path | None, as_json: bool) -> None:
    """Withdraw the token TOKEN_ID; it stops working with the next request."""
    parts = container(state, as_json=as_json)
    with refusals_told(as_json=as_json), transaction(parts.engine) as connection:
        access.revoke_token(connection, now=parts.present(connection), actor=COMMAND, token_id=token_id)
    answer({"revoked": token_id}, as_json=as_json, rows=[(token_id,)], headers=("revoked",))
