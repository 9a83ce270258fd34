"""OCSP: a request's bytes to a question, question and record to an outcome, an outcome to an answer's bytes.

Pure: rows come from `ocsp_store`, keys from `responders`, HTTP from `api/status`. The answer is assembled
here in DER because it carries archiveCutoff and CertHash, which `cryptography` cannot write.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from hashlib import sha1, sha256
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509 import ocsp

from pki import der
from pki.model import REASON_CODES, RevocationReason, Serial, Standing, serial_of

# Far above any honest request (RFC 9919 asks one certificate, some 120 octets); below what could hurt.
LARGEST_REQUEST = 10_000
# RFC 9654 2.1: 1 to 128 octets.
LONGEST_NONCE = 128
HASHES = ("sha1", "sha256")

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
_SHA256 = der.sequence(der.oid("2.16.840.1.101.3.4.2.1"))
_ECDSA_SHA256 = der.sequence(der.oid("1.2.840.10045.4.3.2"))


class Outcome(Enum):
    """What an answer says: the three statuses of a certificate, then the errors that carry no signature."""

    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"
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
class Question:
    """One certificate asked about: the CA by digests under `hash`, the serial; the nonce if there is one."""

    hash: str
    name_hash: bytes
    key_hash: bytes
    serial: Serial
    nonce: bytes | None


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


def decide(question: Question | None, issuer: Issuer | None, standing: Standing | None) -> Outcome:
    """The table of answers (docs/reference/status.md), first line that fits.

    `question` is None when the request could not be read as one, `issuer` when no CA of ours has those
    digests, `standing` when the record could not be read.
    """
    if question is None:
        return Outcome.MALFORMED  # RFC 6960 2.3; RFC 9654 2.1 for nonces
    if issuer is None:
        return Outcome.UNAUTHORIZED  # RFC 9919 (was 5019 2.2.3): no records of that CA
    if standing is None:
        return Outcome.TRY_LATER  # RFC 6960 2.3; never good from ignorance
    if standing.action in {"revoke", "hold"}:
        return Outcome.REVOKED  # RFC 6960 2.2, permanently or on hold; also a serial that was only reserved
    if standing.certificate_sha256 is None:
        return Outcome.UNKNOWN  # BR 4.9.10, EN 319 411-1 OVR-6.6.3-02: never good for what was not issued
    return Outcome.GOOD  # RFC 6960 2.2; after notAfter too, as archiveCutoff says


def parse(request: bytes) -> Question | None:
    """The question in a DER request; None when it is not one well-formed question about one certificate.

    Two certificates or more count as malformed (RFC 9919 has clients ask for one; see docs/divergences.md).
    """
    if len(request) > LARGEST_REQUEST:
        return None
    try:
        asked = ocsp.load_der_ocsp_request(request)
        algorithm = asked.hash_algorithm.name
        serial = serial_of(asked.serial_number)
        nonce = _nonce(asked.extensions)
    except (ValueError, NotImplementedError, UnsupportedAlgorithm, x509.DuplicateExtension):
        # NotImplementedError: no certificate, or several. UnsupportedAlgorithm: a hash nobody uses.
        return None
    if algorithm not in HASHES:
        return None
    return Question(algorithm, asked.issuer_name_hash, asked.issuer_key_hash, serial, nonce)


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


def find_issuer(issuers: Iterable[Issuer], question: Question) -> Issuer | None:
    """The CA of ours that the question's digests name."""
    for known in issuers:
        hashes = (known.name_hashes[question.hash], known.key_hashes[question.hash])
        if hashes == (question.name_hash, question.key_hash):
            return known
    return None


def refuse(outcome: Outcome) -> bytes:
    """An unsigned error answer (RFC 6960 4.2.1); KeyError for an outcome that must be signed."""
    return ERRORS[outcome]


def question_about(issuer: Issuer, hash_name: str, serial: Serial) -> Question:
    """The question a client would ask about this certificate, without a nonce."""
    return Question(hash_name, issuer.name_hashes[hash_name], issuer.key_hashes[hash_name], serial, None)


