"""The OCSP files of `cryptography_vectors` against our reader of requests, each by what is wrong with it."""

import cryptography_vectors
import pytest
from cryptography.x509 import ocsp as library

from pki.model import SerialStatus, serial_of
from pki.ocsp import request as ocsp_request
from pki.ocsp import response as ocsp
from pki.ocsp.request import Question
from pki.ocsp.response import Finding, Outcome

# File: how many questions, whether with a nonce; None where it is no request we answer.
REQUESTS = {
    # Their serials have 160 bits: RFC 5280 4.1.2.2 allows 20 octets, of which the first bit is the sign.
    "req-sha1": None,
    "req-multi-sha1": None,
    "req-ext-nonce": (1, True),
    "req-ext-unknown-oid": (1, False),  # not critical
    "req-acceptable-responses": (1, False),
    "req-duplicate-ext": None,
    "req-invalid-version": None,
    "req-invalid-hash-alg": None,
    "ocsp-army.valid-req": (1, False),
    "ocsp-army.revoked-req": (1, False),
    "ocsp-army.inapplicable-req": (1, False),
}


def octets(name: str) -> bytes:
    with cryptography_vectors.open_vector_file(f"x509/ocsp/{name}.der", "rb") as file:
        return file.read()


@pytest.mark.parametrize("name", REQUESTS)
def test_each_request_is_read_or_refused_for_what_is_wrong_with_it(name: str) -> None:
    asked = ocsp_request.parse(octets(name))
    found = None if asked is None else (len(asked.questions), asked.nonce is not None)
    assert found == REQUESTS[name]


RESPONSES = [
    "resp-sha256", "resp-revoked", "resp-revoked-reason", "resp-revoked-no-next-update",
    "resp-delegate-unknown-cert", "resp-responder-key-hash", "resp-single-extension-reason",
    "resp-sct-extension", "resp-unknown-extension", "resp-unknown-hash-alg", "ocsp-army.deps.mil-resp",
    "resp-unauthorized", "resp-unknown-response-status", "resp-invalid-version",
    "resp-invalid-signature-oid", "resp-response-type-unknown-oid", "resp-successful-no-response-bytes",
]  # fmt: skip


@pytest.mark.parametrize("name", RESPONSES)
def test_a_response_is_no_request(name: str) -> None:
    assert ocsp_request.parse(octets(name)) is None


@pytest.mark.parametrize("name", ["resp-revoked", "resp-revoked-reason", "resp-single-extension-reason"])
def test_a_strangers_answer_agrees_with_no_finding_of_ours_but_its_own(name: str) -> None:
    """What was signed ahead is compared octet for octet: no other status passes for the record's."""
    answer = library.load_der_ocsp_response(octets(name))
    asked = Question(
        answer.hash_algorithm.name, answer.issuer_name_hash, answer.issuer_key_hash,
        serial_of(answer.serial_number),
    )  # fmt: skip
    good = Finding(asked, Outcome.GOOD, SerialStatus(b"x"))
    is_good = answer.certificate_status is library.OCSPCertStatus.GOOD
    assert ocsp.agrees(octets(name), good) is is_good
