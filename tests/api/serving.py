"""The web part as `sceau web` starts it, for a test; and requests over sockets, octet by octet."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.installation.bring_up import web_command
from api.settings import load_settings, save_settings
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def web_server(state: Path, database_url: str, **given: Any) -> Iterator[int]:
    """One process of it on a free port, which is given; ended afterwards."""
    free = free_port()
    save_settings(state, {"database_url": database_url, "port": free, "web_workers": 1, **given})
    (state / "secrets").mkdir()
    (state / "secrets" / "web.passphrase").write_text("for a test")
    environment = os.environ | {"SCEAU_STATE": str(state)}
    process = subprocess.Popen(web_command(load_settings(state)), cwd=ROOT, env=environment)
    try:
        deadline = time.monotonic() + 90
        while not serves(free):
            assert time.monotonic() < deadline, "the web part does not come up"
            time.sleep(0.1)
        yield free
    finally:
        process.terminate()
        process.wait(timeout=20)


def serves(port: int) -> bool:
    try:
        return exchange(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").status == 200
    except (OSError, ValueError):
        return False


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


def connect(port: int, address: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(address, 0))


def exchange(port: int, sent: bytes, address: str = "127.0.0.1") -> Reply:
    """The first answer to these octets, on a connection of their own."""
    with closing(connect(port, address)) as link:
        link.sendall(sent)
        return answer_of(link)


def answer_of(link: socket.socket, *, without_body: bool = False) -> Reply:
    """One answer, of which no octet beyond is taken."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        octet = link.recv(1)
        if not octet:
            raise ValueError("hung up")
        head += octet
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    status = int(first.split()[1])
    if headers.get("transfer-encoding") == "chunked" and not without_body:
        return Reply(status, headers, b"".join(iter(lambda: chunk_of(link), b"")))
    return Reply(
        status, headers, octets_of(link, 0 if without_body else int(headers.get("content-length", 0)))
    )


def octets_of(link: socket.socket, size: int) -> bytes:
    body = b""
    while len(body) < size:
        piece = link.recv(size - len(body))
        if not piece:
            raise ValueError("hung up")
        body += piece
    return body


def chunk_of(link: socket.socket) -> bytes:
    """One chunk (RFC 9112 7.1); the last one is empty."""
    line = b""
    while not line.endswith(b"\r\n"):
        line += octets_of(link, 1)
    piece = octets_of(link, int(line, 16))
    octets_of(link, 2)
    return piece


def head_of(method: str, path: str, token: str = "", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x"]
    lines += [f"Authorization: Bearer {token}"] if token else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def post(path: str, body: bytes, token: str = "", **headers: str) -> bytes:
    named = {"Content_Type": "application/json", "Content_Length": str(len(body))} | headers
    return head_of("POST", path, token, **named) + body
