"""Responders through the real signer: when they are made, for how long, where keys lie, and the old ones."""

import stat
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as library
from cryptography.x509.oid import ExtendedKeyUsageOID
from sqlalchemy import Engine, text

from directory.base.audit import Actor
from directory.base.db import transaction
from pki.crl import publish as crl
from pki.crl import store as crl_store
from pki.issuance import for_service
from pki.model import IssuedCertificate, RevocationReason, SerialStatus
from pki.ocsp import responders
from pki.ocsp import response as ocsp
from pki.ocsp import store as ocsp_store
from pki.ocsp.request import Request
from pki.ocsp.responders import Responder
from pki.revocation import requests
from tests.pki.conftest import BASE_URL, Established, Issue

SECRET = b"of the web"


@dataclass
class Desk:
    """Asks for a responder at a chosen instant."""

    engine: Engine
    authority: Established
    folder: Path

    def ensure(self, now: datetime) -> bool:
        self.authority.signer.clock = lambda: now
        return for_service.ensure_responder(
            self.engine, self.authority.signer, authority_id=self.authority.issuing.id,
            keys_folder=self.folder, passphrase=SECRET, base_url=BASE_URL, now=now,
        )  # fmt: skip

    def current(self, now: datetime) -> Responder | None:
        with transaction(self.engine) as connection:
            known = responders.load_responders(connection, self.folder, SECRET, now)
        return known.by_authority.get(self.authority.issuing.id)

    @property
    def keys(self) -> list[Path]:
        return sorted(self.folder.glob("*.pem"))


@pytest.fixture
def desk(engine: Engine, authority: Established, tmp_path: Path) -> Desk:
    return Desk(engine, authority, tmp_path / "web")


def test_a_responder_is_made_once_and_renewed_after_half_its_life(desk: Desk, now: datetime) -> None:
    assert desk.ensure(now)
    assert not desk.ensure(now + timedelta(days=14))
    first = desk.current(now)
    assert desk.ensure(now + timedelta(days=16))
    second = desk.current(now + timedelta(days=16))
    assert first is not None
    assert second is not None
    assert second.serial != first.serial
    assert second.not_after - now >= timedelta(days=45)
    assert len(desk.keys) == 1, "the replaced key is gone"


def test_its_certificate_is_for_ocsp_alone_and_short(desk: Desk, now: datetime) -> None:
    desk.ensure(now)
    made = desk.current(now)
    assert made is not None
    certificate = x509.load_der_x509_certificate(made.certificate)
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.OCSP_SIGNING]
    assert certificate.extensions.get_extension_for_class(x509.OCSPNoCheck)
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc <= timedelta(days=30)
    certificate.verify_directly_issued_by(desk.authority.certificate)


def test_its_key_is_encrypted_and_for_the_owner_only(desk: Desk, now: datetime) -> None:
    desk.ensure(now)
    (path,) = desk.keys
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(desk.folder.stat().st_mode) == 0o700
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in path.read_bytes()
    with pytest.raises(ValueError, match=r"[Pp]assword"):
        serialization.load_pem_private_key(path.read_bytes(), b"wrong")


def test_a_lost_key_is_replaced_at_once(desk: Desk, now: datetime) -> None:
    desk.ensure(now)
    desk.keys[0].unlink()
    assert desk.current(now) is None
    assert desk.ensure(now)
    assert desk.current(now) is not None


def test_a_revoked_responder_signs_no_more_and_is_replaced(desk: Desk, now: datetime) -> None:
    desk.ensure(now)
    before = desk.current(now)
    assert before is not None
    with transaction(desk.engine) as connection:
        requests.revoke(
            connection, now=now, actor=Actor("test:someone"), serial=before.serial,
            reason=RevocationReason.KEY_COMPROMISE, comment="its machine was broken into",
        )  # fmt: skip
    assert desk.current(now) is None
    assert desk.ensure(now + timedelta(minutes=1))
    after = desk.current(now + timedelta(minutes=1))
    assert after is not None
    assert after.serial != before.serial


