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


def note_requests(app: Flask) -> None:
    """Write a line for each request that `app` answers."""

    @app.before_request
    def begin() -> None:
        g.began = time.perf_counter()

    @app.after_request
    def end(response: Response) -> Response:
        took = (time.perf_counter() - g.began) * 1000 if "began" in g else 0.0
        fields = {
            "method": request.method,
            "route": request.url_rule.rule if request.url_rule else None,
            "status": response.status_code,
            "ms": round(took, 2),
            "token": g.get("token_id"),
        }
        # The supervisor asks every second: a line for each would be the log.
        if request.path != "/healthz":
            ACCESS.info("request", extra={"fields": fields})
        return response
