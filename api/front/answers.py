"""A WSGI application asked from outside of it: the environment of a request that is whole, and the answer.

The answer is bytes, a file to be handed out, or bytes that are made while they are sent.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]
Headers = list[tuple[str, str]]
# Names in the environment: whether a view may hold its thread while it waits, and an event set when the
# client has left.
MAY_STAY, CLIENT_LEFT, SOURCE = "sceau.may_stay", "sceau.client_left", "sceau.source"


class Scope(Protocol):
    """What is used of a request's head, as RSGI names it."""

    http_version: str
    server: str
    client: str
    scheme: str
    method: str
    path: str
    query_string: str
    headers: Any


class FileOnItsWay(Protocol):
    """A body that is a file: where it lies, and what ends the hold on it."""

    path: Path

    def close(self) -> None:
        """Nobody reads it any more."""


class Pieces:
    """A body that a view makes piece by piece, and that nobody collects where a front sends it."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        """The pieces."""
        return self.pieces


class Answer(NamedTuple):
    """Status, headers, and a body: in memory, in a file, or in pieces that come as they are asked for."""

    status: int
    headers: Headers
    body: bytes
    file: FileOnItsWay | None = None
    stream: Iterator[bytes] | None = None


def environment(scope: Scope, body: bytes, address: str, more: Mapping[str, Any]) -> Environ:
    """The WSGI environment (PEP 3333) of a request whose body is all there, from the address that counts."""
    host, _, port = scope.server.rpartition(":")
    made: Environ = {
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": "",
        # PEP 3333: octets as latin-1.
        "PATH_INFO": scope.path.encode().decode("latin-1"),
        "QUERY_STRING": scope.query_string,
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "SERVER_NAME": host.strip("[]"),
        "SERVER_PORT": port,
        "REMOTE_ADDR": address,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.input": BytesIO(body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in scope.headers.items():
        _add(made, name, value)
    for name in ("HTTP_CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"):
        made.pop(name, None)
    if "HTTP_CONTENT_TYPE" in made:
        made["CONTENT_TYPE"] = made.pop("HTTP_CONTENT_TYPE")
    if body or scope.method not in {"GET", "HEAD"}:
        made["CONTENT_LENGTH"] = str(len(body))
    made.update(more)
    return made


def _add(made: Environ, name: str, value: str) -> None:
    # `X-A` and `X_A` become one name here: who writes the other must not pass for the first.
    if "_" in name:
        return
    key = "HTTP_" + name.upper().replace("-", "_")
    made[key] = f"{made[key]},{value}" if key in made else value


def answer(application: Application, environ: Environ) -> Answer:
    """What the application answers, read to its end; a file is left unread."""
    begun: list[tuple[int, Headers]] = []

    def start_response(status: str, headers: Headers, error: object = None) -> Callable[[bytes], object]:
        del error
        begun.append((int(status.split(" ", 1)[0]), list(headers)))
        return _never_written

    given = application(environ, start_response)
    inner: Any = getattr(given, "iterable", given)
    status, headers = begun[-1]
    if isinstance(inner, Pieces):
        return Answer(status, headers, b"", stream=inner.pieces)
    if (file := _file(inner)) is not None:
        return Answer(status, headers, b"", file)
    try:
        return Answer(status, headers, b"".join(given))
    finally:
        if hasattr(given, "close"):
            given.close()


def _never_written(_: bytes) -> object:
    raise RuntimeError("applications here answer by what they return")


def _file(inner: Any) -> FileOnItsWay | None:
    """The file behind a body, also behind a part of one as werkzeug cuts it for a Range."""
    return cast("FileOnItsWay", inner) if isinstance(getattr(inner, "path", None), Path) else None
