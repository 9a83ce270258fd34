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
from multiprocessing.util import Finalize
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


_SOON_SECONDS = 0.05
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
    fields = _fields(method, route, status, seconds, token)
    lines: list[str] | None = getattr(_TOGETHER, "lines", None)
    if lines is None or not ACCESS.isEnabledFor(logging.INFO):
        ACCESS.info("request", extra={"fields": fields})
    else:
        lines.append(_line(time.time(), "info", ACCESS.name, "request", fields))


def note_soon(method: str, route: str | None, status: int, seconds: float, token: int | None) -> None:
    """As `note`, written with others within a twentieth of a second."""
    if ACCESS.isEnabledFor(logging.INFO):
        fields = _fields(method, route, status, seconds, token)
        _SOON.add(_line(time.time(), "info", ACCESS.name, "request", fields))


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
        _write(lines)


class _Soon:
    """Lines of any thread, written by one of its own: a system call for each takes longer than its answer."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._some = threading.Event()
        self._writing = threading.Lock()
        self._follows = False

    def begin(self) -> None:
        """Write them soon from now on; until then each is written at once."""
        threading.Thread(target=self._follow, name="access-log", daemon=True).start()
        # A process that was forked by multiprocessing ends without what is registered with atexit.
        Finalize(None, self.flush, exitpriority=0)
        self._follows = True

    def add(self, line: str) -> None:
        """Have it written soon."""
        self._lines.append(line)
        if not self._follows:
            self.flush()
        elif not self._some.is_set():
            self._some.set()

    def flush(self) -> None:
        """Write what there is."""
        with self._writing:
            # One list for ever: a line put on one that was exchanged meanwhile would be lost.
            lines = self._lines[:]
            del self._lines[: len(lines)]
            _write(lines)

    def _follow(self) -> None:
        while True:
            self._some.wait()
            time.sleep(_SOON_SECONDS)
            self._some.clear()
            self.flush()


_SOON = _Soon()
write_soon = _SOON.begin


def _fields(
    method: str, route: str | None, status: int, seconds: float, token: int | None
) -> Mapping[str, Any]:
    ms = round(seconds * 1000, 2)
    return {"method": method, "route": route, "status": status, "ms": ms, "token": token}


def _write(lines: list[str]) -> None:
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
