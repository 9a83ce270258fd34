"""The locks of keys: by the number under which a certificate is asked for, and by the form that is stored.

A report of a key takes its numbers first, then every form of it that is known.
"""

from collections.abc import Iterable
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicNumbers
from sqlalchemy import Connection, text

from directory.base.locks import lock_all_until_commit
from pki.certificates.public_keys import PublicKey, spki_sha256

_FAMILIES = text("""
    SELECT DISTINCT family.spki FROM unnest(CAST(:keys AS bytea[])) AS key (spki)
    CROSS JOIN LATERAL sceau_key_family(key.spki) AS family (spki)
""")
_OF_NUMBERS = text("SELECT spki_sha256 FROM key_number WHERE number = ANY(CAST(:numbers AS bytea[]))")
_NUMBERS = text("SELECT number FROM key_number WHERE spki_sha256 = ANY(CAST(:keys AS bytea[]))")


def hold_families(connection: Connection, keys: Iterable[PublicKey], spkis: Iterable[bytes]) -> list[bytes]:
    """As `hold`, for who reports these keys: their numbers first, then each form of them that is known.

    Gives the SHA-256 of the SPKI of every form. A request for a certificate locks the number alone, the
    storing of one the form alone. Neither waits for the other while it keeps this one waiting.
    """
    keys, spkis = list(keys), {*spkis, *(spki_sha256(key) for key in keys)}
    known = connection.execute(_NUMBERS, {"keys": list(spkis)}).scalars()
    hold_numbers(connection, {*(bytes(number) for number in known), *map(number_of, keys)})
    families = {bytes(spki) for spki in connection.execute(_FAMILIES, {"keys": list(spkis)}).scalars()}
    families |= {
        bytes(spki)
        for spki in connection.execute(_OF_NUMBERS, {"numbers": [number_of(key) for key in keys]}).scalars()
    }
    lock_keys(connection, families)
    return sorted(families)


def hold_numbers(connection: Connection, numbers: Iterable[bytes]) -> None:
    """Take the locks under which certificates for keys of these numbers are asked for, until the commit."""
    lock_all_until_commit(connection, [number_lock(number) for number in numbers])


def number_lock(number: bytes) -> str:
    """The lock that `hold_numbers` takes for this number."""
    return f"key-number:{number.hex()}"


def lock_keys(connection: Connection, spkis_sha256: Iterable[bytes]) -> None:
    """Take the locks under which keys are reported, or their certificates stored, until the commit.

    Before any reservation of these keys is locked, or one who reports and one who stores wait for each other.
    """
    lock_all_until_commit(connection, [lock_name(spki) for spki in spkis_sha256])


def lock_name(spki_sha256: bytes) -> str:
    """The lock that `hold` takes for this key."""
    return f"key:{spki_sha256.hex()}"


def number_of(key: PublicKey) -> bytes:
    """What every form of one private key shares: SHA-256 over the modulus, or the x of the point."""
    numbers = key.public_numbers()
    return digest_of(numbers.x if isinstance(numbers, EllipticCurvePublicNumbers) else numbers.n)


def digest_of(value: int) -> bytes:
    """SHA-256 over the bytes of a number of a key."""
    return sha256(value.to_bytes((value.bit_length() + 7) // 8)).digest()
