"""Heads of the audit log as anyone may keep them: C2SP tlog-checkpoints, signed notes under an Ed25519 key.

The key is the log's own, in a file of its own, and signs nothing else. A keeper of one of these checkpoints
can tell later whether the history before it was rewritten.
"""

import fcntl
import os
import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from directory.base.durable_files import create_whole
from directory.base.errors import Kind, Refusal

# A log that goes on after a restore is another log: the instant it began is added.
ORIGIN = "sceau/audit"
_ORIGINS = rf"{ORIGIN}(?:/[0-9]{{8}}T[0-9]{{6}}Z)?"
# Type byte of a plain Ed25519 signature in a signed note.
ED25519 = b"\x01"
_NOTE = re.compile(
    rf"(?P<origin>{_ORIGINS})\n(?P<size>0|[1-9][0-9]*)\n(?P<root>[A-Za-z0-9+/]{{43}}=)\n"
    r"\n— (?P=origin) (?P<signature>[A-Za-z0-9+/=]+)\n"
)
# In the file an empty line follows each note; a note is far shorter than this.
_KEPT = re.compile(_NOTE.pattern.encode() + rb"\n")
_TAIL = 4096


@dataclass(frozen=True)
class Head:
    """How long which log was and what its root was, with the signed note that says so."""

    size: int
    root: bytes
    note: str
    origin: str = ORIGIN


@dataclass(frozen=True)
class AuditKey:
    """The log's signing key."""

    private: Ed25519PrivateKey

    def public_key(self) -> Ed25519PublicKey:
        """What a verifier needs."""
        return self.private.public_key()

    def sign(self, size: int, root: bytes, origin: str = ORIGIN) -> Head:
        """The signed head of a log of `size` lines with this root."""
        text = _text(size, root, origin)
        signed = key_id(self.public_key(), origin) + self.private.sign(text.encode())
        return Head(size, root, f"{text}\n— {origin} {b64encode(signed).decode()}\n", origin)


def key_id(public_key: Ed25519PublicKey, origin: str = ORIGIN) -> bytes:
    """The four bytes by which a note names its key."""
    raw = public_key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return sha256(f"{origin}\n".encode() + ED25519 + raw).digest()[:4]


def verifier(public_key: Ed25519PublicKey, origin: str = ORIGIN) -> str:
    """The public key in the one line that C2SP tools take (vkey): origin, key id, type and key."""
    raw = public_key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return f"{origin}+{key_id(public_key, origin).hex()}+{b64encode(ED25519 + raw).decode()}"


def size_said(note: str) -> int:
    """The size that a note states; its signature is `open_note`'s matter."""
    return int(note.split("\n", 2)[1])


def ensure_key(path: Path, passphrase: bytes) -> AuditKey:
    """The key kept in `path` as encrypted PKCS#8; made there when there is none yet.

    Refuses `audit-key-unreadable` on a wrong passphrase or a file that holds something else.
    """
    if not path.exists():
        _make_key(path, passphrase)
    try:
        key = load_pem_private_key(path.read_bytes(), passphrase)
    except (ValueError, TypeError) as error:
        raise _unreadable(path) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _unreadable(path)
    return AuditKey(key)


def open_note(note: str, public_key: Ed25519PublicKey) -> Head:
    """What a note says, its form and signature checked; refuses `bad-head`."""
    match = _NOTE.fullmatch(note)
    if match is None:
        raise Refusal(Kind.UNACCEPTABLE, "bad-head", "This is not a checkpoint of the audit log.")
    size, root, origin = int(match["size"]), b64decode(match["root"]), match["origin"]
    if not _is_signed(_text(size, root, origin), match["signature"], public_key, origin):
        text = f"The checkpoint of {size} lines is not signed by this log's key."
        raise Refusal(Kind.UNACCEPTABLE, "bad-head", text)
    return Head(size, root, note, origin)


def read_notes(path: Path) -> tuple[list[str], str]:
    """The notes kept in `path`, oldest first, and what stands there that is none ('' when all is well)."""
    content = _content(path) if path.exists() else b""
    notes, end = [], 0
    while match := _KEPT.match(content, end):
        notes.append(match.group()[:-1].decode())
        end = match.end()
    return notes, content[end:].decode(errors="replace")


def _content(path: Path) -> bytes:
    # Who appends at this moment has written a half of its note perhaps.
    with path.open("rb") as kept:
        fcntl.flock(kept, fcntl.LOCK_SH)
        return kept.read()


def last_note(path: Path) -> str | None:
    """The last note kept in `path`, None when there is none; reads the end of the file only."""
    if not path.exists():
        return None
    with path.open("rb") as kept:
        return _end(kept)[0]


def append_checkpoint_file(path: Path, notes: Sequence[str]) -> None:
    """Add notes at the end of `path`, on the disk when this returns.

    A tail that a crash left half-written is cut off first: it was never acknowledged.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("a+b") as kept:
        fcntl.flock(kept, fcntl.LOCK_EX)
        kept.truncate(_end(kept)[1])
        kept.write("".join(f"{note}\n" for note in notes).encode())
        kept.flush()
        os.fsync(kept.fileno())


def _end(kept: IO[bytes]) -> tuple[str | None, int]:
    """The last complete note of an open file, and the place where it ends."""
    begins = max(0, kept.seek(0, os.SEEK_END) - _TAIL)
    kept.seek(begins)
    matches = list(_KEPT.finditer(kept.read()))
    if matches:
        return matches[-1].group()[:-1].decode(), begins + matches[-1].end()
    if begins:
        text = f"{kept.name} does not end with a checkpoint: it was damaged."
        raise Refusal(Kind.CONFLICT, "checkpoint-file-damaged", text)
    return None, 0


def _is_signed(text: str, signature: str, public_key: Ed25519PublicKey, origin: str) -> bool:
    try:
        signed = b64decode(signature, validate=True)
        public_key.verify(signed[4:], text.encode())
    except (InvalidSignature, ValueError):
        return False
    return signed[:4] == key_id(public_key, origin)


def _text(size: int, root: bytes, origin: str) -> str:
    return f"{origin}\n{size}\n{b64encode(root).decode()}\n"


def _make_key(path: Path, passphrase: bytes) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase)
    )
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    create_whole(path, pem)


def _unreadable(path: Path) -> Refusal:
    text = f"{path} is not an Ed25519 key under this passphrase."
    return Refusal(Kind.UNAVAILABLE, "audit-key-unreadable", text)
