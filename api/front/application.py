"""What Granian calls for each request (RSGI): who asks, on which road, with which body.

The threads of the road's trade then answer it, by the WSGI application there.

A client that sends slowly, reads slowly or waits in a row holds a place here and no thread. Remembered
answers, of status and to plain questions, go out before anything else is looked at.

A request goes from one callback to the next, on whatever thread each is called. A task of the event loop for
each took more than a third of the process. The loop reads large bodies, and looks four times a second for
those who are late and those who have left.
"""

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol

from werkzeug.wrappers import Response

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
)
from api.front.askers import FORWARDED, X_FORWARDED_FOR, Asker, Proxies, source_of
from api.front.connections import Connections
from api.front.exchange import Exchange
from api.front.packing import packed, packed_json
from api.front.roads import LARGEST_DEFERRED, LONGEST_TARGET, Road, Trade, too_large
from api.front.senders import Senders
from api.front.shares import Shares
from api.front.turns import Turns
from directory.base.errors import Kind, Refusal

_LOG = logging.getLogger("sceau.front")
# Octets of bodies kept at a time; an eighth is no less than the largest one.
OCTETS = 256 << 20
# A body as short takes no share of them: all who have a place hold less together than a process weighs.
UNCOUNTED = 4 << 10
# For each trade: those who send, and those whose request is whole.
SENDERS, SEATS = 1024, 512
# To learn that a client has left costs something: asked only about waits beyond this.
_LOOK_SECONDS = 0.25
_RETRY_SECONDS = 2


# Told of an answer once: with None for what threads must answer.
Answered = Callable[[Answer | None], None]


class Quick(Protocol):
    """Who answers plain questions of the ordinary trade before the framework, in JSON."""

    def at_once(self, scope: Scope, source: str) -> Answer | None:
        """The answer to a question without a body, from memory; None where that takes longer."""

    def take(self, scope: Scope, asker: Asker) -> Callable[[Answered], None] | None:
        """What asks such a question, None where it is not plain."""


@dataclass(frozen=True)
class Lane:
    """The threads of a trade, the application they run, and the places of those who want them."""

    application: Application
    turns: Turns
    senders: Senders[Exchange] = field(default_factory=lambda: Senders(SENDERS))
    seats: Shares = field(default_factory=lambda: Shares(SEATS, "seats"))


