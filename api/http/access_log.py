"""What the web writes on stderr: one JSON line for each request, and whatever went wrong.

A request's line has the route's pattern, never the path, the query or the body. Who looked for whom is
nobody's reading (gematik TIP1-A_5549: no reading profiles).
"""

import logging
import sys
import time
from datetime import UTC, datetime
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
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
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
    ACCESS.info("request", extra={"fields": fields})


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
