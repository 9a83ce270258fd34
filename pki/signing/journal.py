"""The signer's own memory: every signature, one JSON line each, on disk before the signature leaves.

Kept apart from the database on purpose. After a crash or a restore, it shows that something was signed which
the record does not know. Only ever appended to.
"""

import fcntl
import os
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

import orjson

from directory.base.errors import Kind, Refusal
from pki.model import Serial


class Journal:
    """The journal at `path`, held by this process alone until `close()`.

    Remembers offsets, not certificates: two million of them fit in memory.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._path = path
        try:
            # Two signers with a memory each could sign one serial twice.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._file)
            text = f"Another signer holds {path}."
            raise Refusal(Kind.CONFLICT, "journal-held", text) from error
        self._certificates: dict[Serial, tuple[int, int]] = {}
        self._lists: dict[str, str] = {}
        self._writing = Lock()
        self._end = 0
        for offset, line in self._lines():
            self._remember(offset, line)

    @property
    def folder(self) -> Path:
        """Where it lies, and what else this signer remembers of what it signed."""
        return self._path.parent

    def certificate(self, serial: Serial) -> bytes | None:
        """The certificate signed under this serial, None when none was."""
        place = self._certificates.get(serial)
        if place is None:
            return None
        return b64decode(orjson.loads(os.pread(self._file, place[1], place[0]))["der"])

    def serials(self, after: int, most: int) -> list[Serial]:
        """At most so many serials of certificates in the order they were signed, after the first `after`."""
        return list(islice(self._certificates, after, after + most))

    def list_signed(self, place: str) -> bytes | None:
        """SHA-256 of the to-be-signed bytes of a CRL signed under this place (`CA/shard/number`), or None."""
        digest = self._lists.get(place)
        return None if digest is None else bytes.fromhex(digest)

    def add_certificate(self, serial: Serial, der: bytes) -> None:
        """Write a signature down; it is on disk when this returns."""
        self.add_certificates({serial: der})

    def add_certificates(self, signed: Mapping[Serial, bytes]) -> None:
        """Write many signatures down; all are on disk when this returns, after one wait for the disk."""
        self._append_all(
            [
                {"serial": serial, "sha256": sha256(der).hexdigest(), "der": b64encode(der).decode()}
                for serial, der in signed.items()
            ]
        )

    def add_list(self, place: str, tbs_sha256: bytes) -> None:
        """Write down which bytes are signed under a CRL's number, before they are."""
        self._append_all([{"crl": place, "tbs_sha256": tbs_sha256.hex()}])

    def close(self) -> None:
        """Let another process hold the journal."""
        os.close(self._file)

    def _append_all(self, entries: Sequence[dict[str, str]]) -> None:
        lines = [orjson.dumps(entry) + b"\n" for entry in entries]
        # Two at a time would write to one place, and leave a hole behind it.
        with self._writing:
            try:
                self._write(b"".join(lines))
            except OSError:
                # A full disk: lines may lie there of signatures that never left, and a shorter one written
                # over them would leave their ends behind.
                os.ftruncate(self._file, self._end)
                raise
            for line in lines:
                offset, self._end = self._end, self._end + len(line)
                self._remember(offset, line)

    def _write(self, whole: bytes) -> None:
        written = 0
        while written < len(whole):
            written += os.pwrite(self._file, whole[written:], self._end + written)
        os.fsync(self._file)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with os.fdopen(os.dup(self._file), "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    # Cut short by a crash: fsync had not returned, so the signature never left.
                    os.ftruncate(self._file, self._end)
                    return
                yield self._end, line
                self._end += len(line)

    def _remember(self, offset: int, line: bytes) -> None:
        try:
            entry: dict[str, Any] = orjson.loads(line)
            if "crl" in entry:
                self._lists[entry["crl"]] = entry["tbs_sha256"]
            else:
                self._check(entry)
                self._certificates[Serial(entry["serial"])] = (offset, len(line))
        except (ValueError, KeyError, TypeError) as error:
            # A forgotten line is a serial that could be signed twice: stop rather than guess.
            text = f"{self._path} is damaged at byte {offset}: restore it before signing."
            raise Refusal(Kind.UNAVAILABLE, "journal-damaged", text) from error

    @staticmethod
    def _check(entry: dict[str, Any]) -> None:
        if sha256(b64decode(entry["der"])).hexdigest() != entry["sha256"]:
            raise ValueError("a line that does not match its digest")
