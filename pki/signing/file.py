"""CA keys as encrypted PKCS #8 files in one folder: 0700 the folder, 0600 each file.

The passphrase is worth as much as the keys, so it should be long and random; PBES2 with AES-256 then is not
the weak place. Keys on a hardware module are for `pkcs11`.
"""

from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurve,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from directory.base.durable_files import create_whole
from pki.signing import keys


@dataclass(frozen=True)
class FileKeys:
    """The keys of one folder under one passphrase."""

    folder: Path
    passphrase: bytes = field(repr=False)

    def exists(self, name: str) -> bool:
        """Whether a key of that name is there."""
        return self._path(name).exists()

    def make(self, name: str, curve: EllipticCurve) -> EllipticCurvePrivateKey:
        """As `Keys.make`; on disk when this returns."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.chmod(0o700)
        key = generate_private_key(curve)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(self.passphrase))
        # Whole or not at all: half a key under the right name would be taken for a wrong passphrase.
        if not create_whole(self._path(name), pem):
            raise keys.taken(name)
        return key

    def load(self, name: str) -> EllipticCurvePrivateKey:
        """As `Keys.load`."""
        try:
            key = load_pem_private_key(self._path(name).read_bytes(), self.passphrase)
        except FileNotFoundError as error:
            raise keys.missing(name) from error
        except (ValueError, TypeError) as error:
            # TypeError: a key in the clear, which nobody meant to lie here.
            raise keys.unreadable(f"The key {name} does not open with this passphrase.") from error
        if not isinstance(key, EllipticCurvePrivateKey):
            raise keys.unreadable(f"The key {name} is not an EC key.")
        return key

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.key"
