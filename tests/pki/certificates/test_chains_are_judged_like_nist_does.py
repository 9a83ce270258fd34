"""NIST's path validation suite (PKITS) against our own chain check. Nothing invalid passes, and every valid
chain that is refused has its reason written here.

An end entity's expected outcome is the first word of its name. Those that begin otherwise depend on policies
that the reader brings along, and are left out.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import cryptography_vectors
import pytest
from cryptography import x509

from directory.base.errors import Refusal
from pki.certificates import path_validation

PKITS = Path(cryptography_vectors.__file__).parent / "x509" / "PKITS_data"
AT = datetime(2012, 1, 1, tzinfo=UTC)
ROOT = "TrustAnchorRootCertificate"
# None of our CAs makes such things, and to half understand them would be worse than to refuse.
REFUSED_THOUGH_VALID = {
    "name constraints": r"nameConstraints",
    "rules about policies": r"(requireExplicitPolicy|inhibitPolicyMapping|PolicyMapping|inhibitAnyPolicy)",
    "CRLs for some reasons only": r"onlySomeReasons",
    "CRLs of others, or of other keys": (
        r"(cRLIssuer|indirectCRL|SeparateCertificateandCRLKeys|SelfIssuedCRLSigningKey|NewWithOldTest4"
        r"|OldWithNewTest1|SelfIssuedpathLenConstraint)"
    ),
    "points named relative to their issuer": r"distributionPointTest[457]",
    "DSA": r"DSA",
    "names compared letter by letter": r"(NameChaining(Capitalization|Whitespace)|CaseInsensitiveMatch)",
    "names in two alphabets": r"PrintableStringtoUTF8String",
}


@dataclass(frozen=True)
class Suite:
    """The certificates by name, but those whose bytes are refused; the CRLs."""

    certificates: dict[str, x509.Certificate]
    unreadable: tuple[str, ...]
    lists: tuple[x509.CertificateRevocationList, ...]

    @property
    def others(self) -> Sequence[x509.Certificate]:
        return [one for name, one in self.certificates.items() if not name.endswith("EE") and name != ROOT]

    def verdict(self, name: str) -> str:
        leaf = self.certificates[name]
        try:
            path_validation.find_path(leaf, self.certificates[ROOT], self.others, self.lists, AT)
        except Refusal as refusal:
            return refusal.code
        return "accepted"


@pytest.fixture(scope="module")
def suite() -> Suite:
    certificates, unreadable = {}, []
    # Two have a negative serial number, which is what they are there for.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in sorted((PKITS / "certs").glob("*.crt")):
            try:
                certificates[path.stem] = x509.load_der_x509_certificate(path.read_bytes())
            except ValueError:
                unreadable.append(path.stem)
        lists = [x509.load_der_x509_crl(path.read_bytes()) for path in sorted((PKITS / "crls").glob("*.crl"))]
    return Suite(certificates, tuple(unreadable), tuple(lists))


@pytest.mark.filterwarnings("ignore:Parsed a serial number:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Parsed a serial number:cryptography.utils.CryptographyDeprecationWarning")
def test_nothing_invalid_passes(suite: Suite) -> None:
    invalid = [name for name in suite.certificates if re.match(r"Invalid.*EE$", name)]
    assert len(invalid) > 100
    assert [name for name in invalid if suite.verdict(name) == "accepted"] == []


@pytest.mark.filterwarnings("ignore:Parsed a serial number:cryptography.utils.CryptographyDeprecationWarning")
def test_whatever_valid_is_refused_has_a_written_reason_and_every_reason_is_used(suite: Suite) -> None:
    verdicts = {name: suite.verdict(name) for name in suite.certificates if re.match(r"Valid.*EE$", name)}
    verdicts |= {name: "unreadable" for name in suite.unreadable if name.endswith("EE")}
    refused = {name for name, verdict in verdicts.items() if verdict != "accepted"}
    used, without = set(), []
    for name in refused:
        reasons = {why for why, form in REFUSED_THOUGH_VALID.items() if re.search(form, name)}
        used |= reasons
        without += [] if reasons else [name]
    assert (without, used) == ([], set(REFUSED_THOUGH_VALID))
    assert len(verdicts) - len(refused) > 25


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("InvalidEESignatureTest3EE", "path-signature"),
        ("InvalidCAnotAfterDateTest5EE", "path-not-in-force"),
        ("InvalidNameChainingTest1EE", "path-not-found"),
        ("InvalidMissingCRLTest1EE", "path-status-unknown"),
        ("InvalidRevokedEETest3EE", "path-revoked"),
        ("InvalidRevokedCATest2EE", "path-revoked"),
        ("InvalidcAFalseTest2EE", "path-not-authority"),
        ("InvalidpathLenConstraintTest5EE", "path-too-long"),
        ("InvalidkeyUsageCriticalkeyCertSignFalseTest1EE", "path-not-authority"),
        ("InvalidUnknownCriticalCertificateExtensionTest2EE", "path-critical-extension"),
        ("InvaliddeltaCRLTest3EE", "path-revoked"),
        ("InvalidDNnameConstraintsTest2EE", "path-constrained"),
    ],
)
def test_a_refusal_says_what_is_wrong(suite: Suite, name: str, code: str) -> None:
    assert suite.verdict(name) == code


@pytest.mark.parametrize("name", ["ValiddeltaCRLTest2EE", "ValiddeltaCRLTest5EE", "ValiddeltaCRLTest7EE"])
def test_a_delta_that_releases_or_says_nothing_lets_pass(suite: Suite, name: str) -> None:
    assert suite.verdict(name) == "accepted"
