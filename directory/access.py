"""Who may call: API tokens, each with one role, shown once and kept only as a hash.

The rights of a role are decided where the act is; the header that carries the token is the business of `api`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from functools import lru_cache
from hashlib import sha256
from secrets import token_urlsafe
from types import MappingProxyType
from typing import Any, NoReturn

import orjson
from sqlalchemy import Connection, bindparam, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from directory.base.audit import Actor, Event, record
from directory.base.errors import Kind, Refusal
from directory.base.instant import dated
from directory.base.prepared_statement import Statement
from directory.rules import ORDRE_OF_PROFESSION, WITHOUT_ORDRE
from directory.store import OPERATORS, operators_by_name
from directory.tables import api_token
from directory.tables import operator as trusted_operator

# Found by secret scanners in repositories and logs, because nothing else begins so.
PREFIX = "sceau_"
LONGEST_LIFETIME = timedelta(days=366)
LONGEST_NAME = 100
# As `pki.acts` names persons.
_PERSON = re.compile(r"person:[0-9a-f]{32}")
_TOKEN = "token:"  # noqa: S105 - a word of the log, not a secret
AUTHORITIES = frozenset({*ORDRE_OF_PROFESSION.values(), WITHOUT_ORDRE})


class Role(Enum):
    """What a token is for; a token has one."""

    REGISTRAR = "registrar"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    ADMIN = "admin"


@dataclass(frozen=True)
class Allowance:
    """From how many a token, and all tokens of its body, may take trust within an hour (`withdrawal_limits`).

    The entry point sets it from its settings; where it forgets, the defaults hold.
    """

    token: int = 60
    authority: int = 300

    def __post_init__(self) -> None:
        """Refuse what would let nobody take trust away, or less by all than by one."""
        if not 0 < self.token <= self.authority:
            raise ValueError("a limit is above zero, and that of a body no less than that of a token")


@dataclass(frozen=True)
class Token:
    """A token without its secret; `authority` is the body a registrar acts for, '' for every other role.

    `operator_id` is whom on the trusted list an operator's token acts for; with None it only asks.
    `is_one_of_several` says of a token that asks whether that operator has another one that lives.
    """

    id: int
    name: str
    role: Role
    authority: str
    expires_at: datetime
    revoked_at: datetime | None = None
    operator_id: int | None = None
    is_one_of_several: bool = False
    allowance: Allowance = Allowance()

    def __hash__(self) -> int:
        """By its number: tokens are looked up by each read, and equal ones have the same."""
        return self.id

    @property
    def actor(self) -> Actor:
        """How the audit log names whoever holds this token."""
        return actor_of(self.id)


@dataclass(frozen=True)
class ClientCertificate(Token):
    """An operator of the trusted list, known by his certificate: one that asks, beside his tokens."""

    @property
    def actor(self) -> Actor:
        """How the audit log names him: no token acts."""
        return Actor(f"operator:{self.operator_id}")


_TOKEN_COLUMNS = (
    api_token.c.id, api_token.c.name, api_token.c.role, api_token.c.authority, api_token.c.expires_at,
    api_token.c.revoked_at, api_token.c.operator_id,
)  # fmt: skip
_OTHER = api_token.alias("other")
_HAS_ANOTHER = (
    select(_OTHER.c.id)
    .where(_OTHER.c.operator_id == api_token.c.operator_id, _OTHER.c.id != api_token.c.id)
    .where(_OTHER.c.expires_at > bindparam("now"), _OTHER.c.revoked_at.is_(None))
    .exists()
)
_OF_SECRET = select(*_TOKEN_COLUMNS, _HAS_ANOTHER).where(
    api_token.c.secret_hash == bindparam("hash"),
    # Against no clock: the one who revoked may have had a faster one.
    api_token.c.revoked_at.is_(None),
)
_LIVE = Statement(_OF_SECRET.where(api_token.c.expires_at > bindparam("now")))
# For an act, which is dated in the same breath: whether it lasts is asked against that instant.
_NOT_REVOKED = Statement(_OF_SECRET.add_columns(func.clock_timestamp()))

# An expression: the live tokens among those with one of these hashes, for who asks of something else at once.
LIVE_TOKENS = """(
    SELECT CAST(json_agg(json_build_array(encode(t.secret_hash, 'hex'), t.id, t.name, t.role, t.authority,
        t.expires_at, t.operator_id, EXISTS (
            SELECT FROM api_token other WHERE other.operator_id = t.operator_id AND other.id <> t.id
            AND other.expires_at > :now AND other.revoked_at IS NULL))) AS text)
    FROM api_token t WHERE t.revoked_at IS NULL AND t.expires_at > :now
    AND t.secret_hash = ANY (ARRAY(
        SELECT decode(given.hash, 'hex') FROM unnest(CAST(:hashes AS text[])) AS given (hash))))"""

_LIVE_BY_NUMBER = Statement(
    select(*_TOKEN_COLUMNS, _HAS_ANOTHER).where(
        api_token.c.id == bindparam("id"),
        api_token.c.expires_at > bindparam("now"),
        api_token.c.revoked_at.is_(None),
    )
)

# Accredited: what he serves is trusted, and he is not suspended.
_ACCREDITED = Statement("""
    SELECT o.id FROM operator o
    WHERE o.certificate_dn = :name AND (o.suspended_at IS NULL OR o.suspended_at > :now) AND EXISTS (
        SELECT FROM trusted_domain d WHERE d.operator_id = o.id AND d.departed_at IS NULL)
