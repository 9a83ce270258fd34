"""Whom an operator has told that its certificates end: kept by itself, seen by nobody else."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError
from werkzeug.test import TestResponse

from pki.monitoring import expiry_notices
from pki.monitoring.expiry_store import ExpiryQuery
from tests.api.certificates import certify, certify_operator, keep_contacts
from tests.api.conftest import Caller
from tests.api.rest.test_what_runs_out_is_shown import plain
from tests.factories import OPERATOR, seed_practitioner

DAY = timedelta(days=1)
OTHER = "CN=other.example,O=Other operator,C=FR"
PATH = "/v1/operator/contacts"


@pytest.fixture
def acting(caller: Callable[..., Caller], engine: Engine) -> Callable[[str, str], Caller]:
    """`acting(name, dn)`: a token that acts for that operator of the trusted list."""

    def made(name: str, dn: str) -> Caller:
        one = caller("operator", name=name)
        with engine.begin() as connection:
            connection.execute(
                text(
                    "UPDATE api_token SET operator_id ="
                    " (SELECT id FROM operator WHERE certificate_dn = :dn) WHERE name = :name"
                ),
                {"dn": dn, "name": name},
            )
        return one

    seed_practitioner(engine)
    seed_practitioner(engine, 2, operator=OTHER, address="b@other.example")
    return made


@pytest.fixture
def own(acting: Callable[[str, str], Caller]) -> Caller:
    return acting("own", OPERATOR)


def put(caller: Caller, *addresses: str) -> TestResponse:
    return caller.client.put(PATH, json={"addresses": addresses}, headers=caller.headers)


def lines(engine: Engine) -> list[Any]:
    query = "SELECT subject, detail FROM audit_pending WHERE event = 'operator.contacts-kept' ORDER BY id"
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def test_the_whole_list_replaces_the_one_before_and_nobody_else_sees_it(
    own: Caller, acting: Callable[[str, str], Caller]
) -> None:
    other = acting("other", OTHER)
    assert own.get(PATH).get_json() == {"addresses": [], "kept_at": None}
    answer = put(own, "Team@One.example", "b@two.example", "team@one.example")
    expected = {"addresses": ["team@one.example", "b@two.example"], "kept_at": "2026-09-01T12:00:00Z"}
    assert (answer.status_code, answer.get_json()) == (200, expected)
    assert own.get(PATH).get_json() == expected
    assert other.get(PATH).get_json()["addresses"] == []
    assert put(own, "c@three.example", "b@two.example").status_code == 200
    assert put(other, "c@three.example").status_code == 200
    assert own.get(PATH).get_json()["addresses"] == ["c@three.example", "b@two.example"]
    assert put(own).get_json() == {"addresses": [], "kept_at": None}


def test_the_log_tells_how_many_and_never_which(own: Caller, engine: Engine) -> None:
    put(own, "a@one.example", "b@one.example")
    put(own, "a@one.example", "b@one.example")
    put(own, "a@one.example", "c@one.example")
    told = lines(engine)
    assert [detail for _, detail in told] == [
        {"kept": 2, "new": 2, "gone": 0}, {"kept": 2, "new": 1, "gone": 1},
    ]  # fmt: skip
    assert "one.example" not in str(told)


@pytest.mark.parametrize(
    ("addresses", "status", "code"),
    [
        (["nobody"], 400, "malformed-address"),
        (["a@one.example, b@one.example"], 400, "malformed-address"),
        (["Team <a@one.example>"], 400, "malformed-address"),
        ([f"{n}@one.example" for n in range(6)], 422, "too-many-contacts"),
        ([f"{n}@one.example" for n in range(51)], 422, "invalid-request"),
        (["a@one.example\r\nBcc: b@one.example"], 422, "invalid-request"),
        ([""], 422, "invalid-request"),
        ([None], 422, "invalid-request"),
    ],
)
def test_what_is_no_list_of_addresses_is_refused_and_changes_nothing(
    own: Caller, addresses: list[str], status: int, code: str
) -> None:
    put(own, "a@one.example")
    answer = put(own, *addresses)
    assert (answer.status_code, answer.get_json()["code"]) == (status, code)
    assert own.get(PATH).get_json()["addresses"] == ["a@one.example"]


def test_a_token_that_acts_for_nobody_keeps_none(operator: Caller) -> None:
    for answer in (operator.get(PATH), put(operator, "a@one.example")):
        assert (answer.status_code, answer.get_json()["code"]) == (403, "not-an-operator")


def test_two_who_write_at_once_leave_one_of_both_lists(own: Caller) -> None:
    first, second = ["a@one.example", "b@one.example"], ["c@one.example", "d@one.example", "e@one.example"]
    app = own.client.application

    def write(addresses: list[str]) -> int:
        return put(Caller(app.test_client(), own.token), *addresses).status_code

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(write, [first, second] * 6)) == {200}
    assert own.get(PATH).get_json()["addresses"] in (first, second)


def test_the_database_itself_keeps_no_sixth(engine: Engine) -> None:
    seed_practitioner(engine)
    with pytest.raises(IntegrityError):
        keep_contacts(engine, *(f"{n}@one.example" for n in range(6)))


def test_a_certificate_of_which_nobody_can_be_told_is_shown_as_such(
    own: Caller, anybody: Caller, engine: Engine, now: datetime
) -> None:
    certify(engine, "person-1@one.example", now - 340 * DAY, number=1)
    certify_operator(engine, now - 340 * DAY, number=2)

    def shown() -> list[tuple[str | None, bool]]:
        items = own.get("/v1/expiring").get_json()["items"]
        return [(one["subject"], one["has_recipient"]) for one in items]

    assert shown() == [(None, True), ("CN=mx.one.example", False)]
    assert "faute de contact de leur opérateur : 1" in plain(anybody.get("/expiring").text)
    put(own, "a@one.example")
    assert shown() == [(None, True), ("CN=mx.one.example", True)]
    with engine.connect() as connection:
        assert expiry_notices.untold(connection, now) == 0


def test_an_operator_sees_no_servers_of_others(
    own: Caller, caller: Callable[..., Caller], engine: Engine, now: datetime
) -> None:
    seed_practitioner(engine, 3, operator=OTHER, address="c@other.example")
    mine = certify_operator(engine, now - 340 * DAY, number=1)
    foreign = certify_operator(engine, now - 340 * DAY, number=2, operator=OTHER)

    def serials(who: Caller) -> set[str]:
        return {one["serial"] for one in who.get("/v1/expiring").get_json()["items"]}

    assert serials(own) == {mine}
    assert serials(caller("operator")) == set(), "a token that acts for none"
    assert serials(caller("auditor")) == {mine, foreign}


def test_a_server_of_the_same_name_of_another_operator_is_no_successor(engine: Engine, now: datetime) -> None:
    seed_practitioner(engine)
    seed_practitioner(engine, 2, operator=OTHER, address="b@other.example")
    first = certify_operator(engine, now - 340 * DAY, number=1)
    certify_operator(engine, now, number=2, operator=OTHER)
    with engine.connect() as connection:
        found = expiry_notices.ending(connection, now, ExpiryQuery(now + 60 * DAY), limit=10)
    assert [one.serial for one in found] == [first]
