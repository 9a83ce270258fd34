"""A second RFC 5280 validator, written by others, agrees: chain, CRL, OCSP, before and after a revocation."""

import asyncio
import base64
import urllib.request
from urllib.parse import quote

import pytest
from asn1crypto import crl as asn1_crl
from asn1crypto import ocsp as asn1_ocsp
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from pyhanko_certvalidator import CertificateValidator, ValidationContext
from pyhanko_certvalidator.errors import RevokedError

from tests.stories.installation.conftest import Installation, within


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as reply:
        return bytes(reply.read())


def published(installation: Installation, address: str) -> bytes:
    ldif = installation.search(f"(mail={address})", "userCertificate;binary").split(
        "userCertificate;binary:: "
    )[1]
    return base64.b64decode(ldif.split("\n", 1)[0])


def validate(installation: Installation, der: bytes, *, by: str) -> None:
    """Validate with nothing but what is published, revocation required; raises what the validator raises."""
    root, issuer = (fetch(f"{installation.web}/ca/{name}.cer") for name in ("root-1", "persons-1"))
    certificate, parent = x509.load_der_x509_certificate(der), x509.load_der_x509_certificate(issuer)
    lists = [fetch(f"{installation.web}/crl/root-1/0.crl")]
    answers = []
    if by == "crl":
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
        assert points[0].full_name is not None
        lists.append(fetch(points[0].full_name[0].value))
    else:
        request = ocsp.OCSPRequestBuilder().add_certificate(certificate, parent, hashes.SHA256()).build()
        path = quote(base64.b64encode(request.public_bytes(Encoding.DER)).decode(), safe="")
        answers.append(asn1_ocsp.OCSPResponse.load(fetch(f"{installation.web}/ocsp/{path}")))
    context = ValidationContext(
        trust_roots=[asn1_x509.Certificate.load(root)],
        crls=[asn1_crl.CertificateList.load(one) for one in lists],
        ocsps=answers,
        revocation_mode="require",
        allow_fetching=False,
    )
    validator = CertificateValidator(
        asn1_x509.Certificate.load(der), [asn1_x509.Certificate.load(issuer)], validation_context=context
    )
    asyncio.run(
        validator.async_validate_usage({"digital_signature"}, extended_key_usage={"email_protection"})
    )


@pytest.mark.parametrize("by", ["crl", "ocsp"])
def test_an_independent_validator_accepts_and_after_a_revocation_refuses(
    installation: Installation, person: tuple[str, str, str], by: str
) -> None:
    address, serial, _ = person
    der = published(installation, address)
    validate(installation, der, by=by)
    installation.sceau("revoke", serial, "--reason", "superseded", "--as", "registrar_a")

    def refused() -> bool:
        try:
            validate(installation, der, by=by)
        except RevokedError:
            return True
        return False

    within(60 if by == "crl" else 10, refused)
