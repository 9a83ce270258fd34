"""The way to the signer process: `Signer` over its socket; asks again when an answer was lost.

Every question is safe to repeat, so one lost answer is no reason to refuse. A connection per question costs
some tens of microseconds and leaves nothing to go stale.
"""

import socket
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from directory.base.errors import Kind, Refusal
from pki.model import Serial
from pki.signing import wire

TRIES = 2
# Whoever asks whether it is well waits for the answer: a signer that hangs is not well.
PING_SECONDS = 2.0


class SignerClient:
    """A signer at the other end of `socket_path`; `timeout` in seconds for each step of a question."""

    def __init__(self, socket_path: Path, timeout: float = 10) -> None:
        self._path = socket_path
        self._timeout = timeout

    def sign_certificate(self, serial: Serial) -> bytes:
        """As `Signer.sign_certificate`."""
        return b64decode(self._ask("certificate", serial=serial)[0])

    def sign_certificates(self, serials: Sequence[Serial]) -> list[bytes | Refusal]:
        """As `Signer.sign_certificates`."""
        answers, _ = self._ask("certificates", serials=list(serials))
        return [_refusal(one["refusal"]) if "refusal" in one else b64decode(one["der"]) for one in answers]

    def sign_crl(self, authority_id: str, shard: int, number: int) -> bytes:
        """As `Signer.sign_crl`."""
        return self._ask("crl", authority=authority_id, shard=shard, number=number)[1]

    def journal(self, serial: Serial) -> bytes | None:
        """As `Signer.journal`."""
        found, _ = self._ask("journal", serial=serial)
        return None if found is None else b64decode(found)

    def signed(self, after: int) -> list[Serial]:
        """As `Signer.signed`."""
        return [Serial(serial) for serial in self._ask("signed", after=after)[0]]

    def ping(self) -> str:
        """As `Signer.ping`; asked once, and not waited for beyond `PING_SECONDS`."""
        try:
            return str(_unpacked(*self._exchange({"ask": "ping"}, min(self._timeout, PING_SECONDS)))[0])
        except (OSError, ValueError) as lost:
            raise _unavailable() from lost

    def _ask(self, question: str, **details: Any) -> tuple[Any, bytes]:
        error: Exception | None = None
        for _ in range(TRIES):
            try:
                return _unpacked(*self._exchange({"ask": question, **details}, self._timeout))
            except (OSError, ValueError) as lost:
                error = lost
        raise _unavailable() from error

    def _exchange(self, question: dict[str, Any], timeout: float) -> tuple[dict[str, Any], bytes]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(timeout)
            with wire.short(self._path) as path:
                link.connect(path)
            wire.send(link, question)
            answer = wire.receive(link, wire.LARGEST_ANSWER)
        if answer is None:
            raise ConnectionError("the signer hung up")
        return answer


def _unavailable() -> Refusal:
    text = "The signer cannot be reached: nothing was lost, ask again in a moment."
    return Refusal(Kind.UNAVAILABLE, "signer-unavailable", text)


def _unpacked(answer: dict[str, Any], attached: bytes) -> tuple[Any, bytes]:
    if "refusal" in answer:
        raise _refusal(answer["refusal"])
    return answer["answer"], attached


def _refusal(told: dict[str, Any]) -> Refusal:
    return Refusal(Kind(told["kind"]), told["code"], told["text"], **told["details"])
