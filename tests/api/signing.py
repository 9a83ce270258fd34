"""A real signer for the REST tests, in process, its authorities made once in a folder of the test's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Engine

from pki.model import CrlForm
from pki.signing.file import FileKeys
from pki.signing.inprocess import InProcessSigner
from pki.signing.journal import Journal
from tests import made_once


@contextmanager
def signer_in(folder: Path, engine: Engine, now: datetime, base_url: str) -> Iterator[InProcessSigner]:
    keys = FileKeys(folder / "ca", b"of a test")
    made_once.establish(engine, keys, base_url=base_url, now=now, crl_form=CrlForm.NATIONAL)
    journal = Journal(folder / "journal")
    try:
        yield InProcessSigner(engine, keys, journal, lambda: now)
    finally:
        journal.close()


def request_for(key: CertificateIssuerPrivateKeyTypes | None = None) -> str:
    """A PKCS#10 request in PEM; its names are empty, since nobody reads them."""
    asked = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = asked.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(Encoding.PEM).decode()
