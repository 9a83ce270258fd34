"""Reading what a client sends, without holding a thread for it: so fast at least, so much at most.

Each stretch of `seconds` must bring `rate` octets for each of them, or the end of the body. A sender who
falls silent after a quick beginning is cut off as soon as one who never began. A piece costs the process as
much whether it holds one octet or thousands: small ones wait for turns that all bodies share.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from api.front.roads import too_large
from directory.base.errors import Kind, Refusal

_RETRY_SECONDS = 1
GZIP = frozenset({"gzip", "x-gzip"})
# A chunk below this is small; a body has so many of them free, as many as a request itself costs.
SMALL, FREE = 1024, 64
# Of all bodies of a process: a twentieth of a core, at 50 us a piece.
SMALL_A_SECOND = 1000
# Sleeping for less than this costs as much as the piece.
_NAP_SECONDS = 0.01
# Members of one gzip body (RFC 1952 2.2); each costs something even where it holds nothing.
MOST_MEMBERS = 100
_BLOCK = 16 << 10
# zlib's way of saying: a gzip header and trailer, checked (RFC 1952).
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


class Incoming(Protocol):
    """What Granian hands over of a body: piece by piece, or the whole."""

    def __call__(self) -> Awaitable[bytes]:
        """All of it; RuntimeError for a body cut short."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces as they come; an empty one ends them, two are a body cut short."""


@dataclass(frozen=True)
class Pace:
    """How slow a client may be: a stretch in seconds, octets a second over each."""

    seconds: float
    rate: int

    @property
    def least(self) -> float:
        """Octets that a stretch must bring."""
        return self.seconds * self.rate


class Turns:
    """When each small piece may be taken, whichever body brings it; used by one event loop."""

    def __init__(self, a_second: float = SMALL_A_SECOND) -> None:
        self._apart = 1 / a_second
        self._next = 0.0

    def take(self, now: float) -> float:
        """The instant of the next turn, on the clock of `now`."""
        turn = max(now, self._next)
        self._next = turn + self._apart
        return turn


class Reading(Protocol):
    """A body on its way: a future of asyncio, or what Granian makes in the place of one."""

    def result(self) -> bytes:
        """The body; RuntimeError for one cut short, or a Refusal."""


def comes_at_one_go(declared: int | None, pace: Pace) -> bool:
    """Whether the first stretch must bring the whole body: one change of thread where pieces take three."""
    return declared is not None and declared <= pace.least


async def read(
    incoming: Incoming,
    *,
    declared: int | None,
    largest: int,
    pace: Pace,
    turns: Turns,
    grant: Callable[[int], None],
    deferrable: bool = False,
) -> bytes:
    """The body, piece by piece; Refusal `body-too-large`, `body-too-slow`, `body-cut-short`, or what `grant`
    refuses.

    `grant` is asked before octets are kept of a body that says no length.
    """
    pieces: list[bytes] = []
    size = 0
    async for piece in _in_time(incoming, pace, turns):
        size += len(piece)
        if size > largest:
            raise too_large(largest, deferrable=deferrable)
        if declared is None:
            grant(len(piece))
        pieces.append(piece)
    return b"".join(pieces)


def whole(reading: Reading, declared: int | None) -> bytes:
    """What a reading that ended came to; Refusal `body-cut-short`, or its own."""
    try:
        body = reading.result()
    except RuntimeError as error:
        # Granian keeps it, and it would keep the frames it passed.
        error.__traceback__ = None
        raise _cut_short() from None
    if declared is not None and len(body) != declared:
        raise _cut_short()
    return body


async def _in_time(incoming: Incoming, pace: Pace, turns: Turns) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    until, still = loop.time() + pace.seconds, pace.least
    empty = small = 0
    pieces = aiter(incoming)
    while True:
        try:
            async with asyncio.timeout_at(until):
                piece = await anext(pieces)
        except StopAsyncIteration:
            # Granian says an error as an empty piece, and the end as another.
            if empty > 1:
                raise _cut_short() from None
            return
        except TimeoutError:
            raise too_slow(pace) from None
        if not piece:
            empty += 1
            continue
        small += len(piece) < SMALL
        if len(piece) < SMALL and small > FREE:
            await _turn(turns, loop.time(), until, pace)
        yield piece
        still -= len(piece)
        if still <= 0:
            until, still = loop.time() + pace.seconds, pace.least


async def _turn(turns: Turns, now: float, until: float, pace: Pace) -> None:
    """Wait for one, and read nothing more meanwhile; Refusal `body-too-slow` when it comes too late."""
    turn = turns.take(now)
    if turn > until:
        raise too_slow(pace)
    if turn - now > _NAP_SECONDS:
        await asyncio.sleep(turn - now)


def unpacked(body: bytes, encoding: str, largest: int, *, deferrable: bool = False) -> bytes:
    """The body out of its Content-Encoding; `unknown-encoding` or `body-too-large` are refused.

    Never makes more than `largest` octets of it, whatever the body promises.
    """
    if encoding.strip().lower() in {"", "identity"}:
        return body
    if encoding.strip().lower() not in GZIP:
        text = "A body may be packed with gzip and with nothing else."
        raise Refusal(Kind.UNSUPPORTED, "unknown-encoding", text, accept_encoding="gzip")
    made = bytearray()
    place = members = 0
    unpacking = None
    while place < len(body):
        if unpacking is None:
            members += 1
            unpacking = _next_member(members)
        block = body[place : place + _BLOCK]
        try:
            made += unpacking.decompress(block, largest + 1 - len(made))
        except zlib.error as error:
            raise _not_gzip() from error
        if len(made) > largest:
            raise too_large(largest, deferrable=deferrable)
        # By blocks: zlib copies what follows a member, which would be the rest of the body for each.
        place += len(block) - len(unpacking.unused_data)
        if unpacking.eof:
            unpacking = None
    if unpacking is not None:
        raise _not_gzip()
    return bytes(made)


def _next_member(number: int) -> Any:
    """One member may follow another (RFC 1952 2.2), a hundred of them."""
    if number > MOST_MEMBERS:
        text = f"A body packed with gzip has {MOST_MEMBERS} members at most."
        raise Refusal(Kind.MALFORMED, "malformed-request", text)
    return zlib.decompressobj(_GZIP_WINDOW)


def too_slow(pace: Pace) -> Refusal:
    """The refusal of a body that falls behind."""
    text = (
        f"A body must bring {pace.rate} octets a second, or its end within {pace.seconds:g} s;"
        f" chunks of fewer than {SMALL} octets are read slowly."
    )
    return Refusal(Kind.TOO_SLOW, "body-too-slow", text, retry_after=_RETRY_SECONDS)


def _cut_short() -> Refusal:
    text = "The body ended before what its headers announce, or cannot be read; nothing was done."
    return Refusal(Kind.MALFORMED, "body-cut-short", text)


def _not_gzip() -> Refusal:
    text = "The body is not the gzip that its Content-Encoding says."
    return Refusal(Kind.MALFORMED, "malformed-request", text)
