"""The setting `mail_keys` over REST and commands: where keys are separate each request says which."""

import base64
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization.pkcs12 import load_key_and_certificates
from cryptography.x509 import KeyUsage
from sqlalchemy import Engine

from api.cli.demonstration import demonstration
from api.settings import Settings, save_settings
from api.wiring import Container
from directory.base.clock import utc_now
from directory.base.db import transaction
from directory.base.errors import Refusal
from tests.api.commands import Sceau, token, told
from tests.api.conftest import Caller
from tests.api.signing import request_for, signer_in
from tests.factories import Seeded, seed_practitioner

PATH = "/v1/enrolments"
SIGN, ENCRYPT = "practitioner-smime-sign", "practitioner-smime-encrypt"


@pytest.fixture
def someone(engine: Engine) -> Seeded:
    return seed_practitioner(engine)


@pytest.fixture(params=["joined", "separate"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def container(issuing: Container, mode: str) -> Container:
    settings = replace(issuing.settings, public_url="http://sceau.example", mail_keys=mode)
    return replace(issuing, settings=settings)


@pytest.fixture
def approved(caller: Callable[..., Caller], someone: Seeded) -> tuple[Caller, str]:
    first, second = caller("registrar", name="first"), caller("registrar", name="second")
    check = {"method": "in-person", "document": "carte", "checked_on": "2026-09-01"}
    body = {"practitioner": someone.national_id, "mailbox": someone.mailbox, "identity_check": check}
    path = f"{PATH}/{first.post(PATH, body).get_json()['id']}"
    assert second.post(f"{path}/approval").status_code == 200
    return first, path


def answered(answer: Any) -> tuple[int, str]:
    body = answer.get_json()
    return answer.status_code, body.get("code") or body["profile"]


def certify(approved: tuple[Caller, str], purpose: str | None) -> tuple[int, str]:
    first, path = approved
    return answered(first.post(f"{path}/certificates", {"csr": request_for(), "purpose": purpose}))


@pytest.mark.parametrize("mode", ["separate"], indirect=True)
def test_a_pair_is_asked_for_one_by_one_and_the_verdict_tells_them_apart(
    approved: tuple[Caller, str], operator: Caller, someone: Seeded
) -> None:
    assert certify(approved, None) == (422, "purpose-missing")
    assert certify(approved, "both") == (422, "invalid-request")
    assert certify(approved, "signature") == (201, SIGN)
    assert operator.get(f"/v1/recipients/{someone.mailbox}").get_json()["reasons"] == ["no-certificate"]
    assert certify(approved, "signature") == (409, "already-certified")
    assert certify(approved, "encryption") == (201, ENCRYPT)
    verdict = operator.get(f"/v1/recipients/{someone.mailbox}", sender=someone.mailbox).get_json()
    assert verdict["verdict"] == "allowed"
    assert [one["purposes"] for one in verdict["certificates"]] == [["encryption"]]


@pytest.mark.parametrize("mode", ["joined"], indirect=True)
def test_where_they_are_joined_a_purpose_is_refused(approved: tuple[Caller, str]) -> None:
    for purpose in ("signature", "encryption"):
        assert certify(approved, purpose) == (422, "purpose-not-separate")
    assert certify(approved, None) == (201, "practitioner-smime")


def test_an_item_of_a_batch_without_its_purpose_is_refused_alone(
    approved: tuple[Caller, str], mode: str
) -> None:
    first, path = approved
    enrolment = path.rpartition("/")[2]

    def send(*purposes: str | None) -> Any:
        items = [{"enrolment": enrolment, "csr": request_for(), "purpose": one} for one in purposes]
        return first.post("/v1/batches", {"items": items})

    wrong = {"joined": ("signature", "purpose-not-separate"), "separate": (None, "purpose-missing")}
    purpose, code = wrong[mode]
    right = {"joined": [None], "separate": ["signature", "encryption"]}[mode]
    wrong_one, *made = send(purpose, *right).get_json()["items"]
    assert (wrong_one["certificate"], wrong_one["refusal"]["code"]) == (None, code)
    assert [one["certificate"]["profile"] for one in made] == (
        ["practitioner-smime"] if mode == "joined" else [SIGN, ENCRYPT]
    )


def test_a_key_made_here_is_for_what_is_asked(approved: tuple[Caller, str], mode: str) -> None:
    first, path = approved
    headers = {**first.headers, "Idempotency-Key": "8e03978e-40d5-43e3-bc93-6894a57f9324"}

    def make(query: str = "") -> Any:
        return first.client.post(f"{path}/pkcs12{query}", headers=headers)

    wrong, code = {
        "joined": ("?purpose=encryption", "purpose-not-separate"), "separate": ("", "purpose-missing"),
    }[mode]  # fmt: skip
    assert answered(make(wrong)) == (422, code)
    right = "?purpose=encryption" if mode == "separate" else ""
    # Refused, the key of the request was not taken: it may be sent again, mended.
    made = make(right).get_json()
    assert made["profile"] == (ENCRYPT if mode == "separate" else "practitioner-smime")
    _, certificate, _ = load_key_and_certificates(
        base64.b64decode(made["pkcs12"]), made["passphrase"].encode()
    )
    assert certificate is not None
    usage = certificate.extensions.get_extension_for_class(KeyUsage).value
    assert (usage.digital_signature, usage.key_agreement) == (mode == "joined", True)
    if mode == "separate":
        assert answered(make("?purpose=signature")) == (422, "idempotency-key-reused")


def test_a_command_says_it(
    sceau: Sceau, state: Path, engine: Engine, built: dict[str, Any], mode: str
) -> None:
    someone, tmp_path = seed_practitioner(engine), state.parent
    save_settings(state, {"mail_keys": mode})
    one, two = token(sceau, "one"), token(sceau, "two")
    enrolment = told(sceau("enrol", someone.national_id, someone.mailbox, "--json", token=one))["id"]
    sceau("enrol", "--approve", enrolment, token=two)
    with signer_in(tmp_path / "signer", engine, utc_now(), "https://sceau.example") as signer:
        built["signer"] = signer

        def issue(*words: str) -> Any:
            (tmp_path / "request.pem").write_text(request_for())
            return told(sceau("issue", enrolment, "--csr", str(tmp_path / "request.pem"), "--json",
                              *words, token=one))  # fmt: skip

        if mode == "joined":
            assert issue("--purpose", "signature")["type"] == "purpose-not-separate"
            assert "pem" in issue()
            expected = ["encryption", "signature"]
        else:
            assert issue()["type"] == "purpose-missing"
            assert "pem" in issue("--purpose", "signature")
            assert "pem" in issue("--purpose", "encryption")
            expected = ["encryption"]
    (checked,) = told(sceau("check", someone.mailbox, "--json"))["results"]
    assert [certificate["purposes"] for certificate in checked["certificates"]] == [expected]


def test_the_demo_makes_what_the_setting_says_and_finishes_a_pair_cut_short(
    container: Container, someone: Seeded, mode: str
) -> None:
    demo: Any = demonstration()
    with transaction(container.engine) as connection:
        pair = [demo.registrar(container, connection, "CNOM", name) for name in ("a", "b")]
    # Twice: the second time stands for one cut short, whose first certificate is there already.
    for _ in range(2):
        if mode == "separate" or not made(container):
            demo.certify_one(container, pair, someone.national_id, someone.mailbox)
    assert made(container) == (["practitioner-smime"] if mode == "joined" else [ENCRYPT, SIGN])
    with transaction(container.engine) as connection:
        asked = {"count": 24, "each": len(made(container))}
        assert connection.execute(demo.text(demo.CHOSEN), asked).all() == []


def made(container: Container) -> list[str]:
    with transaction(container.engine) as connection:
        found = connection.exec_driver_sql("SELECT profile FROM certificate WHERE mailbox IS NOT NULL")
        return sorted(found.scalars())


def test_no_other_word_is_taken(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        Settings(state=tmp_path, mail_keys="both")
    assert refused.value.code == "bad-setting"
