"""Values of a verdict: its answer, its reasons about certificates, and the facts it rests on.

Three of them are tuples by name: frozen as well, and made in a quarter of the time, 100,000 in a second.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from pki.model import Purpose, Serial


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


class CertificateFacts(NamedTuple):
    """One certificate of a mailbox, what for and for whom it was made, what had become of it then.

    `der` is empty where nobody asked for it. `establishment` is the FINESS number in its subject, None when
    it names none.
    """

    serial: Serial
    der: bytes
    sha256: bytes
    not_before: datetime
    not_after: datetime
    purposes: frozenset[Purpose]
    practitioner: str | None = None
    revoked_at: datetime | None = None
    on_hold: bool = False
    establishment: str | None = None


class Side(NamedTuple):
    """One side of an exchange as far as a verdict rests on it, at one instant.

    `standing` is what stands against the mailbox, without its certificates; `certificates` are those made for
    whoever holds it, longest-lived first. `changes_at` is when a measure against somebody whom it rests on
    begins or ends next.
    """

    standing: tuple[str, ...]
    is_known: bool = False
    certificates: tuple[CertificateFacts, ...] = ()
    changes_at: datetime | None = None


class Verdict(NamedTuple):
    """May these exchange, why not (every reason that applies), with which certificates, until when."""

    address: str
    answer: Answer
    reasons: tuple[str, ...]
    decided_at: datetime
    as_of: datetime
    valid_until: datetime
    sources: Mapping[str, datetime | None] = MappingProxyType({})
    certificates: tuple[CertificateFacts, ...] = ()
