"""The trust list: whole, numbered, signed for whoever holds the root; new when something changed."""

import base64
import http
import json
import subprocess
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flask.testing import FlaskClient
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from api.app import create_app
from api.jobs import table as jobs
from api.jobs import trust_list as trust_lists
from api.rest.trust_list_cache import Newest
from api.status.wsgi import StatusApplication
from api.wiring import Container
from directory.base.db import connect_engine, transaction
from pki.model import AuthorityState
from pki.record import authorities
from tests.conftest import NOON
from tests.factories import seed_organisation, seed_practitioner
from tests.wsgi_client import request

OPERATOR = "CN=operator.example,O=Demo operator,C=FR"


@pytest.fixture
def client(issuing: Container) -> FlaskClient:
    return create_app(issuing).test_client()


def at(container: Container, moment: datetime) -> Container:
    return replace(container, clock=lambda: moment)


def publish(container: Container, after: timedelta = timedelta()) -> str:
    return trust_lists.publish(at(container, NOON + after))


def read(jws: bytes) -> dict[str, Any]:
    payload = jws.split(b".")[1]
    told: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
    return told


def suspend(engine: Engine, domain: str, moment: datetime | None) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE trusted_domain SET suspended_at = :at WHERE name = :name"),
            {"at": moment, "name": domain},
        )


def unpadded(piece: str) -> bytes:
    return base64.urlsafe_b64decode(piece + "=" * (-len(piece) % 4))


def openssl_verifies(folder: Path, jws: str, payload: bytes, root: bytes) -> None:
    """Chain and signature, by openssl alone: the compact parts, r and s made DER."""
    header, _, signature = jws.split(".")
    told = json.loads(unpadded(header))
    chain = [x509.load_der_x509_certificate(base64.b64decode(one)) for one in told["x5c"]]
    raw = unpadded(signature)
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    signed = f"{header}.".encode() + base64.urlsafe_b64encode(payload).rstrip(b"=")
    key = chain[0].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    files = {"root": root, "issuer": chain[1].public_bytes(Encoding.PEM), "key": key,
             "leaf": chain[0].public_bytes(Encoding.PEM), "signature": der, "signed": signed}  # fmt: skip
    for name, content in files.items():
        (folder / name).write_bytes(content)
    moment = str(int(NOON.timestamp()))
    for command in (
        ["verify", "-attime", moment, "-CAfile", "root", "-untrusted", "issuer", "leaf"],
        ["dgst", "-sha256", "-verify", "key", "-signature", "signature", "signed"],
    ):
        subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)


def root_of(engine: Engine) -> bytes:
    with transaction(engine) as connection:
        root = authorities.load_authority(connection, "root-1")
    assert root is not None
    return x509.load_der_x509_certificate(root.der).public_bytes(Encoding.PEM)


def test_openssl_verifies_the_list_and_the_xml_up_to_the_root(
    issuing: Container, engine: Engine, client: FlaskClient, tmp_path: Path
) -> None:
    seed_practitioner(engine)
    assert publish(issuing) == "version 1 published"
    jws = client.get("/v1/trust-list").data
    openssl_verifies(tmp_path, jws.decode(), unpadded(jws.decode().split(".")[1]), root_of(engine))
    xml, beside = client.get("/trust-list.xml").data, client.get("/trust-list.xml.jws").text
    assert beside.split(".")[1] == ""
    openssl_verifies(tmp_path, beside, xml, root_of(engine))
    (tmp_path / "trust-list.xml").write_bytes(xml)
    subprocess.run(
        ["sha256sum", "--check"], input=client.get("/trust-list.xml.sha256").data, cwd=tmp_path, check=True,
        capture_output=True,
    )  # fmt: skip


def test_it_names_domains_operators_and_every_ca(
    issuing: Container, engine: Engine, client: FlaskClient
) -> None:
    seed_practitioner(engine)
    seed_organisation(engine)
    suspend(engine, "two.example", NOON - timedelta(hours=1))
    publish(issuing)
    told = read(client.get("/v1/trust-list").data)
    assert [(one["name"], one["operator"], one["state"]) for one in told["domains"]] == [
        ("one.example", OPERATOR, "trusted"), ("two.example", OPERATOR, "suspended"),
    ]  # fmt: skip
    assert told["domains"][1]["since"] == "2026-09-01T11:00:00Z"
    assert [(one["certificate_dn"], one["state"]) for one in told["operators"]] == [(OPERATOR, "trusted")]
    assert [(one["id"], one["generation"], one["state"]) for one in told["authorities"]] == [
        ("root-1", 1, "active"), ("organisations-1", 1, "active"), ("persons-1", 1, "active"),
        ("servers-1", 1, "active"),
    ]  # fmt: skip
    assert (told["version"], told["made_at"], told["next_update"]) == (
        1, "2026-09-01T12:00:00Z", "2026-09-08T12:00:00Z",
    )  # fmt: skip


