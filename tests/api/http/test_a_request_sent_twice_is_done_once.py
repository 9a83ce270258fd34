"""Idempotency-Key: the same request twice is one act and one answer, another one under it is refused."""

import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

import pytest
import requests
from sqlalchemy import Engine, text
from werkzeug.serving import make_server

from api.app import create_app
from api.wiring import Container
from directory.base.db import transaction
from directory.base.errors import Refusal
from pki.record import idempotency
from pki.record.idempotency import IdempotencyClaim, KeptAnswer
from tests.api.conftest import Caller
from tests.api.signing import request_for
from tests.factories import Seeded, seed_practitioner

PATH = "/v1/enrolments"
KEY = '"8e03978e-40d5-43e3-bc93-6894a57f9324"'
CHECKED = {"method": "in-person", "document": "carte", "checked_on": "2026-09-01"}


@pytest.fixture
def container(issuing: Container) -> Container:
    # S/MIME BR 7.1.2.3: the URL of the CA's certificate is plain HTTP.
    return replace(issuing, settings=replace(issuing.settings, public_url="http://sceau.example"))


@pytest.fixture
def someone(engine: Engine) -> Seeded:
    return seed_practitioner(engine)


@pytest.fixture
def first(caller: Callable[..., Caller]) -> Caller:
    return caller("registrar", name="first")


@pytest.fixture
def second(caller: Callable[..., Caller]) -> Caller:
    return caller("registrar", name="second")


def send(who: Caller, path: str, body: Any, key: str = KEY) -> Any:
    return who.client.post(path, json=body, headers={**who.headers, "Idempotency-Key": key})


def wanted(someone: Seeded, document: str = "carte") -> dict[str, Any]:
    check = {**CHECKED, "document": document}
    return {"practitioner": someone.national_id, "mailbox": someone.mailbox, "identity_check": check}


@pytest.fixture
def approved(first: Caller, second: Caller, someone: Seeded) -> str:
    path = f"{PATH}/{first.post(PATH, wanted(someone)).get_json()['id']}"
    assert second.post(f"{path}/approval").status_code == 200
    return path


def count(engine: Engine, table: str) -> int:
    with engine.begin() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


def test_an_enrolment_asked_twice_is_made_once_and_answered_alike(
    first: Caller, someone: Seeded, engine: Engine
) -> None:
    answers = [send(first, PATH, wanted(someone)) for _ in range(2)]
    assert [(a.status_code, a.data, a.content_type) for a in answers] == [
        (201, answers[0].data, "application/json")
    ] * 2
    assert answers[1].headers["Sceau-Registers"]
    assert count(engine, "enrolment") == 1


def test_a_key_means_the_same_quoted_or_bare(first: Caller, someone: Seeded) -> None:
    assert send(first, PATH, wanted(someone)).data == send(first, PATH, wanted(someone), KEY[1:-1]).data


def test_another_body_or_route_under_the_same_key_is_refused(first: Caller, someone: Seeded) -> None:
    made = send(first, PATH, wanted(someone))
    for path, body in (
        (PATH, wanted(someone, "passport")),
        (f"{PATH}/{made.get_json()['id']}/withdrawal", {"comment": "no"}),
    ):
        answer = send(first, path, body)
        assert (answer.status_code, answer.get_json()["code"]) == (422, "idempotency-key-reused")


def test_the_same_key_of_another_token_is_another_key(first: Caller, second: Caller, someone: Seeded) -> None:
    assert send(first, PATH, wanted(someone)).status_code == 201
    assert send(second, PATH, wanted(someone)).get_json()["code"] == "already-enrolled"


@pytest.mark.parametrize("key", ["", '""', '"a', "a b", '"é"', "x" * 256, f'"{"x" * 254}"', '"a\\x"'])
def test_a_malformed_key_is_refused_and_nothing_is_done(
    key: str, first: Caller, someone: Seeded, engine: Engine
) -> None:
    answer = send(first, PATH, wanted(someone), key.encode("latin-1").decode("latin-1"))
    assert (answer.status_code, answer.get_json()["code"]) == (400, "malformed-idempotency-key")
    assert count(engine, "enrolment") == 0


