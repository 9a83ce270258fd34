"""How web and signer speak: frames of a length and a JSON object over a Unix socket, question and answer."""

import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

_HEADER = struct.Struct(">I")
# A thousand serials with their quotes.
LARGEST_QUESTION = 1 << 16
# A CRL of a million entries has 49 MB, in base64 a third more.
LARGEST_ANSWER = 128 << 20
# What sun_path holds, its final zero left out.
_LONGEST_PATH = 107


def send(link: socket.socket, message: Mapping[str, Any]) -> None:
    """Send one frame."""
    body = orjson.dumps(dict(message))
    link.sendall(_HEADER.pack(len(body)) + body)


def receive(link: socket.socket, largest: int) -> dict[str, Any] | None:
    """One frame; None when the other side closed before it, ConnectionError when within it or too large."""
    header = _exactly(link, _HEADER.size)
    if header is None:
        return None
    (size,) = _HEADER.unpack(header)
    body = _exactly(link, size) if size <= largest else None
    if body is None:
        raise ConnectionError("a frame cut short or too large")
    message = orjson.loads(body)
    if not isinstance(message, dict):
        raise ConnectionError("a frame that is no object")
    return message


def _exactly(link: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = link.recv(min(size - len(parts), 1 << 20))
        if not part:
            return None
        parts += part
    return bytes(parts)


@contextmanager
def short(path: Path) -> Iterator[str]:
    """A name for this socket that fits an address, however deep its folder is."""
    whole = str(path.resolve())
    if len(os.fsencode(whole)) <= _LONGEST_PATH:
        yield whole
        return
    folder = os.open(path.resolve().parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
