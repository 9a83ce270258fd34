"""A token's certificates are one count, whichever road asks for them; reached, every road is closed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from api.app import create_app
from api.settings import Settings, save_settings
from api.wiring import Container
from directory.base.clock import utc_now
from tests.api.commands import Sceau, token, told
from tests.api.conftest import Caller
from tests.api.signing import request_for, signer_in
from tests.factories import OPERATOR, seed_practitioner

CHECKED = {"method": "in-person", "document": "carte", "checked_on": "2026-09-01"}
ENROLMENTS = "/v1/enrolments"


@pytest.fixture
def container(issuing: Container) -> Container:
    quotas = {"quota_token_hour": 2, "quota_token_day": 2}
    # Keys made here need the CA's certificate over plain HTTP.
    settings = replace(issuing.settings, public_url="http://sceau.example", **quotas)
    return replace(issuing, settings=settings)


@pytest.fixture
def first(caller: Callable[..., Caller]) -> Caller:
    return caller("registrar", name="first")


@pytest.fixture
def approved(engine: Engine, first: Caller, caller: Callable[..., Caller]) -> list[str]:
    """Five approved enrolments."""
    second, made = caller("registrar", name="second"), []
    for number in range(1, 6):
        someone = seed_practitioner(engine, number)
        body = {"practitioner": someone.national_id, "mailbox": someone.mailbox, "identity_check": CHECKED}
        made.append(str(first.post(ENROLMENTS, body).get_json()["id"]))
        assert second.post(f"{ENROLMENTS}/{made[-1]}/approval").status_code == 200
    return made


def alone(who: Caller, enrolment: str) -> tuple[int, str]:
    return outcome(who.post(f"{ENROLMENTS}/{enrolment}/certificates", {"csr": request_for()}))


def made_here(who: Caller, enrolment: str) -> tuple[int, str]:
    return outcome(who.post(f"{ENROLMENTS}/{enrolment}/pkcs12"))


def batched(who: Caller, *enrolments: str) -> tuple[int, str]:
    items = [{"enrolment": one, "csr": request_for()} for one in enrolments]
    return outcome(who.post("/v1/batches", {"items": items}))


def outcome(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.get_json().get("code", "")


OVER = (429, "quota-reached")
ROADS: dict[str, Callable[[Caller, str], tuple[int, str]]] = {
    "alone": alone, "batch": batched, "made here": made_here,
}  # fmt: skip


def certificates(engine: Engine) -> int:
    with engine.connect() as connection:
        query = "SELECT count(*) FROM certificate WHERE mailbox IS NOT NULL"
        return int(connection.execute(text(query)).scalar_one())


def test_a_batch_then_single_ones(engine: Engine, first: Caller, approved: list[str]) -> None:
    assert batched(first, *approved[:2])[0] in {200, 201}
    assert {name: road(first, approved[2]) for name, road in ROADS.items()} == dict.fromkeys(ROADS, OVER)
    assert certificates(engine) == 2


def test_single_ones_then_a_batch(engine: Engine, first: Caller, approved: list[str]) -> None:
    assert [alone(first, one) for one in approved[:2]] == [(201, "")] * 2
    assert {name: road(first, approved[2]) for name, road in ROADS.items()} == dict.fromkeys(ROADS, OVER)
    assert certificates(engine) == 2


def test_a_key_made_here_a_batch_and_then_nothing(engine: Engine, first: Caller, approved: list[str]) -> None:
    assert made_here(first, approved[0])[0] == 201
    assert batched(first, approved[1])[0] in {200, 201}
    assert {name: road(first, approved[2]) for name, road in ROADS.items()} == dict.fromkeys(ROADS, OVER)
    assert certificates(engine) == 2


def test_a_batch_that_met_the_quota_goes_on_when_a_colleague_sends_it(
    engine: Engine, first: Caller, caller: Callable[..., Caller], approved: list[str]
) -> None:
    assert alone(first, approved[0]) == (201, "")
    items = [{"enrolment": one, "csr": request_for()} for one in approved[1:3]]
    assert outcome(first.post("/v1/batches", {"items": items})) == OVER
    colleague = caller("registrar", name="colleague")
    answer = colleague.post("/v1/batches", {"items": items})
    assert [one["state"] for one in answer.get_json()["items"]] == ["issued"] * 2
    assert certificates(engine) == 3


def test_an_operators_servers_and_clients_are_one_count(
    engine: Engine, caller: Callable[..., Caller]
) -> None:
    seed_practitioner(engine)
    own = caller("operator", name="proxy")
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE api_token SET operator_id = o.id FROM operator o"
                " WHERE api_token.name = 'proxy' AND certificate_dn = :dn"
            ),
            {"dn": OPERATOR},
        )
    server = {"profile": "operator-server", "domains": ["mx.one.example"]}
    client = {"profile": "operator-client"}
    answers = [
        outcome(own.post("/v1/operator/certificates", body | {"csr": request_for()}))
        for body in (server, client, server, client)
    ]
    assert answers == [(201, "")] * 2 + [OVER] * 2


def test_the_command_is_the_same_count_by_the_same_settings(
    engine: Engine, sceau: Sceau, state: Path, built: dict[str, Any], tmp_path: Path
) -> None:
    quotas = {"quota_token_hour": 1, "quota_token_day": 1}
    save_settings(state, quotas)
    one, two = token(sceau, "one"), token(sceau, "two")
    enrolments = []
    for number in (1, 2):
        someone = seed_practitioner(engine, number)
        asked = sceau("enrol", someone.national_id, someone.mailbox, "--json", token=one)
        enrolments.append(told(asked)["id"])
        assert sceau("enrol", "--approve", enrolments[-1], token=two).exit_code == 0
    (tmp_path / "request.pem").write_text(request_for())

    def by_command(enrolment: str) -> tuple[int, str]:
        asked = ("issue", enrolment, "--csr", str(tmp_path / "request.pem"), "--json")
        answer = sceau(*asked, token=one)
        return answer.exit_code, told(answer).get("type", "")

    with signer_in(tmp_path / "signer", engine, utc_now(), "https://sceau.example") as signer:
        built["signer"] = signer
        assert by_command(enrolments[0]) == (0, "")
        (tmp_path / "request.pem").write_text(request_for())
        assert by_command(enrolments[1]) == (1, "quota-reached")
        settings = Settings(state=tmp_path, public_url="https://sceau.example", **quotas)
        container = Container(settings=settings, engine=engine, signer=signer, clock=utc_now)
        over_rest = Caller(create_app(container).test_client(), one)
        assert batched(over_rest, enrolments[1]) == OVER
        assert alone(over_rest, enrolments[1]) == OVER