def test_a_refusal_is_not_kept_for_it_may_be_mended(first: Caller, someone: Seeded, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE practitioner SET departed_at = now()"))
    assert send(first, PATH, wanted(someone)).status_code == 422
    with engine.begin() as connection:
        connection.execute(text("UPDATE practitioner SET departed_at = NULL"))
    assert send(first, PATH, wanted(someone)).status_code == 201


def test_a_key_is_free_again_after_24_hours(engine: Engine, first: Caller, now: datetime) -> None:
    asked = IdempotencyClaim(1, "k", b"\0" * 32)
    with transaction(engine) as connection:
        assert idempotency.claim(connection, asked, now) is None
        idempotency.keep(connection, asked, KeptAnswer(201, b"{}"))
        almost = now + idempotency.KEPT - timedelta(seconds=1)
        assert idempotency.claim(connection, asked, almost) == KeptAnswer(201, b"{}")
        assert idempotency.forget_old(connection, almost) == 0
        other = replace(asked, digest=b"\1" * 32)
        assert idempotency.claim(connection, other, now + idempotency.KEPT) is None
        assert idempotency.forget_old(connection, now + 2 * idempotency.KEPT) == 1
    assert first.token


def test_what_a_killed_worker_left_is_another_s_once_its_lease_is_over(
    engine: Engine, first: Caller, now: datetime
) -> None:
    asked = IdempotencyClaim(1, "k", b"\0" * 32)
    with transaction(engine) as connection:
        assert idempotency.claim(connection, asked, now) is None
    with transaction(engine) as connection, pytest.raises(Refusal) as refusal:
        idempotency.claim(connection, asked, now + timedelta(seconds=1))
    assert (refusal.value.code, refusal.value.details["retry_after"]) == ("request-in-progress", 1)
    with transaction(engine) as connection:
        assert idempotency.claim(connection, asked, now + idempotency.LEASE) is None
    assert first.token


def test_a_worker_that_dies_after_the_certificate_was_stored_has_its_answer_kept(
    approved: str, first: Caller, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"csr": request_for()}

    class Killed(BaseException):
        """As kill -9: no handler of ours sees it."""

    def killed(_: object) -> None:
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr("api.http.idempotency.answer_of", killed)
        with pytest.raises(Killed):
            send(first, f"{approved}/certificates", body)
    again = send(first, f"{approved}/certificates", body)
    assert again.status_code == 201
    assert b64decode(again.get_json()["der"]).startswith(b"\x30\x82")
    assert count(engine, "certificate WHERE practitioner IS NOT NULL") == 1


@pytest.fixture
def server(container: Container) -> Iterator[str]:
    made = make_server("127.0.0.1", 0, create_app(container), threaded=True)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    thread.join()
    made.server_close()


def test_fifty_equal_requests_at_once_get_one_certificate_and_fifty_equal_answers(
    server: str, approved: str, first: Caller, engine: Engine
) -> None:
    body = {"csr": request_for()}
    headers = {**first.headers, "Idempotency-Key": KEY}
    together = threading.Barrier(50)

    def one(_: int) -> tuple[int, bytes]:
        together.wait()
        for _again in range(10):
            answer = requests.post(f"{server}{approved}/certificates", json=body, headers=headers, timeout=60)
            # On a busy machine the one who works may outlast the patience of his twins.
            if answer.status_code == HTTPStatus.CONFLICT and answer.json()["code"] == "request-in-progress":
                continue
            return answer.status_code, answer.content
        raise AssertionError("no answer after ten times")

    with ThreadPoolExecutor(50) as many:
        answers = list(many.map(one, range(50)))
    assert {status for status, _ in answers} == {201}, answers
    assert len(set(answers)) == 1
    assert count(engine, "certificate WHERE practitioner IS NOT NULL") == 1
    assert count(engine, "reservation WHERE enrolment_id IS NOT NULL") == 1
