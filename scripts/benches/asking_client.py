"""A client for `asking.py`, in a process of its own: it asks over some connections, and notes how long each
answer took. Sockets as they are, on one thread: it takes little from what it measures.

From stdin: one line of JSON (`host`, `port`, `paths`, `headers`, `connections`, `each_second`), then a line
that ends it. To stdout: the seconds of all answers, in no order. With `each_second` 0 each connection asks
again as soon as it was answered. Else each question is due at an instant, and its answer is timed from then:
a late answer delays the next question.
"""

import json
import re
import select
import socket
import sys
import time
from typing import Any

_LENGTH = re.compile(rb"content-length: ([0-9]+)", re.IGNORECASE)


class Line:
    """One connection, on which one question at a time is under way."""

    def __init__(self, given: dict[str, Any], number: int) -> None:
        self.socket = socket.create_connection((given["host"], given["port"]))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        headers = "".join(f"{name}: {value}\r\n" for name, value in given["headers"].items())
        paths = given["paths"][number :: given["connections"]]
        self._requests = [f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode() for path in paths]
        self._place = 0
        rate = given["each_second"]
        self._pause = given["connections"] / rate if rate else 0.0
        # Of all, from the instant when all are ready.
        self.due = number / rate if rate else 0.0
        self.waits = False
        self._told = b""

    def fileno(self) -> int:
        """For `select`."""
        return self.socket.fileno()

    def ask(self) -> None:
        """Send the next question."""
        self.socket.sendall(self._requests[self._place % len(self._requests)])
        self._place += 1
        self.waits = True

    def hear(self) -> float | None:
        """Read what came; the seconds that the answer took once it is whole."""
        self._told += self.socket.recv(65536)
        head, ended, body = self._told.partition(b"\r\n\r\n")
        if not ended:
            return None
        if head.split(None, 2)[1] != b"200":
            raise SystemExit(head.decode())
        if len(body) < int(_LENGTH.search(head)[1]):
            return None
        took = time.monotonic() - self.due
        self.due = self.due + self._pause if self._pause else time.monotonic()
        self.waits, self._told = False, b""
        return took


def asked(given: dict[str, Any]) -> list[float]:
    """The seconds of all answers until stdin has another line."""
    lines = [Line(given, number) for number in range(given["connections"])]
    began = time.monotonic()
    for line in lines:
        line.due += began
    took = []
    while True:
        for line in lines:
            if not line.waits and line.due <= time.monotonic():
                line.ask()
        idle = [line.due for line in lines if not line.waits]
        pause = max(0.0, min(idle) - time.monotonic()) if idle else None
        readable, _, _ = select.select([sys.stdin, *lines], [], [], pause)
        for line in readable:
            if line is sys.stdin:
                return took
            if line.waits and (seconds := line.hear()) is not None:
                took.append(seconds)


if __name__ == "__main__":
    print(json.dumps(asked(json.loads(sys.stdin.readline()))))
