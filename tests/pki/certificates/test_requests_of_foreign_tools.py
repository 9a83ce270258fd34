"""Requests as foreign tools write them: read where key and signature can be, else refused for what is so."""

import subprocess
from base64 import b64encode, encodebytes
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from hypothesis import given, settings
from hypothesis import strategies as st

from directory.base.errors import Refusal
from directory.base.tlv import tlv
from pki.certificates import csr as certification_request
from pki.certificates import der
from tests.pki.conftest import new_key, request_for

FILES = Path(__file__).with_name("requests")
READ = ("certtool.pem", "text.pem", "printablestring-at.pem")
REFUSED = {
    "version-1-value.pem": ("bad-csr", "version field of this request says 1"),
    "rsapss-key.pem": ("weak-key", "RSASSA-PSS"),
    "sha224.pem": ("bad-proof-of-possession", "SHA-256 or stronger"),
}
KEY = new_key()
DER = request_for(KEY)


def block(request: bytes, label: bytes = b"CERTIFICATE REQUEST") -> bytes:
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label, encodebytes(request), label)


def point(key: object) -> bytes:
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def openssl_point(file: Path) -> bytes:
    """The peer's reading of the same file."""
    told = subprocess.run(
        ["openssl", "req", "-in", file, "-noout", "-pubkey", "-verify"], capture_output=True, check=True
    )
    return point(load_pem_public_key(told.stdout))


@pytest.mark.parametrize("name", READ)
def test_what_openssl_reads_and_verifies_is_read(name: str) -> None:
    assert point(certification_request.read((FILES / name).read_bytes()).key) == openssl_point(FILES / name)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_refused_for_what_is_wrong(name: str) -> None:
    code, sentence = REFUSED[name]
    with pytest.raises(Refusal, match=sentence) as refused:
        certification_request.read((FILES / name).read_bytes())
    assert refused.value.code == code


