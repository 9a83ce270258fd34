"""From to-be-signed bytes and a key to a signed structure; certificates and CRLs have one outer shape."""

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey

from pki.certificates import der
from pki.certificates.signature_algorithms import ALGORITHMS


def seal(tbs: bytes, key: EllipticCurvePrivateKey) -> bytes:
    """SEQUENCE { tbs, algorithm, signature }.

    With a key from a file the signature is deterministic (RFC 6979): no weak random number can betray the
    key. A token takes a random number of its own, so nobody may count on two signatures being one.
    """
    digest, algorithm = ALGORITHMS[key.curve.name]
    signature = key.sign(tbs, ECDSA(digest, deterministic_signing=True))
    return der.sequence(tbs, algorithm, der.bit_string(signature))
