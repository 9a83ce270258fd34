"""Correcting over REST and from a terminal: who may, what may be, where it shows, how it ends."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import Engine, text

from directory import corrections
from directory.access import Allowance, Role, Token
from directory.base.db import transaction
from directory.base.errors import Refusal
from directory.feed.changes import Entity
from directory.withdrawal_limits import agree, standings_seen
from pki.publication.export import write_export
from pki.publication.values import public_values
from pki.withdrawal.void_enrolments import void_of
from tests.api.commands import Sceau
from tests.api.conftest import Caller
from tests.factories import Seeded, seed_organisation, seed_practitioner, seed_token

HOSPITAL = "750990012"


@pytest.fixture
def someone(engine: Engine) -> Seeded:
    return seed_practitioner(engine)


@pytest.fixture
def registrar(caller: Callable[..., Caller]) -> Caller:
    return caller("registrar")


@pytest.fixture
def admin(caller: Callable[..., Caller]) -> Caller:
    return caller("admin")


def body(someone: Seeded, field: str = "family_name", value: str = "MARTAIN", **more: Any) -> dict[str, Any]:
    told = {"entity": "practitioner", "key": someone.national_id, "field": field, "value": value}
    return {**told, "reason": "Vu sur le diplôme", **more}


def of_mailbox(someone: Seeded, field: str, value: str) -> dict[str, Any]:
    return body(someone, field, value, entity="mailbox", key=someone.mailbox)


def of_place(field: str, value: str) -> dict[str, Any]:
    return {"entity": "organisation", "key": HOSPITAL, "field": field, "value": value, "reason": "appel"}


def test_a_corrected_name_is_found_shown_and_marked_and_given_back(
    registrar: Caller, operator: Caller, someone: Seeded
) -> None:
    made = registrar.post("/v1/corrections", body(someone))
    assert made.status_code == 201, made.get_json()
    assert (made.get_json()["register_value"], made.get_json()["authority"]) == ("MARTIN", "CNOM")
    (found,) = operator.get("/v1/practitioners", name="martain").get_json()["items"]
    (mark,) = found["corrected"]
    assert (found["family_name"], mark["field"], mark["register_value"], mark["authority"]) == (
        "MARTAIN", "family_name", "MARTIN", "CNOM",
    )  # fmt: skip
    assert operator.get("/v1/practitioners", name="martin").get_json()["items"] == []
    path = f"/v1/corrections/{made.get_json()['id']}/withdrawal"
    assert registrar.post(path).get_json()["ending"] == "withdrawn"
    (found,) = operator.get("/v1/practitioners", name="martin").get_json()["items"]
    assert found["corrected"] == []
    again = registrar.post(path)
    assert (again.status_code, again.get_json()["code"]) == (409, "correction-ended")


def test_a_second_correction_replaces_the_first_and_remembers_the_register(
    registrar: Caller, someone: Seeded
) -> None:
    registrar.post("/v1/corrections", body(someone))
    second = registrar.post("/v1/corrections", body(someone, value="MARTEN")).get_json()
    assert second["register_value"] == "MARTIN"
    (live,) = registrar.get("/v1/corrections").get_json()["items"]
    assert live["id"] == second["id"]
    page = registrar.get("/v1/corrections", ended="true", limit=1).get_json()
    assert (page["items"][0]["ending"], page["items"][0]["ended_by"]) == ("replaced", live["made_by"])
    assert registrar.get("/v1/corrections", ended="true", after=page["next"]).get_json()["items"] == [live]


def test_an_unlisted_mailbox_is_nowhere_found_and_still_checked(
    registrar: Caller, operator: Caller, someone: Seeded, *, engine: Engine, now: datetime
) -> None:
    registrar.post("/v1/corrections", of_mailbox(someone, "service", "SUR RENDEZ-VOUS"))
    (shown,) = operator.get(f"/v1/practitioners/{someone.national_id}").get_json()["mailboxes"]
    assert [mark["field"] for mark in shown["corrected"]] == ["service"]
    assert registrar.post("/v1/corrections", of_mailbox(someone, "listed", "false")).status_code == 201
    assert operator.get(f"/v1/practitioners/{someone.national_id}").get_json()["mailboxes"] == []
    reasons = operator.get(f"/v1/recipients/{someone.mailbox}").get_json()["reasons"]
    assert "mailbox-unknown" not in reasons
    key = (Entity.MAILBOX, someone.mailbox)
    with transaction(engine, read_only=True) as connection:
        assert public_values(connection, [key], now) == {}
        urgent = text("SELECT bool_or(urgent) FROM change WHERE entity = 'mailbox'")
        assert connection.execute(urgent).scalar_one() is True


def test_a_copy_names_the_fields_that_are_corrected(
    registrar: Caller, someone: Seeded, engine: Engine, now: datetime, tmp_path: Any
) -> None:
    registrar.post("/v1/corrections", body(someone))
    registrar.post("/v1/corrections", of_mailbox(someone, "service", "SUR RENDEZ-VOUS"))
    keys = [(Entity.PRACTITIONER, someone.national_id), (Entity.MAILBOX, someone.mailbox)]
    with transaction(engine, read_only=True) as connection:
        values = public_values(connection, keys, now)
        assert write_export(connection, tmp_path, now).files["practitioners.csv.gz"].lines == 1
    assert (values[keys[0]]["family_name"], values[keys[0]]["corrected"]) == ("MARTAIN", ["family_name"])
    assert values[keys[1]]["corrected"] == ["service"]


def test_an_establishment_is_an_administrators_and_closes_but_does_not_open(
    admin: Caller, registrar: Caller, operator: Caller, engine: Engine
) -> None:
    seed_organisation(engine, HOSPITAL)
    refused = registrar.post("/v1/corrections", of_place("name", "CLINIQUE DES LYS"))
    assert (refused.status_code, refused.get_json()["code"]) == (403, "wrong-authority")
    assert admin.post("/v1/corrections", of_place("name", "CLINIQUE DES LYS")).status_code == 201
    (found,) = operator.get("/v1/organisations", name="clinique lys").get_json()["items"]
    assert [(mark["field"], mark["authority"]) for mark in found["corrected"]] == [("name", "")]
    closing = admin.post("/v1/corrections", of_place("closed_on", "2026-08-01")).get_json()
    path = f"/v1/recipients/contact-{HOSPITAL}@two.example"
    assert "organisation-closed" in operator.get(path).get_json()["reasons"]
    admin.post(f"/v1/corrections/{closing['id']}/withdrawal")
    assert "organisation-closed" not in operator.get(path).get_json()["reasons"]
    with engine.begin() as connection:
        connection.execute(text("UPDATE organisation SET closed_on = '2026-08-15'"))
    later = admin.post("/v1/corrections", of_place("closed_on", "2027-01-01"))
    assert (later.status_code, later.get_json()["code"]) == (409, "closing-put-off")
    never = admin.post("/v1/corrections", of_place("closed_on", ""))
    assert (never.status_code, never.get_json()["code"]) == (400, "bad-correction")


def test_only_the_authority_of_the_person_or_an_administrator_corrects_and_withdraws(
    registrar: Caller, someone: Seeded, engine: Engine, caller: Callable[..., Caller]
) -> None:
    pharmacist = caller("registrar", name="p", authority="CNOP")
    for asked in (body(someone), of_mailbox(someone, "listed", "false")):
        answer = pharmacist.post("/v1/corrections", asked)
        assert (answer.status_code, answer.get_json()["authorities"]) == (403, ["CNOM"])
    made = registrar.post("/v1/corrections", body(someone)).get_json()
    answer = pharmacist.post(f"/v1/corrections/{made['id']}/withdrawal")
    assert (answer.status_code, answer.get_json()["code"]) == (404, "unknown-correction")
    assert pharmacist.get("/v1/corrections").get_json()["items"] == []
    for role in ("auditor", "admin"):
        (seen,) = (
            caller(role)
            .get("/v1/corrections", entity="practitioner", key=someone.national_id)
            .get_json()["items"]
        )
        assert seen["reason"] == "Vu sur le diplôme"
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM correction")).scalar_one() == 1


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        ({"key": "810099000027"}, 404, "unknown-practitioner"),
        ({"key": "x"}, 400, "malformed-national-id"),
        ({"entity": "mailbox", "key": "a@b.example", "field": "service"}, 404, "unknown-mailbox"),
        ({"entity": "mailbox", "key": "nobody", "field": "service"}, 400, "malformed-address"),
        ({"entity": "organisation", "key": "750990038", "field": "name"}, 404, "unknown-organisation"),
        ({"entity": "organisation", "key": "750990039", "field": "name"}, 400, "finess-check-digit"),
        ({"entity": "mailbox", "field": "family_name"}, 400, "not-correctable"),
        ({"field": "departed_at"}, 422, "invalid-request"),
        ({"field": "row_hash"}, 422, "invalid-request"),
        ({"value": ""}, 400, "bad-correction"),
        ({"value": " \t"}, 400, "bad-correction"),
        ({"value": "MAR|TIN"}, 400, "bad-correction"),
        ({"value": "MAR\u0000TIN"}, 400, "bad-correction"),
        ({"value": "M" * 201}, 422, "invalid-request"),
        ({"field": "title", "value": "docteur"}, 400, "bad-correction"),
        ({"value": " MARTIN "}, 409, "nothing-to-correct"),
        ({"reason": " "}, 422, "invalid-request"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    admin: Caller, someone: Seeded, engine: Engine, *, more: dict[str, Any], status: int, code: str
) -> None:
    if more.get("field") == "family_name":
        more = {**more, "key": someone.mailbox}
    answer = admin.post("/v1/corrections", body(someone, **more))
    assert (answer.status_code, answer.get_json()["code"]) == (status, code)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM correction")).scalar_one() == 0
        assert connection.execute(text("SELECT family_name FROM practitioner")).scalar_one() == "MARTIN"


def test_to_say_what_the_register_says_is_no_correction_of_a_correction(
    registrar: Caller, someone: Seeded
) -> None:
    registrar.post("/v1/corrections", body(someone))
    answer = registrar.post("/v1/corrections", body(someone, value="MARTIN"))
    assert (answer.status_code, answer.get_json()["code"]) == (409, "nothing-to-correct")


def test_the_log_tells_that_and_who_and_neither_value_nor_reason(
    registrar: Caller, someone: Seeded, engine: Engine
) -> None:
    made = registrar.post("/v1/corrections", body(someone)).get_json()
    registrar.post(f"/v1/corrections/{made['id']}/withdrawal")
    with engine.connect() as connection:
        lines = connection.execute(text("SELECT event, subject, actor FROM audit_pending ORDER BY id")).all()
        whole = str(connection.execute(text("SELECT detail::text FROM audit_pending")).all())
    assert [tuple(line) for line in lines] == [
        (event, someone.national_id, made["made_by"]) for event in ("correction.made", "correction.ended")
    ]
    assert "MARTAIN" not in whole
    assert "diplôme" not in whole


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE correction SET value = 'OTHER'",
        "UPDATE correction SET made_by = 'somebody'",
        "DELETE FROM correction",
        # With what refers to it, or PostgreSQL refuses before the trigger does.
        "TRUNCATE correction CASCADE",
    ],
)
def test_the_database_lets_nobody_rewrite_a_correction(
    registrar: Caller, someone: Seeded, engine: Engine, statement: str
) -> None:
    registrar.post("/v1/corrections", body(someone))
    with (
        engine.connect() as connection,
        pytest.raises(Exception, match=r"rewritten|never changed or removed"),
    ):
        connection.execute(text(statement))


@pytest.fixture
def acting(someone: Seeded, engine: Engine) -> tuple[str, str]:
    seed_token(engine, "registrar")
    return someone.national_id, "sceau_registrar"


def test_a_terminal_does_the_same(sceau: Sceau, acting: tuple[str, str]) -> None:
    number, token = acting

    def by_registrar(*words: str) -> Result:
        return sceau(*words, "--json", token=token)

    words = ("practitioner", number, "given_name", "Camille Anne", "--reason", "x")
    made = by_registrar("correct", "make", *words)
    assert made.exit_code == 0, made.output
    correction = json.loads(made.stdout)
    listed = json.loads(by_registrar("correct", "list", "--entity", "practitioner", "--key", number).stdout)
    assert [one["id"] for one in listed["items"]] == [correction["id"]]
    ended = by_registrar("correct", "withdraw", str(correction["id"]))
    assert json.loads(ended.stdout)["ending"] == "withdrawn"
    wrong = by_registrar("correct", "withdraw", "4711")
    assert (wrong.exit_code, json.loads(wrong.stdout)["type"]) == (1, "unknown-correction")


def test_a_plus_of_an_address_that_came_as_a_space_is_named(app: Flask, acting: tuple[str, str]) -> None:
    caller = Caller(app.test_client(), acting[1])
    unescaped = caller.client.get("/v1/corrections?entity=mailbox&key=+x@one.example", headers=caller.headers)
    assert (unescaped.status_code, unescaped.get_json()["code"]) == (400, "malformed-address")
    assert "`%2B`" in unescaped.get_json()["detail"]
    assert caller.get("/v1/corrections", entity="mailbox", key="+x@one.example").status_code == 200


def test_a_closing_day_counts_each_mailbox_of_the_establishment(engine: Engine, now: datetime) -> None:
    """One administrator alone closes no hospital of a hundred mailboxes; with another's agreement he does."""
    seed_organisation(engine, HOSPITAL)
    more = text(
        "INSERT INTO mailbox (address, kind, structure_type, structure_id, structure_name, service, row_hash)"
        " SELECT 'service' || n || '@two.example', 'ORG', '1', :place, 'CLINIQUE', '', ''"
        " FROM generate_series(1, 6) AS n"
    )
    with engine.begin() as connection:
        connection.execute(more, {"place": HOSPITAL})
    first, second = (
        Token(seed_token(engine, name, role="admin"), name, Role.ADMIN, "", now + timedelta(days=1),
              allowance=Allowance(3, 9))
        for name in ("a", "b")
    )  # fmt: skip

    def close() -> None:
        with transaction(engine) as connection:
            corrections.correct(
                connection, now=now, token=first, entity=Entity.ORGANISATION, key=HOSPITAL,
                field="closed_on", value="2026-01-01", reason="list", void_of=void_of,
            )  # fmt: skip

    with pytest.raises(Refusal, match="take trust from 3 within an hour"):
        close()
    with transaction(engine) as connection:
        agree(connection, now=now, token=second, token_id=first.id, reason="letter seen")
    close()
    with transaction(engine, read_only=True) as connection:
        used = {one.scope: one.used for one in standings_seen(connection, token=second, now=now)}
    assert used[f"token:{first.id}"] == 6


