"""One line for each request, and nobody's searches in it."""

import io
import logging
from collections.abc import Iterator

import orjson
import pytest

from api.http.access_log import ACCESS, JsonLines
from tests.api.conftest import Caller


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    ACCESS.addHandler(handler)
    ACCESS.setLevel(logging.INFO)
    yield stream
    ACCESS.removeHandler(handler)


def test_a_request_leaves_one_line_with_the_route_and_the_token(operator: Caller, lines: io.StringIO) -> None:
    operator.get("/v1/recipients/sought.person@one.example", sender="seeking.person@two.example")
    (line,) = lines.getvalue().splitlines()
    told = orjson.loads(line)
    assert (told["method"], told["route"], told["status"]) == ("GET", "/v1/recipients/<address:address>", 200)
    assert told["token"] == 1
    assert told["ms"] > 0
    assert told["at"].endswith("Z")


def test_no_line_holds_what_was_asked_or_the_token(operator: Caller, lines: io.StringIO) -> None:
    operator.get("/v1/recipients/sought.person@one.example", sender="seeking.person@two.example")
    operator.get("/v1/practitioners", name="sought")
    operator.get("/v1/practitioners/810099000019")
    operator.get("/nowhere/sought")
    operator.post("/v1/recipients/check", {"addresses": ["sought.person@one.example"]})
    told = lines.getvalue()
    assert len(told.splitlines()) == 5
    for secret in ("sought", "seeking", "810099000019", "sceau_operator"):
        assert secret not in told


def raise_two_lines() -> None:
    raise ValueError("first line\nsecond line")


def test_a_traceback_is_one_line_too() -> None:
    try:
        raise_two_lines()
    except ValueError as error:
        record = ACCESS.makeRecord(
            "x", logging.ERROR, "f", 1, "broken", (), (ValueError, error, error.__traceback__)
        )
    (line,) = JsonLines().format(record).splitlines()
    assert "second line" in orjson.loads(line)["trace"]