""")


def actor_of(token_id: int) -> Actor:
    """How the audit log names whoever holds the token of that number."""
    return Actor(f"{_TOKEN}{token_id}")


def create_token(
    connection: Connection,
    *,
    now: datetime,
    actor: Actor,
    name: str,
    role: Role,
    authority: str = "",
    lifetime: timedelta,
    operator: str = "",
    person: str | None = None,
) -> tuple[Token, str]:
    """A new token and its secret, which nobody can read again; `operator` is the name of its certificate.

    `person` is whose it is: acts handed in under it must be hers.

    Refuses `bad-token-name`, `bad-token-lifetime` (none, or above a year), `bad-token-person`, and
    `token-name-taken` (by one not revoked). Refuses `bad-token-authority` (a registrar needs one that exists,
    others none) and `bad-token-operator` (only an operator's token has one, and of the trusted list).
    """
    _check_request(name, role, authority, lifetime)
    if person is not None and not _PERSON.fullmatch(person):
        words = "A token's person is `person:` and 32 hexadecimal digits."
        raise Refusal(Kind.MALFORMED, "bad-token-person", words)
    operator_id = _operator(connection, role, operator)
    secret = PREFIX + token_urlsafe(32)
    row = connection.execute(
        insert(api_token)
        .values(
            name=name,
            secret_hash=_hash(secret),
            role=role.value,
            authority=authority,
            created_at=now,
            expires_at=now + lifetime,
            operator_id=operator_id,
            person=person,
        )
        .on_conflict_do_nothing()
        .returning(*_TOKEN_COLUMNS)
    ).one_or_none()
    if row is None:
        raise Refusal(Kind.CONFLICT, "token-name-taken", f"A token named {name!r} exists: revoke it first.")
    token = _token(row)
    detail = {"name": name, "role": role.value, "authority": authority, "expires_at": token.expires_at}
    if operator:
        detail["operator"] = operator
    if person:
        detail["person"] = person
    record(connection, now=now, actor=actor, event=Event.TOKEN_CREATED, subject=str(token.id), detail=detail)
    return token, secret


def authenticate(connection: Connection, secret: str, now: datetime) -> Token:
    """The live token with this secret; Refusal `bad-token` says nothing of why (unknown, expired, revoked).

    Looking up the hash is the comparison in constant time: nobody can steer the bytes that are compared.
    """
    row = _LIVE.row(connection, {"hash": _hash(secret), "now": now})
    if row is None:
        raise _bad_token()
    return _token(row)


def authenticate_for_act(connection: Connection, secret: str, now: datetime) -> tuple[Token, datetime]:
    """The same, with the instant of the act that begins: the database's clock, or `now` where that dates."""
    row = _NOT_REVOKED.row(connection, {"hash": _hash(secret), "now": now})
    if row is None:
        raise _bad_token()
    token, now = _token(row[:-1]), dated(connection, row[-1], now)
    if token.expires_at <= now:
        raise _bad_token()
    return token, now


def hashed(secret: str) -> str:
    """What `LIVE_TOKENS` is asked with for a secret."""
    return _hash(secret).hex()


@lru_cache(1024)
def tokens_told(written: str | None) -> Mapping[str, Token]:
    """The live tokens by the hash of their secret, from the text of `LIVE_TOKENS`."""
    rows = orjson.loads(written or "[]")
    return MappingProxyType(
        {
            digest: Token(number, name, Role(role), authority, datetime.fromisoformat(ends), None, *rest)
            for digest, number, name, role, authority, ends, *rest in rows
        }
    )


def still_live(connection: Connection, token_id: int, now: datetime) -> Token:
    """The live token of that number, of whoever showed its secret before; Refusal `bad-token` otherwise."""
    row = _LIVE_BY_NUMBER.row(connection, {"id": token_id, "now": now})
    if row is None:
        raise _bad_token()
    return _token(row)


def certified_operator(connection: Connection, name: str, now: datetime) -> ClientCertificate:
    """The operator whose certificate of the trusted list has this subject; Refusal `unknown-certificate`.

    That the certificate is his, and holds, is for whoever spoke TLS with him.
    """
    known = operators_by_name(connection.execute(text(OPERATORS)).all())
    spelt = known.find(name)
    row = None if spelt is None else _ACCREDITED.row(connection, {"name": spelt, "now": now})
    if row is None:
        words = "No accredited operator of the trusted list has a certificate of this name."
        raise Refusal(Kind.UNAUTHENTICATED, "unknown-certificate", words)
    return ClientCertificate(0, name, Role.OPERATOR, "", now, operator_id=row[0])


def revoke_token(connection: Connection, *, now: datetime, actor: Actor, token_id: int) -> Token:
    """Take a token back from this commit on; refuses `unknown-token`, `token-already-revoked`."""
    row = connection.execute(
        update(api_token)
        .where(api_token.c.id == token_id, api_token.c.revoked_at.is_(None))
        .values(revoked_at=now)
        .returning(*_TOKEN_COLUMNS)
    ).one_or_none()
    if row is None:
        _refuse_revocation(connection, token_id)
    record(connection, now=now, actor=actor, event=Event.TOKEN_REVOKED, subject=str(token_id))
    return _token(row)


def colleague_of(connection: Connection, token: Token, token_id: int, now: datetime) -> Token:
    """The live token of that number that acts for the same body in the same role; refuses `unknown-token`.

    Of other bodies it does not say which tokens exist.
    """
    same = (
        select(*_TOKEN_COLUMNS)
        .where(api_token.c.id == token_id, api_token.c.role == token.role.value)
        .where(api_token.c.authority == token.authority)
        .where(api_token.c.operator_id.is_not_distinct_from(token.operator_id))
        .where(api_token.c.expires_at > now, api_token.c.revoked_at.is_(None))
    )
    row = connection.execute(same).one_or_none()
    if row is None:
        raise Refusal(Kind.NOT_FOUND, "unknown-token", f"There is no token {token_id} of the same body.")
    return _token(row)


def list_tokens(connection: Connection) -> list[Token]:
    """Every token there ever was, oldest first, without secrets."""
    query = select(*_TOKEN_COLUMNS).order_by(api_token.c.id)
    return [_token(row) for row in connection.execute(query)]


def persons_of_tokens(connection: Connection) -> dict[int, str]:
    """Whose each token is, of those that say so."""
    query = select(api_token.c.id, api_token.c.person).where(api_token.c.person.is_not(None))
    return {row.id: row.person for row in connection.execute(query)}


def check_person(connection: Connection, token: Token, person: str) -> None:
    """Refuse `another-person` where this token is of another person than the one who signed."""
    whose = connection.execute(select(api_token.c.person).where(api_token.c.id == token.id)).scalar()
    if whose not in {None, person}:
        words = "The act was signed by another person than the one this token belongs to."
        raise Refusal(Kind.FORBIDDEN, "another-person", words)


def actor_names(connection: Connection, actors: Iterable[str]) -> dict[str, str]:
    """The names of those tokens among these actors of the log; jobs and commands are absent."""
    numbers = {int(actor.removeprefix(_TOKEN)) for actor in actors if actor.startswith(_TOKEN)}
    rows = connection.execute(select(api_token.c.id, api_token.c.name).where(api_token.c.id.in_(numbers)))
    return {actor_of(row.id).name: row.name for row in rows}


def _check_request(name: str, role: Role, authority: str, lifetime: timedelta) -> None:
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise Refusal(Kind.MALFORMED, "bad-token-name", f"A token's name has 1 to {LONGEST_NAME} characters.")
    if not timedelta() < lifetime <= LONGEST_LIFETIME:
        raise Refusal(Kind.MALFORMED, "bad-token-lifetime", "A token lives for a year at most.")
    if role is Role.REGISTRAR and authority not in AUTHORITIES:
        text = f"A registrar acts for one of {', '.join(sorted(AUTHORITIES))}."
        raise Refusal(Kind.MALFORMED, "bad-token-authority", text)
    if role is not Role.REGISTRAR and authority:
        raise Refusal(Kind.MALFORMED, "bad-token-authority", "Only a registrar acts for an authority.")


def _bad_token() -> Refusal:
    return Refusal(Kind.UNAUTHENTICATED, "bad-token", "This token is unknown, expired or revoked.")


def _operator(connection: Connection, role: Role, certificate_dn: str) -> int | None:
    if not certificate_dn:
        return None
    if role is not Role.OPERATOR:
        raise Refusal(Kind.MALFORMED, "bad-token-operator", "Only an operator's token acts for an operator.")
    known = operators_by_name(connection.execute(text(OPERATORS)).all())
    spelt = known.find(certificate_dn)
    query = select(trusted_operator.c.id).where(trusted_operator.c.certificate_dn == spelt)
    number = connection.execute(query).scalar_one_or_none()
    if number is None:
        message = "No operator of the trusted list has a certificate of this name: /trust-list.xml has them."
        raise Refusal(Kind.MALFORMED, "bad-token-operator", message)
    return int(number)


def _refuse_revocation(connection: Connection, token_id: int) -> NoReturn:
    known = connection.execute(select(api_token.c.id).where(api_token.c.id == token_id)).one_or_none()
    if known is None:
        raise Refusal(Kind.NOT_FOUND, "unknown-token", f"There is no token {token_id}.")
    raise Refusal(Kind.CONFLICT, "token-already-revoked", f"Token {token_id} is revoked already.")


def _hash(secret: str) -> bytes:
    # 256 random bits need no salt and no slow hash. A lone surrogate is a wrong secret, not a crash.
    return sha256(secret.encode(errors="replace")).digest()


def _token(row: Sequence[Any]) -> Token:
    number, name, role, *rest = row
    return Token(number, name, Role(role), *rest)