FORMS: dict[str, Callable[[], bytes]] = {
    "DER": lambda: DER,
    "PEM": lambda: block(DER),
    "the older label": lambda: block(DER, b"NEW CERTIFICATE REQUEST"),
    "line ends of Windows": lambda: block(DER).replace(b"\n", b"\r\n"),
    "a byte order mark": lambda: b"\xef\xbb\xbf" + block(DER),
    "words around it": lambda: b"0 requests before:\n" + block(DER) + b"that was all\n",
    "words in another encoding": lambda: "pour l'hôpital\n".encode("latin-1") + block(DER),
    "indented": lambda: b"  " + block(DER).replace(b"\n", b"\n  "),
    "base64 on one line": lambda: b64encode(DER),
    "base64 in lines": lambda: b"\n" + encodebytes(DER) + b"\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_the_same_key(form: str) -> None:
    read = certification_request.read(FORMS[form]())
    assert point(read.key) == point(KEY.public_key())
    assert read.subject == x509.load_der_x509_csr(DER).subject.public_bytes()


def assembled(
    *, version: bytes = der.integer(0), subject: bytes = der.sequence(),
    attributes: bytes = b"\xa0\x00", key: ec.EllipticCurvePrivateKey = KEY,
) -> bytes:  # fmt: skip
    """A request of these parts, signed as it stands."""
    info = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    signed = der.sequence(version, subject, info, attributes)
    proof = key.sign(signed, ec.ECDSA(hashes.SHA256()))
    return der.sequence(signed, der.sequence(der.oid("1.2.840.10045.4.3.2")), der.bit_string(proof))


@pytest.mark.parametrize(
    "parts",
    [
        {},
        # Left out by tools that have none to ask for.
        {"attributes": b""},
        # An attribute that breaks its own syntax: nobody reads it.
        {"attributes": tlv(0xA0, der.sequence(der.oid("1.2.840.113549.1.9.14"), b"\x31\x01\xff"))},
        {"subject": der.sequence(tlv(0x31, der.sequence(der.oid("2.5.4.3"), tlv(0x13, b"\xe9@"))))},
        {"subject": der.sequence(b"\x31\x00", b"\x05\x00")},
    ],
    ids=str,
)
def test_only_key_and_signature_count(parts: dict[str, bytes]) -> None:
    assert point(certification_request.read(assembled(**parts)).key) == point(KEY.public_key())


@pytest.mark.parametrize(
    ("version", "says"), [(der.integer(1), "1"), (der.integer(2), "2"), (b"\x02\x01\xff", "-1")]
)
def test_every_other_version_is_named(version: bytes, says: str) -> None:
    with pytest.raises(Refusal, match=f"says {says}: there is only 0") as refused:
        certification_request.read(assembled(version=version))
    assert refused.value.code == "bad-csr"


def test_a_version_of_thousands_of_digits_is_refused_like_any() -> None:
    with pytest.raises(Refusal, match="there is only 0"):
        certification_request.read(assembled(version=tlv(0x02, b"\x7f" * 10_000)))


@pytest.mark.parametrize(
    "parts",
    [
        {"version": b""},
        {"attributes": b"\x05\x00"},
        {"attributes": b"\xa0\x00\xa0\x00"},
        {"subject": b"\x31\x00"},
    ],
    ids=str,
)
def test_parts_of_another_kind_are_no_request(parts: dict[str, bytes]) -> None:
    with pytest.raises(Refusal) as refused:
        certification_request.read(assembled(**parts))
    assert refused.value.code == "bad-csr"


RSA = rsa.generate_private_key(65537, 3072)
HASHES = {
    "sha224": hashes.SHA224(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


@pytest.mark.parametrize("name", HASHES)
@pytest.mark.parametrize("padded", ["pkcs1", "pss"])
def test_a_plain_rsa_key_may_prove_itself_by_either_padding_and_sha256_or_stronger(
    name: str, padded: str
) -> None:
    digest = HASHES[name]
    pss = padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH)
    built = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = built.sign(RSA, digest, rsa_padding=pss if padded == "pss" else None)
    given = request.public_bytes(Encoding.DER)
    if name == "sha224":
        with pytest.raises(Refusal, match="SHA-256 or stronger"):
            certification_request.read(given)
    else:
        assert certification_request.read(given).key == RSA.public_key()


def test_an_rsa_key_for_another_use_is_refused_by_its_oid() -> None:
    good = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(RSA, hashes.SHA256())
    oaep = good.public_bytes(Encoding.DER).replace(
        der.oid("1.2.840.113549.1.1.1"), der.oid("1.2.840.113549.1.1.7")
    )
    with pytest.raises(Refusal) as refused:
        certification_request.read(oaep)
    assert refused.value.code == "weak-key"


@pytest.mark.parametrize(
    "given",
    [
        block(DER)[:-9], block(DER).replace(b"END", b"FIN"), block(DER, b"CERTIFICATE"),
        block(DER) + block(DER, b"CERTIFICATE"), b"-----BEGIN " + b64encode(DER), b64encode(DER)[:-2] + b"!!",
        block(b"\x30\x00"), "-----BEGIN CERTIFICATE REQUEST-----".encode("utf-16"),
    ],
    ids=range(8),
)  # fmt: skip
def test_what_is_no_whole_request_is_refused(given: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        certification_request.read(given)
    assert refused.value.code == "bad-csr"


@pytest.mark.parametrize(
    ("tag", "encoding"),
    [(0x0C, "utf-8"), (0x13, "ascii"), (0x14, "latin-1"), (0x16, "ascii"), (0x1E, "utf-16-be")],
)
def test_a_common_name_is_read_in_each_string_type(tag: int, encoding: str) -> None:
    said = der.sequence(der.oid("2.5.4.3"), tlv(tag, "this key".encode(encoding)))
    broken = der.sequence(der.oid("2.5.4.10"), tlv(0x13, b"@"))
    subject = der.sequence(tlv(0x31, broken), tlv(0x31, said))
    assert certification_request.common_names(subject) == ["this key"]


@pytest.mark.parametrize("subject", [b"", b"\x05\x00", b"\x30\x02\x31\x05", b"\x30\x03\x31\x01\x30"])
def test_what_is_no_name_says_nothing(subject: bytes) -> None:
    assert certification_request.common_names(subject) == []


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good request with some octets replaced."""
    at = draw(st.integers(0, len(DER)))
    new = draw(st.binary(min_size=1, max_size=8))
    return DER[:at] + new + DER[at + len(new) :]


@settings(max_examples=500, deadline=None)
@given(mutated() | st.binary(max_size=300))
def test_what_the_library_takes_is_read_alike_and_nothing_unproven_is_read(given_: bytes) -> None:
    """Our reader passes over what the library judges, and believes no more of key and signature."""
    try:
        theirs = x509.load_der_x509_csr(given_)
        key = theirs.public_key() if theirs.is_signature_valid else None
    except (ValueError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion):
        key = None
    try:
        ours = certification_request.read(given_).key
    except Refusal:
        assert key is None
        return
    assert point(ours) == point(KEY.public_key())


def test_no_other_module_reads_a_request_by_itself() -> None:
    """Each road that had a reader of its own read, or broke, otherwise than the others."""
    root = Path(__file__).resolve().parents[3]
    readers = {
        str(path.relative_to(root))
        for wing in ("api", "directory", "pki")
        for path in (root / wing).rglob("*.py")
        if "x509_csr(" in path.read_text()
    }
    assert readers == {"pki/certificates/csr.py"}
