"""From the plan to bytes: each certificate before its signature, held against every lint. Pure.

A dry run, the ceremony, the offline machine and the intake of certificates signed elsewhere draw alike. So
the reviewed bytes are the signed bytes, and the signed bytes are taken in.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from directory.base.errors import Kind, Refusal
from pki.ceremony.plan import Plan, Planned, PlannedAuthority
from pki.certificates.builder import Issuer, unsigned
from pki.certificates.profiles import BACKDATING
from pki.lint.catalogue import LINTS
from pki.lint.lint import Case, run
from pki.model import CrlForm, Serial

LEAST_RSA_OF_CA = 4096
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Parent:
    """The root that will sign: its id and its certificate."""

    id: str
    certificate: x509.Certificate


def span(planned: Planned, parent: Parent | None, now: datetime) -> tuple[datetime, datetime]:
    """First and last second; refuses `beyond-issuer`, where a shorter life would be another than reviewed."""
    start = (now - BACKDATING).astimezone(UTC).replace(microsecond=0)
    if parent is not None:
        start = max(start, parent.certificate.not_valid_before_utc)
    end = start + timedelta(days=planned.days) - _SECOND
    if parent is not None and end > parent.certificate.not_valid_after_utc:
        text = f"{planned.id} would end after its issuer {parent.id}, which ends on "
        text += f"{parent.certificate.not_valid_after_utc:%Y-%m-%d}: fewer `days` are left."
        raise Refusal(Kind.UNACCEPTABLE, "beyond-issuer", text)
    return start, end


def draw(
    plan: Plan,
    planned: Planned,
    key: EllipticCurvePublicKey,
    parent: Parent | None,
    *,
    serial: Serial,
    validity: tuple[datetime, datetime],
) -> x509.Certificate:
    """The certificate to be, under a signature that counts for nothing."""
    subject = planned if isinstance(planned, PlannedAuthority) else plan.authority(planned.subject)
    return unsigned(
        serial=serial, profile=planned.profile, names=subject.names, public_key=key,
        issuer=_issuer(planned, key, parent), validity=validity, urls=plan.urls, shard=0,
    )  # fmt: skip


def check(planned: Planned, certificate: x509.Certificate, parent: Parent | None) -> None:
    """Refuse `lint-failed` when this certificate breaks a rule of its profile."""
    findings = run(LINTS, Case(certificate, planned.profile, None if parent is None else parent.certificate))
    if findings:
        text = f"{planned.id} would break a rule: {findings[0].lint}: {findings[0].text}."
        rows = [finding.as_row() for finding in findings]
        raise Refusal(Kind.UNACCEPTABLE, "lint-failed", text, findings=rows)


def ec_key(certificate: x509.Certificate) -> EllipticCurvePublicKey:
    """The key of a CA's certificate; refuses `ca-key-unfit` for one that no CA here may have."""
    key = certificate.public_key()
    if not isinstance(key, EllipticCurvePublicKey):
        raise unfit_key(key)
    return key


def unfit_key(key: object) -> Refusal:
    """Why a CA does not get this key, which is on no curve."""
    what = "This key is not on a curve"
    if isinstance(key, RSAPublicKey):
        what = f"This key is RSA of {key.key_size} bits"
        # CA/B Forum, from 2026-09-15 on.
        what += f", below the {LEAST_RSA_OF_CA} that a CA's has at least" * (key.key_size < LEAST_RSA_OF_CA)
    return Refusal(Kind.UNACCEPTABLE, "ca-key-unfit", f"{what}: CAs here have keys on P-256 or P-384.")


def _issuer(planned: Planned, key: EllipticCurvePublicKey, parent: Parent | None) -> Issuer:
    if parent is None:
        return Issuer(planned.id, None, key, CrlForm.PLAIN)
    # Only roots certify CAs, and their CRLs are plain.
    return Issuer(parent.id, parent.certificate, ec_key(parent.certificate), CrlForm.PLAIN)
