"""How a CA is named by what it signs: subject, public key and key identifier, byte for byte. Pure."""

from cryptography import x509

from pki.certificates import der


def issuer_fields(certificate: bytes) -> tuple[bytes, bytes]:
    """A CA's subject and SubjectPublicKeyInfo in DER, byte for byte as its certificate has them."""
    tbs = next(der.elements(der.content(certificate)))
    fields = list(der.elements(der.content(tbs)))
    return fields[5], fields[6]


def key_identifier(certificate: bytes) -> bytes:
    """The subjectKeyIdentifier of a CA's certificate."""
    extensions = x509.load_der_x509_certificate(certificate).extensions
    return extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
