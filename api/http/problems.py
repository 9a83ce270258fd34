"""Refusals as RFC 9457 problem documents: the one table from kinds to statuses, and the outermost edge of
the web.

A refusal's own text is shown. Anything else that is raised is a bug, logged in full under a reference and
shown as nothing but that reference.
"""

import logging
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

import orjson
from flask import Flask, Response, request
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from api.front.roads import LARGEST_BODY, too_large
from api.words.problems import CATALOGUE
from directory.base.errors import Kind, Refusal

MEDIA_TYPE = "application/problem+json"
LOG = logging.getLogger("sceau.error")

STATUS: Mapping[Kind, int] = MappingProxyType(
    {
        Kind.MALFORMED: 400,
        Kind.UNAUTHENTICATED: 401,
        Kind.FORBIDDEN: 403,
        Kind.NOT_FOUND: 404,
        Kind.CONFLICT: 409,
        Kind.GONE: 410,
        Kind.TOO_SLOW: 408,
        Kind.TOO_LARGE: 413,
        Kind.TOO_LONG: 414,
        Kind.UNSUPPORTED: 415,
        Kind.UNACCEPTABLE: 422,
        Kind.TOO_MANY: 429,
        Kind.UNAVAILABLE: 503,
    }
)

# What Flask and webargs refuse by themselves, in our words.
CODE_OF_STATUS: Mapping[int, str] = MappingProxyType(
    {
        400: "malformed-request",
        404: "no-such-resource",
        405: "method-not-allowed",
        408: "body-too-slow",
        413: "body-too-large",
        414: "target-too-long",
        415: "unsupported-media-type",
        416: "range-not-satisfiable",
        422: "invalid-request",
    }
)
# Seconds after which an unavailable part is worth asking again.
RETRY_AFTER = "2"


def problem(
    base_url: str, code: str, status: int, detail: str, details: Mapping[str, Any] | None = None
) -> Response:
    """The document of one refusal; `details` become members of their own and never displace the standard
    ones.
    """
    known = CATALOGUE.get(code)
    document = {
        **(details or {}),
        "type": f"{base_url}/problems/{code}",
        "title": known.title if known else code,
        "status": status,
        "code": code,
        "detail": detail,
    }
    made = Response(orjson.dumps(document, default=str), status, mimetype=MEDIA_TYPE)
    if status == STATUS[Kind.UNAUTHENTICATED]:
        # RFC 6750 3: the error word only when a token was presented.
        failed = ', error="invalid_token"' if code == "bad-token" else ""
        made.headers["WWW-Authenticate"] = f'Bearer realm="sceau"{failed}'
    if "accept_encoding" in document:
        made.headers["Accept-Encoding"] = str(document["accept_encoding"])
    if "retry_after" in document or status == STATUS[Kind.UNAVAILABLE]:
        made.headers["Retry-After"] = str(document.get("retry_after", RETRY_AFTER))
    return made


def of_failure(base_url: str, failure: Refusal | str) -> Response:
    """The document of a refusal, or of an internal error that is logged under this reference."""
    if isinstance(failure, Refusal):
        return problem(base_url, failure.code, STATUS[failure.kind], failure.text, failure.details)
    text = "Something of ours failed; nothing more is shown. Give this reference when you report it."
    return problem(base_url, "internal-error", 500, text, {"reference": failure})


def register(app: Flask, base_url: str) -> None:
    """Make every way of failing in `app` end in a problem document."""

    def refused(refusal: Refusal) -> Response:
        return of_failure(base_url, refusal)

    def failed_over_http(error: HTTPException) -> Response:
        return _of_http(base_url, error)

    def unavailable(error: Exception) -> Response:
        LOG.warning("database unavailable: %s", " ".join(str(getattr(error, "orig", error)).split()))
        text = "The record cannot be reached just now; nothing was done."
        return problem(base_url, "database-unavailable", STATUS[Kind.UNAVAILABLE], text)

    def broken(error: Exception) -> Response:
        reference = secrets.token_hex(8)
        LOG.error("internal error %s", reference, exc_info=error)
        return of_failure(base_url, reference)

    app.register_error_handler(Refusal, refused)
    app.register_error_handler(HTTPException, failed_over_http)
    for kind in (OperationalError, InterfaceError, PoolTimeout):
        app.register_error_handler(kind, unavailable)
    app.register_error_handler(Exception, broken)


def _of_http(base_url: str, error: HTTPException) -> Response:
    """Flask's own refusals; redirects pass, and so does what a status requires (Allow with 405)."""
    status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    if status < HTTPStatus.BAD_REQUEST:
        return Response(error.get_body(), status, error.get_headers())
    unnamed = "malformed-request" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "internal-error"
    code = CODE_OF_STATUS.get(status, unnamed)
    if status == STATUS[Kind.TOO_LARGE]:
        largest = request.max_content_length or LARGEST_BODY
        told = too_large(largest)
        return problem(base_url, told.code, status, told.text, told.details)
    messages = getattr(error, "data", {}).get("messages")
    details = {"errors": flattened(messages)} if messages else {}
    made = problem(base_url, code, status, CATALOGUE[code].english, details)
    if allowed := dict(error.get_headers()).get("Allow"):
        made.headers["Allow"] = allowed
    return made


def flattened(messages: Any, path: str = "") -> list[dict[str, str]]:
    """The tree of webargs' messages as `{"field", "message"}` lines, fields named as in the request."""
    if isinstance(messages, Mapping):
        return [
            line
            for key, below in messages.items()
            # The first level is where the value stood (json, query); `_schema` is the value as a whole.
            for line in flattened(below, f"{path}.{key}".strip(".") if path or key not in _PLACES else "")
        ]
    if isinstance(messages, list):
        return [
            {"field": path.removesuffix("._schema").removesuffix("_schema"), "message": str(m)}
            for m in messages
        ]
    return [{"field": path, "message": str(messages)}]


_PLACES = frozenset({"json", "query", "path", "headers"})
