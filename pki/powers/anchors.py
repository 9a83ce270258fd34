"""What the ceremony names, and no row can: the installation, its first administrators, its recovery keys.

A file beside the signer and the log, outside the database. Every power leads back to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from directory.base.errors import Kind, Refusal
from directory.base.json_text import read_json
from pki.acts.act import INSTALLATION, PERSON
from pki.acts.canonical import canonical
from pki.acts.signature import PublicKey, credential_of

# Two of them replace administrators and anchors; one may be lost.
RECOVERY_KEYS, RECOVERY_AGREE = 3, 2
LEAST_ADMINISTRATORS = 2
_FIELDS = frozenset({"administrators", "demo", "installation", "recovery"})


@dataclass(frozen=True)
class Anchors:
    """Keys by the name of their credential; ValueError for anchors that one person could turn alone.

    `administrators` are keys by person, `recovery` are of nobody. Where `demo` is set, keys that lie in a
    state folder count: such an installation is for trying.
    """

    installation: str
    administrators: Mapping[str, PublicKey]
    recovery: tuple[PublicKey, ...]
    demo: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "administrators", MappingProxyType(dict(self.administrators)))
        if len(self.administrators) < LEAST_ADMINISTRATORS:
            raise ValueError("an installation has two administrators at least")
        if len(self.recovery) != RECOVERY_KEYS:
            raise ValueError("an installation has three recovery keys")
        if not INSTALLATION.fullmatch(self.installation) or not all(
            map(PERSON.fullmatch, self.administrators)
        ):
            raise ValueError("an installation is 32 hexadecimal digits, a person `person:` and as many")
        names = [credential_of(key) for key in (*self.administrators.values(), *self.recovery)]
        if len(set(names)) < len(names):
            raise ValueError("each administrator, and each recovery key, is another key")

    def text(self) -> bytes:
        """The file."""
        return canonical(
            {
                "administrators": {person: pem_of(key) for person, key in self.administrators.items()},
                "demo": self.demo, "installation": self.installation,
                "recovery": [pem_of(key) for key in self.recovery],
            }
        )  # fmt: skip


def read_anchors(text: bytes) -> Anchors:
    """The anchors of a file; ValueError for every other one."""
    told = read_json(text)
    if not isinstance(told, dict) or told.keys() != _FIELDS or not isinstance(told["demo"], bool):
        raise ValueError(f"anchors name {', '.join(sorted(_FIELDS))}, and nothing else")
    match told:
        case {"administrators": dict(administrators), "recovery": list(recovery), "installation": str(here)}:
            keys = {person: public_key(pem) for person, pem in administrators.items()}
            return Anchors(here, keys, tuple(map(public_key, recovery)), told["demo"])
        case _:
            raise ValueError("administrators are keys by person, recovery keys a list")


def public_key(pem: Any) -> PublicKey:
    """The key of this PEM; ValueError for what is none that acts are signed by."""
    try:
        key: Any = load_pem_public_key(str(pem).encode())
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error
    credential_of(key)
    return key  # type: ignore[no-any-return]  # credential_of has refused every other kind


def pem_of(key: PublicKey) -> str:
    """A key as it stands in the anchors, and in the log."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def load_anchors(path: Path) -> Anchors | None:
    """The anchors in this file, None where there is none; refuses `bad-anchors`."""
    try:
        return read_anchors(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Refusal(Kind.UNAVAILABLE, "bad-anchors", f"{path.name} holds no anchors: {error}.") from error


def required_anchors(path: Path) -> Anchors:
    """As `load_anchors`; refuses `anchors-missing` where there is no file."""
    if (found := load_anchors(path)) is None:
        text = f"{path} is not there: this installation has no anchors (`sceau anchors make`)."
        raise Refusal(Kind.UNAVAILABLE, "anchors-missing", text)
    return found
