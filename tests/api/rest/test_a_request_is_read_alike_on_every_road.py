"""The same requests (CSR) for an enrolment, in a batch, for an operator, and as the report of a lost key."""

from base64 import b64encode
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Engine

from api.wiring import Container
from directory import access
from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.tlv import tlv
from pki.certificates import der
from pki.revocation import compromise_reports
from tests.api.conftest import Caller
from tests.api.signing import request_for
from tests.factories import OPERATOR, seed_practitioner
from tests.pki.certificates.test_requests_of_foreign_tools import FILES, READ, REFUSED, assembled

CHECKED = {"method": "in-person", "document": "CPS", "checked_on": "2026-09-01"}


@pytest.fixture
def container(issuing: Container) -> Container:
    return issuing


@pytest.fixture
def first(caller: Callable[..., Caller]) -> Caller:
    return caller("registrar", name="first")


@pytest.fixture
def enrolments(first: Caller, caller: Callable[..., Caller], engine: Engine) -> list[str]:
    """Three enrolments that two registrars agreed on."""
    second, made = caller("registrar", name="second"), []
    for number in (1, 2, 3):
        someone = seed_practitioner(engine, number)
        asked = {
            "practitioner": someone.national_id, "mailbox": someone.mailbox, "identity_check": CHECKED,
        }  # fmt: skip
        made.append(first.post("/v1/enrolments", asked).get_json()["id"])
        assert second.post(f"/v1/enrolments/{made[-1]}/approval").status_code == 200
    return made


@pytest.fixture
def proxy(app: Flask, engine: Engine, now: datetime) -> Caller:
    """The operator of one.example."""
    with transaction(engine) as connection:
        _, secret = access.create_token(
            connection, now=now, actor=Actor("test"), name="proxy", role=access.Role.OPERATOR,
            lifetime=timedelta(days=9), operator=OPERATOR,
        )  # fmt: skip
    return Caller(app.test_client(), secret)


def certify(first: Caller, enrolment: str, csr: str) -> Any:
    return first.post(f"/v1/enrolments/{enrolment}/certificates", {"csr": csr})


def for_operator(proxy: Caller, csr: str) -> Any:
    asked = {"profile": "operator-server", "csr": csr, "domains": ["mx.one.example"]}
    return proxy.post("/v1/operator/certificates", asked)


@pytest.mark.parametrize("name", READ)
def test_it_is_certified_for_an_enrolment_in_a_batch_and_for_an_operator(
    name: str, first: Caller, enrolments: list[str], proxy: Caller
) -> None:
    csr = (FILES / name).read_text()
    assert certify(first, enrolments[0], csr).status_code == 201
    again = "key-already-certified"
    (item,) = first.post("/v1/batches", {"items": [{"enrolment": enrolments[1], "csr": csr}]}).get_json()[
        "items"
    ]
    # Read, and known for the same key: a request that cannot be read has no key.
    assert item["refusal"]["code"] == again
    assert for_operator(proxy, csr).get_json()["code"] == again
    told = first.post("/v1/keys/compromised", {"csr": csr}).get_json()
    assert told["code"] == "no-compromise-proof"


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_alike_everywhere_and_in_a_batch_alone(
    name: str, first: Caller, enrolments: list[str], proxy: Caller
) -> None:
    code, sentence = REFUSED[name]
    csr = (FILES / name).read_text()
    for answer in (
        certify(first, enrolments[0], csr), for_operator(proxy, csr),
        first.post("/v1/keys/compromised", {"csr": csr}),
    ):  # fmt: skip
        assert answer.status_code == (400 if code == "bad-csr" else 422)
        assert answer.get_json()["code"] == code
        assert sentence in answer.get_json()["detail"]
    batch = [
        {"enrolment": one, "csr": text}
        for one, text in zip(enrolments, (request_for(), csr, request_for()), strict=True)
    ]
    items = first.post("/v1/batches", {"items": batch}).get_json()["items"]
    assert [one["state"] for one in items] == ["issued", "refused", "issued"]
    assert (items[1]["enrolment"], items[1]["refusal"]["code"]) == (enrolments[1], code)
    assert sentence in items[1]["refusal"]["text"]


@pytest.mark.parametrize(
    "csr", ["", "é", "please", "AAAA", "A" * 20_000, "-----BEGIN CERTIFICATE REQUEST-----"]
)
def test_whatever_stands_in_one_item_of_a_batch_stops_no_other(
    csr: str, first: Caller, enrolments: list[str]
) -> None:
    batch = [{"enrolment": enrolments[0], "csr": csr}, {"enrolment": enrolments[1], "csr": request_for()}]
    answer = first.post("/v1/batches", {"items": batch})
    assert answer.status_code == 201
    assert [one["state"] for one in answer.get_json()["items"]] == ["refused", "issued"]


def test_a_lost_key_is_reported_though_its_request_breaks_a_string_type(first: Caller) -> None:
    said = der.sequence(der.oid("2.5.4.3"), tlv(0x13, compromise_reports.SENTENCE.encode()))
    mail = der.sequence(der.oid("1.2.840.113549.1.9.1"), tlv(0x13, b"a@b.example"))
    subject = der.sequence(tlv(0x31, mail), tlv(0x31, said))
    request = assembled(subject=subject)
    assert first.post("/v1/keys/compromised", {"csr": b64encode(request).decode()}).status_code == 200


def test_the_files_are_those_described() -> None:
    described = (FILES / "README.md").read_text()
    assert {path.name for path in FILES.glob("*.pem")} == {*READ, *REFUSED}
    assert all(f"`{name}`" in described for name in (*READ, *REFUSED))
