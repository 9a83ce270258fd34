"""A certificate seen by who uses it, by an auditor, and taken back by a registrar."""

import subprocess
from base64 import b64decode
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from ssl import DER_cert_to_PEM_cert

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from flask import Flask
from sqlalchemy import Engine, text

from api.wiring import Container
from directory import access
from directory.base.audit import Actor
from directory.base.db import transaction
from pki.model import RevocationReason
from pki.monitoring.certificate_history import Life, State
from pki.record import authorities
from tests.api.certificates import certify, take_back
from tests.api.conftest import Caller
from tests.api.rest.test_enrolments import CHECKED
from tests.api.signing import request_for
from tests.factories import OPERATOR, seed_practitioner

PATH = "/v1/certificates"
LOST = {"reason": "keyCompromise", "comment": "Téléphone perdu"}


@pytest.fixture
def container(issuing: Container) -> Container:
    return issuing


@pytest.fixture
def registrar(caller: Callable[..., Caller]) -> Caller:
    return caller("registrar")


@pytest.fixture
def auditor(caller: Callable[..., Caller]) -> Caller:
    return caller("auditor")


@pytest.fixture
def serial(registrar: Caller, caller: Callable[..., Caller], engine: Engine) -> str:
    """A certificate that came about as they all do."""
    someone = seed_practitioner(engine)
    body = {"practitioner": someone.national_id, "mailbox": someone.mailbox, "identity_check": CHECKED}
    path = f"/v1/enrolments/{registrar.post('/v1/enrolments', body).get_json()['id']}"
    assert caller("registrar", name="other").post(f"{path}/approval").status_code == 200
    return str(registrar.post(f"{path}/certificates", {"csr": request_for()}).get_json()["serial"])


def test_a_revocation_is_seen_by_the_next_question(registrar: Caller, operator: Caller, serial: str) -> None:
    before = operator.get(f"{PATH}/{serial}").get_json()
    assert (before["state"], before["revocation"]) == ("good", None)
    answer = registrar.post(f"{PATH}/{serial}/revocation", LOST)
    expected = {
        "serial": serial, "action": "revoke", "reason": "keyCompromise", "revoked_at": "2026-09-01T12:00:00Z",
    }  # fmt: skip
    assert (answer.status_code, answer.get_json()) == (200, expected)
    after = operator.get(f"{PATH}/{serial}").get_json()
    assert (after["state"], after["revocation"]) == ("revoked", expected)
    verdict = operator.get(f"/v1/recipients/{before['mailbox']}").get_json()
    assert (verdict["verdict"], verdict["reasons"]) == ("refused", ["certificate-revoked"])


def test_a_certificate_is_given_in_der_in_pem_and_with_its_chain_by_accept(
    operator: Caller, serial: str, tmp_path: Path, engine: Engine
) -> None:
    answer = operator.get(f"{PATH}/{serial}").get_json()
    assert x509.load_pem_x509_certificate(answer["pem"].encode()).public_bytes(Encoding.DER) == b64decode(
        answer["der"]
    )
    headers = {**operator.headers, "Accept": "application/pem-certificate-chain"}
    chain = operator.client.get(f"{PATH}/{serial}", headers=headers)
    assert (chain.status_code, chain.content_type) == (200, headers["Accept"])
    assert chain.headers["Vary"] == "Accept"
    leaf, issuer = x509.load_pem_x509_certificates(chain.data)
    assert leaf.serial_number == int(serial, 16)
    leaf.verify_directly_issued_by(issuer)
    (tmp_path / "chain.pem").write_bytes(chain.data)
    with engine.connect() as connection:
        (root,) = (one.der for one in authorities.authorities(connection) if one.issuer_id is None)
    (tmp_path / "root.pem").write_text(DER_cert_to_PEM_cert(root))
    words = [
        "openssl",
        "verify",
        "-CAfile",
        "root.pem",
        "-untrusted",
        "chain.pem",
        "-no_check_time",
        "chain.pem",
    ]
    judged = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert judged.stdout == "chain.pem: OK\n", judged.stderr
    missing = operator.client.get(f"{PATH}/{'1' * 40}", headers=headers)
    assert (missing.status_code, missing.content_type) == (404, "application/problem+json")


