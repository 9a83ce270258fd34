"""What a lint is, what it is shown, and the run of many. The lints are in the files of their themes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cryptography import x509

from pki.certificates.profiles import Profile
from pki.model import CrlForm

ROOT_ROLE = "root"


@dataclass(frozen=True)
class Case:
    """A certificate to be, its profile, and the CA it names; `issuer` is None for a root.

    `crl_form` and `role` are that CA's.
    """

    certificate: x509.Certificate
    profile: Profile
    issuer: x509.Certificate | None
    mailbox: str | None = None
    crl_form: CrlForm = CrlForm.PLAIN
    role: str = ROOT_ROLE


@dataclass(frozen=True)
class Lint:
    """One check: `check` yields a sentence for each fault it finds, nothing when all is well."""

    name: str
    citation: str
    check: Callable[[Case], Iterable[str]]


@dataclass(frozen=True)
class Finding:
    """A fault, the lint that found it, and the rule it breaks."""

    lint: str
    citation: str
    text: str

    def as_row(self) -> Mapping[str, str]:
        """The finding as the reservation keeps it."""
        return {"lint": self.lint, "citation": self.citation, "text": self.text}


def run(lints: Sequence[Lint], case: Case) -> list[Finding]:
    """Every fault that these lints find."""
    return [Finding(lint.name, lint.citation, text) for lint in lints for text in lint.check(case)]
