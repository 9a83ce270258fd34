"""The software key of a person, in a file that she alone reads: PKCS #8 in PEM, under a passphrase or not."""

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from directory.base.durable_files import create_whole, make_private
from directory.base.errors import Kind, Refusal
from pki.acts.signature import PrivateKey, credential_of


def make_key(path: Path, passphrase: bytes | None) -> PrivateKey:
    """A new key in a file of its own (0600); refuses `key-file-exists` rather than replace one."""
    key = Ed25519PrivateKey.generate()
    how = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    make_private(path.parent)
    if not create_whole(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)):
        raise Refusal(Kind.CONFLICT, "key-file-exists", f"{path} is there already, and stays as it is.")
    return key


def is_locked(path: Path) -> bool:
    """Whether the key of this file opens by a passphrase alone."""
    return b"ENCRYPTED" in path.read_bytes()


def load_key(path: Path, passphrase: bytes | None) -> PrivateKey:
    """The key of this file; refuses `person-key-unreadable`, on a wrong passphrase too."""
    try:
        key = load_pem_private_key(path.read_bytes(), passphrase if is_locked(path) else None)
        credential_of(key.public_key())  # type: ignore[arg-type]  # ValueError for every other kind
    except (ValueError, TypeError, UnsupportedAlgorithm, OSError) as error:
        text = f"{path} holds no key on P-256 or Ed25519 that this passphrase opens."
        raise Refusal(Kind.UNACCEPTABLE, "person-key-unreadable", text) from error
    return key  # type: ignore[return-value]  # as above
