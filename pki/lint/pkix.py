"""A second opinion from people who did not write our builder: pkilint's requirements, in process.

RFC 5280 for every profile; the S/MIME baseline requirements (strict) and ETSI EN 319 412 for mail, the TLS
ones for operators' servers. It takes some milliseconds a certificate and a second to load. `pool` keeps it
warm in processes of its own, and a bulk issuance may leave it out. Our own lints are never left out.
"""

from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from pki.certificates.profiles import APPLICATION, OPERATOR_SERVER, ORGANISATION, PRACTITIONER, PROFILES
from pki.lint.accepted import ACCEPTED, ACCEPTED_OF
from pki.lint.lint import Finding

# What is wrong with a certificate of this profile, and what is only advised against.
SecondOpinion = Callable[[bytes, str], tuple[list[Finding], list[Finding]]]

CITATIONS: Mapping[str, str] = MappingProxyType(
    {
        "pkix": "RFC 5280 and its updates, as pkilint reads them",
        "smime-individual": "S/MIME BR, individual-validated, strict, as pkilint reads them",
        "smime-organization": "S/MIME BR, organization-validated, strict, as pkilint reads them",
        "etsi-natural": "ETSI EN 319 412-2, NCP for natural persons, as pkilint reads it",
        "etsi-legal": "ETSI EN 319 412-3, NCP for legal persons, as pkilint reads it",
        "tls": "TLS BR, domain-validated, as pkilint reads them",
    }
)
# Whose requirements a profile and its variants are held against, beside RFC 5280.
REQUIREMENTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        PRACTITIONER.name: ("smime-individual", "etsi-natural"),
        ORGANISATION.name: ("smime-organization", "etsi-legal"),
        APPLICATION.name: ("smime-organization", "etsi-legal"),
        OPERATOR_SERVER.name: ("tls",),
    }
)
_FATAL = frozenset({"ERROR", "FATAL"})
# What it marks lower still says only what it saw.
_ADVICE = frozenset({"WARNING", "NOTICE"})


def findings(der: bytes, profile: str = "") -> tuple[list[Finding], list[Finding]]:
    """What is wrong with this certificate, and what is only advised against; what is accepted is in neither.

    `profile` is a profile's name; without one only RFC 5280 is asked.
    """
    from pkilint import loader  # noqa: PLC0415 - a second to load, only where wanted

    wrong: dict[str, Finding] = {}
    advised: dict[str, Finding] = {}
    family = PROFILES[profile].family if profile in PROFILES else profile
    known = ACCEPTED.keys() | ACCEPTED_OF.get(profile, {}).keys()
    container, asked_by = _container(("pkix", *REQUIREMENTS.get(family, ())))
    for result in container.validate(loader.load_certificate(der, "").root):
        for described in result.finding_descriptions:
            severity, code = described.finding.severity.name, described.finding.code
            if code in known:
                continue
            citation = CITATIONS[asked_by.get(id(result.validator), "pkix")]
            finding = Finding(f"pkilint:{code}", citation, described.message or code)
            if severity in _FATAL:
                # Who said it first is enough.
                wrong.setdefault(code, finding)
            elif severity in _ADVICE:
                advised.setdefault(code, finding)
    return list(wrong.values()), list(advised.values())


def warm() -> None:
    """Load what every profile is held against now, so that the first certificate does not wait for it."""
    for requirements in ((), *REQUIREMENTS.values()):
        _container(("pkix", *requirements))


@cache
def _container(requirements: tuple[str, ...]) -> tuple[Any, Mapping[int, str]]:
    """All that these sets ask, in one walk through a certificate decoded once; and who asked, by `id()`.

    The sets repeat one another: what two ask in the same words is asked once, for the first. The certificate
    is decoded as the second set does it, which is the strictest. It has more kinds of names and extensions
    than RFC 5280, and keeps the lengths that ETSI lets go.
    """
    from pkilint.pkix import certificate  # noqa: PLC0415 - a second to load, only where wanted

    from pki.lint.walk import merge, walking  # noqa: PLC0415 - as above

    made = [_set(requirement) for requirement in requirements]
    merged: list[Any] = []
    asked_by: dict[int, str] = {}
    for requirement, (_, validators) in zip(requirements, made, strict=True):
        for leaf in merge(merged, validators):
            asked_by[id(leaf)] = requirement
    decoding, _ = made[min(1, len(made) - 1)]
    whole = certificate.create_pkix_certificate_validator_container(decoding, merged)
    return walking(whole), asked_by


def _set(requirement: str) -> tuple[Any, list[Any]]:
    """How a set of requirements decodes a certificate, and what it asks of it."""
    kind, _, level = requirement.partition("-")
    return {"pkix": _pkix, "smime": _smime, "etsi": _etsi, "tls": _tls}[kind](level)


def _pkix(_: str) -> tuple[Any, list[Any]]:
    from pkilint.pkix import certificate, extension, name  # noqa: PLC0415 - as above

    decoding = certificate.create_decoding_validators(
        name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS
    )
    return decoding, [
        certificate.create_issuer_validator_container([]),
        certificate.create_validity_validator_container(),
        certificate.create_subject_validator_container([]),
        certificate.create_extensions_validator_container([]),
        certificate.create_spki_validator_container([]),
    ]


def _smime(level: str) -> tuple[Any, list[Any]]:
    from pkilint.cabf import smime  # noqa: PLC0415 - as above
    from pkilint.cabf.smime.smime_constants import Generation, ValidationLevel  # noqa: PLC0415 - as above

    made = smime.create_subscriber_validators(ValidationLevel[level.upper()], Generation.STRICT)
    return smime.create_decoding_validators(), made


def _etsi(level: str) -> tuple[Any, list[Any]]:
    from pkilint import etsi  # noqa: PLC0415 - as above
    from pkilint.etsi.etsi_constants import CertificateType  # noqa: PLC0415 - as above

    kind = CertificateType[f"NCP_{level.upper()}_PERSON_CERTIFICATE"]
    return etsi.create_decoding_validators(kind), etsi.create_validators(kind)


def _tls(_: str) -> tuple[Any, list[Any]]:
    from pkilint.cabf import serverauth  # noqa: PLC0415 - as above
    from pkilint.cabf.serverauth.serverauth_constants import CertificateType  # noqa: PLC0415 - as above

    made = serverauth.create_validators(CertificateType.DV_FINAL_CERTIFICATE)
    return serverauth.create_decoding_validators(), made
