"""pkilint kept warm in processes of its own, so that it holds up neither OCSP nor another request.

Each web process owns its pool. A certificate that gets no opinion in time is not issued
(`lint-unavailable`); a process that dies or hangs is replaced. What the opinion is, is `pkix`'s business;
`python -m pki.lint.pool` is one process of the pool: frames of a length and JSON on its standard streams.
"""

import gc
import os
import select
import struct
import subprocess
import sys
import threading
import time
from base64 import b64decode, b64encode
from contextlib import suppress
from queue import Empty, LifoQueue
from typing import IO, Any

import orjson

from directory.base.errors import Kind, Refusal
from pki.lint import pkix
from pki.lint.lint import Finding

_HEADER = struct.Struct(">I")
# A certificate has 2 kB; a finding is a line.
_LARGEST = 1 << 20
# From a cold start (a second) under load; an opinion takes some milliseconds.
SECONDS = 5.0
# Whoever waits for more than so many before him is sent away at once.
LONGEST_QUEUE = 64


class LintPool:
    """`workers` processes, started when first wanted; `findings` is safe from any thread."""

    def __init__(self, workers: int = 1, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        # The one used last comes first: its memory is in the caches. None stands for one to be started.
        self._free: LifoQueue[_Worker | None] = LifoQueue()
        for _ in range(workers):
            self._free.put(None)
        self._waiting = threading.BoundedSemaphore(LONGEST_QUEUE)
        self._closed = False

    def warm(self) -> None:
        """Start every process now, without waiting until it has loaded."""
        taken = [self._free.get_nowait() for _ in range(self._free.qsize())]
        for worker in taken:
            self._free.put(worker or _Worker())

    def findings(self, der: bytes, profile: str = "") -> tuple[list[Finding], list[Finding]]:
        """As `pkix.findings`; refuses `lint-unavailable` when no process gives an opinion in time."""
        if not self._waiting.acquire(blocking=False):
            raise _unavailable()
        try:
            return self._asked(der, profile, time.monotonic() + self._seconds)
        finally:
            self._waiting.release()

    def close(self) -> None:
        """End the processes; one that is asked at this moment ends with its answer."""
        self._closed = True
        with suppress(Empty):
            while True:
                worker = self._free.get_nowait()
                if worker is not None:
                    worker.end()

    def _asked(self, der: bytes, profile: str, deadline: float) -> tuple[list[Finding], list[Finding]]:
        try:
            worker = self._free.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty as error:
            raise _unavailable() from error
        keep: _Worker | None = None
        try:
            worker = worker or _Worker()
            answer = worker.ask({"der": b64encode(der).decode(), "profile": profile}, deadline)
            keep = worker
        except (OSError, ValueError) as error:
            # Dead, hung or confused: whatever it would say next may be about another certificate.
            if worker is not None:
                worker.end()
            raise _unavailable() from error
        finally:
            self._give_back(keep)
        return [Finding(**row) for row in answer["wrong"]], [Finding(**row) for row in answer["advised"]]

    def _give_back(self, worker: "_Worker | None") -> None:
        if self._closed and worker is not None:
            worker.end()
        else:
            self._free.put(worker)


class _Worker:
    """One process and the two ends of its pipe."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pki.lint.pool"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise OSError("a process without pipes")
        self._to, self._from = self._process.stdin, self._process.stdout

    def ask(self, question: dict[str, Any], deadline: float) -> dict[str, Any]:
        """One question and its answer by then; OSError (TimeoutError among them) or ValueError."""
        body = orjson.dumps(question)
        # Below a pipe's 64 kB, so that writing waits for nobody.
        self._to.write(_HEADER.pack(len(body)) + body)
        (size,) = _HEADER.unpack(self._read(_HEADER.size, deadline))
        if size > _LARGEST:
            raise ValueError("an answer too large")
        answer: dict[str, Any] = orjson.loads(self._read(size, deadline))
        return answer

    def end(self) -> None:
        """Kill it and its pipes: it keeps nothing."""
        self._process.kill()
        for pipe in (self._to, self._from):
            with suppress(OSError):
                pipe.close()
        self._process.wait()

    def _read(self, size: int, deadline: float) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError("no opinion in time")
            part = os.read(self._from.fileno(), size - len(parts))
            if not part:
                raise ConnectionError("the process ended")
            parts += part
        return bytes(parts)


def serve(questions: IO[bytes], answers: IO[bytes]) -> None:
    """Answer until the other side leaves; a certificate that pkilint cannot read ends the process."""
    pkix.warm()
    # What is loaded stays for good: going through it for garbage would take a tenth of each opinion.
    gc.collect()
    gc.freeze()
    while header := questions.read(_HEADER.size):
        asked = orjson.loads(questions.read(_HEADER.unpack(header)[0]))
        wrong, advised = pkix.findings(b64decode(asked["der"]), asked["profile"])
        told = {"wrong": [dict(f.as_row()) for f in wrong], "advised": [dict(f.as_row()) for f in advised]}
        body = orjson.dumps(told)
        answers.write(_HEADER.pack(len(body)) + body)
        answers.flush()


def _unavailable() -> Refusal:
    text = "The certificate could not be checked in time: nothing was lost, ask again in a moment."
    return Refusal(Kind.UNAVAILABLE, "lint-unavailable", text)


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
