"""How web and signer speak over a Unix socket: frames of two lengths, a JSON object, and bytes beside it.

A CRL goes beside: base64 of its megabytes would cost more than its signature.
"""

import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

# Of the object, then of what is attached.
_HEADER = struct.Struct(">II")
# A thousand serials with their quotes.
LARGEST_QUESTION = 1 << 16
# A CRL of a million entries has 49 MB; a thousand certificates in base64 have four.
LARGEST_ANSWER = 128 << 20
# What sun_path holds, its final zero left out.
_LONGEST_PATH = 107


def send(link: socket.socket, message: Mapping[str, Any], attached: bytes = b"") -> None:
    """Send one frame."""
    body = orjson.dumps(dict(message))
    link.sendall(_HEADER.pack(len(body), len(attached)) + body)
    link.sendall(attached)


def receive(link: socket.socket, largest: int) -> tuple[dict[str, Any], bytes] | None:
    """One frame and what is attached; None when the other side closed before it.

    ConnectionError when it closed within, or the frame is larger than `largest` in all.
    """
    header = _exactly(link, _HEADER.size)
    if header is None:
        return None
    size, more = _HEADER.unpack(header)
    whole = _exactly(link, size + more) if size + more <= largest else None
    if whole is None:
        raise ConnectionError("a frame cut short or too large")
    message = orjson.loads(whole[:size])
    if not isinstance(message, dict):
        raise ConnectionError("a frame that is no object")
    return message, whole[size:]


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
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield str(path)
        return
    folder = os.open(path.resolve().parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
