"""What the database tells is heard at once, by one wait, and whatever came with an answer too."""

import threading
import time
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import Engine

from directory.base.db import libpq
from directory.base.notifications import heard


@pytest.fixture
def link(engine: Engine) -> Iterator[psycopg.Connection]:
    with psycopg.connect(libpq(engine.url), autocommit=True) as made:
        made.execute("LISTEN told")
        yield made


def tell(engine: Engine, word: str) -> None:
    with psycopg.connect(libpq(engine.url), autocommit=True) as teller:
        teller.execute("SELECT pg_notify('told', %s)", (word,))


def words(notes: list[psycopg.Notify]) -> list[str]:
    return [note.payload for note in notes]


def test_silence_ends_with_its_time(link: psycopg.Connection) -> None:
    assert heard(link, 0) == []
    assert heard(link, 0.01) == []


def test_the_first_word_ends_the_wait(engine: Engine, link: psycopg.Connection) -> None:
    later = threading.Timer(0.2, tell, (engine, "a"))
    later.start()
    began = time.monotonic()
    assert words(heard(link, 60)) == ["a"]
    assert time.monotonic() - began < 30
    later.join()


@pytest.mark.parametrize("seconds", [0, 0.01])
def test_what_came_with_an_answer_is_heard(engine: Engine, link: psycopg.Connection, seconds: float) -> None:
    tell(engine, "a")
    link.execute("SELECT 1")
    assert words(heard(link, seconds)) == ["a"]


def test_many_are_heard_in_their_order(link: psycopg.Connection) -> None:
    for number in range(300):
        link.execute("SELECT pg_notify('told', %s)", (f"{number}",))
    found: list[str] = []
    while more := heard(link, 0.05):
        found += words(more)
    assert found == [str(number) for number in range(300)]


def test_a_lost_connection_is_said(engine: Engine, link: psycopg.Connection) -> None:
    with psycopg.connect(libpq(engine.url), autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", (link.info.backend_pid,))
    # The server's last words come first, and the end of the connection with the next wait.
    with pytest.raises(psycopg.OperationalError):
        assert heard(link, 30) == heard(link, 30)
