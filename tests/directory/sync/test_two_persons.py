"""A held run goes on only after named persons said so: one, or two different ones, and nobody else may."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Thread

import psycopg
import pytest
from sqlalchemy import Engine, text

from directory.access import Role, Token, revoke_token
from directory.base.audit import Actor
from directory.base.comments import LONGEST_SENTENCE
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.sync.runs.approvals import Approval, approvals_of, approve
from tests.directory.sync.files import Rows
from tests.factories import seed_token

LATER = datetime(2026, 12, 31, tzinfo=UTC)
Held = Callable[..., int]


@pytest.fixture
def held(engine: Engine, now: datetime) -> Held:
    """A run that waits for so many persons, or is in some other state."""

    def make(needed: int = 1, state: str = "held") -> int:
        with engine.begin() as connection:
            return int(
                connection.execute(
                    text(
                        "INSERT INTO register_run (register, file_name, file_sha256, generated_at,"
                        " started_at, state, reason, approvals_needed) VALUES ('rpps', 'x.zip', sha256('x'),"
                        " :now, :now, :state, CASE WHEN :state = 'refused' THEN 'superseded' END, :needed)"
                        " RETURNING id"
                    ),
                    {"now": now, "state": state, "needed": needed},
                ).scalar_one()
            )

    return make


def admin(engine: Engine, name: str, role: Role = Role.ADMIN) -> Token:
    token_id = seed_token(engine, name, role=role.value)
    return Token(token_id, name, role, "CNOM" if role is Role.REGISTRAR else "", LATER)


def agree(
    engine: Engine, now: datetime, token: Token, run_id: int, comment: str = "as announced"
) -> Approval:
    with transaction(engine) as connection:
        return approve(connection, now=now, token=token, run_id=run_id, comment=comment)


def refused(engine: Engine, now: datetime, token: Token, run_id: int, comment: str = "x") -> str:
    with pytest.raises(Refusal) as caught:
        agree(engine, now, token, run_id, comment)
    return caught.value.code


def test_one_person_is_enough_where_one_is_needed(
    engine: Engine, now: datetime, held: Held, rows: Rows
) -> None:
    run_id, alice = held(1), admin(engine, "alice")
    assert agree(engine, now, alice, run_id, "  announced by the agency ") == Approval(run_id, 1, 1)
    assert rows("SELECT event, actor, subject, detail ->> 'comment' FROM audit_pending") == [
        ("register.approved", f"token:{alice.id}", "rpps", "announced by the agency")
    ]
    assert refused(engine, now, admin(engine, "bruno"), run_id) == "run-already-approved"


def test_two_persons_are_two_tokens(engine: Engine, now: datetime, held: Held, rows: Rows) -> None:
    run_id, alice = held(2), admin(engine, "alice")
    assert agree(engine, now, alice, run_id) == Approval(run_id, 1, 2)
    assert refused(engine, now, alice, run_id) == "run-already-approved"
    assert rows("SELECT count(*) FROM register_approval") == [(1,)]
    assert agree(engine, now, admin(engine, "bruno"), run_id) == Approval(run_id, 2, 2)


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.ADMIN])
def test_no_other_role_lets_a_run_through(role: Role, engine: Engine, now: datetime, held: Held) -> None:
    assert refused(engine, now, admin(engine, "someone", role), held()) == "role-lacking"


@pytest.mark.parametrize("state", ["running", "planned", "applied", "refused", "interrupted"])
def test_a_run_that_is_not_held_waits_for_nobody(
    state: str, engine: Engine, now: datetime, held: Held
) -> None:
    assert refused(engine, now, admin(engine, "alice"), held(state=state)) == "run-not-held"


def test_an_unknown_run_is_not_found(engine: Engine, now: datetime) -> None:
    with pytest.raises(Refusal) as caught:
        agree(engine, now, admin(engine, "alice"), 404)
    assert (caught.value.kind, caught.value.code) == (Kind.NOT_FOUND, "unknown-run")


@pytest.mark.parametrize(
    ("comment", "code"),
    [("", "comment-missing"), (" \n", "comment-missing"), ("x" * 501, "comment-too-long")],
)
def test_who_lets_a_run_through_says_why(
    comment: str, code: str, engine: Engine, now: datetime, held: Held
) -> None:
    run_id, alice = held(), admin(engine, "alice")
    assert refused(engine, now, alice, run_id, comment) == code
    assert agree(engine, now, alice, run_id, "x" * LONGEST_SENTENCE).approvals == 1


def test_what_a_token_said_counts_no_more_once_it_is_revoked(
    engine: Engine, now: datetime, held: Held
) -> None:
    run_id, alice = held(2), admin(engine, "alice")
    agree(engine, now, alice, run_id)
    with transaction(engine) as connection:
        revoke_token(
            connection, now=now + timedelta(minutes=1), actor=Actor("command:root"), token_id=alice.id
        )
    assert agree(engine, now, admin(engine, "bruno"), run_id) == Approval(run_id, 1, 2)
    assert agree(engine, now, admin(engine, "chloe"), run_id) == Approval(run_id, 2, 2)


def test_two_who_agree_at_once_do_not_count_as_three(engine: Engine, now: datetime, held: Held) -> None:
    run_id = held(1)
    heard: list[str] = []

    def try_it(token: Token) -> None:
        try:
            heard.append(str(agree(engine, now, token, run_id).approvals))
        except Refusal as refusal:
            heard.append(refusal.code)

    threads = [Thread(target=try_it, args=(admin(engine, f"admin-{n}"),)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(heard) == ["1", *["run-already-approved"] * 5]
    with transaction(engine, read_only=True) as connection:
        assert approvals_of(connection, run_id) == 1


def test_an_approval_is_never_changed_or_removed(
    engine: Engine, database_url: str, now: datetime, held: Held
) -> None:
    agree(engine, now, admin(engine, "alice"), held())
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as link:
        for statement in (
            "UPDATE register_approval SET comment = 'other'",
            "DELETE FROM register_approval",
            "TRUNCATE register_approval",
        ):
            with pytest.raises(psycopg.errors.RestrictViolation):
                link.execute(statement)
