"""Any question written into a GET path, in any spelling the standard allows, is read back as it was asked."""

import base64
from urllib.parse import unquote

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as library
from hypothesis import given
from hypothesis import strategies as st

from api.status.wsgi import _from_path
from pki.certificates import der
from pki.model import serial_of
from pki.ocsp import request as ocsp_request
from pki.ocsp import response as ocsp

DIGESTS = st.sampled_from([(hashes.SHA1(), 20), (hashes.SHA256(), 32)])


@st.composite
def questions(draw: st.DrawFn) -> tuple[bytes, int]:
    algorithm, size = draw(DIGESTS)
    number = draw(st.integers(1, (1 << 159) - 1))
    name, key = (draw(st.binary(min_size=size, max_size=size)) for _ in range(2))
    builder = library.OCSPRequestBuilder().add_certificate_by_hash(name, key, number, algorithm)
    return builder.build().public_bytes(Encoding.DER), number


@st.composite
def spellings(draw: st.DrawFn) -> tuple[str, bytes, int]:
    """A path after percent-decoding by the server, and what it must mean."""
    octets, number = draw(questions())
    encoded = base64.b64encode(octets).decode()
    if draw(st.booleans()):
        encoded = encoded.rstrip("=")
    escaped = draw(st.sets(st.integers(0, len(encoded) - 1)))
    written = "".join(f"%{ord(c):02X}" if place in escaped else c for place, c in enumerate(encoded))
    return "/ocsp/" + "/" * draw(st.integers(0, 3)) + written, octets, number


@given(spellings())
def test_every_spelling_of_a_path_is_the_same_question(spelt: tuple[str, bytes, int]) -> None:
    path, octets, number = spelt
    read = _from_path(unquote(path))
    assert read == octets
    asked = ocsp_request.parse(read)
    assert asked is not None
    (question,) = asked.questions
    assert question.serial == serial_of(number)


@given(st.text())
def test_any_other_path_gives_no_question_and_no_error(text: str) -> None:
    asked = ocsp_request.parse(_from_path("/ocsp/" + text))
    assert asked is None or isinstance(asked, ocsp_request.Request)


@given(st.binary(max_size=400))
def test_any_octets_are_a_question_or_malformed(octets: bytes) -> None:
    asked = ocsp_request.parse(octets)
    assert ocsp.decide(asked, None, None) is (ocsp.Outcome.UNAUTHORIZED if asked else ocsp.Outcome.MALFORMED)


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, list[int]]:
    """Several questions as one request, with extensions now and then, and the serials asked about."""
    asked = draw(st.lists(questions(), min_size=2, max_size=6))
    singles = [
        next(der.elements(der.content(next(der.elements(der.content(next(der.elements(der.content(one)))))))))
        for one, _ in asked
    ]
    nonce = der.extension("1.3.6.1.5.5.7.48.1.2", der.octet_string(b"n" * 32))
    tail = der.explicit(2, der.sequence(nonce)) if draw(st.booleans()) else b""
    return der.sequence(der.sequence(der.sequence(*singles), tail)), [number for _, number in asked]


@given(requests())
def test_several_questions_are_read_in_the_order_asked(asked: tuple[bytes, list[int]]) -> None:
    read = ocsp_request.parse(asked[0])
    assert read is not None
    assert [question.serial for question in read.questions] == [serial_of(number) for number in asked[1]]


@given(st.one_of(questions(), requests()), st.data())
def test_a_damaged_question_is_never_an_error_of_the_program(
    asked: tuple[bytes, int | list[int]], data: st.DataObject
) -> None:
    octets = bytearray(asked[0])
    for place in data.draw(st.sets(st.integers(0, len(octets) - 1), min_size=1, max_size=4)):
        octets[place] = data.draw(st.integers(0, 255))
    read = ocsp_request.parse(bytes(octets))
    assert read is None or all(0 < int(question.serial, 16) < 1 << 159 for question in read.questions)
