"""What the web writes on stderr: one JSON line for each request, and whatever went wrong.

A request's line has the route's pattern, never the path, the query or the body. Who looked for whom is
nobody's reading (gematik TIP1-A_5549: no reading profiles).
"""

import logging
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from select import PIPE_BUF
from typing import Any

import orjson
from flask import Flask, Response, g, request

ACCESS = logging.getLogger("sceau.access")


class JsonLines(logging.Formatter):
    """A record as one line of JSON: `at`, `level`, `logger`, `message`, the fields given as `extra`, the
    traceback.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        fields = dict(getattr(record, "fields", {}))
        if record.exc_info:
            fields["trace"] = self.formatException(record.exc_info)
        return _line(record.created, record.levelname.lower(), record.name, record.getMessage(), fields)


# The lines of a thread that writes them together.
_TOGETHER = threading.local()


def _line(created: float, level: str, logger: str, message: str, fields: Mapping[str, Any]) -> str:
    at = datetime.fromtimestamp(created, UTC)
    line = {"at": at, "level": level, "logger": logger, "message": message, **fields}
    return orjson.dumps(line, option=orjson.OPT_UTC_Z, default=str).decode()


def write_to_stderr() -> None:
    """Send everything of the web's process to stderr as JSON lines; called once, where the process starts."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)


def note(method: str, route: str | None, status: int, seconds: float, token: int | None) -> None:
    """Write the line of one request."""
    fields = {
        "method": method, "route": route, "status": status, "ms": round(seconds * 1000, 2), "token": token,
    }  # fmt: skip
    lines: list[str] | None = getattr(_TOGETHER, "lines", None)
    if lines is None or not ACCESS.isEnabledFor(logging.INFO):
        ACCESS.info("request", extra={"fields": fields})
    else:
        lines.append(_line(time.time(), "info", ACCESS.name, "request", fields))


@contextmanager
def together() -> Iterator[None]:
    """Write what this thread notes inside to stderr in one go at its end: each by itself takes longer than
    the verdict that it tells of.
    """
    lines: list[str] = []
    _TOGETHER.lines = lines
    try:
        yield
    finally:
        del _TOGETHER.lines
        # As logging does: nobody waits longer for a log that cannot be written.
        with suppress(Exception):
            for some in _runs(lines):
                sys.stderr.write(some)
            sys.stderr.flush()


def _runs(lines: list[str]) -> Iterator[str]:
    """Whole lines, as many as go into a pipe undivided: several processes write to one."""
    run, octets = "", 0
    for line in lines:
        octets += len(line.encode()) + 1
        if run and octets > PIPE_BUF:
            yield run
            run, octets = "", len(line.encode()) + 1
        run += f"{line}\n"
    if run:
        yield run


def note_requests(app: Flask) -> None:
    """Write a line for each request that `app` answers."""

    @app.before_request
    def begin() -> None:
        g.began = time.perf_counter()

    @app.after_request
    def end(response: Response) -> Response:
        took = time.perf_counter() - g.began if "began" in g else 0.0
        route = request.url_rule.rule if request.url_rule else None
        # The supervisor asks every second: a line for each would be the log.
        if request.path != "/healthz":
            note(request.method, route, response.status_code, took, g.get("token_id"))
        return response
