"""The way to the signer process: `Signer` over its socket; asks again when an answer was lost.

Every question is safe to repeat, so one lost answer is no reason to refuse. Connections are kept: for each
new one the signer begins a thread. One that went stale counts for no try.
"""

import socket
import struct
import weakref
from base64 import b64decode
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from directory.base.errors import Kind, Refusal
from pki.model import Serial
from pki.signing import wire

TRIES = 2
# Whoever asks whether it is well waits for the answer: a signer that hangs is not well.
PING_SECONDS = 2.0
# Kept at rest; the signer has a thread waiting on each.
_MOST_KEPT = 8
# struct timeval
_TIME = struct.Struct("@ll")


class SignerClient:
    """A signer at the other end of `socket_path`; `timeout` in seconds for each step of a question."""

    def __init__(self, socket_path: Path, timeout: float = 10) -> None:
        self._path = socket_path
        self._timeout = timeout
        # Taken and given back by one operation each, from whatever thread.
        self._kept: deque[socket.socket] = deque()
        weakref.finalize(self, _close, self._kept)

    def sign_certificate(self, serial: Serial) -> bytes:
        """As `Signer.sign_certificate`."""
        return b64decode(self._ask("certificate", serial=serial)[0])

    def sign_certificates(self, serials: Sequence[Serial]) -> list[bytes | Refusal]:
        """As `Signer.sign_certificates`."""
        answers, _ = self._ask("certificates", serials=list(serials))
        return [
            _refusal(answer["refusal"]) if "refusal" in answer else b64decode(answer["der"])
            for answer in answers
        ]

    def sign_crl(self, authority_id: str, shard: int, number: int) -> bytes:
        """As `Signer.sign_crl`."""
        return self._ask("crl", authority=authority_id, shard=shard, number=number)[1]

    def journal(self, serial: Serial) -> bytes | None:
        """As `Signer.journal`."""
        encoded, _ = self._ask("journal", serial=serial)
        return None if encoded is None else b64decode(encoded)

    def signed(self, after: int) -> list[Serial]:
        """As `Signer.signed`."""
        return [Serial(serial) for serial in self._ask("signed", after=after)[0]]

    def ping(self) -> str:
        """As `Signer.ping`; asked once, and not waited for beyond `PING_SECONDS`."""
        try:
            with self._connect(min(self._timeout, PING_SECONDS)) as link:
                return str(_unpacked(*_exchange(link, {"ask": "ping"}))[0])
        except (OSError, ValueError) as lost:
            raise _unavailable() from lost

    def _ask(self, question: str, **details: Any) -> tuple[Any, bytes]:
        tries = 0
        while True:
            kept = self._take_kept()
            try:
                return _unpacked(*self._over(kept or self._connect(), {"ask": question, **details}))
            except (OSError, ValueError) as lost:
                # The others lead to the same signer: what ended this one has ended them, or would.
                _close(self._kept)
                if kept is None or not isinstance(lost, ConnectionError):
                    tries += 1
                if tries == TRIES:
                    raise _unavailable() from lost

    def _take_kept(self) -> socket.socket | None:
        try:
            return self._kept.pop()
        except IndexError:
            return None

    def _over(self, link: socket.socket, asked: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """The answer over this connection, which is kept after it and closed without one."""
        try:
            answer = _exchange(link, asked)
        except BaseException:
            link.close()
            raise
        if len(self._kept) < _MOST_KEPT:
            self._kept.append(link)
        else:
            link.close()
        return answer

    def _connect(self, timeout: float | None = None) -> socket.socket:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            seconds = timeout or self._timeout
            # With Python's own limit of time it would be refused at once where others wait to be taken.
            limit = _TIME.pack(*divmod(round(seconds * 1_000_000), 1_000_000))
            link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            with wire.short(self._path) as path:
                link.connect(path)
            link.settimeout(seconds)
        except BaseException:
            link.close()
            raise
        return link


def _exchange(link: socket.socket, question: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    wire.send(link, question)
    answer = wire.receive(link, wire.LARGEST_ANSWER)
    if answer is None:
        raise ConnectionError("the signer hung up")
    return answer


def _close(links: deque[socket.socket]) -> None:
    with suppress(IndexError):
        while True:
            links.pop().close()


def _unavailable() -> Refusal:
    text = "The signer cannot be reached: nothing was lost, ask again in a moment."
    return Refusal(Kind.UNAVAILABLE, "signer-unavailable", text)


def _unpacked(answer: dict[str, Any], attached: bytes) -> tuple[Any, bytes]:
    if "refusal" in answer:
        raise _refusal(answer["refusal"])
    return answer["answer"], attached


def _refusal(told: dict[str, Any]) -> Refusal:
    return Refusal(Kind(told["kind"]), told["code"], told["text"], **told["details"])
