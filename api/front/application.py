"""What Granian calls for each request (RSGI): who asks, on which road, with which body.

The threads of the road's trade then answer it, by the WSGI application there.

A client that sends slowly, reads slowly or waits in a row holds a place here and no thread. What status
remembers is answered before anything else is looked at.
"""

import asyncio
import logging
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from api.front import bodies
from api.front.answers import (
    CLIENT_LEFT,
    MAY_STAY,
    SOURCE,
    Answer,
    Application,
    FileOnItsWay,
    Headers,
    Scope,
    answer,
    environment,
    packed,
)
from api.front.askers import FORWARDED, X_FORWARDED_FOR, Asker, Proxies
from api.front.connections import Connections
from api.front.senders import Senders
from api.front.shares import Shares
from api.front.turns import Turns
from api.problems import STATUS, problem
from api.roads import Road, Trade
from directory.base.errors import Kind, Refusal

_LOG = logging.getLogger("sceau.front")
# From 65,535 on Granian answers itself, with nothing but the status.
LONGEST_TARGET = 16_384
# Octets of bodies kept at a time; an eighth is more than the largest one.
OCTETS = 256 << 20
# For each trade: those who send, and those whose request is whole.
SENDERS, SEATS = 1024, 512
# To learn that a client has left costs something: asked only about waits beyond this.
_SHORT_WAIT = 0.25


@dataclass(frozen=True)
class Lane:
    """The threads of a trade, the application they run, and the places of those who want them."""

    application: Application
    turns: Turns
    senders: Senders = field(default_factory=lambda: Senders(SENDERS))
    seats: Shares = field(default_factory=lambda: Shares(SEATS, "seats"))


@dataclass(frozen=True)
class Request:
    """A request that is whole: its head, who asks, its road and its body as it was sent."""

    scope: Scope
    asker: Asker
    road: Road
    body: bytes
    left: threading.Event = field(default_factory=threading.Event)


