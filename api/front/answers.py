"""A WSGI application asked from outside of it: the environment of a request that is whole, and the answer.

The answer is bytes, or a file to be handed out.
"""

import gzip
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, cast

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]
Headers = list[tuple[str, str]]
# Names in the environment: whether a view may hold its thread while it waits, and an event set when the
# client has left.
MAY_STAY, CLIENT_LEFT, SOURCE = "sceau.may_stay", "sceau.client_left", "sceau.source"
# Below this a packed answer is hardly shorter.
_WORTH_PACKING = 1024
# One pass at this level takes 10,000 verdicts to a tenth; the best level takes six times as long for a third
# less.
_GZIP_LEVEL = 1
_PACKED = ("text/", "application/json", "application/problem+json", "application/x-ndjson", "image/svg+xml")
_MISSING_PERMISSION = "no-transform"


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


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers, and a body in memory or in a file."""

    status: int
    headers: Headers
    body: bytes
    file: FileOnItsWay | None = None


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
    file = _file(given)
    try:
        body = b"" if file is not None else b"".join(given)
    finally:
        if file is None and hasattr(given, "close"):
            given.close()
    status, headers = begun[-1]
    return Answer(status, headers, body, file)


def _never_written(_: bytes) -> object:
    raise RuntimeError("applications here answer by what they return")


def _file(given: Iterable[bytes]) -> FileOnItsWay | None:
    """The file behind a body, also behind a part of one as werkzeug cuts it for a Range."""
    inner: Any = getattr(given, "iterable", given)
    return cast("FileOnItsWay", inner) if isinstance(getattr(inner, "path", None), Path) else None


def packed(given: Answer, accepted: str) -> Answer:
    """The same answer, in gzip where the client takes it and it is worth the while (RFC 9110 12.5.3)."""
    known = {name.lower(): value for name, value in given.headers}
    if not _may_pack(given, known):
        return given
    headers = [*given.headers, ("Vary", "Accept-Encoding")]
    if not takes_gzip(accepted):
        return replace(given, headers=headers)
    body = gzip.compress(given.body, _GZIP_LEVEL, mtime=0)
    headers = [pair for pair in headers if pair[0].lower() != "content-length"]
    headers += [("Content-Encoding", "gzip"), ("Content-Length", str(len(body)))]
    return replace(given, headers=headers, body=body)


def _may_pack(given: Answer, known: Mapping[str, str]) -> bool:
    return (
        len(given.body) >= _WORTH_PACKING
        and known.get("content-type", "").startswith(_PACKED)
        # A strong ETag names these octets; what says its own encoding has one.
        and not {"etag", "content-encoding", "content-range"} & known.keys()
        and _MISSING_PERMISSION not in known.get("cache-control", "")
        and given.status != HTTPStatus.PARTIAL_CONTENT
    )


def takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding takes gzip: named, or by `*`, with a weight above nothing."""
    weights: dict[str, float] = {}
    for coding in accepted.lower().split(","):
        name, _, parameters = coding.partition(";")
        weights[name.strip()] = _weight(parameters)
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0))) > 0


def _weight(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
