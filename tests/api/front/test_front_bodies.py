"""Reading a body by itself: what small pieces cost all, and what a gzip of many members costs."""

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Callable

import pytest

from api.front import bodies
from directory.base.errors import Kind, Refusal

LARGEST = 4 << 20
PACE = bodies.Pace(seconds=0.5, rate=1)
EMPTY = gzip.compress(b"")


class Pieces:
    """A client's pieces, and how many of them were asked for."""

    def __init__(self, count: int, size: int) -> None:
        self.asked, self._count, self._piece = 0, count, b" " * size

    async def __call__(self) -> bytes:
        return self._piece * self._count

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self.asked += 1
        if self.asked > self._count:
            raise StopAsyncIteration
        return self._piece


def read(pieces: Pieces, turns: bodies.Turns) -> bytes:
    grants: list[int] = []
    reading = bodies.read(pieces, declared=None, largest=LARGEST, pace=PACE, turns=turns, grant=grants.append)
    return asyncio.run(reading)


def refusal(act: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as refused:
        act()
    return refused.value


def test_small_pieces_wait_for_turns_and_are_asked_for_no_sooner() -> None:
    pieces = Pieces(10_000, 1)
    told = refusal(lambda: read(pieces, bodies.Turns(a_second=1)))
    assert (told.kind, told.code) == (Kind.TOO_SLOW, "body-too-slow")
    # One turn is free; the next is a second away, and the body had half of one.
    assert pieces.asked == bodies.FREE + 2


def test_all_bodies_share_the_turns() -> None:
    turns = bodies.Turns(a_second=1)
    assert len(read(Pieces(bodies.FREE + 1, 1), turns)) == bodies.FREE + 1
    assert refusal(lambda: read(Pieces(bodies.FREE + 1, 1), turns)).code == "body-too-slow"


def test_a_body_of_few_pieces_or_large_ones_waits_for_no_turn() -> None:
    turns = bodies.Turns(a_second=1)
    turns.take(time.monotonic() + 3600)
    assert len(read(Pieces(bodies.FREE, 1), turns)) == bodies.FREE
    assert len(read(Pieces(1000, bodies.SMALL), turns)) == 1000 * bodies.SMALL


def test_a_gzip_has_a_hundred_members_at_most() -> None:
    told = [gzip.compress(bytes([number])) for number in range(bodies.MOST_MEMBERS)]
    assert bodies.unpacked(b"".join(told), "gzip", LARGEST) == bytes(range(bodies.MOST_MEMBERS))
    refused = refusal(lambda: bodies.unpacked(b"".join(told) + EMPTY, "gzip", LARGEST))
    assert (refused.kind, refused.code) == (Kind.MALFORMED, "malformed-request")
    assert str(bodies.MOST_MEMBERS) in refused.text


@pytest.mark.parametrize("cut", [1, 8, len(EMPTY) - 1])
def test_a_member_that_is_cut_short_is_refused_wherever_it_stands(cut: int) -> None:
    assert refusal(lambda: bodies.unpacked(EMPTY[:-cut], "gzip", LARGEST)).code == "malformed-request"
    assert refusal(lambda: bodies.unpacked(EMPTY + EMPTY[:-cut], "gzip", LARGEST)).code == "malformed-request"


def test_members_are_read_across_blocks() -> None:
    # Incompressible, so that each is longer than a block.
    parts = [bytes((seed * place + place // 7) % 251 for place in range(40_000)) for seed in (3, 5, 7)]
    packed = b"".join(gzip.compress(part, compresslevel=0) for part in parts)
    assert bodies.unpacked(packed, "gzip", LARGEST) == b"".join(parts)
    assert refusal(lambda: bodies.unpacked(packed, "gzip", 119_999)).code == "body-too-large"