def test_issuance_answers_with_the_chain_by_accept_and_keeps_one_answer_for_a_repeat(
    registrar: Caller, caller: Callable[..., Caller], engine: Engine
) -> None:
    someone = seed_practitioner(engine)
    body = {"practitioner": someone.national_id, "mailbox": someone.mailbox, "identity_check": CHECKED}
    path = f"/v1/enrolments/{registrar.post('/v1/enrolments', body).get_json()['id']}"
    assert caller("registrar", name="other").post(f"{path}/approval").status_code == 200
    headers = {**registrar.headers, "Idempotency-Key": "one", "Accept": "application/pem-certificate-chain"}
    request = {"csr": request_for()}
    chain = registrar.client.post(f"{path}/certificates", json=request, headers=headers)
    assert (chain.status_code, chain.data.count(b"BEGIN CERTIFICATE")) == (201, 2)
    again = registrar.client.post(f"{path}/certificates", json=request, headers=headers)
    assert again.data == chain.data
    as_json = registrar.client.post(
        f"{path}/certificates", json=request, headers={**headers, "Accept": "*/*"}
    )
    assert chain.text.startswith(as_json.get_json()["pem"])


def test_an_operators_certificate_comes_with_its_chain_by_accept(
    app: Flask, engine: Engine, now: datetime
) -> None:
    seed_practitioner(engine)
    with transaction(engine) as connection:
        _, secret = access.create_token(
            connection, now=now, actor=Actor("test"), name="proxy", role=access.Role.OPERATOR,
            lifetime=timedelta(days=9), operator=OPERATOR,
        )  # fmt: skip
    proxy = Caller(app.test_client(), secret)
    body = {"profile": "operator-server", "csr": request_for(), "domains": ["mx.one.example"]}
    headers = {**proxy.headers, "Accept": "application/pem-certificate-chain"}
    chain = proxy.client.post("/v1/operator/certificates", json=body, headers=headers)
    assert (chain.status_code, chain.content_type) == (201, headers["Accept"])
    leaf, issuer = x509.load_pem_x509_certificates(chain.data)
    leaf.verify_directly_issued_by(issuer)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["mx.one.example"]
    told = proxy.client.post(
        "/v1/operator/certificates", json=body | {"csr": request_for()}, headers=proxy.headers
    )
    assert (told.status_code, told.content_type) == (201, "application/json")


def test_a_revocation_is_final(registrar: Caller, serial: str) -> None:
    registrar.post(f"{PATH}/{serial}/revocation", LOST)
    again = registrar.post(f"{PATH}/{serial}/revocation", {"reason": "superseded"})
    assert (again.status_code, again.get_json()["code"]) == (409, "already-revoked")


def test_a_hold_suspends_and_may_become_a_revocation(
    registrar: Caller, operator: Caller, serial: str
) -> None:
    hold = {"reason": "certificateHold"}
    assert registrar.post(f"{PATH}/{serial}/revocation", hold).get_json()["action"] == "hold"
    assert operator.get(f"{PATH}/{serial}").get_json()["state"] == "on-hold"
    assert registrar.post(f"{PATH}/{serial}/revocation", hold).get_json()["code"] == "already-on-hold"
    assert registrar.post(f"{PATH}/{serial}/revocation", LOST).get_json()["action"] == "revoke"


def test_a_registrar_of_another_ordre_may_not_revoke(caller: Callable[..., Caller], serial: str) -> None:
    stranger = caller("registrar", name="stranger", authority="ONCD")
    answer = stranger.post(f"{PATH}/{serial}/revocation", LOST)
    assert (answer.status_code, answer.get_json()["code"]) == (403, "wrong-authority")


