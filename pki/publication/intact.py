"""Whether what is read to be handed out is what was signed: a bit may flip on a disk, or somebody's hand.

Looked at when something is taken into memory, not for each reader. Whether it may be believed at this time
is for `pki/crl/checks.py` and `pki/certificates/path_validation.py`.
"""

import base64
import binascii
import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509 import ocsp

from directory.base.errors import Refusal
from pki.certificates import der
from pki.crl import checks, parsing
from pki.model import Authority

_ES256_HALF = 32
# Named as it was first: who reads logs filters by it.
_LOG = logging.getLogger("pki.publication.intact")


class DamagedError(Exception):
    """What was read is not what was signed; the text says what was read."""


def check_crl(whole: bytes, authority: Authority, number: int, *, delta: bool) -> None:
    """DamagedError unless this is the CRL, or delta, of that number under that CA's key."""
    with _read(f"the CRL of {authority.id} numbered {number}"):
        checks.check_signed(whole, next(der.elements(der.content(whole))), authority)
        crl = x509.load_der_x509_crl(whole)
        indicators = [
            extension for extension in crl.extensions if isinstance(extension.value, x509.DeltaCRLIndicator)
        ]
        if (
            crl.issuer != x509.load_der_x509_certificate(authority.der).subject
            or parsing.number_of(whole) != number
            or bool(indicators) != delta
            or crl.next_update_utc is None
            or crl.next_update_utc <= crl.last_update_utc
        ):
            raise ValueError("it is another one")


def is_crl(whole: bytes, authority: Authority, number: int, *, delta: bool) -> bool:
    """Whether `check_crl` finds nothing; what it finds is logged, since somebody must look at the record."""
    try:
        check_crl(whole, authority, number, delta=delta)
    except DamagedError as damaged:
        _LOG.error("not handed out: %s", damaged)
        return False
    return True


def check_certificates(wanted: Iterable[bytes], known: Iterable[bytes]) -> None:
    """DamagedError unless each of these is certified by a CA among the known ones, or, a root, by itself."""
    issuers = [issuer for encoded in known if (issuer := _certificate(encoded)) is not None]
    for encoded in wanted:
        certificate = _certificate(encoded)
        if certificate is None or not any(_issued(certificate, by) for by in issuers):
            raise DamagedError("a certificate of a CA is not the one that was signed")


def check_answer(answer: bytes, responder: bytes) -> None:
    """DamagedError unless the responder of this certificate signed this OCSP answer, with that beside it."""
    with _read("an OCSP answer signed ahead"):
        response = ocsp.load_der_ocsp_response(answer)
        (beside,) = response.certificates
        key = beside.public_key()
        if beside != x509.load_der_x509_certificate(responder):
            raise ValueError("another responder's")
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise TypeError("responders' keys are P-256")
        key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(hashes.SHA256()))


def check_jws(jws: bytes) -> None:
    """DamagedError unless a compact JWS of ours bears the signature of the certificate in its header."""
    with _read("a signed list"):
        signed, _, signature = jws.rpartition(b".")
        header = json.loads(_unpadded(signed.split(b".")[0]))
        signer, issuer = (
            x509.load_der_x509_certificate(base64.b64decode(encoded)) for encoded in header["x5c"]
        )
        signer.verify_directly_issued_by(issuer)
        key, raw = signer.public_key(), _unpadded(signature)
        if not isinstance(key, ec.EllipticCurvePublicKey) or len(raw) != 2 * _ES256_HALF:
            raise ValueError("not ES256")
        halves = (int.from_bytes(part, "big") for part in (raw[:_ES256_HALF], raw[_ES256_HALF:]))
        key.verify(encode_dss_signature(*halves), signed, ec.ECDSA(hashes.SHA256()))


@contextmanager
def _read(what: str) -> Iterator[None]:
    """Anything that stops the reading of it is damage."""
    try:
        yield
    except (
        ValueError, TypeError, KeyError, IndexError, StopIteration, Refusal, InvalidSignature,
        UnsupportedAlgorithm, x509.ExtensionNotFound, binascii.Error,
    ) as error:  # fmt: skip
        raise DamagedError(f"{what} is not what was signed ({type(error).__name__}: {error})") from error


def _certificate(whole: bytes) -> x509.Certificate | None:
    try:
        return x509.load_der_x509_certificate(whole)
    except ValueError:
        return None


def _issued(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _unpadded(encoded: bytes) -> bytes:
    return base64.urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4))
