"""What a road of the web asks of the process that serves it: which threads, and how large a body.

Said where a road is made; read by `api/front`, which hands each request to the threads of its trade.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from flask import Flask
from werkzeug.exceptions import HTTPException

from directory.base.errors import Kind, Refusal

# Every bound of a request to the web is here. Only what bounds the form of one message stands with its
# reader: of a request for a certificate, a signed proof, an OCSP request.
# Room for 10,000 addresses.
LARGEST_BODY = 1 << 20
# A thousand requests on RSA keys of 4096 bits, in PEM.
LARGEST_BATCH = 4 << 20
# A million addresses of 30 characters: the share of a token (`application.py`).
LARGEST_DEFERRED = 32 << 20
# Of one JSON document among them: it is read in one go, which lines are not.
LARGEST_DOCUMENT = 4 << 20
# Of path and query together. From 65,535 on Granian answers itself, with nothing but the status.
LONGEST_TARGET = 16_384
RESPOND_ASYNC = "respond-async"
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_ON_A_VIEW = "sceau_road"


class Trade(Enum):
    """Threads of their own; no trade can take those of another."""

    STATUS = "status"
    # Takes trust away: never waits for who only asks.
    REVOCATION = "revocation"
    # Says how the process is; who watches must hear from a process that is full.
    WATCH = "watch"
    # May hold its thread until something happens.
    STAY = "stay"
    # Much work for one request: it takes turns with its own kind, and single ones do not wait behind it.
    BULK = "bulk"
    ORDINARY = "ordinary"


@dataclass(frozen=True)
class Road:
    """The trade of a road, and the largest body it reads; another for who prefers to be answered later."""

    trade: Trade = Trade.ORDINARY
    largest: int = LARGEST_BODY
    deferred: "Road | None" = None

    def preferred(self, prefer: str) -> "Road":
        """The road of a request with this `Prefer`."""
        return self.deferred if self.deferred is not None and prefers_async(prefer) else self


ORDINARY = Road()
TAKES_AWAY = Road(Trade.REVOCATION)


def prefers_async(prefer: str) -> bool:
    """Whether a `Prefer` header says `respond-async` (RFC 7240 4.1)."""
    named = (part.partition(";")[0].partition("=")[0] for part in _QUOTED.sub("", prefer).split(","))
    return any(name.strip().lower() == RESPOND_ASYNC for name in named)


def too_large(largest: int, *, deferrable: bool = False, lines: bool = False) -> Refusal:
    """The refusal of a body beyond the limit of its road, which it names."""
    text = f"A body of this request holds at most {largest:,} octets, unpacked."
    if largest == LARGEST_BODY:
        # A smaller body is one request, as a JWS is: it has no parts.
        text += " Send it in parts"
        text += f", or with `Prefer: {RESPOND_ASYNC}`." if deferrable else "."
    if lines:
        text += " Send more as NDJSON, one value a line."
    return Refusal(Kind.TOO_LARGE, "body-too-large", text, largest=largest)


def on_road(view: Callable[..., Any], road: Road) -> Callable[..., Any]:
    """The same view, marked."""
    setattr(view, _ON_A_VIEW, road)
    return view


def roads_of(app: Flask) -> Callable[[str, str], Road]:
    """A function from method and path to the road, as the routes of `app` have it; ordinary for no route."""
    marked = {name: getattr(view, _ON_A_VIEW, ORDINARY) for name, view in app.view_functions.items()}
    routes = app.url_map.bind("")

    def road(method: str, path: str) -> Road:
        try:
            endpoint, _ = routes.match(path, method)
        except HTTPException:
            return ORDINARY
        return marked.get(endpoint, ORDINARY)

    return road