class Front:
    """The callable. `remembered` gives what status answers from memory to a path or a body, or None.

    `stir` is called when a client has left whom a view may be waiting for.
    """

    def __init__(
        self,
        lanes: Mapping[Trade, Lane],
        road: Callable[[str, str], Road],
        remembered: Callable[[str | bytes], Any],
        *,
        base_url: str,
        pace: bodies.Pace,
        proxies: Proxies,
        stir: Callable[[], None] = lambda: None,
        unnamed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._lanes, self._road, self._remembered = lanes, road, remembered
        self._base_url, self._pace, self._proxies, self._stir = base_url, pace, proxies, stir
        self._unnamed = unnamed
        self._octets = Shares(OCTETS, "memory for bodies")
        self._at_work: Counter[str] = Counter()
        self._connections = Connections(self._at_work.__contains__, proxies.trusts)

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Called by Granian in each process, before it serves."""
        del loop
        self._connections.start()

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """One request, whatever becomes of it."""
        peer = scope.client
        self._at_work[peer] += 1
        try:
            if not self.at_once(scope, protocol):
                await self._serve(scope, protocol)
        except Refusal as refusal:
            self._refuse(protocol, refusal.code, STATUS[refusal.kind], refusal.text, refusal.details)
        except Exception as error:  # noqa: BLE001 - the outermost edge
            reference = secrets.token_hex(8)
            _LOG.error("internal error %s", reference, exc_info=error)
            text = "Something of ours failed; nothing more is shown. Give this reference when you report it."
            self._refuse(protocol, "internal-error", 500, text, {"reference": reference})
        finally:
            self._at_work[peer] -= 1
            if not self._at_work[peer]:
                del self._at_work[peer]

    def at_once(self, scope: Any, protocol: Any) -> bool:
        """Answer a GET from what status remembers, on whatever thread this is; False when that is nothing."""
        if scope.method != "GET":
            return False
        path = scope.path
        if not path.startswith("/ocsp/"):
            return False
        reply = self._remembered(path)
        if reply is None:
            return False
        headers = scope.headers
        known = headers.get("if-none-match"), headers.get("if-modified-since")
        protocol.response_bytes(*reply.given(*known))
        return True

    async def _serve(self, scope: Any, protocol: Any) -> None:
        asker = self._asker(scope)
        _refuse_long(scope)
        road = self._road(scope.method, scope.path)
        lane = self._lanes[road.trade]
        held = _Held(self._octets, asker)
        try:
            body = await self._body(scope, protocol, road, held)
            if road.trade is Trade.STATUS and body:
                reply = self._remembered(body)
                if reply is not None:
                    protocol.response_bytes(*reply.given(None, None))
                    return
            given = await self._answered(Request(scope, asker, road, body), protocol, lane)
        finally:
            held.give_back()
        if given is not None:
            self._send(scope, protocol, given)

    def _asker(self, scope: Any) -> Asker:
        peer = scope.client.rpartition(":")[0].strip("[]")
        # Several headers of one name are one, in the order of their lines (RFC 9110 5.3).
        named = (FORWARDED, X_FORWARDED_FOR)
        if any(scope.headers.get(one) for one in named) and not self._proxies.trusts(peer):
            self._unnamed(peer)
        said = ", ".join(scope.headers.get_all(self._proxies.header)) or None
        return Asker.of(self._proxies.address_behind(peer, said), scope.headers.get("authorization"))

    async def _body(self, scope: Any, protocol: Any, road: Road, held: "_Held") -> bytes:
        declared = scope.headers.get("content-length")
        if declared == "0" or (declared is None and "transfer-encoding" not in scope.headers):
            return b""
        length = None if declared is None else int(declared)
        try:
            async with self._lanes[road.trade].senders.place(held.asker):
                return await bodies.read(
                    protocol, declared=length, largest=road.largest, pace=self._pace, grant=held.take
                )
        except Refusal as refusal:
            if road.trade is Trade.STATUS and refusal.kind is Kind.TOO_LARGE:
                # OCSP has an answer of its own to what is too long.
                return bytes(road.largest + 1)
            raise

    async def _answered(self, request: Request, protocol: Any, lane: Lane) -> Answer | None:
        """The answer, None when the client left before."""
        lane.seats.take(request.asker)
        try:
            turns, coming = lane.turns, None
            if request.road.trade is Trade.STAY:
                coming = turns.ask_at_once(request.asker, lambda: _answer(lane, request, may_stay=True))
                turns = self._lanes[Trade.ORDINARY].turns if coming is None else turns
            if coming is None:
                coming = turns.ask(request.asker, lambda: _answer(lane, request, may_stay=False))
            done, _ = await asyncio.wait({coming}, timeout=_SHORT_WAIT)
            if not done and not await _outlasted(coming, protocol):
                request.left.set()
                self._stir()
                if turns.withdraw(coming):
                    return None
            given = await coming
        finally:
            lane.seats.give_back(request.asker)
        if request.left.is_set() and given.file is not None:
            given.file.close()
        return None if request.left.is_set() else given

    def _send(self, scope: Any, protocol: Any, given: Answer) -> None:
        if given.file is None:
            protocol.response_bytes(given.status, given.headers, given.body)
            return
        # Granian does not tell when the last octet is out: the end of the connection does.
        self._connections.when_closed(scope.client, given.file.close)
        _send_file(protocol, given, given.file)

    def _refuse(
        self, protocol: Any, code: str, status: int, text: str, details: Mapping[str, Any] | None = None
    ) -> None:
        made = problem(self._base_url, code, status, text, details)
        headers = made.headers.to_wsgi_list()
        headers += [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
        protocol.response_bytes(status, headers, made.get_data())


class _Held:
    """Octets of one request's body, given back together."""

    def __init__(self, octets: Shares, asker: Asker) -> None:
        self.asker = asker
        self._octets, self._amount = octets, 0

    def take(self, amount: int) -> None:
        self._octets.take(self.asker, amount)
        self._amount += amount

    def give_back(self) -> None:
        self._octets.give_back(self.asker, self._amount)


def _answer(lane: Lane, request: Request, *, may_stay: bool) -> Answer:
    """On a thread of the lane: the body unpacked, the application asked, its answer packed."""
    headers = request.scope.headers
    body = bodies.unpacked(request.body, headers.get("content-encoding", ""), request.road.largest)
    more = {MAY_STAY: may_stay, CLIENT_LEFT: request.left, SOURCE: request.asker.source}
    environ = environment(request.scope, body, request.asker.address, more)
    return packed(answer(lane.application, environ), headers.get("accept-encoding", ""))


async def _outlasted(coming: "asyncio.Future[Answer]", protocol: Any) -> bool:
    """Whether the answer came before the client left."""
    left = asyncio.ensure_future(protocol.client_disconnect())
    try:
        await asyncio.wait({coming, left}, return_when=asyncio.FIRST_COMPLETED)
        return coming.done()
    finally:
        left.cancel()


def _refuse_long(scope: Scope) -> None:
    if len(scope.path) + len(scope.query_string) > LONGEST_TARGET:
        text = f"A request target has at most {LONGEST_TARGET:,} characters; send what is longer in a body."
        raise Refusal(Kind.TOO_LONG, "target-too-long", text)


def _send_file(protocol: Any, given: Answer, file: FileOnItsWay) -> None:
    headers: Headers = [*given.headers, ("Connection", "close")]
    if given.status != HTTPStatus.PARTIAL_CONTENT:
        protocol.response_file(given.status, headers, str(file.path))
        return
    part = next(value for name, value in headers if name.lower() == "content-range")
    first, _, last = part.removeprefix("bytes ").partition("/")[0].partition("-")
    protocol.response_file_range(given.status, headers, str(file.path), int(first), int(last) + 1)
