"""Bearer tokens (RFC 6750): from the Authorization header to a token that holds one of the roles asked for.

Nothing is remembered between requests. The token is looked up in the transaction of the act, so a revoked one
stops at its very next request (ASVS 8.3.2).
"""

from collections.abc import Set as AbstractSet
from datetime import datetime

from flask import g, request
from sqlalchemy import Connection

from directory.access import Role, Token, authenticate, authenticate_for_act
from directory.base.errors import Kind, Refusal

# A token has 49 characters; whatever is far longer is not worth hashing.
LONGEST_SECRET = 200


def admitted(connection: Connection, secret: str, now: datetime, roles: AbstractSet[Role]) -> Token:
    """The live token with this secret; Refusal UNAUTHENTICATED `bad-token`, FORBIDDEN `role-lacking` with
    `roles`.
    """
    return _in_role(authenticate(connection, secret, now), roles)


def admitted_for_act(
    connection: Connection, secret: str, now: datetime, roles: AbstractSet[Role]
) -> tuple[Token, datetime]:
    """The same, with the instant of the act that begins: the database's where it dates acts, else `now`."""
    token, now = authenticate_for_act(connection, secret, now)
    return _in_role(token, roles), now


def _in_role(token: Token, roles: AbstractSet[Role]) -> Token:
    g.token_id = token.id
    if token.role not in roles:
        wanted = sorted(role.value for role in roles)
        raise Refusal(
            Kind.FORBIDDEN, "role-lacking", "The token's role does not allow this act.", roles=wanted
        )
    return token


def presented_secret() -> str:
    """What stands behind `Authorization: Bearer`; Refusal UNAUTHENTICATED `no-token` when nothing does.

    Asks nothing of the database: who comes without a token costs no connection.
    """
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret:
        raise Refusal(
            Kind.UNAUTHENTICATED, "no-token", "This act needs a token: Authorization: Bearer sceau_…"
        )
    if len(secret) > LONGEST_SECRET or not secret.isascii():
        raise Refusal(Kind.UNAUTHENTICATED, "bad-token", "The token is unknown, expired or revoked.")
    return secret
