"""An OCSP request's bytes to the questions in it; nobody who asks is believed to have written DER.

`cryptography` parses, one certificate at a time. A request about several is cut here into as many requests
about one, and DEFAULT values that a client wrote out are left out. What is answered is for `response`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509 import ocsp

from pki.certificates import der
from pki.model import Serial, serial_of

# Far above any honest request (RFC 9919 asks one certificate, some 120 octets); below what could hurt.
LARGEST_REQUEST = 10_000
# A mailbox shows its neighbours' certificates, not a directory: what more there is comes in further requests.
MOST_QUESTIONS = 100
# RFC 9654 2.1: 1 to 128 octets.
LONGEST_NONCE = 128
HASHES = ("sha1", "sha256")

_TRUE, _FALSE = b"\x01\x01\xff", b"\x01\x01\x00"
_VERSION_1 = der.explicit(0, der.integer(0))
_SEQUENCE, _FIRST_EXPLICIT, _EXTENSIONS = 0x30, 0xA0, 0xA2


@dataclass(frozen=True)
class Question:
    """One certificate asked about: the CA by digests under `hash`, and the serial.

    `certificate_id` is the CertID as the client wrote it: clients look for their own octets in the answer;
    empty where nobody wrote one.
    """

    hash: str
    name_hash: bytes
    key_hash: bytes
    serial: Serial
    certificate_id: bytes = b""


@dataclass(frozen=True)
class Request:
    """One question or several, in the order they were asked; the nonce if there is one."""

    questions: tuple[Question, ...]
    nonce: bytes | None = None


def parse(request: bytes) -> Request | None:
    """The questions in a DER request; None when it is not well-formed, or asks nothing, or too much."""
    if len(request) > LARGEST_REQUEST:
        return None
    try:
        return _parse(request)
    except _UNREADABLE:
        has_defaults = _VERSION_1 in request or _FALSE in request
        return _parse_with_defaults(request) if has_defaults else None


# NotImplementedError: no certificate at all. UnsupportedAlgorithm: a hash nobody uses.
_UNREADABLE = (ValueError, NotImplementedError, UnsupportedAlgorithm, x509.DuplicateExtension)


def _parse_with_defaults(request: bytes) -> Request | None:
    try:
        return _parse(_without_defaults(request))
    except (*_UNREADABLE, IndexError):
        return None


def _without_defaults(request: bytes) -> bytes:
    """The same request as DER has it (X.690 11.5): version v1 and `critical FALSE` are not written.

    What signs it fits no more, and nobody looks at it.
    """
    to_be_signed, *signature = der.elements(der.content(request))
    parts = (_plain(part) for part in der.elements(der.content(to_be_signed)) if part != _VERSION_1)
    return der.sequence(der.sequence(*parts), *signature)


def _plain(part: bytes) -> bytes:
    """A part of the TBSRequest with its extensions, or those of each question, in DER."""
    if part[0] == _EXTENSIONS:
        return der.explicit(2, _plain_extensions(der.content(part)))
    if part[0] != _SEQUENCE:
        return part
    return der.sequence(*(_plain_question(question) for question in der.elements(der.content(part))))


def _plain_question(question: bytes) -> bytes:
    certificate_id, *extensions = der.elements(der.content(question))
    return der.sequence(
        certificate_id, *(der.explicit(0, _plain_extensions(der.content(tagged))) for tagged in extensions)
    )


def _plain_extensions(extensions: bytes) -> bytes:
    return der.sequence(
        *(
            der.sequence(*(part for part in der.elements(der.content(extension)) if part != _FALSE))
            for extension in der.elements(der.content(extensions))
        )
    )


def _parse(request: bytes) -> Request:
    try:
        asked = ocsp.load_der_ocsp_request(request)
    except NotImplementedError:
        return _parse_several(request)
    if _TRUE in request:
        _refuse_critical(next(_each(request)))
    return Request((_question(asked, request),), _nonce(asked.extensions))


def _parse_several(request: bytes) -> Request:
    cut = list(_each(request))
    if not 1 < len(cut) <= MOST_QUESTIONS:
        raise ValueError("no question, or too many")
    for question in cut:
        _refuse_critical(question)
    # The extensions of the whole are in each part.
    parts = [ocsp.load_der_ocsp_request(question) for question in cut]
    questions = (_question(part, question) for part, question in zip(parts, cut, strict=True))
    return Request(tuple(questions), _nonce(parts[0].extensions))


def _each(request: bytes) -> Iterator[bytes]:
    """A request like this one about each of its certificates alone, what signs it left out.

    The octets have passed the parser of `cryptography`, which refuses more than one certificate only then.
    """
    to_be_signed = list(der.elements(der.content(next(der.elements(der.content(request))))))
    place = next(at for at, element in enumerate(to_be_signed) if element[0] == _SEQUENCE)
    for single in der.elements(der.content(to_be_signed[place])):
        yield der.sequence(
            der.sequence(*to_be_signed[:place], der.sequence(single), *to_be_signed[place + 1 :])
        )


def _refuse_critical(request: bytes) -> None:
    """ValueError where the one question has a critical extension (RFC 6960 4.4): we understand none."""
    for part in der.elements(_first_question(request)):
        if part[0] == _FIRST_EXPLICIT:
            for extension in der.elements(der.content(der.content(part))):
                if list(der.elements(der.content(extension)))[1] == _TRUE:
                    raise ValueError("critical extension that is not understood")


def _first_question(request: bytes) -> bytes:
    """The content of the first question; whatever signs the request stands behind it."""
    to_be_signed = der.content(next(der.elements(der.content(request))))
    questions = next(element for element in der.elements(to_be_signed) if element[0] == _SEQUENCE)
    return der.content(next(der.elements(der.content(questions))))


def _question(asked: ocsp.OCSPRequest, request: bytes) -> Question:
    algorithm = asked.hash_algorithm.name
    if algorithm not in HASHES:
        raise ValueError("a hash nobody uses")
    return Question(
        algorithm,
        asked.issuer_name_hash,
        asked.issuer_key_hash,
        serial_of(asked.serial_number),
        next(der.elements(_first_question(request))),
    )


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
