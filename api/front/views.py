"""What a view may ask of the front that handed it its request; without a front, the plain answer is given."""

from collections.abc import Callable

from flask import request

from api.front.answers import CLIENT_LEFT, MAY_STAY, SOURCE
from api.front.askers import source_of


def source_of_request() -> str:
    """What of the network asks: the measure of whatever is counted by source."""
    source: str = request.environ.get(SOURCE) or source_of(request.remote_addr or "")
    return source


def may_stay() -> bool:
    """Whether this request has a thread that it may hold while it waits."""
    return bool(request.environ.get(MAY_STAY, True))


def client_left() -> Callable[[], bool]:
    """Says whether the client is gone; to be kept for use outside of the request's context."""
    left = request.environ.get(CLIENT_LEFT)
    return (lambda: False) if left is None else left.is_set
