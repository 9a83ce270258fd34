"""What is packed comes out as it went in, and certificates of one CA take half of their room."""

import random
import threading
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from pki.verdict.certificate_bytes import CertificateBytes

BEGIN = datetime(2026, 1, 5, tzinfo=UTC)


def named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def certificates(number: int, issuer: str = "Persons") -> list[bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[tuple[x509.ExtensionType, bool]] = [
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
    ]
    made = []
    for place in range(number):
        builder = x509.CertificateBuilder(
            named(f"{issuer} CA"), named(f"DUPONT Marie {place}"),
            ec.generate_private_key(ec.SECP256R1()).public_key(), x509.random_serial_number(),
            BEGIN, BEGIN + timedelta(days=365),
        )  # fmt: skip
        address = x509.SubjectAlternativeName([x509.RFC822Name(f"d{place}@one.example")])
        for extension, critical in (*names, (address, False)):
            builder = builder.add_extension(extension, critical=critical)
        made.append(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))
    return made


def test_certificates_of_several_cas_take_little_room() -> None:
    packing = CertificateBytes()
    of_each = [der for pair in zip(*(certificates(40, name) for name in "ABC"), strict=True) for der in pair]
    packed = [packing.packed([der]) for der in of_each]
    assert [packing.unpacked(octets) for octets in packed] == [[der] for der in of_each]
    later = packed[len(packed) // 2 :]
    assert sum(map(len, later)) < 0.65 * sum(map(len, of_each[len(packed) // 2 :]))


@given(st.lists(st.binary(max_size=3_000), max_size=12))
def test_whatever_is_packed_comes_out_in_its_order(ders: list[bytes]) -> None:
    packing = CertificateBytes()
    before = packing.packed(ders)
    packing.packed([b"another" * 40])
    assert packing.unpacked(before) == ders


def test_more_kinds_than_dictionaries_are_packed_all_the_same() -> None:
    packing = CertificateBytes()
    chance = random.Random(1)
    ders = [chance.randbytes(700) for _ in range(200)]
    packed = [packing.packed([der]) for der in ders]
    assert [packing.unpacked(octets)[0] for octets in packed] == ders


def test_what_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        CertificateBytes().packed([random.Random(1).randbytes(70_000)])


def test_many_threads_pack_at_once() -> None:
    packing, wrong = CertificateBytes(), []
    ders = certificates(30, "A") + certificates(30, "B")

    def pack() -> None:
        wrong.extend(der for der in ders if packing.unpacked(packing.packed([der])) != [der])

    threads = [threading.Thread(target=pack) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