@pytest.mark.parametrize("listed", [True, False], ids=["put on", "taken off"])
def test_the_red_list_counts_both_ways_and_on_every_road(
    engine: Engine, now: datetime, *, listed: bool
) -> None:
    """No token alone shows those who are hidden, or hides those who are shown, beyond an hour's limit."""
    people = [seed_practitioner(engine, number, listed=listed) for number in (1, 2, 3)]
    first, second = (
        Token(seed_token(engine, name), name, Role.REGISTRAR, "CNOM", now + timedelta(days=1),
              allowance=Allowance(2, 9))
        for name in ("a", "b")
    )  # fmt: skip

    def used() -> int:
        with transaction(engine, read_only=True) as connection:
            seen = standings_seen(connection, token=first, now=now)
        return next((one.used for one in seen if one.scope == f"token:{first.id}"), 0)

    def make(person: Seeded, token: Token) -> int:
        with transaction(engine) as connection:
            return corrections.correct(
                connection, now=now, token=token, entity=Entity.MAILBOX, key=person.mailbox, field="listed",
                value=str(not listed).lower(), reason="asked", void_of=void_of,
            ).id  # fmt: skip

    def withdraw(number: int, token: Token) -> None:
        with transaction(engine) as connection:
            corrections.withdraw_correction(
                connection, now=now, token=token, correction_id=number, void_of=void_of
            )

    # Made by the colleague, withdrawn by one token alone.
    numbers = [make(person, second) for person in people[:2]]
    withdraw(numbers[0], first)
    assert used() == 1
    make(people[2], first)
    assert used() == 2
    for road in (lambda: withdraw(numbers[1], first), lambda: make(people[0], first)):
        with pytest.raises(Refusal) as caught:
            road()
        assert caught.value.code == "withdrawal-limit-reached"
    with transaction(engine) as connection:
        agree(connection, now=now, token=second, token_id=first.id, reason="letters seen")
    withdraw(numbers[1], first)
    assert used() == 3


