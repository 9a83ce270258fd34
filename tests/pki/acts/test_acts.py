"""An act says one thing in one text, and only its credential can have signed it."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as some
from joserfc import jws
from joserfc.jwk import ECKey, OctKey

from pki.acts.act import LONGEST_LIFE, MOST_SUBJECTS, Act, ActKind, ListDigest, read_act, seen_digest
from pki.acts.canonical import canonical
from pki.acts.signature import BadSignatureError, PrivateKey, credential_of, sign, verified

AT = datetime(2026, 12, 1, 9, 12, 44, tzinfo=UTC)
KEY = generate_private_key(SECP256R1())
OTHER = generate_private_key(SECP256R1())
EDWARDS = Ed25519PrivateKey.generate()
ACT = Act(
    ActKind.ENROLMENT_APPROVE, "3c" * 16, "person:" + "4f" * 16, credential_of(KEY.public_key()), AT,
    AT + timedelta(minutes=10), "A" * 22, seen_digest({"names": ["AUBRELUNE", "Alice"]}), ("enrolment:3af8",),
)  # fmt: skip


def told(text: bytes, **other: Any) -> bytes:
    """The same text with other fields."""
    return canonical({**json.loads(text), **other})


def signed(header: dict[str, Any], payload: bytes, key: Any = KEY) -> bytes:
    jwk = key if isinstance(key, OctKey) else ECKey.import_key(key)
    return jws.serialize_compact(header, payload, jwk, [header["alg"]], registry=AnyHeader()).encode()


class AnyHeader(jws.JWSRegistry):
    """What a forger writes with."""

    def __init__(self) -> None:
        super().__init__(algorithms=["ES256", "HS256", "none"], strict_check_header=False)


HEADER = {"alg": "ES256", "kid": ACT.credential, "typ": "sceau-act"}


@pytest.mark.parametrize("key", [KEY, EDWARDS], ids=["ES256", "Ed25519"])
def test_what_a_credential_signed_is_read_again(key: PrivateKey) -> None:
    act = replace(ACT, credential=credential_of(key.public_key()))
    assert verified(sign(act, key), key.public_key()) == act
    assert read_act(act.text()) == act


def test_its_text_is_as_the_example_has_it() -> None:
    assert list(json.loads(ACT.text())) == [
        "act", "at", "by", "credential", "expires", "installation", "nonce", "seen", "subjects",
    ]  # fmt: skip
    assert json.loads(ACT.text())["at"] == "2026-12-01T09:12:44Z"


def test_openssl_verifies_the_signature_over_the_text(tmp_path: Path) -> None:
    """An auditor needs no code of ours: the signature in DER, over header and text as they stand."""
    head, payload, signature = sign(ACT, KEY).split(b".")
    raw = urlsafe_b64decode(signature + b"==")
    halves = int.from_bytes(raw[:32]), int.from_bytes(raw[32:])
    (tmp_path / "signature").write_bytes(encode_dss_signature(*halves))
    (tmp_path / "signed").write_bytes(head + b"." + payload)
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pem").write_bytes(pem)
    command = ["openssl", "dgst", "-sha256", "-verify", "key.pem", "-signature", "signature", "signed"]
    assert run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout == "Verified OK\n"
    assert urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)) == ACT.text()


@pytest.mark.parametrize(
    "other",
    [
        {"installation": "3C" * 16}, {"by": "person:4f"}, {"credential": "cred:9a07"},
        {"nonce": "A" * 21 + "B"}, {"nonce": "A" * 21}, {"seen": "5b"}, {"at": AT.replace(tzinfo=None)},
        {"expires": AT},
        {"at": AT + timedelta(milliseconds=1)}, {"expires": AT + LONGEST_LIFE + timedelta(seconds=1)},
        {"subjects": ()}, {"subjects": ("enrolment:1", "enrolment:1")}, {"subjects": ("enrolment 1",)},
        {"subjects": ("enrolment:1\n",)}, {"subjects": tuple(f"e:{n}" for n in range(MOST_SUBJECTS + 1))},
    ],
    ids=str,
)  # fmt: skip
def test_what_could_mean_two_things_is_no_act(other: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        replace(ACT, **other)


@pytest.mark.parametrize(
    "other",
    [
        {"more": 1}, {"act": "enrolment.forget"}, {"at": "2026-12-01T09:12:44+00:00"}, {"at": 1},
        {"at": "2026-02-30T00:00:00Z"}, {"seen": {"sha256": "5b" * 32, "sha1": ""}}, {"seen": "5b" * 32},
        {"subjects": "enrolment:3af8"}, {"subjects": [1]},
        {"subjects": {"number": True, "sha256": "5b" * 32}},
        {"subjects": {"number": 0, "sha256": "5b" * 32}}, {"subjects": {"number": 1, "sha256": "5B" * 32}},
    ],
    ids=str,
)  # fmt: skip
def test_a_text_that_says_otherwise_is_no_act(other: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_act(told(ACT.text(), **other))


def test_a_list_may_stand_beside_the_act() -> None:
    batch = tuple(f"enrolment:{number}" for number in range(5_000))
    act = replace(ACT, subjects=ListDigest.of(batch))
    assert read_act(act.text()) == act
    assert ListDigest.of(batch) != ListDigest.of(batch[::-1])
    with pytest.raises(ValueError, match="once"):
        ListDigest.of((*batch, batch[0]))


@given(some.integers(0, 400), some.integers(1, 255))
def test_no_octet_of_it_can_be_another(place: int, mask: int) -> None:
    whole = bytearray(sign(ACT, KEY))
    whole[place % len(whole)] ^= mask
    with pytest.raises(BadSignatureError):
        verified(bytes(whole), KEY.public_key())


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param(lambda: sign(ACT, KEY)[:-1], id="cut"),
        pytest.param(lambda: sign(ACT, KEY) + b"=", id="padded"),
        pytest.param(lambda: b"\n" + sign(ACT, KEY), id="a line before"),
        pytest.param(lambda: signed({**HEADER, "crit": ["b64"], "b64": True}, ACT.text()), id="crit"),
        pytest.param(lambda: signed({"alg": "ES256", "kid": ACT.credential}, ACT.text()), id="no type"),
        pytest.param(lambda: signed({**HEADER, "typ": "JWT"}, ACT.text()), id="another type"),
        pytest.param(lambda: signed({**HEADER, "kid": "cred:" + "0" * 64}, ACT.text()), id="another kid"),
        pytest.param(lambda: signed({**HEADER, "jwk": {}}, ACT.text()), id="its own key"),
        pytest.param(lambda: signed(HEADER, ACT.text(), OTHER), id="another's key"),
        pytest.param(lambda: signed(HEADER, b"{}"), id="no act"),
        pytest.param(lambda: signed(HEADER, ACT.text() + b" "), id="another text of it"),
        pytest.param(
            lambda: signed(HEADER, told(ACT.text(), credential="cred:" + "0" * 64)), id="another credential"
        ),
        pytest.param(
            lambda: signed({**HEADER, "alg": "HS256"}, ACT.text(), OctKey.import_key("k" * 32)), id="a secret"
        ),
        pytest.param(lambda: b"a" * 400_000, id="too long"),
        pytest.param(lambda: b"", id="nothing"),
    ],
)
def test_what_is_forged_is_refused(forged: Any) -> None:
    with pytest.raises(BadSignatureError):
        verified(forged(), KEY.public_key())


def test_a_key_signs_for_no_other_credential() -> None:
    with pytest.raises(ValueError, match="credential"):
        sign(ACT, OTHER)


@pytest.mark.parametrize("key", [generate_private_key(SECP384R1())])
def test_other_kinds_of_keys_sign_no_acts(key: EllipticCurvePrivateKey) -> None:
    with pytest.raises(ValueError, match="P-256"):
        credential_of(key.public_key())


def test_spare_bits_make_no_second_spelling() -> None:
    head, payload, signature = sign(ACT, KEY).split(b".")
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet[alphabet.index(signature[-1:]) ^ 1]
    assert urlsafe_b64decode(signature + b"==") == urlsafe_b64decode(signature[:-1] + bytes([last]) + b"==")
    with pytest.raises(BadSignatureError, match="spelling"):
        verified(b".".join((head, payload, signature[:-1] + bytes([last]))), KEY.public_key())
    assert urlsafe_b64encode(urlsafe_b64decode(signature + b"==")).rstrip(b"=") == signature
