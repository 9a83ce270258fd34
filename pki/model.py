"""The PKI's values: serials, reasons, statuses, verdicts. Frozen, without SQL or network."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import NewType

# 40 lower-case hexadecimal digits: the one form of a serial inside; other spellings are converted at the edge.
Serial = NewType("Serial", str)


def serial_of(number: int) -> Serial:
    """The canonical form of a serial number; ValueError outside 0 < n < 2^159 (RFC 5280 4.1.2.2, 20 octets)."""
    if not 0 < number < 1 << 159:
        raise ValueError("serial number out of range")
    return Serial(f"{number:040x}")


class RevocationReason(Enum):
    """RFC 5280 5.3.1, without the two that would say nothing (unspecified) or undo (removeFromCRL)."""

    KEY_COMPROMISE = "keyCompromise"
    CA_COMPROMISE = "cACompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"
    CERTIFICATE_HOLD = "certificateHold"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"


REASON_CODES = {
    RevocationReason.KEY_COMPROMISE: 1,
    RevocationReason.CA_COMPROMISE: 2,
    RevocationReason.AFFILIATION_CHANGED: 3,
    RevocationReason.SUPERSEDED: 4,
    RevocationReason.CESSATION_OF_OPERATION: 5,
    RevocationReason.CERTIFICATE_HOLD: 6,
    RevocationReason.PRIVILEGE_WITHDRAWN: 9,
}


class CertificateReason(Enum):
    """What keeps a mailbox's certificates from being used; the last lines of the verdict's checks."""

    NO_CERTIFICATE = "no-certificate"
    REVOKED = "certificate-revoked"
    EXPIRED = "certificate-expired"
    ON_HOLD = "certificate-on-hold"


class Answer(Enum):
    """The verdict's three answers; only `allowed` allows."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class CertificateFacts:
    """One certificate of a mailbox and what had become of it at the instant asked about."""

    serial: Serial
    der: bytes
    sha256: bytes
    not_before: datetime
    not_after: datetime
    revoked_at: datetime | None = None
    on_hold: bool = False


@dataclass(frozen=True)
class Verdict:
    """May these exchange, why not (every reason that applies), with which certificates, and how long it holds."""

    address: str
    answer: Answer
    reasons: tuple[str, ...]
    decided_at: datetime
    as_of: datetime
    valid_until: datetime
    sources: dict[str, datetime | None] = field(default_factory=dict)
    certificates: tuple[CertificateFacts, ...] = ()
