"""What the process may keep in memory, and the interleavings in which it must not."""

import time
from datetime import datetime, timedelta

import pytest

from api.status.cache import VOUCHED_SECONDS, AnswerCache, CachedValue
from pki.model import serial_of

ONE, TWO = serial_of(1), serial_of(2)


@pytest.fixture
def cache(now: datetime) -> AnswerCache[str]:
    made: AnswerCache[str] = AnswerCache(3)
    made.vouch(time.monotonic())
    made.keep("/a", ONE, CachedValue("good", now + timedelta(hours=4)), made.generation)
    return made


def test_what_is_kept_is_given_while_it_is_fresh(cache: AnswerCache[str], now: datetime) -> None:
    assert cache.get("/a", now) == "good"
    assert cache.get("/a", now + timedelta(hours=4)) is None


def test_nothing_is_given_without_a_recent_heartbeat(cache: AnswerCache[str], now: datetime) -> None:
    cache.vouch(time.monotonic() - VOUCHED_SECONDS)
    assert cache.get("/a", now) is None
    cache.vouch(time.monotonic())
    assert cache.get("/a", now) == "good"


def test_every_variant_of_a_serial_is_forgotten_and_no_other(cache: AnswerCache[str], now: datetime) -> None:
    cache.keep(b"post", ONE, CachedValue("good", now + timedelta(hours=1)), cache.generation)
    cache.keep("/b", TWO, CachedValue("good", now + timedelta(hours=1)), cache.generation)
    cache.forget(ONE)
    assert [cache.get(key, now) for key in ("/a", b"post", "/b")] == [None, None, "good"]


@pytest.mark.parametrize("heard", [lambda cache: cache.forget(ONE), lambda cache: cache.clear()])
def test_an_answer_read_before_a_revocation_is_not_stored_after_it(
    cache: AnswerCache[str], now: datetime, heard: object
) -> None:
    generation = cache.generation
    heard(cache)  # type: ignore[operator]
    cache.keep("/late", ONE, CachedValue("good", now + timedelta(hours=1)), generation)
    assert cache.get("/late", now) is None


def test_it_holds_no_more_than_it_may_whoever_asks_for_what(cache: AnswerCache[str], now: datetime) -> None:
    for number in range(2, 1000):
        cache.keep(
            f"/{number}", serial_of(number), CachedValue("good", now + timedelta(hours=1)), cache.generation
        )
    assert len(cache._kept) == len(cache._serials) == len(cache._keys) == 3
    assert cache.get("/999", now) == "good"
    assert cache.get("/a", now) is None
    cache.forget(serial_of(999))
    assert len(cache._kept) == len(cache._serials) == len(cache._keys) == 2
