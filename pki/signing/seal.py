"""From to-be-signed bytes and a key to a signed structure; certificates and CRLs have one outer shape."""

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey

from pki.certificates import der

# RFC 5758 3.2: ECDSA with the hash that fits the curve; the parameters are absent.
ALGORITHMS = {
    "secp256r1": (hashes.SHA256(), der.sequence(der.oid("1.2.840.10045.4.3.2"))),
    "secp384r1": (hashes.SHA384(), der.sequence(der.oid("1.2.840.10045.4.3.3"))),
}


def seal(tbs: bytes, key: EllipticCurvePrivateKey) -> bytes:
    """SEQUENCE { tbs, algorithm, signature }.

    With a key from a file the signature is deterministic (RFC 6979): no weak random number can betray the
    key. A token takes a random number of its own, so nobody may count on two signatures being one.
    """
    digest, algorithm = ALGORITHMS[key.curve.name]
    signature = key.sign(tbs, ECDSA(digest, deterministic_signing=True))
    return der.sequence(tbs, algorithm, der.bit_string(signature))


def unsealed(tbs: bytes) -> x509.Certificate:
    """To-be-signed bytes as a certificate without a signature, for a strict parser to read; ValueError."""
    # The third field, after version and serial number, names the algorithm.
    algorithm = list(der.elements(der.content(tbs)))[2]
    return x509.load_der_x509_certificate(der.sequence(tbs, algorithm, der.bit_string(b"")))
