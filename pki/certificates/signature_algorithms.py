"""Which signature algorithm fits which key, and bytes as they stand before any signature. Pure."""

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from pki.certificates import der

# RFC 5758 3.2: ECDSA with the hash that fits the curve; the parameters are absent.
ALGORITHMS = {
    "secp256r1": (hashes.SHA256(), der.sequence(der.oid("1.2.840.10045.4.3.2"))),
    "secp384r1": (hashes.SHA384(), der.sequence(der.oid("1.2.840.10045.4.3.3"))),
}


def unsealed(tbs: bytes) -> x509.Certificate:
    """To-be-signed bytes as a certificate without a signature, for a strict parser to read; ValueError."""
    # The third field, after version and serial number, names the algorithm.
    algorithm = list(der.elements(der.content(tbs)))[2]
    return x509.load_der_x509_certificate(der.sequence(tbs, algorithm, der.bit_string(b"")))
