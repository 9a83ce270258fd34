"""Any question written into a GET path, in any spelling the standard allows, is read back as it was asked."""

import base64
from urllib.parse import unquote

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as library
from hypothesis import given
from hypothesis import strategies as st

from api.status.wsgi import _from_path
from pki import ocsp
from pki.model import serial_of

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
    question = ocsp.parse(read)
    assert question is not None
    assert question.serial == serial_of(number)


@given(st.text())
def test_any_other_path_gives_no_question_and_no_error(text: str) -> None:
    question = ocsp.parse(_from_path("/ocsp/" + text))
    assert question is None or isinstance(question, ocsp.Question)


@given(st.binary(max_size=400))
def test_any_octets_are_a_question_or_malformed(octets: bytes) -> None:
    question = ocsp.parse(octets)
    assert ocsp.decide(question, None, None) is (
        ocsp.Outcome.UNAUTHORIZED if question else ocsp.Outcome.MALFORMED
    )


@given(questions(), st.data())
def test_a_damaged_question_is_never_an_error_of_the_program(
    asked: tuple[bytes, int], data: st.DataObject
) -> None:
    octets = bytearray(asked[0])
    for place in data.draw(st.sets(st.integers(0, len(octets) - 1), min_size=1, max_size=4)):
        octets[place] = data.draw(st.integers(0, 255))
    question = ocsp.parse(bytes(octets))
    assert question is None or 0 < int(question.serial, 16) < 1 << 159
