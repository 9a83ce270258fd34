"""An act under the signature of its credential: a compact JWS (RFC 7515), ES256 or Ed25519 (RFC 9864).

A credential is named by the SHA-256 of its public key, so that no register of keys can swap one. Padding,
spare bits and other spellings of the header are refused. An act is known by its text all the same: whoever
has one ES256 signature can write a second one that holds.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import lru_cache
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey

from pki.acts.act import CREDENTIAL, Act, read_act
from pki.acts.canonical import canonical, read_canonical

PublicKey = EllipticCurvePublicKey | Ed25519PublicKey
PrivateKey = EllipticCurvePrivateKey | Ed25519PrivateKey
# RFC 8725 3.11: the same key may sign other things, and none must pass for an act.
TYPE = "sceau-act"
# A thousand subjects of 200 characters, in base64.
LARGEST = 320_000
# An act on one subject has a thousand octets; of those on a thousand none is kept in memory.
_REMEMBERED_LENGTH = 2_048
_COMPACT = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class BadSignatureError(ValueError):
    """This is not the act of that credential, for whatever reason."""


def credential_of(key: PublicKey) -> str:
    """The name of the credential with this key; ValueError for a kind of key that signs no acts."""
    _algorithm(key)
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"cred:{sha256(spki).hexdigest()}"


def key_named(signed: bytes) -> str:
    """The credential that a signed act names in its header, before anything of it is believed."""
    head = signed.partition(b".")[0]
    try:
        name = read_canonical(_octets(head))["kid"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadSignatureError("this names no credential") from error
    if not isinstance(name, str) or not CREDENTIAL.fullmatch(name):
        raise BadSignatureError("this names no credential")
    return name


def sign(act: Act, key: PrivateKey) -> bytes:
    """The act signed, in ASCII; ValueError where it names another credential than this key's."""
    public = key.public_key()
    if act.credential != credential_of(public):
        raise ValueError("an act is signed by the credential that it names")
    algorithm, jwk = _algorithm(public), _jwk(key)
    header = {"alg": algorithm, "kid": act.credential, "typ": TYPE}
    return jws.serialize_compact(header, act.text(), jwk, [algorithm]).encode()


def verified(signed: bytes, key: PublicKey) -> Act:
    """The act that this credential signed; BadSignatureError for everything else.

    That it has not expired, and what its person may do, is judged elsewhere.
    """
    if len(signed) > LARGEST or not _COMPACT.fullmatch(signed):
        raise BadSignatureError("this is no compact JWS")
    if len(signed) > _REMEMBERED_LENGTH:
        return _verified(signed, key)
    return _remembered(signed, key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


@lru_cache(maxsize=4096)
def _remembered(signed: bytes, spki: bytes) -> Act:
    """As `verified`: a signature that held once holds for ever, and each renewal asks again."""
    key = load_der_public_key(spki)
    if not isinstance(key, EllipticCurvePublicKey | Ed25519PublicKey):
        raise BadSignatureError("acts are signed by keys on P-256 or Ed25519")
    return _verified(signed, key)


def _verified(signed: bytes, key: PublicKey) -> Act:
    name, algorithm = credential_of(key), _algorithm(key)
    header, payload, signature = signed.split(b".")
    if _octets(header) != canonical({"alg": algorithm, "kid": name, "typ": TYPE}):
        raise BadSignatureError(f"the header is not that of an act signed by {name}")
    _octets(signature)
    try:
        jws.deserialize_compact(signed, _jwk(key), [algorithm], registry=_Registry())
        act = read_act(_octets(payload))
    except JoseError as error:
        raise BadSignatureError("the signature does not hold") from error
    except BadSignatureError:
        raise
    except ValueError as error:
        raise BadSignatureError(f"what is signed is no act: {error}") from error
    if act.credential != name:
        raise BadSignatureError("the act names another credential than the one that signed it")
    return act


class _Registry(jws.JWSRegistry):
    """With room for an act on a thousand subjects."""

    max_payload_length = LARGEST
    max_header_length = 1024

    def __init__(self) -> None:
        super().__init__(algorithms=["ES256", "Ed25519"])


def _algorithm(key: PublicKey) -> str:
    match key:
        case EllipticCurvePublicKey(curve=SECP256R1()):
            return "ES256"
        case Ed25519PublicKey():
            return "Ed25519"
        case _:
            raise ValueError("acts are signed by keys on P-256 or Ed25519")


def _jwk(key: PublicKey | PrivateKey) -> ECKey | OKPKey:
    if isinstance(key, EllipticCurvePublicKey | EllipticCurvePrivateKey):
        return ECKey.import_key(key)
    return OKPKey.import_key(key)


def _octets(encoded: bytes) -> bytes:
    """What base64url writes so; BadSignatureError where it would be written otherwise."""
    try:
        octets = urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4))
    except ValueError as error:
        raise BadSignatureError("a part of this is no base64url") from error
    if urlsafe_b64encode(octets).rstrip(b"=") != encoded:
        raise BadSignatureError("a part of this has another spelling")
    return octets