def test_who_has_the_newest_is_told_so_in_no_words(
    issuing: Container, engine: Engine, client: FlaskClient
) -> None:
    assert client.get("/v1/trust-list").status_code == http.HTTPStatus.SERVICE_UNAVAILABLE
    seed_practitioner(engine)
    publish(issuing)
    fresh = create_app(at(issuing, NOON + timedelta(seconds=2))).test_client()
    first = fresh.get("/v1/trust-list")
    assert (first.status_code, first.content_type) == (200, "application/jose")
    held = fresh.get("/v1/trust-list?version=1")
    assert (held.status_code, held.data) == (204, b"")
    assert fresh.get("/v1/trust-list?version=7").data == first.data
    again = fresh.get("/v1/trust-list", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    dated = first.headers["Last-Modified"]
    for ask in (fresh.get, fresh.head):
        held = ask("/v1/trust-list", headers={"If-Modified-Since": dated})
        assert (held.status_code, held.data) == (304, b"")
    both = {"If-Modified-Since": dated, "If-None-Match": '"another"'}
    assert fresh.get("/v1/trust-list", headers=both).status_code == 200
    by_another_clock = {"If-Modified-Since": "Tue, 01 Jan 2030 00:00:00 GMT"}
    assert fresh.get("/v1/trust-list", headers=by_another_clock).status_code == 200
    assert fresh.get("/v1/trust-list?version=0").status_code == 422
    assert fresh.get("/v1/trust-list?version=x").status_code == 422
    assert fresh.get("/v1/trust-list/2").get_json()["code"] == "unknown-trust-list"


def test_a_suspension_is_in_a_new_version_at_once_and_the_old_one_stays(
    issuing: Container, engine: Engine
) -> None:
    seed_practitioner(engine)
    publish(issuing)
    suspend(engine, "one.example", NOON + timedelta(seconds=12))
    assert publish(issuing, timedelta(seconds=5)) == ""  # the rate is bounded
    assert publish(issuing, timedelta(seconds=15)) == "version 2 published"
    client = create_app(at(issuing, NOON + timedelta(seconds=16))).test_client()
    assert read(client.get("/v1/trust-list?version=1").data)["domains"][0]["state"] == "suspended"
    old = client.get("/v1/trust-list/1")
    assert read(old.data)["domains"][0]["state"] == "trusted"
    assert "immutable" in old.headers["Cache-Control"]
    # The end of it is not to wait either; what begins anew begins now.
    suspend(engine, "one.example", None)
    assert publish(issuing, timedelta(seconds=30)) == "version 3 published"


def test_a_suspended_operator_takes_all_its_domains_along(
    issuing: Container, engine: Engine, client: FlaskClient
) -> None:
    seed_practitioner(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE operator SET suspended_at = :at"), {"at": NOON})
    publish(issuing)
    told = read(client.get("/v1/trust-list").data)
    assert {one["state"] for one in (*told["domains"], *told["operators"])} == {"suspended"}
    assert b"<Domaine>" not in client.get("/trust-list.xml").data


def test_other_changes_wait_for_one_another(issuing: Container, engine: Engine) -> None:
    seed_practitioner(engine)
    publish(issuing)
    seed_organisation(engine)
    assert publish(issuing, timedelta(minutes=5)) == ""
    assert publish(issuing, timedelta(minutes=10)) == "version 2 published"


def test_the_same_content_makes_no_version_until_the_last_one_ages(
    issuing: Container, engine: Engine
) -> None:
    seed_practitioner(engine)
    publish(issuing)
    with engine.begin() as connection:
        connection.execute(text("UPDATE trusted_domain SET row_hash = 'other'"))
    assert publish(issuing, timedelta(hours=1)) == ""
    with engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM trust_list_due")).scalar_one() == 0
    assert publish(issuing, timedelta(days=3)) == ""
    assert publish(issuing, timedelta(days=3, hours=13)) == "version 2 published"


def test_since_stays_while_a_description_changes(issuing: Container, engine: Engine) -> None:
    seed_practitioner(engine)
    publish(issuing)
    with engine.begin() as connection:
        connection.execute(text("UPDATE trusted_domain SET description = 'Nouveau'"))
    publish(issuing, timedelta(hours=1))
    client = create_app(at(issuing, NOON + timedelta(hours=2))).test_client()
    now, before = (read(client.get(f"/v1/trust-list/{number}").data)["domains"][0] for number in (2, 1))
    assert (now["description"], now["since"]) == ("Nouveau", before["since"])


def test_what_left_the_national_list_is_in_no_new_version(issuing: Container, engine: Engine) -> None:
    seed_practitioner(engine)
    publish(issuing)
    with engine.begin() as connection:
        connection.execute(text("UPDATE trusted_domain SET departed_at = :at"), {"at": NOON})
    assert publish(issuing, timedelta(seconds=15)) == "version 2 published"
    client = create_app(at(issuing, NOON + timedelta(hours=2))).test_client()
    told = read(client.get("/v1/trust-list").data)
    assert (told["domains"], told["operators"]) == ([], [])


def test_a_ca_that_retires_stands_beside_its_follower(issuing: Container, engine: Engine) -> None:
    publish(issuing)
    with engine.begin() as connection:
        found = authorities.load_authority(connection, "organisations-1")
        assert found is not None
        connection.execute(text("UPDATE authority SET state = 'retired' WHERE id = 'organisations-1'"))
        connection.execute(text("ALTER TABLE authority DROP CONSTRAINT authority_sha256_key"))
        follower = replace(found, id="organisations-2", generation=2, state=AuthorityState.ACTIVE)
        authorities.add_authority(connection, follower, NOON)
    assert publish(issuing, timedelta(seconds=15)) == "version 2 published"
    client = create_app(at(issuing, NOON + timedelta(hours=2))).test_client()
    told = read(client.get("/v1/trust-list").data)["authorities"]
    assert [(one["id"], one["state"]) for one in told if one["role"] == "organisations"] == [
        ("organisations-1", "retired"), ("organisations-2", "active"),
    ]  # fmt: skip


def test_two_workers_at_once_make_one_version(issuing: Container, engine: Engine) -> None:
    seed_practitioner(engine)
    publish(issuing)
    suspend(engine, "one.example", NOON)
    later = at(issuing, NOON + timedelta(minutes=1))

    def outrun() -> Any:
        """Another worker publishes between this one's look and its signature."""
        assert trust_lists.publish(later) == "version 2 published"
        return own(later)

    with pytest.MonkeyPatch.context() as patched:
        own = trust_lists.list_signer
        calls = iter([outrun, lambda: own(later)])
        patched.setattr(trust_lists, "list_signer", lambda _: next(calls)())
        assert trust_lists.publish(later) == ""


def test_the_last_list_known_is_given_while_the_record_is_away(issuing: Container, engine: Engine) -> None:
    seed_practitioner(engine)
    publish(issuing)
    newest = Newest(issuing)
    first = newest.get()
    nowhere = connect_engine("postgresql+psycopg://nobody@/nothing?host=/nonexistent")
    newest.container = replace(issuing, engine=nowhere, clock=lambda: NOON + timedelta(days=6))
    assert newest.get() is first is not None
    newest.container = replace(issuing, engine=nowhere, clock=lambda: NOON + timedelta(days=8))
    with pytest.raises(OperationalError):
        newest.get()


@pytest.mark.usefixtures("issuing")
def test_the_bundle_is_read_by_openssl_and_gnutls(engine: Engine, tmp_path: Path) -> None:
    status = StatusApplication(engine, keys_folder=tmp_path, passphrase=b"", hours=8)
    code, headers, body = request(status, "GET", "/ca/bundle.p7b")
    assert (code, headers["Content-Type"]) == ("200 OK", "application/x-pkcs7-certificates")
    (tmp_path / "bundle.p7b").write_bytes(body)
    shown = subprocess.run(
        ["openssl", "pkcs7", "-inform", "DER", "-in", "bundle.p7b", "-print_certs", "-noout"],
        cwd=tmp_path, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert shown.count("subject=") == 4
    told = subprocess.run(
        ["certtool", "--p7-info", "--inder", "--infile", "bundle.p7b"],
        cwd=tmp_path, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert told.count("BEGIN CERTIFICATE") == 4
    assert request(status, "GET", "/ca/bundle.p7b", HTTP_IF_NONE_MATCH=headers["ETag"])[0].startswith("304")


def test_the_job_publishes(issuing: Container, engine: Engine) -> None:
    seed_practitioner(engine)
    assert jobs.run_job(issuing, "trust-list") == "version 1 published"


def test_before_there_is_a_ca_the_job_does_nothing(container: Container) -> None:
    (container.settings.state / "secrets").mkdir()
    (container.settings.state / "secrets" / "web.passphrase").write_text("for a test")
    assert jobs.run_job(container, "trust-list") == ""
