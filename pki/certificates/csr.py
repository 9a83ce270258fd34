"""A PKCS #10 request (RFC 2986) to the key it holds: the one reader, whatever road the request came by.

Only key and signature count. Subject and attributes are passed over unread, since nothing of them gets into a
certificate. A name that breaks its string type is nobody's harm. By extensions asked for, enrollees got
themselves certificates for OCSP signing. Whether the key may be certified is for `pki/lint/key.py`.
"""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from directory.base.errors import Kind, Refusal
from directory.base.tlv import tlv
from pki.certificates import der
from pki.certificates.public_keys import PublicKey

# An RSA-8192 request is under 3 kB, with its description in words under 10; what is larger is not a request.
LARGEST_REQUEST = 16_384
# RFC 7468 2: what stands around the block is for people. RFC 7468 7 has both labels.
_BLOCK = re.compile(rb"-----BEGIN ((?:NEW )?CERTIFICATE REQUEST)-----([A-Za-z0-9+/=\s]*)-----END \1-----")
_BEGIN = b"-----BEGIN "
_SEQUENCE, _INTEGER, _BIT_STRING, _ATTRIBUTES = 0x30, 0x02, 0x03, 0xA0
_NO_NAME, _NO_ATTRIBUTES = der.sequence(), tlv(_ATTRIBUTES, b"")
# The OID says what a key is for. One of RSASSA-PSS (RFC 4055 1.2) neither encrypts nor signs as PKCS #1 v1.5,
# though the numbers in it are an RSA key's.
_SERVED = frozenset({der.oid("1.2.840.113549.1.1.1"), der.oid("1.2.840.10045.2.1")})
_RSASSA_PSS = der.oid("1.2.840.113549.1.1.10")
_STRONG = frozenset({"sha256", "sha384", "sha512", "sha3-256", "sha3-384", "sha3-512"})
_COMMON_NAME = der.oid("2.5.4.3")
# UTF8String, PrintableString, T61String, IA5String, BMPString.
_ENCODINGS = {0x0C: "utf-8", 0x13: "latin-1", 0x14: "latin-1", 0x16: "latin-1", 0x1E: "utf-16-be"}


@dataclass(frozen=True)
class CertificationRequest:
    """What was proved, a public key whose holder has the private one; and the subject's DER, unread."""

    key: PublicKey
    subject: bytes


@dataclass(frozen=True)
class _Parts:
    """The elements of RFC 2986 4.2 with their headers; of version and signature the octets.

    Those of a version are cut of leading zeros: v1 has none.
    """

    signed: bytes
    version: bytes
    subject: bytes
    public_key_info: bytes
    algorithm: bytes
    signature: bytes


def read(given: bytes) -> CertificationRequest:
    """The request in PEM (with any text around it), in DER, or in the base64 of its DER.

    Refuses `csr-too-large`, `bad-csr`, `weak-key` (the kind of key) and `bad-proof-of-possession`.
    """
    if len(given) > LARGEST_REQUEST:
        raise Refusal(Kind.TOO_LARGE, "csr-too-large", f"A request has at most {LARGEST_REQUEST} bytes.")
    parts = _parts(_der(given))
    if parts.version:
        says = int.from_bytes(parts.version[:8], "big", signed=True)
        raise _bad(f"The version field of this request says {says}: there is only 0, v1 (RFC 2986 4).")
    return CertificationRequest(_proven_key(parts), parts.subject)


def public_key_of_request(given: bytes) -> PublicKey:
    """The public key of a request, once its holder has proved to hold the private one; refuses as `read`."""
    return read(given).key


def common_names(subject: bytes) -> list[str]:
    """The common names of a subject, however they are encoded; [] for what is no name."""
    try:
        return list(_common_names(subject))
    except (ValueError, IndexError):
        return []


def _der(given: bytes) -> bytes:
    if _is_one_element(given):
        return given
    if _BEGIN not in given:
        return _decoded(given, "This is no PKCS #10 request in PEM, in DER or in base64 of DER.")
    if given.count(_BEGIN) > 1:
        # Whoever sent two would not know which of his keys was certified.
        raise _bad("This holds more than one PEM block: send one request.")
    block = _BLOCK.search(given)
    if block is None:
        raise _bad("The PEM block is no whole CERTIFICATE REQUEST (RFC 7468 7).")
    return _decoded(block[2], "What stands in the PEM block is not base64.")


