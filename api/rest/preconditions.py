"""Conditional requests for files that are handed out (RFC 9110 13): which of their dates are believed."""

from typing import Any

from flask import Response, request

from api.http.dates import is_same_date


def conditional(answer: Response, **options: Any) -> Response:
    """The answer as it is, a part of it, or 304 to who has it, by its ETag or else by its own Last-Modified.

    Any other date tells nothing: a file is dated when its making began, and somebody may have fetched the one
    before it since. `options` are those of `make_conditional`.
    """
    environ = dict(request.environ)
    sent, ours = environ.pop("HTTP_IF_MODIFIED_SINCE", None), answer.headers.get("Last-Modified", "")
    if sent is not None and is_same_date(sent, ours):
        environ["HTTP_IF_MODIFIED_SINCE"] = ours
    answer.make_conditional(environ, **options)
    return answer
