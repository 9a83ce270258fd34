"""Where CA keys lie, as those who sign see it: by name, whether in files or on a token that keeps them in.

`file` and `pkcs11` are the two places there are; one contract suite runs over both
(tests/pki/signing/test_keys_of_a_ca.py). What may be signed is for `inprocess` and the ceremony.
"""

from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurve, EllipticCurvePrivateKey

from directory.base.errors import Kind, Refusal


class Keys(Protocol):
    """EC keys on P-256 and P-384 under names. A key may sign and tell its public half; nothing more is sure.

    Each act refuses `ca-key-unreadable` when the place does not open with the secret it was given. It refuses
    `signer-unavailable` when the place is away: a token that is unplugged, a module that fails.
    """

    def exists(self, name: str) -> bool:
        """Whether a key of that name is there."""
        ...

    def make(self, name: str, curve: EllipticCurve) -> EllipticCurvePrivateKey:
        """A new key, kept for good when this returns; never over an old one (refused: `ca-key-exists`)."""
        ...

    def load(self, name: str) -> EllipticCurvePrivateKey:
        """The key of that name, safe to use from several threads; refuses `ca-key-missing`."""
        ...


def missing(name: str) -> Refusal:
    """What `Keys.load` says of a name it does not know."""
    return Refusal(Kind.UNAVAILABLE, "ca-key-missing", f"The signer has no key {name}.")


def taken(name: str) -> Refusal:
    """What `Keys.make` says of a name that has a key: nothing may ever be written over it."""
    return Refusal(Kind.CONFLICT, "ca-key-exists", f"There is a key {name} already; it stays as it is.")


def unreadable(text: str) -> Refusal:
    """A key or its place that does not open; `text` may be read by anyone, so it names no folder."""
    return Refusal(Kind.UNAVAILABLE, "ca-key-unreadable", text)
