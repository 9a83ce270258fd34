"""Sixty days of a poller: each answer verifies with the responder in it, over every renewal of the responder.

The clock is ours; keys, certificates and the signer are real, and the answers go through the callable.
"""

import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as library
from sqlalchemy import Engine

from api.status.wsgi import StatusApplication
from directory.base.clock import utc_now
from directory.base.db import transaction
from pki.issuance import for_service
from pki.model import IssuedCertificate
from pki.ocsp import responders
from pki.service_keys import files as key_files
from tests.pki.conftest import BASE_URL, Established, Issue
from tests.status_ca import ISSUING, PASSPHRASE, StatusCa
from tests.wsgi_client import request

SECRET = b"of the web"
DAYS = 60
# Each simulated minute after a renewal, and every third hour between: what could break breaks at a renewal.
NEAR, APART = timedelta(minutes=20), timedelta(hours=3)
NONCE = x509.OCSPNonce(b"n" * 16)


class Poller:
    """Asks two processes about one certificate, by GET and with a nonce, and judges what they say."""

    def __init__(
        self, engine: Engine, authority: Established, folder: Path, issued: IssuedCertificate
    ) -> None:
        self.now = issued.issued_at
        self.authority = authority
        self.certificate = x509.load_der_x509_certificate(issued.der)
        self.workers = [
            StatusApplication(
                engine, keys_folder=folder, passphrase=SECRET, hours=8, clock=self.clock, ticks=self.ticks
            )
            for _ in range(2)
        ]
        self.last: dict[tuple[bytes, bool], tuple[datetime, bytes]] = {}
        self.questions = [self._question(nonce=nonce) for nonce in (False, True)]

    def clock(self) -> datetime:
        return self.now

    def ticks(self) -> float:
        return self.now.timestamp()

    def poll(self) -> None:
        for worker in self.workers:
            for question, nonce in zip(self.questions, (False, True), strict=True):
                body = request(worker, "POST", "/ocsp", question)[2]
                self._judge(body, nonce=nonce)

    def _question(self, *, nonce: bool) -> bytes:
        builder = library.OCSPRequestBuilder()
        builder = builder.add_certificate(self.certificate, self.authority.certificate, hashes.SHA256())
        if nonce:
            builder = builder.add_extension(NONCE, critical=False)
        return builder.build().public_bytes(Encoding.DER)

    def _judge(self, body: bytes, *, nonce: bool) -> None:
        answer = library.load_der_ocsp_response(body)
        assert answer.response_status is library.OCSPResponseStatus.SUCCESSFUL, self.now
        assert answer.certificate_status is library.OCSPCertStatus.GOOD
        (responder,) = answer.certificates
        assert responder.not_valid_before_utc <= self.now < responder.not_valid_after_utc
        assert answer.this_update_utc <= self.now < answer.next_update_utc <= responder.not_valid_after_utc
        key = responder.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(answer.signature, answer.tbs_response_bytes, ec.ECDSA(hashes.SHA256()))
        self.last[responder.public_bytes(Encoding.DER), nonce] = (self.now, body)


def openssl_verifies(poller: Poller, body: bytes, at: datetime, root: bytes, folder: Path) -> None:
    """As a client did at that instant, with the responder's certificate from the answer alone."""
    (folder / "answer").write_bytes(body)
    (folder / "chain.pem").write_bytes(root + poller.authority.certificate.public_bytes(Encoding.PEM))
    command = ["openssl", "ocsp", "-respin", "answer", "-CAfile", "chain.pem", "-attime",
               str(int(at.timestamp()))]  # fmt: skip
    judged = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=20)
    assert "Response verify OK" in judged.stderr, judged.stderr


def instants(start: datetime, renewed: Callable[[datetime], bool]) -> Iterator[datetime]:
    """Every three hours, and every minute after a renewal while old keys linger in memories."""
    now, close_until = start, start
    while now < start + timedelta(days=DAYS):
        if renewed(now):
            close_until = now + NEAR
        yield now
        now += timedelta(minutes=1) if now < close_until else APART


def test_over_sixty_days_every_answer_verifies_with_the_responder_in_it(
    engine: Engine, authority: Established, issue: Issue, now: datetime, tmp_path: Path
) -> None:
    folder = tmp_path / "web"
    issued = issue()
    poller = Poller(engine, authority, folder, issued)

    def renewed(at: datetime) -> bool:
        poller.now = at
        authority.signer.clock = lambda: at
        made = for_service.ensure_responder(
            engine, authority.signer, authority_id=authority.issuing.id, keys_folder=folder,
            passphrase=SECRET, base_url=BASE_URL, now=at,
        )  # fmt: skip
        if not made:
            presign(at)
        return made

    def presign(at: datetime) -> None:
        with transaction(engine) as connection:
            known = responders.load_responders(connection, folder, SECRET, at)
        responders.presign_due(engine, known, at, 8, 1000)

    for at in instants(now, renewed):
        poller.now = at
        poller.poll()
    keys = {responder for responder, _ in poller.last}
    assert len(keys) >= DAYS // 16, "renewed at half of thirty days each time"
    root = x509.load_der_x509_certificate(authority.root.der).public_bytes(Encoding.PEM)
    for at, body in poller.last.values():
        openssl_verifies(poller, body, at, root, tmp_path)


