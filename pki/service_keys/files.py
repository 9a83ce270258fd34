"""Short-lived keys of web and worker, each encrypted in a file named by what it is for and its digest.

What they sign is for `pki/ocsp/responders.py` and `jws`. The CA's keys stay with the signer.
"""

from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec


def public_bits(key: ec.EllipticCurvePublicKey) -> bytes:
    """The bits of the key that its digests are taken over."""
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def certified_bits(certificate: bytes) -> bytes:
    """The bits of the key that this certificate, in DER, is for; TypeError for no EC key."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise TypeError("keys of web and worker are P-256")
    return public_bits(key)


def key_path(folder: Path, name: str, bits: bytes) -> Path:
    """The file of the key with these public bits; `name` says what it is for, as in `ocsp-persons-1`."""
    return folder / f"{name}.{sha256(bits).hexdigest()[:32]}.pem"


def path_for(folder: Path, name: str, certificate: bytes) -> Path:
    """The file where the key of this certificate, in DER, would lie."""
    return key_path(folder, name, certified_bits(certificate))


def save_key(folder: Path, name: str, key: ec.EllipticCurvePrivateKey, passphrase: bytes) -> Path:
    """Write the key before anyone certifies it: a certificate without its key would only be waste."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = key_path(folder, name, public_bits(key.public_key()))
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase),
    )
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(pem)
    return path


def load_key(path: Path, passphrase: bytes) -> ec.EllipticCurvePrivateKey:
    """The key in this file; TypeError for one of another kind."""
    key = serialization.load_pem_private_key(path.read_bytes(), passphrase)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("keys of web and worker are P-256")
    return key


def forget_others(folder: Path, name: str, kept: Path) -> None:
    """Remove the keys this one replaces: what they signed stays good without them."""
    for path in folder.glob(f"{name}.*.pem"):
        if path != kept:
            path.unlink()
