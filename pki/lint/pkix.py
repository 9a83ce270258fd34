"""A second opinion from people who did not write our builder: pkilint's RFC 5280 checks, in process.

Costs about 3 ms a certificate and a second to load, so it is loaded when first wanted, and a bulk issuance
may leave it out (our own lints are never left out).
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from pki.lint.lint import Finding

CITATION = "RFC 5280 and its updates, as pkilint reads them"
_FATAL = frozenset({"ERROR", "FATAL"})
# What it marks lower still says only what it saw.
_ADVICE = frozenset({"WARNING", "NOTICE"})


def findings(der: bytes) -> tuple[list[Finding], list[Finding]]:
    """What is wrong with this certificate, and what is only advised against."""
    wrong: list[Finding] = []
    advised: list[Finding] = []
    for severity, code, message in _validate(der):
        finding = Finding(f"pkilint:{code}", CITATION, message or code)
        if severity in _FATAL:
            wrong.append(finding)
        elif severity in _ADVICE:
            advised.append(finding)
    return wrong, advised


def _validate(der: bytes) -> list[tuple[str, str, str]]:
    load, container = _linter()
    return [
        (described.finding.severity.name, described.finding.code, described.message or "")
        for result in container.validate(load(der, "").root)
        for described in result.finding_descriptions
    ]


@cache
def _linter() -> tuple[Callable[[bytes, str], Any], Any]:
    from pkilint import loader  # noqa: PLC0415 - a second to load, only where wanted
    from pkilint.pkix import certificate, extension, name  # noqa: PLC0415 - same

    container = certificate.create_pkix_certificate_validator_container(
        certificate.create_decoding_validators(name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS),
        [
            certificate.create_issuer_validator_container([]),
            certificate.create_validity_validator_container(),
            certificate.create_subject_validator_container([]),
            certificate.create_extensions_validator_container([]),
            certificate.create_spki_validator_container([]),
        ],
    )
    return loader.load_certificate, container
