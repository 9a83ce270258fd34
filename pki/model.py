"""The PKI's values: serials, reasons, certificates, enrolments, verdicts. Frozen, without SQL or network."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from ssl import DER_cert_to_PEM_cert
from typing import Any, NewType
from uuid import UUID

# 40 lower-case hexadecimal digits: the one form of a serial inside; others are converted at the edge.
Serial = NewType("Serial", str)


def serial_of(number: int) -> Serial:
    """The canonical form of a serial number; ValueError outside 0 < n < 2^159 (RFC 5280 4.1.2.2)."""
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

# The reason beside those of `SerialStatus` and `CertificateReason`: of so long ago nothing is known.
BEFORE_OUR_RECORDS = "before-our-records"


class Purpose(Enum):
    """What the key of a mailbox is for (RFC 8550 4.4.2): to sign what it sends, to decrypt what it gets."""

    SIGNATURE = "signature"
    ENCRYPTION = "encryption"


# One key for both.
JOINED = frozenset(Purpose)


class MailKeys(Enum):
    """Whether a mailbox gets one certificate for both purposes, or one for each, on a key of its own."""

    JOINED = "joined"
    SEPARATE = "separate"


class AuthorityState(Enum):
    """Made and waiting, issuing, or issuing no more; of all three CRL and OCSP go on."""

    STANDBY = "standby"
    ACTIVE = "active"
    RETIRED = "retired"


class CrlForm(Enum):
    """How a CA says what it revoked, fixed when it is made: its certificates point to it for their lives.

    Plain: one complete CRL, no issuingDistributionPoint, no deltas, as GnuPG, NSS and old validators read it.
    National: in shards, with deltas, for more than one list can carry.
    """

    PLAIN = "plain"
    NATIONAL = "national"


@dataclass(frozen=True)
class Authority:
    """One CA: its certificate, and the name of a key that only the signer knows.

    `role` says what it is for (`root`, `persons`, `organisations`, `servers`), `offline` that the signer
    lacks its key.
    """

    id: str
    kind: str
    issuer_id: str | None
    subject: str
    key_name: str
    shards: int
    der: bytes
    not_before: datetime
    not_after: datetime
    role: str
    generation: int
    state: AuthorityState
    offline: bool
    crl_form: CrlForm


@dataclass(frozen=True)
class Reservation:
    """A serial and the exact bytes that may be signed under it, as committed before any signature."""

    serial: Serial
    authority_id: str
    profile: str
    shard: int
    mailbox: str | None
    practitioner: str | None
    enrolment_id: UUID | None
    spki_sha256: bytes
    tbs: bytes
    tbs_sha256: bytes
    reserved_at: datetime


@dataclass(frozen=True)
class IssuedCertificate:
    """A certificate that has been handed out, or could have been; `not_after` is the last second it holds."""

    serial: Serial
    authority_id: str
    profile: str
    shard: int
    mailbox: str | None
    practitioner: str | None
    subject: str
    spki_sha256: bytes
    der: bytes
    sha256: bytes
    not_before: datetime
    not_after: datetime
    issued_at: datetime

    @property
    def pem(self) -> str:
        """The certificate in PEM (RFC 7468)."""
        return DER_cert_to_PEM_cert(self.der)


class EnrolmentState(Enum):
    """Asked for by one registrar, approved by another, ended (departure, closure)."""

    REQUESTED = "requested"
    APPROVED = "approved"
    ENDED = "ended"


@dataclass(frozen=True)
class Enrolment:
    """A person vouched for by two registrars of one authority, for one mailbox (own or answered for).

    `requested_by` and `approved_by` are token ids; `identity_check` has `method`, `document`, `checked_on`.
    `names` is what it certifies, as recorded with the request (`pki/registration/vouched_names.py`), None
    without one.
    """

    id: UUID
    practitioner: str
    mailbox: str
    authority: str
    identity_check: Mapping[str, str]
    state: EnrolmentState
    requested_by: int
    requested_at: datetime
    approved_by: int | None = None
    approved_at: datetime | None = None
    ended_at: datetime | None = None
    names: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class EnrolmentAct:
    """What one person signed for an enrolment (`pki/acts`), and when it was handed in.

    `kind`, `person` and `credential` are what the text says; `signed` proves it, and they prove nothing.
    """

    enrolment_id: UUID
    kind: str
    person: str
    credential: str
    signed: bytes
    at: datetime


class RevocationAction(Enum):
    """Revoked for good, put on hold, or released from hold."""

    REVOKE = "revoke"
    HOLD = "hold"
    RELEASE = "release"


@dataclass(frozen=True)
class Revocation:
    """One event in the life of a certificate that was taken back; the last one is its state.

    `revoked_at` is the date that counts; `recorded_at` when it was written down, where that was later.
    `restates` is the number of the event whose reason this one corrects.
    """

    serial: Serial
    action: RevocationAction
    reason: RevocationReason
    comment: str
    actor: str
    revoked_at: datetime
    not_after: datetime
    restates: int | None = None
    recorded_at: datetime | None = None


@dataclass(frozen=True)
class SerialStatus:
    """What the record says of one serial of one CA at one instant: issued or not, and its last event.

    `certificate_sha256` is None for what was never issued; `action` and `reason` are those of the last event.
    `changes_at` is the next instant at which a measure against its holder begins or ends.
    """

    certificate_sha256: bytes | None
    action: str | None = None
    reason: str | None = None
    revoked_at: datetime | None = None
    changes_at: datetime | None = None