def test_who_closed_is_alone_in_opening_again_and_others_are_two(
    caller: Callable[..., Caller], engine: Engine
) -> None:
    seed_organisation(engine, HOSPITAL)
    first, second, third = (caller("admin", name=name) for name in ("first", "second", "third"))
    path = f"/v1/recipients/contact-{HOSPITAL}@two.example"
    operator = caller("operator")

    def is_closed() -> bool:
        return "organisation-closed" in operator.get(path).get_json()["reasons"]

    def withdraw(who: Caller, number: int) -> dict[str, Any]:
        answer: dict[str, Any] = who.post(f"/v1/corrections/{number}/withdrawal").get_json()
        return answer

    made = first.post("/v1/corrections", of_place("closed_on", "2026-08-01")).get_json()
    later = second.post("/v1/corrections", of_place("closed_on", "2099-01-01"))
    assert (later.status_code, later.get_json()["code"]) == (409, "closing-put-off")
    # Nor by making it one's own first.
    made = second.post("/v1/corrections", of_place("closed_on", "2026-07-01")).get_json()
    assert withdraw(second, made["id"])["ending"] is None
    assert withdraw(second, made["id"])["code"] == "self-approval"
    assert is_closed()
    assert withdraw(third, made["id"])["ending"] == "withdrawn"
    assert not is_closed()
    own = first.post("/v1/corrections", of_place("closed_on", "2026-08-01")).get_json()
    assert withdraw(first, own["id"])["ending"] == "withdrawn"