def sign(
    responder: Responder,
    issuer: Issuer,
    question: Question,
    standing: Standing,
    *,
    now: datetime,
    lifetime: timedelta,
) -> bytes:
    """A signed answer made at `now`, good for `lifetime`, the question's nonce echoed (RFC 6960 4.2.1)."""
    this_update = now.replace(microsecond=0)
    single = der.sequence(
        _certificate_id(question),
        _status(decide(question, issuer, standing), standing),
        der.generalized_time(this_update),
        der.explicit(0, der.generalized_time(this_update + lifetime)),
        der.explicit(1, der.sequence(*_single_extensions(issuer, standing))),
    )
    data = der.sequence(
        # byKey (RFC 9919): a digest is shorter than a name, and survives a change of name.
        der.explicit(2, der.octet_string(responder.key_hash)),
        der.generalized_time(this_update),
        der.sequence(single),
        _echo(question.nonce),
    )
    certificates = der.explicit(0, der.sequence(responder.certificate))
    basic = der.sequence(data, _ECDSA_SHA256, der.bit_string(responder.sign(data)), certificates)
    return der.sequence(der.enumerated(0), der.explicit(0, der.sequence(_BASIC, der.octet_string(basic))))


def agrees(answer: bytes, issuer: Issuer, question: Question, standing: Standing) -> bool:
    """Whether an answer signed earlier still says, octet for octet, the status that the record gives now."""
    _, explicit = der.elements(der.content(answer))
    _, basic = der.elements(der.content(der.content(explicit)))
    data = next(der.elements(der.content(der.content(basic))))
    responses = list(der.elements(der.content(data)))[2]
    certificate_id, status, *_ = der.elements(der.content(der.content(responses)))
    wanted = _status(decide(question, issuer, standing), standing)
    return status == wanted and certificate_id == _certificate_id(question)


def _nonce(extensions: x509.Extensions) -> bytes | None:
    nonce: bytes | None = None
    for extension in extensions:
        if isinstance(extension.value, x509.OCSPNonce):
            nonce = extension.value.nonce
            if not 1 <= len(nonce) <= LONGEST_NONCE:
                raise ValueError("nonce of a forbidden length")
        elif extension.critical:
            raise ValueError("critical extension that is not understood")  # RFC 6960 4.4
    return nonce


def _certificate_id(question: Question) -> bytes:
    return der.sequence(
        _HASH_ALGORITHMS[question.hash],
        der.octet_string(question.name_hash),
        der.octet_string(question.key_hash),
        der.integer(int(question.serial, 16)),
    )


def _status(outcome: Outcome, standing: Standing) -> bytes:
    if outcome is Outcome.GOOD:
        return b"\x80\x00"
    if outcome is Outcome.UNKNOWN:
        return b"\x82\x00"
    if outcome is not Outcome.REVOKED or standing.revoked_at is None:
        raise ValueError("an error is not a status")
    reason = der.enumerated(REASON_CODES[RevocationReason(standing.reason)])
    return der.tlv(0xA1, der.generalized_time(standing.revoked_at) + der.explicit(0, reason))


def _single_extensions(issuer: Issuer, standing: Standing) -> list[bytes]:
    # Nothing is forgotten when a certificate expires: the archive begins with the CA (RFC 6960 4.4.4).
    found = [der.extension(_ARCHIVE_CUTOFF, der.generalized_time(issuer.not_before))]
    if standing.certificate_sha256 is not None:
        # Common PKI 2.0 part 4: proof that this very certificate is known, not just its number.
        digest = der.sequence(_SHA256, der.octet_string(standing.certificate_sha256))
        found.append(der.extension(_CERT_HASH, digest))
    return found


def _echo(nonce: bytes | None) -> bytes:
    if nonce is None:
        return b""
    return der.explicit(1, der.sequence(der.extension(_NONCE, der.octet_string(nonce))))


ERRORS = {
    # OCSPResponseStatus (RFC 6960 4.2.1), without responseBytes.
    Outcome.MALFORMED: der.sequence(der.enumerated(1)),
    Outcome.TRY_LATER: der.sequence(der.enumerated(3)),
    Outcome.UNAUTHORIZED: der.sequence(der.enumerated(6)),
}
