"""Requests that get no certificate: no request at all, a key its sender does not hold, a weak or used one."""

import subprocess
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from directory.base.errors import Kind, Refusal
from pki.certificates.csr import LARGEST_REQUEST, public_key_of_request
from pki.revocation import requests
from tests.factories import seed_practitioner
from tests.pki.conftest import Established, Issue, enrol, new_key, request_for
from tests.pki.issuance.test_issuance import counts

NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])


def openssl_request(folder: Path, *options: str) -> bytes:
    made = folder / "request.pem"
    subprocess.run(
        ["openssl", "req", "-new", "-nodes", "-keyout", str(folder / "key.pem"), "-out", str(made),
         "-subj", "/CN=x", *options],
        capture_output=True, check=True,
    )  # fmt: skip
    return made.read_bytes()


def with_other_signature() -> bytes:
    """The last bits of the signature changed: the key inside did not sign this."""
    good = bytearray(request_for(new_key()))
    good[-1] ^= 1
    return bytes(good)


def with_anothers_key() -> bytes:
    """Another's public key in the place of one's own, of the same length."""
    mine, theirs = new_key(), new_key()
    return request_for(mine).replace(point(mine), point(theirs))


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def signed_by_ed25519() -> bytes:
    built = x509.CertificateSigningRequestBuilder().subject_name(NAME)
    return built.sign(ed25519.Ed25519PrivateKey.generate(), None).public_bytes(Encoding.DER)


def on_curve(curve: ec.EllipticCurve) -> bytes:
    return request_for(ec.generate_private_key(curve))


def pem_of(der: bytes, label: str = "CERTIFICATE REQUEST") -> bytes:
    return b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (label.encode(), b64encode(der), label.encode())


BAD: dict[str, tuple[Callable[[], bytes], Kind, str]] = {
    "nothing": (lambda: b"", Kind.MALFORMED, "bad-csr"),
    "text": (lambda: b"please", Kind.MALFORMED, "bad-csr"),
    "a certificate": (lambda: pem_of(b"\x30\x00", "CERTIFICATE"), Kind.MALFORMED, "bad-csr"),
    "broken PEM": (lambda: pem_of(b"\x30\x00"), Kind.MALFORMED, "bad-csr"),
    "cut short": (lambda: request_for(new_key())[:-9], Kind.MALFORMED, "bad-csr"),
    "bytes behind": (lambda: request_for(new_key()) + b"\x00", Kind.MALFORMED, "bad-csr"),
    "too large": (lambda: b"0" * (LARGEST_REQUEST + 1), Kind.TOO_LARGE, "csr-too-large"),
    "other signature": (with_other_signature, Kind.UNACCEPTABLE, "bad-proof-of-possession"),
    "another's key": (with_anothers_key, Kind.UNACCEPTABLE, "bad-proof-of-possession"),
    "Ed25519": (signed_by_ed25519, Kind.UNACCEPTABLE, "weak-key"),
    "P-521": (lambda: on_curve(ec.SECP521R1()), Kind.UNACCEPTABLE, "weak-key"),
    "secp256k1": (lambda: on_curve(ec.SECP256K1()), Kind.UNACCEPTABLE, "weak-key"),
    "RSA-2048": (lambda: request_for(rsa.generate_private_key(65537, 2048)), Kind.UNACCEPTABLE, "weak-key"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_request_reserves_nothing(engine: Engine, issue: Issue, what: str) -> None:
    make, kind, code = BAD[what]
    with pytest.raises(Refusal) as refused:
        issue(csr=make())
    assert (refused.value.kind, refused.value.code) == (kind, code)
    assert counts(engine) == (0, 0, 0)


def test_a_request_signed_with_sha1_proves_nothing(issue: Issue, tmp_path: Path) -> None:
    csr = openssl_request(tmp_path, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-sha1")
    with pytest.raises(Refusal) as refused:
        issue(csr=csr)
    assert refused.value.code in {"bad-proof-of-possession", "weak-key"}


def test_dsa_is_not_served(tmp_path: Path) -> None:
    subprocess.run(
        ["openssl", "dsaparam", "-genkey", "-noout", "-out", str(tmp_path / "dsa.pem"), "1024"],
        capture_output=True, check=True,
    )  # fmt: skip
    csr = subprocess.run(
        ["openssl", "req", "-new", "-key", str(tmp_path / "dsa.pem"), "-subj", "/CN=x"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    with pytest.raises(Refusal) as refused:
        public_key_of_request(csr)
    assert refused.value.code == "weak-key"


@pytest.mark.parametrize("label", ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"])
def test_both_headers_of_pem_are_read(label: str) -> None:
    assert public_key_of_request(b"\n" + pem_of(request_for(new_key()), label))


def test_of_two_requests_in_one_text_none_is_taken() -> None:
    both = pem_of(request_for(new_key())) + b"\n" + pem_of(request_for(new_key()))
    with pytest.raises(Refusal, match="more than one PEM block") as refused:
        public_key_of_request(both)
    assert refused.value.code == "bad-csr"


def test_rsa_3072_is_certified(issue: Issue, tmp_path: Path) -> None:
    issued = issue(csr=openssl_request(tmp_path, "-newkey", "rsa:3072"), thorough=True)
    usage = x509.load_der_x509_certificate(issued.der).extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_encipherment
    assert not usage.key_agreement


def test_p384_is_certified(issue: Issue) -> None:
    assert issue(ec.generate_private_key(ec.SECP384R1()), thorough=True)


def test_a_key_serves_once(engine: Engine, issue: Issue, now: datetime) -> None:
    key = new_key()
    issued = issue(key)
    with pytest.raises(Refusal) as refused:
        issue(key)
    assert (refused.value.kind, refused.value.code) == (Kind.UNACCEPTABLE, "key-already-certified")
    assert refused.value.details["serial"] == issued.serial
    other = enrol(engine, now, seed_practitioner(engine, 2))
    with pytest.raises(Refusal) as refused:
        issue(key, who=other)
    assert refused.value.code == "key-already-certified"
    # Whose certificate it is, is not for a stranger who sends the key.
    assert not refused.value.details


def test_a_revoked_key_stays_refused(engine: Engine, issue: Issue, now: datetime) -> None:
    from directory.base.audit import Actor
    from pki.model import RevocationReason

    key = new_key()
    issued = issue(key)
    with engine.begin() as connection:
        requests.revoke(
            connection, now=now, actor=Actor("x"), serial=issued.serial, reason=RevocationReason.SUPERSEDED
        )
    with pytest.raises(Refusal) as refused:
        issue(key, at=now + timedelta(days=1))
    assert refused.value.code == "key-already-certified"


def test_the_ca_s_own_key_is_not_certified_for_anyone(authority: Established, issue: Issue) -> None:
    with pytest.raises(Refusal) as refused:
        issue(authority.keys.load("persons-1"))
    assert [finding["lint"] for finding in refused.value.details["findings"]] == ["key-not-issuers"]


GOOD = request_for(new_key())


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good request with some bytes replaced."""
    at = draw(st.integers(0, len(GOOD)))
    new = draw(st.binary(min_size=1, max_size=8))
    return GOOD[:at] + new + GOOD[at + len(new) :]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=600) | mutated())
def test_whatever_arrives_is_a_request_or_refused(csr: bytes) -> None:
    with suppress(Refusal):
        assert public_key_of_request(csr)
