"""API tokens: shown once, kept as a hash, dead when expired or revoked, each act in the log."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from directory.access import Role, Token, authenticate, create_token, list_tokens, revoke_token
from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal

DAY = timedelta(days=1)


def make(
    engine: Engine, now: datetime, actor: Actor, name: str = "provider", **given: Any
) -> tuple[Token, str]:
    asked: dict[str, Any] = {"role": Role.OPERATOR, "lifetime": DAY} | given
    with transaction(engine) as connection:
        return create_token(connection, now=now, actor=actor, name=name, **asked)


def enter(engine: Engine, secret: str, now: datetime) -> Token:
    with transaction(engine) as connection:
        return authenticate(connection, secret, now)


def lines(engine: Engine) -> list[Mapping[str, Any]]:
    with engine.connect() as connection:
        return [
            dict(row)
            for row in connection.execute(text("SELECT * FROM audit_pending ORDER BY id")).mappings()
        ]


def refused(engine: Engine, secret: str, now: datetime) -> bool:
    try:
        enter(engine, secret, now)
    except Refusal as refusal:
        return (refusal.kind, refusal.code) == (Kind.UNAUTHENTICATED, "bad-token")
    return False


def test_a_new_token_opens_as_who_it_was_made_for(engine: Engine, now: datetime, actor: Actor) -> None:
    token, secret = make(engine, now, actor, role=Role.REGISTRAR, authority="CNOM")
    assert enter(engine, secret, now) == token
    assert (token.role, token.authority, token.expires_at) == (Role.REGISTRAR, "CNOM", now + DAY)
    assert token.actor == Actor(f"token:{token.id}")


def test_a_secret_is_forty_three_random_characters_and_no_two_are_alike(
    engine: Engine, now: datetime, actor: Actor
) -> None:
    secrets = {make(engine, now, actor, f"t{number}")[1] for number in range(20)}
    assert len(secrets) == 20
    assert {(secret[:6], len(secret)) for secret in secrets} == {("sceau_", 49)}


def test_the_secret_is_nowhere_in_the_database_nor_in_the_log(
    engine: Engine, now: datetime, actor: Actor
) -> None:
    _, secret = make(engine, now, actor)
    with engine.connect() as connection:
        stored = connection.execute(text("SELECT api_token::text FROM api_token")).scalar_one()
    assert secret not in stored
    assert secret not in str(lines(engine))


def test_a_token_dies_the_instant_it_expires(engine: Engine, now: datetime, actor: Actor) -> None:
    _, secret = make(engine, now, actor)
    assert not refused(engine, secret, now + DAY - timedelta(microseconds=1))
    assert refused(engine, secret, now + DAY)


def test_a_revoked_token_is_dead_from_the_commit_on(engine: Engine, now: datetime, actor: Actor) -> None:
    token, secret = make(engine, now, actor)
    with transaction(engine) as connection:
        revoke_token(connection, now=now, actor=actor, token_id=token.id)
        assert not refused(engine, secret, now)
    assert refused(engine, secret, now)
    # Asked by a process whose clock is behind that of whoever revoked it.
    assert refused(engine, secret, now - timedelta(minutes=1))


@pytest.mark.parametrize("secret", ["", "sceau_", "sceau_" + "A" * 43, "é", "\0", "\ud800", "x" * 100_000])
def test_any_other_secret_is_refused_in_the_same_words(engine: Engine, now: datetime, secret: str) -> None:
    assert refused(engine, secret, now)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no name": ({"name": " "}, "bad-token-name"),
    "endless name": ({"name": "x" * 101}, "bad-token-name"),
    "name that breaks lines": ({"name": "a\nb"}, "bad-token-name"),
    "no lifetime": ({"lifetime": timedelta()}, "bad-token-lifetime"),
    "two years": ({"lifetime": timedelta(days=730)}, "bad-token-lifetime"),
    "registrar of nothing": ({"role": Role.REGISTRAR}, "bad-token-authority"),
    "registrar of an unknown body": ({"role": Role.REGISTRAR, "authority": "ZZZ"}, "bad-token-authority"),
    "operator with an authority": ({"authority": "CNOM"}, "bad-token-authority"),
}


@pytest.mark.parametrize(("asked", "code"), BAD.values(), ids=BAD)
def test_a_token_that_makes_no_sense_is_not_made(
    engine: Engine, now: datetime, actor: Actor, asked: dict[str, Any], code: str
) -> None:
    with pytest.raises(Refusal) as found:
        make(engine, now, actor, **asked)
    assert found.value.code == code
    assert lines(engine) == []


def test_a_name_is_free_again_once_its_token_is_revoked(engine: Engine, now: datetime, actor: Actor) -> None:
    first, _ = make(engine, now, actor)
    with pytest.raises(Refusal) as found:
        make(engine, now, actor)
    assert found.value.code == "token-name-taken"
    with transaction(engine) as connection:
        revoke_token(connection, now=now, actor=actor, token_id=first.id)
    second, _ = make(engine, now, actor)
    with transaction(engine) as connection:
        assert [(t.id, t.revoked_at) for t in list_tokens(connection)] == [(first.id, now), (second.id, None)]


def test_a_token_is_revoked_once(engine: Engine, now: datetime, actor: Actor) -> None:
    token, _ = make(engine, now, actor)
    codes = []
    for token_id in (token.id, token.id, token.id + 1):
        try:
            with transaction(engine) as connection:
                revoke_token(connection, now=now, actor=actor, token_id=token_id)
        except Refusal as refusal:
            codes.append(refusal.code)
    assert codes == ["token-already-revoked", "unknown-token"]


def test_making_and_revoking_each_leave_a_line(engine: Engine, now: datetime, actor: Actor) -> None:
    token, _ = make(engine, now, actor, role=Role.AUDITOR)
    with transaction(engine) as connection:
        revoke_token(connection, now=now, actor=actor, token_id=token.id)
    created, revoked = lines(engine)
    assert (created["event"], created["actor"], created["subject"]) == (
        "token.created",
        actor.name,
        str(token.id),
    )
    assert created["detail"]["role"] == "auditor"
    assert (revoked["event"], revoked["subject"]) == ("token.revoked", str(token.id))
