"""Under the real server: who waits or fetches slowly takes no thread from those who want an answer now."""

import json
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine

from api.concurrency import DOWNLOADS_EACH, WAITING_EACH
from api.embedded.postgres import EmbeddedPostgres
from directory.base.db import connect_engine, transaction
from directory.feed import outside_cursor
from directory.feed.changes import Place
from tests.api.serving import connect, exchange, head_of, web_server
from tests.conftest import fresh_database
from tests.factories import seed_practitioner, seed_token

STAMP = "20260901T040000Z"
# Larger than what the kernel takes on both ends while nobody reads.
SIZE = 64 << 20
ENOUGH_TOKENS = 6


@pytest.fixture(scope="module")
def port(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The web part with one process, as `sceau web` starts it, and an export with one large file.

    One for all: what is tested here writes nothing, and each reader's seat is free again once he hung up.
    """
    with fresh_database(postgres) as url:
        engine, state = connect_engine(url), tmp_path_factory.mktemp("web") / "state"
        put_an_export(engine, state)
        for number in range(ENOUGH_TOKENS):
            seed_token(engine, f"operator-{number}", role="operator")
        seed_practitioner(engine)
        engine.dispose()
        with web_server(state, url) as free:
            yield free


def put_an_export(engine: Engine, state: Path) -> None:
    folder = state / "exports" / STAMP
    folder.mkdir(parents=True)
    (folder / "large").write_bytes(bytes(SIZE))
    facts = {"large": {"sha256": "00", "size": SIZE, "lines": 1}}
    made_at = datetime(2026, 9, 1, 4, tzinfo=UTC).isoformat()
    with transaction(engine, read_only=True) as connection:
        # An export that leads nowhere is not handed out.
        cursor = outside_cursor.cursor_of(
            outside_cursor.origin(connection), Place(outside_cursor.reached(connection))
        )
    (folder / "manifest.json").write_text(
        json.dumps({"format": 3, "made_at": made_at, "cursor": cursor, "sources": {}, "files": facts})
    )


def ask(port: int, path: str, token: int) -> socket.socket:
    """A connection on which this was asked, its answer unread."""
    link = socket.create_connection(("127.0.0.1", port), timeout=5)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    head += f"Authorization: Bearer sceau_operator-{token}\r\n\r\n"
    link.sendall(head.encode())
    return link


def status_of(port: int, path: str, token: int) -> int:
    try:
        with closing(ask(port, path, token)) as link:
            return int(link.recv(100).split()[1])
    except (OSError, IndexError):
        return 0


def assert_swift(port: int) -> None:
    """None of these waits with those who do, four seconds at the least."""
    for _ in range(8):
        started = time.monotonic()
        assert status_of(port, "/v1/exports/latest", 0) == 200
        assert status_of(port, "/crl/persons-1/0.crl", 0) == 404
        assert time.monotonic() - started < 3


def test_downloads_that_nobody_reads_leave_the_others_their_threads_and_end_with_their_connection(
    port: int,
) -> None:
    path = f"/v1/exports/{STAMP}/large"
    with ExitStack() as slow:
        for token in range(ENOUGH_TOKENS):
            for _ in range(DOWNLOADS_EACH + 1):
                slow.enter_context(closing(ask(port, path, token)))
        time.sleep(1)
        assert_swift(port)
        assert status_of(port, path, 0) == 503
    deadline = time.monotonic() + 10
    while status_of(port, path, 0) != 200:
        assert time.monotonic() < deadline, "a reader who hung up keeps his seat"
        time.sleep(0.2)


def test_readers_who_wait_leave_the_others_their_threads(port: int) -> None:
    with closing(ask(port, "/v1/changes?limit=5000", 0)) as link:
        told = b"".join(iter(lambda: link.recv(65536), b""))
    cursor = json.loads(told.splitlines()[-1])["next"]
    with ExitStack() as waiting:
        for token in range(ENOUGH_TOKENS):
            for _ in range(WAITING_EACH):
                waiting.enter_context(closing(ask(port, f"/v1/changes?wait=4&cursor={cursor}", token)))
        time.sleep(0.7)
        assert_swift(port)


def test_who_only_asks_about_a_file_holds_no_seat(port: int) -> None:
    for _ in range(3 * DOWNLOADS_EACH):
        for more in ("", 'If-None-Match: "00"\r\n'):
            with closing(socket.create_connection(("127.0.0.1", port), timeout=5)) as link:
                method = "GET" if more else "HEAD"
                head = f"{method} /v1/exports/{STAMP}/large HTTP/1.1\r\nHost: x\r\n{more}"
                link.sendall(f"{head}Authorization: Bearer sceau_operator-0\r\n\r\n".encode())
                assert link.recv(100).split()[1] == (b"304" if more else b"200")


def test_a_part_of_a_file_is_that_part(port: int) -> None:
    asked = head_of("GET", f"/v1/exports/{STAMP}/large", "sceau_operator-0", Range="bytes=5-14")
    answer = exchange(port, asked)
    assert (answer.status, answer.body) == (206, bytes(10))
    assert answer.headers["content-range"] == f"bytes 5-14/{SIZE}"


def test_a_reader_who_hangs_up_while_he_waits_gives_his_seat_to_the_next(port: int) -> None:
    with closing(ask(port, "/v1/changes?limit=5000", 0)) as link:
        told = b"".join(iter(lambda: link.recv(65536), b""))
    cursor = json.loads(told.splitlines()[-1])["next"]
    path = f"/v1/changes?wait=30&cursor={cursor}"
    asked = head_of("GET", path, "sceau_operator-0")
    with ExitStack() as waiting:
        while (link := waits(port, asked)) is not None:
            waiting.enter_context(closing(link))
        refused = exchange(port, asked)
        assert refused.headers["retry-after"], "without a seat the answer comes at once"
    deadline = time.monotonic() + 10
    while (link := waits(port, asked)) is None:
        assert time.monotonic() < deadline, "who hung up keeps his seat"
    link.close()


def waits(port: int, asked: bytes) -> socket.socket | None:
    """The connection on which this was asked, when it waits: it has a seat. None when it was answered."""
    link = connect(port)
    link.sendall(asked)
    if select.select([link], [], [], 1)[0]:
        link.close()
        return None
    return link
