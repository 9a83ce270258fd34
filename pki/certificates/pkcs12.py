"""A key made here for who cannot make one, packed with its certificate: shown once, stored nowhere.

The key lives in this process's memory between its making and the answer. It is never written, logged or kept
for a repeated request. A caller who loses the answer revokes the certificate and asks anew (decision 124).
"""

import base64
import secrets
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat
from cryptography.hazmat.primitives.serialization.pkcs12 import PBES, serialize_key_and_certificates

from pki.model import IssuedCertificate

# OWASP's figure for PBKDF2 with SHA-256; the passphrase has 128 bits, but who keeps it may shorten it.
ROUNDS = 600_000
_GROUP = 5
_PASSPHRASE_OCTETS = 16


@dataclass(frozen=True)
class MadeKey:
    """A key of someone else's, and the request for its certificate. Never printed."""

    key: EllipticCurvePrivateKey = field(repr=False)
    csr: bytes


@dataclass(frozen=True)
class Packed:
    """The file and what opens it. Never printed."""

    pkcs12: bytes = field(repr=False)
    passphrase: str = field(repr=False)


def make_key() -> MadeKey:
    """A new P-256 key and a request that proves it."""
    key = generate_private_key(SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return MadeKey(key, request.public_bytes(Encoding.DER))


def pack(made: MadeKey, issued: IssuedCertificate, chain: list[bytes]) -> Packed:
    """Key, certificate and CAs (DER) in one PKCS #12 file (RFC 7292): AES-256, PBKDF2 with SHA-256."""
    passphrase = new_passphrase()
    protection = (
        PrivateFormat.PKCS12.encryption_builder()
        .key_cert_algorithm(PBES.PBESv2SHA256AndAES256CBC)
        .hmac_hash(hashes.SHA256())
        .kdf_rounds(ROUNDS)
        .build(passphrase.encode())
    )
    packed = serialize_key_and_certificates(
        (issued.mailbox or issued.serial).encode(), made.key, x509.load_der_x509_certificate(issued.der),
        [x509.load_der_x509_certificate(der) for der in chain], protection,
    )  # fmt: skip
    return Packed(packed, passphrase)


def new_passphrase() -> str:
    """128 random bits in groups of five, of letters and digits that are not mistaken (RFC 4648 6)."""
    letters = base64.b32encode(secrets.token_bytes(_PASSPHRASE_OCTETS)).decode().rstrip("=").lower()
    return "-".join(letters[at : at + _GROUP] for at in range(0, len(letters), _GROUP))
