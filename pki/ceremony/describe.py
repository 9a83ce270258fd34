"""A certificate to be in words, for those who review a ceremony: every field and extension, as it is signed.

Laid out as `openssl x509 -text` does, so that the two can be read side by side.
"""

from collections.abc import Iterator

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, ExtensionOID

from pki.certificates.builder import subject_text

PLACEHOLDER = "(drawn at random when it is signed)"
KEY_PLACEHOLDER = "(made, or found, when it is signed)"
_NAMES = {
    ExtensionOID.BASIC_CONSTRAINTS: "X509v3 Basic Constraints",
    ExtensionOID.KEY_USAGE: "X509v3 Key Usage",
    ExtensionOID.SUBJECT_KEY_IDENTIFIER: "X509v3 Subject Key Identifier",
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER: "X509v3 Authority Key Identifier",
    ExtensionOID.CERTIFICATE_POLICIES: "X509v3 Certificate Policies",
    ExtensionOID.EXTENDED_KEY_USAGE: "X509v3 Extended Key Usage",
    ExtensionOID.AUTHORITY_INFORMATION_ACCESS: "Authority Information Access",
    ExtensionOID.CRL_DISTRIBUTION_POINTS: "X509v3 CRL Distribution Points",
}
_PURPOSES = {
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "E-mail Protection",
    ExtendedKeyUsageOID.CLIENT_AUTH: "TLS Web Client Authentication",
}
_USES = {"key_cert_sign": "Certificate Sign", "crl_sign": "CRL Sign"}


def describe(title: str, certificate: x509.Certificate, *, drawn: bool = False) -> str:
    """The to-be-signed part in words; `drawn` while serial number and key are placeholders."""
    return "\n".join([f"Certificate: {title}", *(f"    {line}" for line in _lines(certificate, drawn=drawn))])


def _lines(certificate: x509.Certificate, *, drawn: bool) -> Iterator[str]:
    algorithm = certificate.signature_hash_algorithm
    yield "Version: 3 (0x2)"
    yield f"Serial Number: {PLACEHOLDER if drawn else f'{certificate.serial_number:040x}'}"
    yield f"Signature Algorithm: ecdsa-with-{algorithm.name.upper() if algorithm else '?'}"
    yield f"Issuer: {subject_text(certificate.issuer)}"
    yield "Validity"
    yield f"    Not Before: {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC"
    yield f"    Not After : {certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC"
    yield f"Subject: {subject_text(certificate.subject)}"
    yield from _key(certificate, drawn=drawn)
    yield "X509v3 extensions:"
    for extension in certificate.extensions:
        name = _NAMES.get(extension.oid, extension.oid.dotted_string)
        yield f"    {name}:{' critical' if extension.critical else ''}"
        yield from (f"        {line}" for line in _value(extension.value, drawn=drawn))


def _key(certificate: x509.Certificate, *, drawn: bool) -> Iterator[str]:
    key = certificate.public_key()
    if not isinstance(key, EllipticCurvePublicKey):
        raise TypeError("CA keys are P-256 or P-384")
    yield f"Public Key: id-ecPublicKey, {key.curve.name} ({key.curve.key_size} bit)"
    bits = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    yield f"    {KEY_PLACEHOLDER if drawn else bits.hex(':')}"


def _value(value: x509.ExtensionType, *, drawn: bool) -> Iterator[str]:  # noqa: C901, PLR0912 - one case a kind
    match value:
        case x509.BasicConstraints():
            limit = "" if value.path_length is None else f", pathlen:{value.path_length}"
            yield f"CA:{'TRUE' if value.ca else 'FALSE'}{limit}"
        case x509.KeyUsage():
            yield ", ".join(words for name, words in _USES.items() if getattr(value, name))
        case x509.ExtendedKeyUsage():
            yield ", ".join(_PURPOSES[purpose] for purpose in value)
        case x509.SubjectKeyIdentifier():
            yield KEY_PLACEHOLDER if drawn else value.digest.hex(":")
        case x509.AuthorityKeyIdentifier():
            known = value.key_identifier or b""
            yield "(its issuer's)" if drawn else known.hex(":")
        case x509.CertificatePolicies():
            for policy in value:
                yield f"Policy: {policy.policy_identifier.dotted_string}"
        case x509.AuthorityInformationAccess():
            for access in value:
                ocsp = access.access_method == AuthorityInformationAccessOID.OCSP
                yield f"{'OCSP' if ocsp else 'CA Issuers'} - URI:{access.access_location.value}"
        case x509.CRLDistributionPoints():
            for point in value:
                for name in point.full_name or ():
                    yield f"URI:{name.value}"
        case _:
            yield value.public_bytes().hex(":")
