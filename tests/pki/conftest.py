"""A CA on the test's own database: keys in a folder of the test, the signer in process."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Engine

from directory import access
from directory.base.db import transaction
from pki.issuance import for_enrolment
from pki.model import JOINED, Authority, CrlForm, IssuedCertificate, Purpose
from pki.record import authorities
from pki.registration import enrolment
from pki.signing.file import FileKeys
from pki.signing.inprocess import InProcessSigner
from pki.signing.journal import Journal
from pki.tlog import store as tlog_store
from tests import made_once
from tests.factories import Seeded, seed_practitioner, seed_token

BASE_URL = "http://trust.example"
PASSPHRASE = b"correct horse battery staple"
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Established:
    """The CAs of a test, their signer, and where their keys are; a test may set `signer.clock`."""

    root: Authority
    issuing: Authority
    signer: InProcessSigner
    keys: FileKeys
    base_url: str
    folder: Path

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_der_x509_certificate(self.issuing.der)


@pytest.fixture
def authority(
    engine: Engine, tmp_path: Path, now: datetime, request: pytest.FixtureRequest
) -> Iterator[Established]:
    keys = FileKeys(tmp_path / "keys", PASSPHRASE)
    made_once.establish(engine, keys, base_url=BASE_URL, now=now, crl_form=CrlForm.NATIONAL)
    journal = Journal(tmp_path / "keys" / "journal.jsonl")
    signer = InProcessSigner(engine, keys, journal, clock=lambda: now)
    with transaction(engine) as connection:
        root = authorities.load_authority(connection, "root-1")
        issuing = authorities.load_authority(connection, "persons-1")
    assert root
    assert issuing
    yield Established(root, issuing, signer, keys, BASE_URL, tmp_path)
    journal.close()
    if request.node.get_closest_marker("behind_the_log") is None:
        with engine.connect() as connection:
            untold = list(tlog_store.unequal_acts(connection))
        assert untold == [], "the log tells of every act, once"


def registrar(engine: Engine, name: str, authority: str = "CNOM") -> access.Token:
    """A registrar's token, as a view would have it after authentication."""
    expires = datetime.fromisoformat("2027-01-01T00:00:00+00:00")
    token_id = seed_token(engine, name, authority=authority)
    return access.Token(token_id, name, access.Role.REGISTRAR, authority, expires)


def request_for(key: Key, name: str = "whoever") -> bytes:
    """A certificate request in DER, signed by the key it holds."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    built = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return built.public_bytes(Encoding.DER)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def identity(now: datetime) -> dict[str, str | date]:
    return {"method": "in-person", "document": "identity card", "checked_on": now.date()}


@dataclass(frozen=True)
class Enrolled:
    """An approved enrolment and the two registrars behind it."""

    seeded: Seeded
    id: UUID
    first: access.Token
    second: access.Token


def enrol(engine: Engine, now: datetime, seeded: Seeded, authority: str = "CNOM") -> Enrolled:
    """Request and approval by two registrars of this authority."""
    first = registrar(engine, f"first-{seeded.mailbox}", authority)
    second = registrar(engine, f"second-{seeded.mailbox}", authority)
    with transaction(engine) as connection:
        asked = enrolment.request_enrolment(
            connection, now=now, token=first, practitioner=seeded.national_id, mailbox=seeded.mailbox,
            identity_check=identity(now),
        )  # fmt: skip
    with transaction(engine) as connection:
        enrolment.approve_enrolment(connection, now=now, token=second, enrolment_id=asked.id)
    return Enrolled(seeded, asked.id, first, second)


@pytest.fixture
def enrolled(engine: Engine, now: datetime) -> Enrolled:
    """Doctor 1, enrolled for her own mailbox."""
    return enrol(engine, now, seed_practitioner(engine))


Issue = Callable[..., IssuedCertificate]


@pytest.fixture
def issue(engine: Engine, authority: Established, enrolled: Enrolled, now: datetime) -> Issue:
    """Issue to doctor 1: `issue(key=…, at=…, csr=…, signer=…)`."""

    def act(
        key: Key | None = None, *, csr: bytes | None = None, at: datetime = now, who: Enrolled = enrolled,
        signer: object = None, thorough: bool = False, purposes: frozenset[Purpose] = JOINED,
    ) -> IssuedCertificate:  # fmt: skip
        return for_enrolment.issue_for_enrolment(
            engine, signer or authority.signer, now=at, token=who.first, enrolment_id=who.id,
            csr=request_for(key or new_key()) if csr is None else csr, base_url=BASE_URL, thorough=thorough,
            purposes=purposes,
        )  # fmt: skip

    return act