def test_a_signer_that_fails_leaves_the_old_responder_in_service(desk: Desk, now: datetime) -> None:
    desk.ensure(now)
    before = desk.current(now)

    class Silent:
        def __getattr__(self, _: str) -> object:
            raise ConnectionError

    later = now + timedelta(days=16)
    with pytest.raises(ConnectionError):
        for_service.ensure_responder(
            desk.engine, Silent(), authority_id=desk.authority.issuing.id, keys_folder=desk.folder,
            passphrase=SECRET, base_url=BASE_URL, now=later,
        )  # fmt: skip
    assert desk.current(later) == before
    assert desk.ensure(later)
    assert len(desk.keys) == 1


def test_an_answer_never_outlives_its_responder(desk: Desk, now: datetime, issue: Issue) -> None:
    desk.ensure(now)
    issue()
    last = desk.current(now)
    assert last is not None
    end = last.not_after - timedelta(hours=1)
    with transaction(desk.engine) as connection:
        known = responders.load_responders(connection, desk.folder, SECRET, end)
    assert responders.presign_due(desk.engine, known, end, 8, 2) == 2
    with transaction(desk.engine) as connection:
        ends = connection.execute(text("SELECT max(next_update) FROM ocsp_answer")).scalar_one()
    assert ends <= last.not_after


def test_a_certificate_of_the_service_goes_from_good_to_revoked_in_ocsp_and_crl(
    desk: Desk, now: datetime, issue: Issue, engine: Engine
) -> None:
    desk.ensure(now)
    desk.authority.signer.clock = lambda: now
    issued = issue()
    assert status(desk, issued, now) is library.OCSPCertStatus.GOOD
    with transaction(engine) as connection:
        requests.revoke(
            connection, now=now, actor=Actor("test:someone"), serial=issued.serial,
            reason=RevocationReason.KEY_COMPROMISE, comment="lost",
        )  # fmt: skip
    assert status(desk, issued, now) is library.OCSPCertStatus.REVOKED
    assert crl.publish_due(engine, desk.authority.signer, now, timedelta(hours=72)) == 49
    with transaction(engine) as connection:
        published = crl_store.latest(connection, issued.authority_id, issued.shard)
    assert published is not None
    (entry,) = x509.load_der_x509_crl(published.der)
    assert entry.serial_number == int(issued.serial, 16)
    named = x509.load_der_x509_certificate(issued.der).extensions
    (point,) = named.get_extension_for_class(x509.CRLDistributionPoints).value
    scope = x509.load_der_x509_crl(published.der).extensions.get_extension_for_class(
        x509.IssuingDistributionPoint
    )
    assert scope.value.full_name == point.full_name, "byte for byte the URL in the certificate"


def status(desk: Desk, issued: IssuedCertificate, now: datetime) -> library.OCSPCertStatus:
    with transaction(desk.engine) as connection:
        known = responders.load_responders(connection, desk.folder, SECRET, now)
        standing, _ = ocsp_store.standing(connection, issued.authority_id, issued.serial, "sha256")
    assert standing != SerialStatus(None)
    issuer = known.issuer(issued.authority_id)
    asked = Request((ocsp.question_about(issuer, "sha256", issued.serial),))
    responder = known.by_authority[issued.authority_id]
    found = ocsp.find(asked, issuer, {issued.serial: standing})
    made = ocsp.sign(responder, issuer, found, now=now, lifetime=timedelta(hours=8))
    answer = library.load_der_ocsp_response(made)
    key = x509.load_der_x509_certificate(responder.certificate).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(answer.signature, answer.tbs_response_bytes, ec.ECDSA(answer.signature_hash_algorithm))
    assert answer.certificates[0].public_bytes(Encoding.DER) == responder.certificate
    return answer.certificate_status
