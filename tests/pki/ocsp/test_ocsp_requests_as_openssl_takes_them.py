"""Spellings of an OCSP question that openssl's own responder answers: ours says it of the same octets."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ocsp as library
from sqlalchemy import Engine, text

from api.status.wsgi import StatusApplication
from directory.base.clock import utc_now
from pki.certificates import der
from pki.ocsp import request as ocsp_request
from pki.ocsp import response as ocsp
from tests.pki.ocsp.test_ocsp_answers_by_its_table import ocsp_fields, presign
from tests.status_ca import ISSUING, PASSPHRASE, Issued, StatusCa
from tests.wsgi_client import request

OIDS = {"sha1": der.oid("1.3.14.3.2.26"), "sha256": der.oid("2.16.840.1.101.3.4.2.1")}
VERSION_1 = der.explicit(0, der.integer(0))
FALSE, TRUE = b"\x01\x01\x00", b"\x01\x01\xff"
NONCE, UNKNOWN, BASIC = "1.3.6.1.5.5.7.48.1.2", "1.3.6.1.4.1.99999.1", "1.3.6.1.5.5.7.48.1.1"
RESPONSE_TYPES = "1.3.6.1.5.5.7.48.1.4"


@pytest.fixture
def ca(engine: Engine) -> StatusCa:
    return StatusCa(engine, utc_now()).establish()


@pytest.fixture
def application(ca: StatusCa, tmp_path: Path) -> StatusApplication:
    ca.add_responder(tmp_path)
    return StatusApplication(ca.engine, keys_folder=tmp_path, passphrase=PASSPHRASE, hours=8)


def identity(ca: StatusCa, issued: Issued, name: str = "sha1", parameters: bytes = der.NULL) -> bytes:
    """A CertID of RFC 6960 4.1.1."""
    issuer = ocsp.issuer(ISSUING, *ocsp_fields(ca, ISSUING), ca.now)
    return der.sequence(
        der.sequence(OIDS[name], parameters), der.octet_string(issuer.name_hashes[name]),
        der.octet_string(issuer.key_hashes[name]), der.integer(int(issued.serial, 16)),
    )  # fmt: skip


def extension(oid: str, value: bytes, critical: bytes = b"") -> bytes:
    return der.sequence(der.oid(oid), critical, der.octet_string(value))


def asked(
    *identities: bytes, version: bytes = b"", each: bytes = b"", of_all: bytes = b"", signature: bytes = b""
) -> bytes:
    single = der.explicit(0, der.sequence(each)) if each else b""
    of_all = der.explicit(2, der.sequence(of_all)) if of_all else b""
    questions = der.sequence(*(der.sequence(one, single) for one in identities))
    return der.sequence(der.sequence(version, questions, of_all), signature)


Builds = Callable[[bytes, bytes], bytes]
NONCE_16 = der.octet_string(b"n" * 16)
SIGNATURE = der.explicit(0, der.sequence(der.sequence(der.oid("1.2.840.10045.4.3.2")), der.bit_string(b"s")))
SPELLINGS: dict[str, Builds] = {
    "in the usual way": lambda one, _: asked(one),
    "version v1 written out": lambda one, _: asked(one, version=VERSION_1),
    "critical FALSE with a nonce": lambda one, _: asked(one, of_all=extension(NONCE, NONCE_16, FALSE)),
    "critical FALSE with what is acceptable": lambda one, _: asked(
        one, of_all=extension(RESPONSE_TYPES, der.sequence(der.oid(BASIC)), FALSE)
    ),
    "critical FALSE with the one question": lambda one, _: asked(
        one, each=extension(UNKNOWN, der.NULL, FALSE)
    ),
    "all DEFAULTs at once": lambda one, _: asked(
        one, version=VERSION_1, each=extension(UNKNOWN, der.NULL, FALSE),
        of_all=extension(NONCE, NONCE_16, FALSE) + extension(UNKNOWN, der.NULL, FALSE),
    ),
    "version v1 and a signature": lambda one, _: asked(one, version=VERSION_1, signature=SIGNATURE),
    "two, version v1": lambda one, other: asked(one, other, version=VERSION_1),
    "two, critical FALSE with each": lambda one, other: asked(
        one, other, each=extension(UNKNOWN, der.NULL, FALSE)
    ),
}  # fmt: skip
# AlgorithmIdentifier: with NULL, as nearly all write it, or without parameters (RFC 5754 2).
HASHES = {
    "sha1": ("sha1", der.NULL), "sha1 without parameters": ("sha1", b""), "sha256": ("sha256", der.NULL),
    "sha256 without parameters": ("sha256", b""),
}  # fmt: skip


def by_openssl(ca: StatusCa, folder: Path, issued: list[Issued], asking: bytes) -> bytes:
    """The answer of `openssl ocsp` as a responder for the same CA."""
    (folder / "ca.pem").write_bytes(ca.certificates[ISSUING].public_bytes(Encoding.PEM))
    key = ca.keys[ISSUING].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "ca.key").write_bytes(key)
    lines = [f"V\t400101000000Z\t\t{int(one.serial, 16):040X}\tunknown\t/CN={one.serial}\n" for one in issued]
    (folder / "index.txt").write_text("".join(lines))
    (folder / "request").write_bytes(asking)
    told = subprocess.run(
        ["openssl", "ocsp", "-index", "index.txt", "-CA", "ca.pem", "-rsigner", "ca.pem", "-rkey", "ca.key",
         "-reqin", "request", "-respout", "answer"],
        cwd=folder, capture_output=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    return (folder / "answer").read_bytes()


def singles(answer: bytes) -> list[tuple[bytes, bytes]]:
    """CertID and status of each certificate in an answer, octet for octet."""
    _, explicit = der.elements(der.content(answer))
    _, basic = der.elements(der.content(der.content(explicit)))
    data = next(der.elements(der.content(der.content(basic))))
    responses = next(one for one in der.elements(der.content(data)) if one[0] == 0x30)
    return [
        (found[0], found[1])
        for found in (list(der.elements(der.content(one))) for one in der.elements(der.content(responses)))
    ]


@pytest.mark.parametrize("hashed", HASHES)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_openssl_answers_is_answered_alike(
    ca: StatusCa, application: StatusApplication, tmp_path: Path, spelling: str, hashed: str
) -> None:
    issued = [ca.issue(), ca.issue()]
    identities = [identity(ca, one, *HASHES[hashed]) for one in issued]
    asking = SPELLINGS[spelling](identities[0], identities[1])
    _, _, body = request(application, "POST", "/ocsp", asking)
    assert library.load_der_ocsp_response(body).response_status is library.OCSPResponseStatus.SUCCESSFUL
    assert singles(body) == singles(by_openssl(ca, tmp_path, issued, asking))
    assert singles(body)[0] == (identities[0], b"\x80\x00")
    assert (b"n" * 16 in body) is (b"n" * 16 in asking)


@pytest.mark.parametrize("hashed", HASHES)
def test_an_answer_signed_ahead_is_given_for_the_octets_it_has(
    ca: StatusCa, application: StatusApplication, tmp_path: Path, hashed: str
) -> None:
    """The others are signed when they are asked, and remembered like any."""
    issued = ca.issue()
    presign(ca, tmp_path)
    one = identity(ca, issued, *HASHES[hashed])
    _, _, body = request(application, "POST", "/ocsp", asked(one))
    assert singles(body) == [(one, b"\x80\x00")]
    with ca.engine.connect() as connection:
        ahead = connection.execute(text("SELECT der FROM ocsp_answer")).scalars().all()
    assert (body in ahead) is (HASHES[hashed][1] == der.NULL)


def test_a_revocation_shows_in_each_spelling_at_once(ca: StatusCa, application: StatusApplication) -> None:
    issued = ca.issue()
    asking = [asked(identity(ca, issued, *HASHES[hashed]), version=VERSION_1) for hashed in HASHES]
    assert [singles(request(application, "POST", "/ocsp", one)[2])[0][1][0] for one in asking] == [0x80] * 4
    ca.revoke(issued)
    assert [singles(request(application, "POST", "/ocsp", one)[2])[0][1][0] for one in asking] == [0xA1] * 4


@pytest.mark.parametrize(
    "asking",
    [
        lambda one: asked(one, version=der.explicit(0, der.integer(1))),
        lambda one: asked(one, version=VERSION_1, each=extension(UNKNOWN, der.NULL, TRUE)),
        lambda one: asked(one, version=VERSION_1, of_all=extension(UNKNOWN, der.NULL, TRUE)),
        # Neither DER nor the DEFAULT: TRUE by BER, so that a critical extension would pass for another.
        lambda one: asked(one, version=VERSION_1, each=extension(UNKNOWN, der.NULL, b"\x01\x01\x01")),
        lambda one: asked(one, version=VERSION_1, of_all=extension(NONCE, der.octet_string(b""), FALSE)),
        lambda one: asked(one, version=VERSION_1) + b"\0",
        lambda one: asked(one[:-1], version=VERSION_1),
        lambda _: asked(version=VERSION_1),
        lambda _: der.sequence(VERSION_1),
        lambda _: der.sequence(der.sequence(VERSION_1, b"\xa2\x00")),
        lambda _: VERSION_1 + FALSE,
    ],
)
def test_a_default_written_out_excuses_nothing_else(ca: StatusCa, asking: Callable[[bytes], bytes]) -> None:
    assert ocsp_request.parse(asking(identity(ca, ca.issue()))) is None
