"""The last look at a certificate before its bytes are reserved: our own lints, then a second opinion.

The lints are in the files of their themes; the signer runs them once more (`pki/signing/inspection.py`).
"""

from collections.abc import Mapping

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from directory.base.errors import Kind, Refusal
from pki.certificates.builder import certificate_of
from pki.certificates.profiles import Profile
from pki.lint import pkix
from pki.lint.catalogue import LINTS
from pki.lint.lint import Case, Finding, run
from pki.model import Authority


def check(
    candidate: x509.Certificate,
    profile: Profile,
    authority: Authority,
    mailbox: str | None,
    *,
    opinion: pkix.SecondOpinion | None,
) -> list[Mapping[str, str]]:
    """Lint; refuse `lint-failed` on a fault, give back what is only advice; None asks for no second opinion.

    Refuses `lint-unavailable` when the second opinion was asked for and did not come.
    """
    case = Case(
        candidate, profile, certificate_of(authority.der), mailbox, authority.crl_form, authority.role
    )
    wrong = run(LINTS, case)
    advised: list[Finding] = []
    if opinion is not None and not wrong:
        wrong, advised = opinion(candidate.public_bytes(Encoding.DER), profile.name)
    if wrong:
        text = f"The certificate would break a rule: {wrong[0].lint}: {wrong[0].text}."
        rows = [finding.as_row() for finding in wrong]
        raise Refusal(Kind.UNACCEPTABLE, "lint-failed", text, findings=rows)
    return [finding.as_row() for finding in advised]