@pytest.fixture
def ca(engine: Engine) -> StatusCa:
    return StatusCa(engine, utc_now()).establish()


def said(application: StatusApplication, ca: StatusCa, certificate: x509.Certificate) -> library.OCSPResponse:
    builder = library.OCSPRequestBuilder().add_certificate(
        certificate, ca.certificates[ISSUING], hashes.SHA256()
    )
    body = request(application, "POST", "/ocsp", builder.build().public_bytes(Encoding.DER))[2]
    return library.load_der_ocsp_response(body)


class Ticks:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def serving(ca: StatusCa, folder: Path, ticks: Ticks, passphrase: bytes = PASSPHRASE) -> StatusApplication:
    return StatusApplication(ca.engine, keys_folder=folder, passphrase=passphrase, hours=8, ticks=ticks)


def test_a_wrong_passphrase_is_try_later_and_no_crash(ca: StatusCa, tmp_path: Path) -> None:
    ca.add_responder(tmp_path)
    application = serving(ca, tmp_path, Ticks(), b"another")
    answer = said(application, ca, ca.issue().certificate)
    assert answer.response_status is library.OCSPResponseStatus.TRY_LATER


def test_until_a_new_responders_key_is_here_the_one_before_answers(ca: StatusCa, tmp_path: Path) -> None:
    before = ca.add_responder(tmp_path / "here", days=20)
    ticks = Ticks()
    warm, certificate = serving(ca, tmp_path / "here", ticks), ca.issue().certificate
    assert said(warm, ca, certificate).certificates == [before]
    after = ca.add_responder(tmp_path / "elsewhere")
    ticks.seconds += 61
    cold = serving(ca, tmp_path / "here", ticks)
    for application in (warm, cold):
        assert said(application, ca, certificate).certificates == [before]
    for path in (tmp_path / "elsewhere").iterdir():
        (tmp_path / "here" / path.name).write_bytes(path.read_bytes())
    ticks.seconds += 61
    for application in (warm, cold):
        assert said(application, ca, certificate).certificates == [after]


def test_a_key_removed_as_replaced_goes_on_in_the_memory_that_holds_it(ca: StatusCa, tmp_path: Path) -> None:
    before = ca.add_responder(tmp_path)
    ticks = Ticks()
    application, certificate = serving(ca, tmp_path, ticks), ca.issue().certificate
    assert said(application, ca, certificate).certificates == [before]
    key_files.forget_others(tmp_path, responders.key_name(ISSUING), tmp_path / "none")
    ticks.seconds += 61
    assert said(application, ca, certificate).certificates == [before]


def test_a_key_under_another_passphrase_leaves_the_one_before_in_service(
    ca: StatusCa, tmp_path: Path
) -> None:
    before = ca.add_responder(tmp_path, days=20)
    ca.add_responder(tmp_path, passphrase=b"another")
    application = serving(ca, tmp_path, Ticks())
    assert said(application, ca, ca.issue().certificate).certificates == [before]


def test_a_ca_made_while_all_runs_is_answered_for_within_a_second(ca: StatusCa, tmp_path: Path) -> None:
    ca.add_responder(tmp_path)
    ticks = Ticks()
    application = serving(ca, tmp_path, ticks)
    assert said(application, ca, ca.issue().certificate).certificate_status is library.OCSPCertStatus.GOOD
    ca.add_issuing("persons-2")
    ca.add_responder(tmp_path, authority="persons-2")
    fresh = ca.issue(authority="persons-2").certificate
    builder = library.OCSPRequestBuilder().add_certificate(
        fresh, ca.certificates["persons-2"], hashes.SHA256()
    )
    ticks.seconds += 1
    body = request(application, "POST", "/ocsp", builder.build().public_bytes(Encoding.DER))[2]
    assert library.load_der_ocsp_response(body).certificate_status is library.OCSPCertStatus.GOOD


def test_a_ca_is_answered_for_until_it_ends_also_when_it_issues_no_more(ca: StatusCa, tmp_path: Path) -> None:
    ca.add_issuing("persons-2", days=40)
    ca.add_responder(tmp_path)
    ca.add_responder(tmp_path, authority="persons-2")
    with ca.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE authority SET state = 'retired' WHERE id = 'persons-2'")
    for days, there in ((0, True), (39, False)):
        at = ca.now + timedelta(days=days)
        with transaction(ca.engine) as connection:
            known = responders.load_responders(connection, tmp_path, PASSPHRASE, at)
        assert ("persons-2" in [issuer.authority_id for issuer in known.issuers]) is there
        assert ("persons-2" in known.by_authority) is there
