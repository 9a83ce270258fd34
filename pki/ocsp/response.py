"""OCSP: a question and the record to an outcome, outcomes to an answer's bytes.

Pure: questions come from `request`, rows from `store`, keys from `responders`, HTTP from
`api/status`. The answer is assembled here in DER because it carries archiveCutoff and CertHash, and may be
about several certificates, which `cryptography` cannot write.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from hashlib import sha1, sha256
from typing import Protocol

from directory.base.tlv import tlv
from pki.certificates import der
from pki.certificates.profiles import BACKDATING
from pki.model import REASON_CODES, RevocationReason, Serial, SerialStatus
from pki.ocsp.request import HASHES, Question, Request

_DIGESTS = {
    # Used to find a name, not to protect one (RFC 6960 4.1.1).
    "sha1": lambda data: sha1(data, usedforsecurity=False).digest(),
    "sha256": lambda data: sha256(data).digest(),
}
_HASH_ALGORITHMS = {
    "sha1": der.sequence(der.oid("1.3.14.3.2.26"), der.NULL),
    "sha256": der.sequence(der.oid("2.16.840.1.101.3.4.2.1"), der.NULL),
}
_BASIC = der.oid("1.3.6.1.5.5.7.48.1.1")
_NONCE = "1.3.6.1.5.5.7.48.1.2"
_ARCHIVE_CUTOFF = "1.3.6.1.5.5.7.48.1.6"
_CERT_HASH = "1.3.36.8.3.13"
_EXTENDED_REVOKE = "1.3.6.1.5.5.7.48.1.9"
# RFC 6960 2.2: what was never issued is revoked from then on, as certificateHold.
_BEFORE_ALL = datetime(1970, 1, 1, tzinfo=UTC)
# As far as the clock of the database, which dates what is done, may be ahead of one that signs.
_TOLERATED = timedelta(minutes=1)
_SHA256 = der.sequence(der.oid("2.16.840.1.101.3.4.2.1"))
_ECDSA_SHA256 = der.sequence(der.oid("1.2.840.10045.4.3.2"))


class Outcome(Enum):
    """What an answer says: the statuses of a certificate, then the errors that carry no signature."""

    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"
    NEVER_ISSUED = "revoked, in the extended sense of RFC 6960 2.2"
    MALFORMED = "malformedRequest"
    UNAUTHORIZED = "unauthorized"
    TRY_LATER = "tryLater"


@dataclass(frozen=True)
class Issuer:
    """A CA whose certificates are answered for; the two maps hold its name's and key's digest by hash."""

    authority_id: str
    not_before: datetime
    name_hashes: Mapping[str, bytes]
    key_hashes: Mapping[str, bytes]


@dataclass(frozen=True)
class Finding:
    """What is to be said about one certificate."""

    question: Question
    outcome: Outcome
    standing: SerialStatus


class Responder(Protocol):
    """A key that signs for one CA (`responders`): its certificate in DER, the SHA-1 of its key."""

    @property
    def certificate(self) -> bytes:
        """DER, sent along with each answer."""
        ...

    @property
    def key_hash(self) -> bytes:
        """SHA-1 of the public key's bits: the responder's name in an answer (byKey)."""
        ...

    def sign(self, data: bytes) -> bytes:
        """ECDSA with SHA-256, in DER."""
        ...


def decide(  # noqa: PLR0911 - a line of the table each
    request: Request | None,
    issuer: Issuer | None,
    standing: SerialStatus | None,
    never_issued: Outcome = Outcome.UNKNOWN,
    *,
    complete: bool = True,
) -> Outcome:
    """The table of answers (docs/reference/status.md), first line that fits.

    `request` is None when the octets could not be read as one. `issuer` is None when it is not all about one
    CA of ours, `standing` when the record could not be read. `never_issued` is `UNKNOWN` or `NEVER_ISSUED`.
    The record is not `complete` when it lacks what was shown of it (`pki/rollback/detection.py`).
    """
    if request is None:
        return Outcome.MALFORMED  # RFC 6960 2.3; RFC 9654 2.1 for nonces
    if issuer is None:
        # RFC 9919 (was 5019 2.2.3): no records of that CA. Nor does a responder speak for two (RFC 6960
        # 4.2.2.2): OpenSSL refuses all of an answer in which one certificate is of another CA.
        return Outcome.UNAUTHORIZED
    if standing is None:
        return Outcome.TRY_LATER  # RFC 6960 2.3; never good from ignorance
    if standing.action in {"revoke", "hold"}:
        return Outcome.REVOKED  # RFC 6960 2.2, permanently or on hold; also a serial that was only reserved
    if not complete:
        return Outcome.TRY_LATER  # RFC 6960 2.3: a revocation or an issuance may be what it lost
    if standing.certificate_sha256 is None:
        return never_issued  # BR 4.9.10, EN 319 411-1 OVR-6.6.3-02: never good for what was not issued
    return Outcome.GOOD  # RFC 6960 2.2; after notAfter too, as archiveCutoff says


def find(
    request: Request,
    issuer: Issuer,
    standings: Mapping[Serial, SerialStatus],
    never_issued: Outcome = Outcome.UNKNOWN,
    *,
    complete: bool = True,
) -> list[Finding]:
    """What is to be said about each certificate of a request to this CA; KeyError for one not read."""
    return [
        Finding(question, decide(request, issuer, standing, never_issued, complete=complete), standing)
        for question in request.questions
        for standing in (standings[question.serial],)
    ]


def issuer(authority_id: str, subject: bytes, public_key_info: bytes, not_before: datetime) -> Issuer:
    """A CA as requests name it; `subject` and `public_key_info` in DER as its certificate has them."""
    # The key's digest is over the BIT STRING's bits, without its count of unused ones (RFC 6960 4.1.1).
    bits = der.content(list(der.elements(der.content(public_key_info)))[1])[1:]
    return Issuer(
        authority_id,
        not_before,
        {name: _DIGESTS[name](subject) for name in HASHES},
        {name: _DIGESTS[name](bits) for name in HASHES},
    )


def find_issuer(issuers: Iterable[Issuer], request: Request) -> Issuer | None:
    """The one CA of ours that all of the request is about; None when there is none."""
    for known in issuers:
        if all(_is_of(question, known) for question in request.questions):
            return known
    return None


def refuse(outcome: Outcome) -> bytes:
    """An unsigned error answer (RFC 6960 4.2.1); KeyError for an outcome that must be signed."""
    return ERRORS[outcome]


def question_about(issuer: Issuer, hash_name: str, serial: Serial) -> Question:
    """The question a client would ask about this certificate."""
    return Question(hash_name, issuer.name_hashes[hash_name], issuer.key_hashes[hash_name], serial)


def sign(
    responder: Responder,
    issuer: Issuer,
    findings: Sequence[Finding],
    *,
    now: datetime,
    lifetime: timedelta,
    nonce: bytes | None = None,
) -> bytes:
    """A signed answer about each finding, made at `now`, good for `lifetime` (RFC 6960 4.2.1)."""
    this_update, next_update = validity(findings, now, lifetime)
    times = der.generalized_time(this_update), der.explicit(0, der.generalized_time(next_update))
    data = der.sequence(
        # byKey (RFC 9919): a digest is shorter than a name, and survives a change of name.
        der.explicit(2, der.octet_string(responder.key_hash)),
        # producedAt: when it was signed, however long what it says has been known.
        der.generalized_time(now.replace(microsecond=0)),
        der.sequence(*(_single(issuer, finding, *times) for finding in findings)),
        _extensions(findings, nonce),
    )
    certificates = der.explicit(0, der.sequence(responder.certificate))
    basic = der.sequence(data, _ECDSA_SHA256, der.bit_string(responder.sign(data)), certificates)
    return der.sequence(der.enumerated(0), der.explicit(0, der.sequence(_BASIC, der.octet_string(basic))))


def validity(findings: Sequence[Finding], now: datetime, lifetime: timedelta) -> tuple[datetime, datetime]:
    """ThisUpdate and nextUpdate, in whole seconds.

    thisUpdate is as long ago as notBefore of a certificate, for readers whose clocks run late. It is never
    before the last thing done to any of these: that was not known before. What a clock that had jumped ahead
    dated is no reason to date ahead. nextUpdate counts from `now`: counted from thisUpdate, an answer cut
    short has expired before it leaves. It is never after the instant at which a measure recorded ahead begins
    or ends.
    """
    done = [finding.standing.revoked_at for finding in findings]
    known = [at for at in done if at is not None and at <= now + _TOLERATED]
    this_update = max([now - BACKDATING, *known]).replace(microsecond=0)
    changes = [finding.standing.changes_at for finding in findings]
    until = min([now + lifetime, *(at for at in changes if at is not None)])
    return this_update, max(this_update, until.replace(microsecond=0))


def agrees(answer: bytes, finding: Finding) -> bool:
    """Whether an answer signed earlier still says, octet for octet, the status that the record gives now."""
    _, explicit = der.elements(der.content(answer))
    _, basic = der.elements(der.content(der.content(explicit)))
    data = next(der.elements(der.content(der.content(basic))))
    responses = list(der.elements(der.content(data)))[2]
    certificate_id, status, *_ = der.elements(der.content(der.content(responses)))
    return status == _status(finding) and certificate_id == _certificate_id(finding.question)


def _is_of(question: Question, issuer: Issuer) -> bool:
    return (
        issuer.key_hashes[question.hash] == question.key_hash
        and issuer.name_hashes[question.hash] == question.name_hash
    )


def _single(issuer: Issuer, finding: Finding, this_update: bytes, next_update: bytes) -> bytes:
    return der.sequence(
        _certificate_id(finding.question),
        _status(finding),
        this_update,
        next_update,
        _single_extensions(issuer, finding.standing),
    )


def _certificate_id(question: Question) -> bytes:
    """As it was asked, with or without parameters of the hash; NULL where nobody asked (RFC 6960 4.1.1)."""
    return question.certificate_id or der.sequence(
        _HASH_ALGORITHMS[question.hash],
        der.octet_string(question.name_hash),
        der.octet_string(question.key_hash),
        der.integer(int(question.serial, 16)),
    )


def _status(finding: Finding) -> bytes:
    outcome, standing = finding.outcome, finding.standing
    if outcome is Outcome.GOOD:
        return b"\x80\x00"
    if outcome is Outcome.UNKNOWN:
        return b"\x82\x00"
    if outcome is Outcome.NEVER_ISSUED:
        return _revoked(_BEFORE_ALL, RevocationReason.CERTIFICATE_HOLD)
    if outcome is not Outcome.REVOKED or standing.revoked_at is None:
        raise ValueError("an error is not a status")
    return _revoked(standing.revoked_at, RevocationReason(standing.reason))


def _revoked(at: datetime, reason: RevocationReason) -> bytes:
    code = der.enumerated(REASON_CODES[reason])
    return tlv(0xA1, der.generalized_time(at) + der.explicit(0, code))


def _single_extensions(issuer: Issuer, standing: SerialStatus) -> bytes:
    # Nothing is forgotten when a certificate expires: the archive begins with the CA (RFC 6960 4.4.4).
    extensions = [der.extension(_ARCHIVE_CUTOFF, der.generalized_time(issuer.not_before))]
    if standing.certificate_sha256 is not None:
        # Common PKI 2.0 part 4: proof that this very certificate is known, not just its number.
        digest = der.sequence(_SHA256, der.octet_string(standing.certificate_sha256))
        extensions.append(der.extension(_CERT_HASH, digest))
    return der.explicit(1, der.sequence(*extensions))


def _extensions(findings: Sequence[Finding], nonce: bytes | None) -> bytes:
    extensions = [] if nonce is None else [der.extension(_NONCE, der.octet_string(nonce))]
    if any(finding.outcome is Outcome.NEVER_ISSUED for finding in findings):
        # RFC 6960 4.4.8: without it, `revoked` would claim that there is such a certificate.
        extensions.append(der.extension(_EXTENDED_REVOKE, der.NULL))
    return der.explicit(1, der.sequence(*extensions)) if extensions else b""


ERRORS = {
    # OCSPResponseStatus (RFC 6960 4.2.1), without responseBytes.
    Outcome.MALFORMED: der.sequence(der.enumerated(1)),
    Outcome.TRY_LATER: der.sequence(der.enumerated(3)),
    Outcome.UNAUTHORIZED: der.sequence(der.enumerated(6)),
}
