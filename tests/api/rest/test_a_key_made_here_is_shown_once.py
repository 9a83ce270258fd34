"""PKCS #12 made by the service: openssl, GnuTLS and NSS open it; the key is in no table, file or log line."""

import base64
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization.pkcs12 import load_key_and_certificates
from sqlalchemy import Engine, text

from api.wiring import Container
from tests.api.conftest import Caller
from tests.factories import seed_practitioner

PATH = "/v1/enrolments"
KEY = "8e03978e-40d5-43e3-bc93-6894a57f9324"


@pytest.fixture
def container(issuing: Container) -> Container:
    # S/MIME BR 7.1.2.3: the URL of the CA's certificate is plain HTTP.
    return replace(issuing, settings=replace(issuing.settings, public_url="http://sceau.example"))


@pytest.fixture
def approved(caller: Callable[..., Caller], engine: Engine) -> tuple[Caller, str]:
    someone = seed_practitioner(engine)
    first, second = caller("registrar", name="first"), caller("registrar", name="second")
    check = {"method": "in-person", "document": "carte", "checked_on": "2026-09-01"}
    body = {"practitioner": someone.national_id, "mailbox": someone.mailbox, "identity_check": check}
    path = f"{PATH}/{first.post(PATH, body).get_json()['id']}"
    assert second.post(f"{path}/approval").status_code == 200
    return first, path


def make(approved: tuple[Caller, str]) -> Any:
    who, path = approved
    return who.client.post(f"{path}/pkcs12", headers={**who.headers, "Idempotency-Key": KEY})


def run(*words: str | Path) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def everything_kept(engine: Engine) -> str:
    """Every row of every table, as text; bytes in hexadecimal."""
    with engine.begin() as connection:
        names = connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))
        rows = [
            connection.execute(text(f"SELECT t::text FROM {name} t")).scalars().all()
            for name in names.scalars().all()
        ]
    return "\n".join(row for table in rows for row in table)


def test_it_opens_with_openssl_gnutls_and_nss_and_asked_again_it_is_refused(
    approved: tuple[Caller, str], tmp_path: Path, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    answer = make(approved)
    assert answer.status_code == 201, answer.get_json()
    assert answer.headers["Cache-Control"] == "no-store"
    told = answer.get_json()
    packed, passphrase = base64.b64decode(told["pkcs12"]), told["passphrase"]
    key, certificate, chain = load_key_and_certificates(packed, passphrase.encode())
    assert isinstance(key, EllipticCurvePrivateKey)
    assert certificate is not None
    assert certificate.public_key() == key.public_key()
    assert certificate == x509.load_der_x509_certificate(base64.b64decode(told["der"]))
    assert len(chain) == 2

    # 1. Nothing of it is kept: rows, files, log; asked again, it is not made again.
    scalar = key.private_numbers().private_value
    secrets = [passphrase, f"{scalar:064x}", base64.b64encode(scalar.to_bytes(32)).decode()[:40]]
    kept = everything_kept(engine) + caplog.text
    assert told["serial"] in kept
    assert not [secret for secret in secrets if secret in kept]
    raw = [scalar.to_bytes(32), *(secret.encode() for secret in secrets)]
    for file in (one for one in tmp_path.rglob("*") if one.is_file()):
        assert not any(secret in file.read_bytes() for secret in raw), file
    again = make(approved)
    assert (again.status_code, again.get_json()["code"]) == (409, "pkcs12-shown-once")

    # 2. Those who will open it do.
    path = tmp_path / "key.p12"
    path.write_bytes(packed)
    info = subprocess.run(
        ["openssl", "pkcs12", "-in", path, "-passin", f"pass:{passphrase}", "-info", "-noout"],
        check=True, capture_output=True, text=True,
    ).stderr  # fmt: skip
    assert "AES-256-CBC, Iteration 600000, PRF hmacWithSHA256" in info
    listed = run("certtool", "--p12-info", "--inder", f"--password={passphrase}", f"--infile={path}")
    assert "BEGIN" in listed
    store = tmp_path / "nss"
    store.mkdir()
    run("certutil", "-N", "-d", f"sql:{store}", "--empty-password")
    run("pk12util", "-i", path, "-d", f"sql:{store}", "-W", passphrase)
    assert "person-1@one.example" in run("certutil", "-L", "-d", f"sql:{store}")
