"""Taking back over HTTP and from a terminal: release, corrected reasons, many at once, with the key alone."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from click.testing import Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc import jws
from joserfc.jwk import ECKey
from sqlalchemy import Engine, text

from api.front.roads import LARGEST_BODY
from api.jobs import table as jobs
from api.wiring import Container
from pki.model import RevocationReason
from pki.revocation.proof_of_possession import LARGEST_REQUEST
from tests.api.certificates import certify, take_back
from tests.api.conftest import Caller, Sceau
from tests.factories import seed_practitioner, seed_token

MANY = "/v1/revocations/bulk"


@pytest.fixture
def admin(caller: Callable[..., Caller]) -> Caller:
    return caller("admin")


@pytest.fixture
def serial(engine: Engine, now: datetime) -> str:
    return certify(engine, seed_practitioner(engine).mailbox, now)


def test_a_registrar_holds_and_releases(caller: Callable[..., Caller], serial: str) -> None:
    registrar = caller("registrar")
    held = registrar.post(f"/v1/certificates/{serial}/revocation", {"reason": "certificateHold"})
    assert (held.status_code, held.json["action"]) == (200, "hold")
    released = registrar.post(f"/v1/certificates/{serial}/release", {"comment": "found"})
    assert (released.status_code, released.json["action"]) == (200, "release")
    again = registrar.post(f"/v1/certificates/{serial}/release", {})
    assert (again.status_code, again.json["code"]) == (409, "not-on-hold")
    other = caller("registrar", name="other", authority="CNOP")
    refused = other.post(f"/v1/certificates/{serial}/release", {})
    assert (refused.status_code, refused.json["code"]) == (403, "wrong-authority")


def test_a_hold_of_the_administrator_takes_two_to_release(
    caller: Callable[..., Caller], admin: Caller, serial: str
) -> None:
    path = f"/v1/certificates/{serial}"
    assert admin.post(f"{path}/revocation", {"reason": "certificateHold"}).status_code == 200
    first, second = caller("registrar"), caller("registrar", name="colleague")
    asked = first.post(f"{path}/release", {"comment": "found"})
    assert (asked.status_code, asked.json["action"]) == (200, "hold")
    assert asked.json["release_asked_at"]
    alone = first.post(f"{path}/release", {"comment": "found indeed"})
    assert (alone.status_code, alone.json["code"]) == (403, "self-approval")
    assert first.get(path).json["state"] == "on-hold"
    done = second.post(f"{path}/release", {"comment": "looked at"})
    assert (done.json["action"], done.json["release_asked_at"]) == ("release", None)


def test_nothing_is_released_while_a_measure_stands(caller: Callable[..., Caller], serial: str) -> None:
    path = f"/v1/certificates/{serial}"
    holds, suspends = caller("registrar"), caller("registrar", name="colleague")
    holds.post(f"{path}/revocation", {"reason": "certificateHold"})
    person = holds.get(path).json["practitioner"]
    taken = suspends.post(f"/v1/practitioners/{person}/measures", {"kind": "suspended", "reason": "decision"})
    assert taken.status_code == 201
    refused = holds.post(f"{path}/release", {})
    assert (refused.status_code, refused.json["code"]) == (409, "reason-stands")
    assert refused.json["reasons"] == ["suspended"]
    assert holds.get(path).json["state"] == "on-hold"


def test_a_reason_is_corrected(caller: Callable[..., Caller], serial: str) -> None:
    registrar, path = caller("registrar"), f"/v1/certificates/{serial}"
    first = registrar.post(f"{path}/revocation", {"reason": "superseded"}).json
    second = registrar.post(f"{path}/reason", {"reason": "keyCompromise", "comment": "online"})
    assert (second.status_code, second.json["reason"]) == (200, "keyCompromise")
    assert second.json["revoked_at"] == first["revoked_at"]
    assert registrar.get(path).json["revocation"]["reason"] == "keyCompromise"
    assert registrar.post(f"{path}/reason", {"reason": "superseded"}).status_code == 422


def test_the_description_says_every_reason_in_words(anybody: Caller) -> None:
    schemas = anybody.get("/openapi.json").json["components"]["schemas"]
    described = schemas["RevocationRequest"]["properties"]["reason"]["description"]
    for reason in RevocationReason:
        assert described.count(f"`{reason.value}`") == 2


def test_many_are_planned_agreed_to_and_done(
    admin: Caller, caller: Callable[..., Caller], container: Container, serial: str
) -> None:
    wanted = {"selection": {"serials": [serial.upper()]}, "reason": "superseded", "comment": "incident"}
    dry = admin.post(MANY, wanted | {"dry_run": True})
    assert (dry.status_code, dry.json["state"], dry.json["id"]) == (201, "dry-run", None)
    assert admin.get(MANY).json == {"items": [], "next": None}
    made = admin.post(MANY, wanted).json
    assert (made["state"], made["total"], made["digest"]) == ("planned", 1, dry.json["digest"])
    assert [one["serial"] for one in made["samples"]] == [serial]
    agreed = admin.post(f"{MANY}/{made['id']}/approvals", {"digest": made["digest"], "comment": "seen"})
    assert (agreed.status_code, agreed.json["state"]) == (200, "running")
    assert jobs.run_job(container, "bulk-revocations") == "1 certificates revoked"
    done = caller("auditor").get(f"{MANY}/{made['id']}").json
    assert (done["state"], done["reached"], done["revoked"]) == ("done", 1, 1)
    assert admin.get(MANY, limit=1).json["items"][0]["id"] == made["id"]
    late = admin.post(f"{MANY}/{made['id']}/stop", {"comment": "late"})
    assert (late.status_code, late.json["code"]) == (409, "bulk-ended")


def test_a_selection_is_refused_when_it_says_or_finds_nothing(admin: Caller, serial: str) -> None:
    del serial
    wanted = {"reason": "superseded", "comment": "incident"}
    for selection, status, code in (
        ({}, 400, "empty-selection"),
        ({"profile": "operator-server"}, 404, "nothing-selected"),
        ({"serials": ["zz"]}, 400, "malformed-serial"),
        ({"keys": ["zz"]}, 422, "invalid-request"),
        ({"shoe_size": 43}, 422, "invalid-request"),
        ({"profile": "practitioner\0"}, 422, "invalid-request"),
        ({"authority": "\0"}, 422, "invalid-request"),
        ({"establishment": "\0"}, 422, "invalid-request"),
        ({"establishment": "CLINIQUE"}, 400, "malformed-finess"),
        ({"establishment": "750990013"}, 400, "finess-check-digit"),
        ({"establishment": "12345678200011"}, 400, "siret-check-digit"),
    ):
        answer = admin.post(MANY, wanted | {"selection": selection})
        assert (answer.status_code, answer.json["code"]) == (status, code)


def test_holds_end_by_their_job(container: Container, serial: str, engine: Engine, now: datetime) -> None:
    take_back(engine, serial, now.replace(year=now.year - 1), action="hold", reason="certificateHold")
    assert jobs.run_job(container, "holds-end") == "1 holds became final"


def test_a_key_revokes_its_certificate_without_a_token(
    anybody: Caller, engine: Engine, now: datetime
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    serial = certify(engine, seed_practitioner(engine).mailbox, now)
    named = x509.Name([])
    made = (
        x509.CertificateBuilder().subject_name(named).issuer_name(named).public_key(key.public_key())
        .serial_number(1).not_valid_before(now).not_valid_after(now.replace(year=now.year + 1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE certificate DISABLE TRIGGER append_only"))
        change = text("UPDATE certificate SET der = :der")
        connection.execute(change, {"der": made.public_bytes(Encoding.DER)})
        connection.execute(text("ALTER TABLE certificate ENABLE TRIGGER append_only"))
    claims = {
        "serial": serial, "reason": "keyCompromise", "iat": int(now.timestamp()),
        "aud": "https://sceau.example/v1/revocations",
    }  # fmt: skip

    def send(signer: ec.EllipticCurvePrivateKey, mimetype: str = "application/jose") -> tuple[int, str]:
        request = jws.serialize_compact({"alg": "ES256"}, json.dumps(claims), ECKey.import_key(signer))
        answer = anybody.client.post("/v1/revocations", data=request, content_type=mimetype)
        return answer.status_code, answer.json.get("code") or answer.json["reason"]

    assert send(ec.generate_private_key(ec.SECP256R1())) == (422, "bad-proof-of-possession")
    assert send(key, "application/json") == (415, "unsupported-media-type")
    assert send(key) == (200, "keyCompromise")
    assert send(key) == (409, "already-revoked")


def test_one_address_may_not_ask_for_ever(anybody: Caller) -> None:
    answers = [
        anybody.client.post("/v1/revocations", data=b"x", content_type="application/jose").json
        for _ in range(70)
    ]
    assert {answer["code"] for answer in answers} == {"malformed-revocation-request", "too-many-proofs"}
    # Each process counts for itself: a sentence without it would be untrue of two.
    assert answers[-1]["detail"] == (
        "One process takes at most 60 of these in a minute from one address, and 600 from all."
    )


def test_a_request_that_has_no_parts_is_not_told_to_come_in_parts(anybody: Caller, admin: Caller) -> None:
    large = b"x" * (LARGEST_REQUEST + 1)
    proof = anybody.client.post("/v1/revocations", data=large, content_type="application/jose")
    assert (proof.status_code, proof.json["code"], proof.json["largest"]) == (413, "body-too-large", 8192)
    assert proof.json["detail"] == "A body of this request holds at most 8,192 octets, unpacked."
    many = admin.post("/v1/revocations/bulk", {"comment": "x" * LARGEST_BODY})
    assert (many.status_code, many.json["code"]) == (413, "body-too-large")
    assert many.json["detail"].endswith("Send it in parts.")


def test_two_release_from_a_terminal_what_a_third_held(sceau: Sceau, engine: Engine, serial: str) -> None:
    for name in ("one", "two", "three"):
        seed_token(engine, name, authority="CNOM")

    def release(name: str) -> Result:
        return sceau("release", serial, "--json", token=f"sceau_{name}")

    held = sceau("revoke", serial, "--reason", "certificateHold", "--json", token="sceau_one")
    assert held.exit_code == 0
    asked = json.loads(release("two").stdout)
    assert (asked["released_at"], bool(asked["release_asked_at"])) == (None, True)
    assert release("two").exit_code == 1
    agreed = json.loads(release("three").stdout)
    assert (bool(agreed["released_at"]), agreed["release_asked_at"]) == (True, None)


def test_commands_do_the_same(
    sceau: Sceau, engine: Engine, serial: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, role in (("registrar", "registrar"), ("admin", "admin")):
        seed_token(engine, name, role=role, authority="CNOM")

    def registrar(*words: str) -> Result:
        return sceau(*words, "--json", token="sceau_registrar")

    def admin(*words: str) -> Result:
        return sceau(*words, "--json", token="sceau_admin")

    monkeypatch.setenv("COLUMNS", "200")
    assert registrar("revoke", serial, "--reason", "certificateHold").exit_code == 0
    assert registrar("release", serial).exit_code == 0
    # A byte order mark first, as Windows writes it.
    (tmp_path / "serials").write_text(f"{serial}\n", "utf-8-sig")
    plan = ("revoke-many", "plan", "--serials", str(tmp_path / "serials"), "--reason", "superseded")
    shown = json.loads(admin(*plan, "--comment", "why").stdout)
    assert (shown["total"], shown["id"]) == (1, None)
    made = json.loads(admin(*plan, "--comment", "why", "--apply").stdout)
    agreed = admin("revoke-many", "approve", str(made["id"]), "--digest", made["digest"], "--comment", "seen")
    assert json.loads(agreed.stdout)["items"][0]["state"] == "running"
    stopped = admin("revoke-many", "stop", str(made["id"]), "--comment", "wrong")
    assert json.loads(stopped.stdout)["items"][0]["state"] == "stopped"
    assert len(json.loads(admin("revoke-many", "list").stdout)["items"]) == 1
    assert registrar("revoke", serial, "--reason", "superseded").exit_code == 0
    corrected = registrar("restate", serial, "--reason", "keyCompromise", "--comment", "online")
    assert json.loads(corrected.stdout)["reason"] == "keyCompromise"


def test_files_from_windows_are_read_and_what_is_no_text_is_refused(
    sceau: Sceau, engine: Engine, serial: str, tmp_path: Path
) -> None:
    seed_token(engine, "admin", role="admin")
    with engine.begin() as connection:
        keys = connection.execute(text("SELECT encode(spki_sha256, 'hex') FROM certificate")).scalars().all()
    (tmp_path / "token").write_text("sceau_admin\r\n", "utf-8-sig")

    def plan(option: str, written: str, encoding: str) -> Result:
        (tmp_path / "lines").write_text(f"{written}\r\n", encoding)
        return sceau(
            "revoke-many", "plan", option, str(tmp_path / "lines"), "--reason", "superseded",
            "--comment", "why", "--token-file", str(tmp_path / "token"), "--json",
        )  # fmt: skip

    for option, written in (("--serials", serial), ("--keys", keys[0])):
        assert json.loads(plan(option, written, "utf-8-sig").stdout)["total"] == 1
        refused = plan(option, written, "utf-16")
        assert (refused.exit_code, json.loads(refused.stdout)["type"][:9]) == (1, "malformed")