class Front:
    """The callable. `remembered` gives what status answers from memory to a path or a body, or None.

    `problem` makes the document of a refusal, or of an internal error under its reference. `stir` is called
    when a client has left whom a view may be waiting for.
    """

    def __init__(
        self,
        lanes: Mapping[Trade, Lane],
        road: Callable[[str, str], Road],
        remembered: Callable[[str | bytes], Any],
        *,
        problem: Callable[[Refusal | str], Response],
        pace: bodies.Pace,
        proxies: Proxies,
        stir: Callable[[], None] = lambda: None,
        unnamed: Callable[[str], None] = lambda _: None,
        quick: Quick | None = None,
    ) -> None:
        self._lanes, self._road, self._remembered = lanes, road, remembered
        self._problem, self._pace, self._proxies, self._stir = problem, pace, proxies, stir
        self._unnamed, self._quick = unnamed, quick
        self._octets = Shares(OCTETS, "memory for bodies")
        self._small_pieces = bodies.Turns()
        self._at_work: dict[str, int] = {}
        # Changed by one operation at a time, which Python makes whole.
        self._waiting: dict[Exchange, None] = {}
        # Those who are read no further, and those of the look before.
        self._stopped: list[tuple[Exchange, Refusal]] = []
        self._ended: list[tuple[Exchange, Refusal]] = []
        self._ending = threading.Lock()
        self._connections = Connections(self._at_work.__contains__, proxies.trusts)

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Called by Granian in each process, before it serves."""
        self._loop = loop
        self._connections.start()
        loop.call_soon(self._look)

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """One request by the loop, where Granian cannot be made to call `take` itself."""
        over = asyncio.Event()
        self.take(scope, protocol, lambda: self._on_the_loop(over.set))
        await over.wait()

    def take(self, scope: Any, protocol: Any, ended: Callable[[], object]) -> None:
        """Answer a request, whatever becomes of it, from whatever thread; `ended` is called once, after."""
        if self._at_once(scope, protocol):
            ended()
            return
        exchange = Exchange(scope, protocol, ended)
        with self._ending:
            self._at_work[scope.client] = self._at_work.get(scope.client, 0) + 1
        self._step(exchange, self._begin)

    def _at_once(self, scope: Any, protocol: Any) -> bool:
        """Answer a GET from what is remembered; False when that is nothing."""
        if scope.method != "GET":
            return False
        path = scope.path
        if not path.startswith("/ocsp/"):
            return self._quick is not None and self._plainly(self._quick, scope, protocol)
        try:
            reply = self._remembered(path)
        except Exception:  # noqa: BLE001 - they meet it again, and answer
            _LOG.exception("what status remembers cannot be read: its threads answer")
            return False
        if reply is None:
            return False
        headers = scope.headers
        known = headers.get("if-none-match"), headers.get("if-modified-since")
        protocol.response_bytes(*reply.given(*known))
        return True

    def _plainly(self, quick: Quick, scope: Any, protocol: Any) -> bool:
        try:
            if _has_body(scope.headers):
                return False
            _refuse_long(scope)
            _refuse_without_host(scope)
            given = quick.at_once(scope, source_of(self._address(scope)))
            if given is not None:
                given = packed_json(given, scope.headers.get("accept-encoding", ""))
        except Refusal:
            return False
        except Exception:  # noqa: BLE001 - they meet it again, and answer
            _LOG.exception("a plain question cannot be answered at once: others answer")
            return False
        if given is None:
            return False
        protocol.response_bytes(given.status, given.headers, given.body)
        return True

    def _step(self, exchange: Exchange, act: Callable[[Exchange], None]) -> None:
        """One step of a request: what it raises is the answer."""
        try:
            act(exchange)
        except Refusal as refusal:
            self._refuse(exchange, refusal)
        except BaseException as error:  # noqa: BLE001 - the outermost edge; a panic in Rust is no Exception
            reference = secrets.token_hex(8)
            _LOG.error("internal error %s", reference, exc_info=error)
            self._end(exchange, self._failed(reference))

    def _refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        self._end(exchange, self._failed(refusal))

    def _begin(self, exchange: Exchange) -> None:
        scope = exchange.scope
        exchange.asker = self._asker(scope)
        _refuse_long(scope)
        _refuse_without_host(scope)
        declared, has_body = scope.headers.get("content-length"), _has_body(scope.headers)
        ask = None if has_body or self._quick is None else self._quick.take(scope, exchange.asker)
        if ask is not None:
            self._seat(exchange)
            ask(partial(self._quickly, exchange))
            return
        road = self._road(scope.method, scope.path)
        exchange.road = road if road.deferred is None else road.preferred(_preference(scope))
        if has_body:
            self._receive(exchange, None if declared is None else int(declared))
        else:
            self._seat(exchange)
            self._ask_turn(exchange)

    def _asker(self, scope: Any) -> Asker:
        return Asker.of(self._address(scope), scope.headers.get("authorization"))

    def _address(self, scope: Any) -> str:
        """Whose request it is, behind trusted proxies too."""
        peer: str = scope.client.rpartition(":")[0].strip("[]")
        # Several headers of one name are one, in the order of their lines (RFC 9110 5.3).
        headers = scope.headers
        if FORWARDED not in headers and X_FORWARDED_FOR not in headers:
            return peer
        if (headers.get(FORWARDED) or headers.get(X_FORWARDED_FOR)) and not self._proxies.trusts(peer):
            self._unnamed(peer)
        said = ", ".join(headers.get_all(self._proxies.header)) or None
        return self._proxies.address_behind(peer, said)

    def _receive(self, exchange: Exchange, declared: int | None) -> None:
        """Let the body come; what it came to is handed to `_received`."""
        largest, deferrable = exchange.road.largest, exchange.road.deferred is not None
        if declared is not None and declared > largest:
            self._refuse_body(exchange, too_large(largest, deferrable=deferrable))
            return
        removed = self._lanes[exchange.road.trade].senders.enter(exchange)
        exchange.sends = True
        if removed is not None:
            self._stop(removed, _displaced())
        if declared is not None and declared > UNCOUNTED:
            self._grant(exchange, declared)
        if bodies.comes_at_one_go(declared, self._pace):
            exchange.due = exchange.began + self._pace.seconds
            self._read(exchange, declared, exchange.protocol())
            return
        grant = partial(self._grant, exchange)
        pieces = bodies.read(
            exchange.protocol,
            declared=declared,
            largest=largest,
            pace=self._pace,
            turns=self._small_pieces,
            grant=grant,
            deferrable=deferrable,
        )
        self._on_the_loop(lambda: self._read(exchange, declared, self._loop.create_task(pieces)))

    def _grant(self, exchange: Exchange, octets: int) -> None:
        """Memory for so much of a body."""
        self._octets.take(exchange.asker, octets)
        with self._ending:
            if not exchange.over:
                exchange.octets += octets
                return
        self._octets.give_back(exchange.asker, octets)

    def _read(self, exchange: Exchange, declared: int | None, reading: Any) -> None:
        exchange.reading = reading
        # Granian's future keeps what it is to call, and no collector looks into it: that must not name it.
        reading.add_done_callback(partial(self._came, exchange, declared))
        if exchange.stopped:
            self._on_the_loop(reading.cancel)
        if reading.done():
            # Done before it knew whom to call, it told a loop that may sleep.
            self._on_the_loop(lambda: None)

    def _came(self, exchange: Exchange, declared: int | None, reading: Any) -> None:
        self._step(exchange, lambda exchange: self._received(exchange, declared, reading))

    def _stop(self, exchange: Exchange, refusal: Refusal) -> None:
        """Read no more of this body; its client is told why by the look after next.

        Granian ends a connection only where the body was let go before the answer. A refusal that was raised
        keeps the frames it passed, and these the body.
        """
        exchange.stopped = True
        self._stopped.append((exchange, refusal))
        if exchange.reading is not None:
            self._on_the_loop(exchange.reading.cancel)

    def _received(self, exchange: Exchange, declared: int | None, reading: Any) -> None:
        """On the loop: the body is there, or what became of it."""
        exchange.reading = None
        if not self._lanes[exchange.road.trade].senders.leave(exchange):
            return
        exchange.sends = False
        if reading.cancelled():
            self._end(exchange, None)
            return
        error = reading.exception()
        if isinstance(error, Refusal):
            error.__traceback__ = error.__context__ = None
            self._stop(exchange, error)
            return
        exchange.body = bodies.whole(reading, declared)
        reply = self._remembered(exchange.body) if exchange.road.trade is Trade.STATUS else None
        if reply is None:
            self._seat(exchange)
            self._ask_turn(exchange)
        else:
            self._end(exchange, Answer(*reply.given(None, None)))

    def _refuse_body(self, exchange: Exchange, refusal: Refusal) -> None:
        if refusal.kind is Kind.TOO_LARGE and exchange.road.trade is Trade.STATUS:
            # OCSP has an answer of its own to what is too long.
            exchange.body = bytes(exchange.road.largest + 1)
            self._seat(exchange)
            self._ask_turn(exchange)
        else:
            self._refuse(exchange, refusal)

    def _seat(self, exchange: Exchange) -> None:
        """A place among those who wait for their answer."""
        asker, lane = exchange.asker, self._lanes[exchange.road.trade]
        lane.seats.take(asker)
        exchange.seated, exchange.waits = True, time.monotonic()
        self._waiting[exchange] = None

    def _quickly(self, exchange: Exchange, given: Answer | None) -> None:
        if given is None:
            self._step(exchange, self._ask_turn)
        else:
            accepted = exchange.scope.headers.get("accept-encoding", "")
            self._step(exchange, lambda exchange: self._end(exchange, packed_json(given, accepted)))

    def _ask_turn(self, exchange: Exchange) -> None:
        asker, lane = exchange.asker, self._lanes[exchange.road.trade]
        turn = None
        if exchange.road.trade is Trade.STAY:
            turn = lane.turns.ask_at_once(asker, partial(self._step, exchange, self._answer_in_time))
        if turn is not None:
            exchange.turn = lane.turns, turn
            return
        turns = self._lanes[Trade.ORDINARY].turns if exchange.road.trade is Trade.STAY else lane.turns
        exchange.turn = turns, turns.ask(asker, partial(self._step, exchange, self._answer))

    def _answer_in_time(self, exchange: Exchange) -> None:
        self._answer(exchange, may_stay=True)

    def _answer(self, exchange: Exchange, *, may_stay: bool = False) -> None:
        """On a thread of the lane: the body unpacked, the application asked, its answer packed."""
        scope, headers = exchange.scope, exchange.scope.headers
        body = self._unpacked(exchange, headers.get("content-encoding", ""))
        more = {MAY_STAY: may_stay, CLIENT_LEFT: exchange.left, SOURCE: exchange.asker.source}
        environ = environment(scope, body, exchange.asker.address, more)
        application = self._lanes[exchange.road.trade].application
        self._end(exchange, packed(answer(application, environ), headers.get("accept-encoding", "")))

    def _unpacked(self, exchange: Exchange, encoding: str) -> bytes:
        """The body out of its coding; what may become very large of it has its memory first."""
        road = exchange.road
        if encoding and road.largest == LARGEST_DEFERRED:
            self._grant(exchange, road.largest - exchange.octets)
        return bodies.unpacked(exchange.body, encoding, road.largest, deferrable=road.deferred is not None)

    def _end(self, exchange: Exchange, given: Answer | None) -> None:
        """Give back what the request holds, and hand over its answer; the first who says it is heard."""
        with self._ending:
            was_over, exchange.over = exchange.over, True
        if was_over or given is None or exchange.left.told:
            if given is not None and given.file is not None:
                given.file.close()
            given = None
        if was_over:
            return
        try:
            if given is not None and given.stream is not None:
                self._send_pieces(exchange, given, given.stream)
            self._give_back(exchange)
            if given is not None and given.stream is None:
                self._send(exchange.scope, exchange.protocol, given)
        except RuntimeError as error:
            _LOG.warning("an answer could not be handed over: %r", error)
        finally:
            self._rest(exchange.scope.client)
            exchange.ended()

    def _rest(self, peer: str) -> None:
        with self._ending:
            if left := self._at_work[peer] - 1:
                self._at_work[peer] = left
            else:
                del self._at_work[peer]

    def _give_back(self, exchange: Exchange) -> None:
        lane = self._lanes[exchange.road.trade]
        self._waiting.pop(exchange, None)
        # Its octets are given back: what counts them must not outlive them.
        exchange.body, exchange.turn = b"", None
        if exchange.sends:
            lane.senders.leave(exchange)
        if exchange.seated:
            lane.seats.give_back(exchange.asker)
        if exchange.octets:
            self._octets.give_back(exchange.asker, exchange.octets)
        if exchange.watch is not None:
            self._on_the_loop(exchange.watch.cancel)

    def _send(self, scope: Any, protocol: Any, given: Answer) -> None:
        if given.file is None:
            protocol.response_bytes(given.status, given.headers, given.body)
            return
        # Granian does not tell when the last octet is out: the end of the connection does.
        self._connections.when_closed(scope.client, given.file.close)
        _send_file(protocol, given, given.file)

    def _send_pieces(self, exchange: Exchange, given: Answer, pieces: Iterator[bytes]) -> None:
        """On the thread that makes them; a client that left, or a piece that fails, ends the connection."""
        try:
            transport = exchange.protocol.response_stream(given.status, given.headers)
            for piece in pieces:
                self._send_piece(transport, piece)
        except Exception as error:  # noqa: BLE001 - a connection that is closed has several names
            _LOG.info("an answer was not given to its end: %r", error)
            # Before the transport is let go, which would end the body as if it were whole.
            self._connections.hang_up(exchange.scope.client)

    def _send_piece(self, transport: Any, piece: bytes) -> None:
        async def sent() -> None:
            await transport.send_bytes(piece)

        sending = asyncio.run_coroutine_threadsafe(sent(), self._loop)
        try:
            sending.result(self._pace.seconds)
        finally:
            sending.cancel()

    def _failed(self, failure: Refusal | str) -> Answer:
        made = self._problem(failure)
        headers = made.headers.to_wsgi_list()
        headers += [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
        return Answer(made.status_code, headers, made.get_data())

    def _on_the_loop(self, act: Callable[[], object]) -> None:
        # A loop that is closed has nobody left to tell.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(act)

    def _look(self) -> None:
        """On the loop, as long as the process serves: who is late with a body, and who has left."""
        self._loop.call_later(_LOOK_SECONDS, self._look)
        ended, self._ended, self._stopped = self._ended, self._stopped, []
        for exchange, refusal in ended:
            self._step(exchange, partial(self._refuse_body, refusal=refusal))
        now = time.monotonic()
        for lane in self._lanes.values():
            for sender in lane.senders.since(now - self._pace.seconds):
                if sender.due < now and lane.senders.leave(sender):
                    self._stop(sender, bodies.too_slow(self._pace))
        for exchange in list(self._waiting):
            if now - exchange.waits < _LOOK_SECONDS:
                break
            if exchange.watch is None:
                self._watch(exchange)

    def _watch(self, exchange: Exchange) -> None:
        """Hear of it when the client leaves before its answer."""
        exchange.watch = asyncio.ensure_future(exchange.protocol.client_disconnect())
        exchange.watch.add_done_callback(partial(self._left, exchange))
        if exchange.over:
            exchange.watch.cancel()

    def _left(self, exchange: Exchange, told: Any) -> None:
        exchange.watch = None
        if told.cancelled():
            return
        exchange.left.told = True
        self._stir()
        asked = exchange.turn
        if asked is not None and asked[0].withdraw(asked[1]):
            self._end(exchange, None)


def _has_body(headers: Any) -> bool:
    declared = headers.get("content-length")
    return declared != "0" and (declared is not None or "transfer-encoding" in headers)


def _displaced() -> Refusal:
    text = "Others needed the place of this request, which was long on its way; nothing was done."
    return Refusal(Kind.UNAVAILABLE, "process-full", text, retry_after=_RETRY_SECONDS)


def _preference(scope: Any) -> str:
    return ",".join(scope.headers.get_all("prefer"))


def _refuse_long(scope: Scope) -> None:
    if len(scope.path) + len(scope.query_string) > LONGEST_TARGET:
        text = f"A request target has at most {LONGEST_TARGET:,} characters; send what is longer in a body."
        raise Refusal(Kind.TOO_LONG, "target-too-long", text)


def _refuse_without_host(scope: Scope) -> None:
    """RFC 9112 3.2: 400 to a request without a Host, or with two."""
    named = len(scope.headers.get_all("host"))
    # Granian calls HTTP/1.0 "1"; it knew no Host.
    if named > 1 or (not named and scope.http_version not in {"1", "1.0"}):
        text = "A request names the host that it asks once, in a Host header."
        raise Refusal(Kind.MALFORMED, "malformed-request", text)


def _send_file(protocol: Any, given: Answer, file: FileOnItsWay) -> None:
    headers: Headers = [*given.headers, ("Connection", "close")]
    if given.status != HTTPStatus.PARTIAL_CONTENT:
        protocol.response_file(given.status, headers, str(file.path))
        return
    part = next(value for name, value in headers if name.lower() == "content-range")
    first, _, last = part.removeprefix("bytes ").partition("/")[0].partition("-")
    protocol.response_file_range(given.status, headers, str(file.path), int(first), int(last) + 1)