def _decoded(text: bytes, otherwise: str) -> bytes:
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except ValueError as error:
        raise _bad(otherwise) from error


def _is_one_element(given: bytes) -> bool:
    try:
        return given[:1] == bytes((_SEQUENCE,)) and bool(der.content(given))
    except ValueError:
        return False


def _parts(request: bytes) -> _Parts:
    try:
        signed, algorithm, signature = _elements(request)
        version, subject, public_key_info, *attributes = _elements(signed)
        bits = der.content(signature)
    except (ValueError, IndexError) as error:
        raise _bad("This is no PKCS #10 request: its parts are not those of RFC 2986 4.") from error
    tags = [part[0] for part in (version, subject, public_key_info, algorithm, signature)]
    # The attributes are not optional, and some tools leave them out where there are none.
    is_fit = [attribute[0] for attribute in attributes] in ([], [_ATTRIBUTES]) and bits[:1] == b"\x00"
    if tags != [_INTEGER, _SEQUENCE, _SEQUENCE, _SEQUENCE, _BIT_STRING] or not is_fit:
        raise _bad("This is no PKCS #10 request: its parts are not those of RFC 2986 4.")
    return _Parts(signed, der.content(version).lstrip(b"\0"), subject, public_key_info, algorithm, bits[1:])


def _elements(sequence: bytes) -> list[bytes]:
    if sequence[0] != _SEQUENCE:
        raise ValueError("not a SEQUENCE")
    return list(der.elements(der.content(sequence)))


def _proven_key(parts: _Parts) -> PublicKey:
    _check_kind(parts.public_key_info)
    nameless = der.sequence(
        der.sequence(der.integer(0), _NO_NAME, parts.public_key_info, _NO_ATTRIBUTES),
        parts.algorithm,
        der.bit_string(parts.signature),
    )
    try:
        # The library reads key and algorithm; the name that it might refuse is not shown to it.
        request = x509.load_der_x509_csr(nameless)
        key = request.public_key()
        hashed, parameters = request.signature_hash_algorithm, request.signature_algorithm_parameters
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise _unserved(
            "The key or the signature algorithm of this request is not one that is served here."
        ) from error
    if not isinstance(key, EllipticCurvePublicKey | RSAPublicKey):
        raise _unserved("Keys are RSA of 3072 bits and more, or on P-256 or P-384.")
    if hashed is None or hashed.name not in _STRONG or not _is_signed(parts, key, hashed, parameters):
        text = "The request is not signed by the key it holds, with SHA-256 or stronger."
        raise Refusal(Kind.UNACCEPTABLE, "bad-proof-of-possession", text)
    return key


def _check_kind(public_key_info: bytes) -> None:
    try:
        algorithm = _elements(_elements(public_key_info)[0])[0]
    except (ValueError, IndexError) as error:
        raise _bad("The key of this request cannot be read (RFC 5280 4.1.2.7).") from error
    if algorithm == _RSASSA_PSS:
        text = "This key is for RSASSA-PSS alone (RFC 4055 1.2): it could not decrypt. Make a plain RSA key."
        raise _unserved(text)
    if algorithm not in _SERVED:
        raise _unserved("Keys are RSA of 3072 bits and more, or on P-256 or P-384.")


def _is_signed(
    parts: _Parts, key: PublicKey, hashed: hashes.HashAlgorithm, parameters: PSS | PKCS1v15 | ECDSA | None
) -> bool:
    try:
        if isinstance(key, RSAPublicKey) and isinstance(parameters, PSS | PKCS1v15):
            key.verify(parts.signature, parts.signed, parameters, hashed)
        elif isinstance(key, EllipticCurvePublicKey) and isinstance(parameters, ECDSA):
            key.verify(parts.signature, parts.signed, parameters)
        else:
            # An algorithm of another kind of key.
            return False
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        return False
    return True


def _common_names(subject: bytes) -> Iterator[str]:
    for relative in _elements(subject):
        for attribute in der.elements(der.content(relative)):
            kind, value = _elements(attribute)
            if kind == _COMMON_NAME:
                yield der.content(value).decode(_ENCODINGS.get(value[0], "ascii"))


def _bad(text: str) -> Refusal:
    return Refusal(Kind.MALFORMED, "bad-csr", text)


def _unserved(text: str) -> Refusal:
    return Refusal(Kind.UNACCEPTABLE, "weak-key", text, findings=["unsupported-algorithm"])
