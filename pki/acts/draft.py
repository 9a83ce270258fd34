"""What is to be signed, before anybody has: a file that goes to each signer, and shows all that is signed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from directory.base.json_text import read_json
from pki.acts.act import Act, ActKind, seen_digest
from pki.acts.canonical import canonical
from pki.acts.signature import PrivateKey, credential_of, sign

_FIELDS = frozenset({"act", "installation", "shown", "subjects"})


@dataclass(frozen=True)
class Draft:
    """One act as yet of nobody; ValueError where what is shown has no canonical text."""

    kind: ActKind
    installation: str
    subjects: tuple[str, ...]
    shown: Mapping[str, Any]

    def __post_init__(self) -> None:
        seen_digest(self.shown)

    def text(self) -> bytes:
        """The file."""
        return canonical(
            {
                "act": self.kind.value, "installation": self.installation, "shown": dict(self.shown),
                "subjects": list(self.subjects),
            }
        )  # fmt: skip

    def signed_by(
        self, key: PrivateKey, person: str, *, now: datetime, lifetime: timedelta, nonce: str
    ) -> bytes:
        """The act of this person under this key (compact JWS); ValueError where it could not be one."""
        at = now.replace(microsecond=0)
        credential = credential_of(key.public_key())
        act = Act(
            self.kind, self.installation, person, credential, at, at + lifetime, nonce,
            seen_digest(self.shown), self.subjects,
        )  # fmt: skip
        return sign(act, key)


def read_draft(text: bytes) -> Draft:
    """The draft of a file, however it is laid out; ValueError for every other one."""
    told = read_json(text)
    if not isinstance(told, dict) or told.keys() != _FIELDS:
        raise ValueError(f"what is to be signed says {', '.join(sorted(_FIELDS))}, and nothing else")
    match told:
        case {"act": str(kind), "installation": str(here), "shown": dict(shown), "subjects": list(subjects)}:
            return Draft(ActKind(kind), here, tuple(map(str, subjects)), shown)
        case _:
            raise ValueError("`shown` is an object, `subjects` are texts in a list")
