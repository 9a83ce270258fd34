"""One line for each request, and nobody's searches in it."""

import io
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import orjson
import pytest

from api.http import access_log
from api.http.access_log import ACCESS, JsonLines, note, note_soon, together
from tests.api.conftest import Caller
from tests.conftest import ROOT


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


class Pipe(io.StringIO):
    """A stderr that keeps what it is written at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[str] = []

    def write(self, text: str) -> int:
        self.runs.append(text)
        return super().write(text)


def test_lines_of_answers_given_together_are_written_at_once(
    monkeypatch: pytest.MonkeyPatch, lines: io.StringIO
) -> None:
    note("GET", "/v1/recipients/<address:address>", 200, 0.001, 7)
    pipe = Pipe()
    monkeypatch.setattr("sys.stderr", pipe)
    with together():
        for token in (7, 8):
            note("GET", "/v1/recipients/<address:address>", 200, 0.001, token)
        assert not pipe.runs
    first, second = (orjson.loads(line) for line in pipe.getvalue().splitlines())
    (alone,) = (orjson.loads(line) for line in lines.getvalue().splitlines())
    assert len(pipe.runs) == 1
    assert (first["token"], second["token"]) == (7, 8)
    assert {**first, "at": ""} == {**alone, "at": ""}


def test_many_lines_are_written_whole_and_no_longer_than_a_pipe_takes(
    monkeypatch: pytest.MonkeyPatch, lines: io.StringIO
) -> None:
    pipe = Pipe()
    monkeypatch.setattr("sys.stderr", pipe)
    with together():
        for token in range(64):
            note("GET", "/v1/recipients/<address:address>", 200, 0.001, token)
    assert [orjson.loads(line)["token"] for line in pipe.getvalue().splitlines()] == list(range(64))
    assert all(run.endswith("\n") and len(run) <= 4096 for run in pipe.runs)
    assert not lines.getvalue()


@pytest.mark.parametrize("stderr", ["closed", None])
def test_a_log_that_cannot_be_written_keeps_no_answer_back(
    monkeypatch: pytest.MonkeyPatch, lines: io.StringIO, stderr: str | None
) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr("sys.stderr", closed if stderr else None)
    with together():
        note("GET", None, 200, 0.001, None)
    assert not lines.getvalue()


@pytest.mark.usefixtures("lines")
def test_lines_told_soon_are_written_once_each_from_whatever_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = Pipe()
    monkeypatch.setattr("sys.stderr", pipe)
    soon = access_log._Soon()
    soon.begin()
    monkeypatch.setattr(access_log, "_SOON", soon)

    def tell(first: int) -> None:
        for token in range(first, first + 500):
            note_soon("GET", "/v1/recipients/<address:address>", 200, 0.001, token)

    threads = [threading.Thread(target=tell, args=(500 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    deadline = time.monotonic() + 20
    while len(told := pipe.getvalue().splitlines()) < 2_000:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert sorted(orjson.loads(line)["token"] for line in told) == list(range(2_000))
    assert len(pipe.runs) < 1_000


@pytest.mark.usefixtures("lines")
def test_without_a_thread_for_them_they_are_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = Pipe()
    monkeypatch.setattr("sys.stderr", pipe)
    note_soon("GET", None, 200, 0.001, 7)
    assert orjson.loads(pipe.getvalue())["token"] == 7


def test_a_process_that_ends_writes_what_it_has() -> None:
    program = (
        "import logging, multiprocessing, os\n"
        "from api.http import access_log\n"
        "def serve():\n"
        "    access_log.write_to_stderr(); access_log.write_soon()\n"
        "    access_log.note_soon('GET', None, 200, 0.001, 7)\n"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.get_context('fork').Process(target=serve)\n"
        "    process.start(); process.join()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert orjson.loads(done.stderr)["token"] == 7