@pytest.mark.parametrize("seen", ["listed", "red-listed"])
def test_a_refusal_to_another_body_tells_no_more_than_reading_does(
    caller: Callable[..., Caller], serial: str, engine: Engine, seen: str
) -> None:
    """403 says of a serial number that it was given out; so does GET, to every role that gets this 403."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE mailbox SET listed = :listed"), {"listed": seen == "listed"})
    for stranger, code in (
        (caller("registrar", name="stranger", authority="ONCD"), "wrong-authority"),
        (caller("operator", name="elsewhere"), "not-your-certificate"),
    ):
        for number, read, acted in (
            (serial, 200, (403, code)),
            ("1" * 40, 404, (404, "unknown-certificate")),
        ):
            assert stranger.get(f"{PATH}/{number}").status_code == read
            for act in ("revocation", "release", "reason"):
                said = {"comment": "why"} | ({} if act == "release" else {"reason": "superseded"})
                refused = stranger.post(f"{PATH}/{number}/{act}", said)
                assert (refused.status_code, refused.get_json()["code"]) == acted, (act, number)


def test_what_is_the_ca_owner_s_to_say_is_not_said_by_a_registrar(
    registrar: Caller, operator: Caller, serial: str, engine: Engine
) -> None:
    with engine.connect() as connection:
        query = text("SELECT serial FROM certificate WHERE practitioner IS NULL LIMIT 1")
        own = connection.execute(query).scalar_one()
    for one, body in ((serial, {"reason": "cACompromise"}), (own, LOST)):
        answer = registrar.post(f"{PATH}/{one}/revocation", body)
        assert (answer.status_code, answer.get_json()["code"]) == (403, "reserved-to-owner")
        assert operator.get(f"{PATH}/{one}").get_json()["state"] == "good"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"reason": "unspecified"},
        {"reason": "removeFromCRL"},
        {"reason": 1},
        {**LOST, "comment": "x" * 1001},
        {**LOST, "comment": "two\nlines"},
        {**LOST, "at": "2026-01-01T00:00:00Z"},
    ],
)
def test_a_revocation_needs_a_reason_of_the_list(
    body: dict[str, object], registrar: Caller, serial: str
) -> None:
    answer = registrar.post(f"{PATH}/{serial}/revocation", body)
    assert (answer.status_code, answer.get_json()["code"]) == (422, "invalid-request")


def test_a_serial_is_read_however_it_is_written(operator: Caller, serial: str) -> None:
    pairs = ":".join(serial[i : i + 2] for i in range(0, 40, 2))
    for spelling in (serial.upper(), serial.lstrip("0"), pairs, f"0x{serial}"):
        assert operator.get(f"{PATH}/{spelling}").get_json()["serial"] == serial, spelling


@pytest.mark.parametrize(
    ("serial", "status", "code"),
    [
        ("2a", 404, "unknown-certificate"),
        ("0", 400, "malformed-serial"),
        ("8" + "0" * 39, 400, "malformed-serial"),
        ("f" * 41, 400, "malformed-serial"),
        ("xyz", 400, "malformed-serial"),
        ("%00", 400, "malformed-serial"),
    ],
)
def test_a_serial_that_was_never_issued_is_unknown_and_one_that_cannot_be_is_malformed(
    serial: str, status: int, code: str, caller: Callable[..., Caller]
) -> None:
    operator, auditor, registrar = caller("operator"), caller("auditor"), caller("registrar")
    for answer in (
        operator.get(f"{PATH}/{serial}"),
        auditor.get(f"{PATH}/{serial}/history"),
        registrar.post(f"{PATH}/{serial}/revocation", LOST),
    ):
        assert (answer.status_code, answer.get_json()["code"]) == (status, code)


def test_an_auditor_sees_who_did_what_and_the_lines_of_the_log(
    auditor: Caller, registrar: Caller, serial: str, engine: Engine
) -> None:
    with engine.connect() as connection:
        number = connection.execute(text("SELECT id FROM api_token WHERE name = 'registrar'")).scalar_one()
    registrar.post(f"{PATH}/{serial}/revocation", LOST)
    told = auditor.get(f"{PATH}/{serial}/history").get_json()
    (event,) = told["events"]
    assert (event["action"], event["actor"], event["comment"]) == (
        "revoke",
        f"token:{number}",
        "Téléphone perdu",
    )
    assert [line["event"] for line in told["log"]] == [
        "certificate.reserved", "certificate.issued", "certificate.revoked",
    ]  # fmt: skip
    assert told["log"][-1]["actor"] == event["actor"]
    assert (told["state"], told["as_of"]) == ("revoked", "2026-09-01T12:00:00Z")


def test_an_auditor_sees_who_vouched_for_the_person_and_by_which_enrolment(
    auditor: Caller, registrar: Caller, serial: str
) -> None:
    registrar.post(f"{PATH}/{serial}/revocation", LOST)
    told = auditor.get(f"{PATH}/{serial}/history").get_json()
    enrolment = told["enrolment"]
    assert (enrolment["requested_by"]["name"], enrolment["approved_by"]["name"]) == ("registrar", "other")
    assert (enrolment["identity_check"], enrolment["approved_at"]) == (CHECKED, "2026-09-01T12:00:00Z")
    assert (enrolment["mailbox"], enrolment["state"]) == (told["certificate"]["mailbox"], "approved")
    assert [(line["event"], told["actors"][line["actor"]]) for line in enrolment["log"]] == [
        ("enrolment.requested", "registrar"),
        ("enrolment.approved", "other"),
    ]
    assert told["actors"][told["events"][0]["actor"]] == "registrar"


def test_nobody_vouched_for_a_certificate_of_the_service(auditor: Caller, engine: Engine) -> None:
    with engine.connect() as connection:
        query = text("SELECT serial FROM certificate WHERE practitioner IS NULL LIMIT 1")
        serial = connection.execute(query).scalar_one()
    told = auditor.get(f"{PATH}/{serial}/history").get_json()
    assert (told["enrolment"], told["actors"]) == (None, {})


def test_an_auditor_may_ask_what_it_was_on_a_given_day(
    auditor: Caller, engine: Engine, now: datetime
) -> None:
    issued = now - timedelta(days=30)
    serial = certify(engine, "x@one.example", issued, lasts=timedelta(days=20))
    take_back(engine, serial, issued + timedelta(days=1), action="hold", reason="certificateHold")
    take_back(engine, serial, issued + timedelta(days=2), action="release", reason="certificateHold")
    days = {-1: "not-yet-valid", 0: "good", 1: "on-hold", 2: "good", 20: "good", 21: "expired"}
    for day, state in days.items():
        at = (issued + timedelta(days=day)).isoformat().replace("+00:00", "Z")
        assert auditor.get(f"{PATH}/{serial}/history", at=at).get_json()["state"] == state, day


def test_what_the_sequencer_numbered_shows_its_place(auditor: Caller, engine: Engine, now: datetime) -> None:
    serial = certify(engine, "x@one.example", now)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO audit_entry (index, at, actor, event, subject, detail, leaf_hash)"
                " VALUES (7, :at, 'token:1', 'certificate.issued', :serial, '{}', sha256(''))"
            ),
            {"at": now, "serial": serial},
        )
    (line,) = auditor.get(f"{PATH}/{serial}/history").get_json()["log"]
    assert (line["index"], len(line["leaf_hash"])) == (7, 64)


def test_a_revoked_certificate_stays_revoked_when_it_also_expires(engine: Engine, now: datetime) -> None:
    from pki.certificates.serials import parse_serial
    from pki.monitoring.certificate_history import life

    serial = certify(engine, "x@one.example", now, lasts=timedelta(days=1))
    take_back(engine, serial, now)
    with engine.connect() as connection:
        found: Life = life(connection, parse_serial(serial))
    assert found.state(now + timedelta(days=3)) is State.REVOKED
    assert found.events[0].reason is RevocationReason.SUPERSEDED
