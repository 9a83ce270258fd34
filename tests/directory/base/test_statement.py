"""What goes straight to psycopg comes back as through SQLAlchemy: rows, errors, connections that are gone."""

from datetime import UTC, datetime
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Connection, Engine, bindparam, func, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError, OperationalError

from directory.base.db import asking, transaction
from directory.base.prepared_statement import Statement
from directory.tables import audit_pending

_WORDS = Statement(
    "SELECT word, place FROM unnest(CAST(:words AS text[])) WITH ORDINALITY AS w (word, place)"
)
_NUMBERS = Statement("SELECT CAST(:numbers AS bigint[])")


def test_rows_are_those_that_sqlalchemy_gives(engine: Engine) -> None:
    written = """
        SELECT CAST(:id AS uuid), CAST(:bytes AS bytea), CAST(:at AS timestamptz), CAST(:json AS jsonb),
               CAST(:absent AS text), '50 %', 'a:b'
    """
    asked = {
        "id": uuid4(), "bytes": b"\x00\xff", "at": datetime(2026, 9, 1, 12, 0, 0, 1, UTC),
        "json": '{"a": [1, null]}', "absent": None,
    }  # fmt: skip
    with transaction(engine) as connection:
        through = tuple(connection.execute(text(written.replace("'a:b'", r"'a\:b'")), asked).one())
        assert Statement(written.replace("'a:b'", r"'a\:b'")).row(connection, asked) == through
    assert (through[2].utcoffset().total_seconds(), through[3]) == (0, {"a": [1, None]})


def test_what_a_select_holds_by_itself_is_asked_with_the_rest(engine: Engine) -> None:
    query = select(audit_pending.c.event).where(
        audit_pending.c.event == "x", audit_pending.c.subject == bindparam("subject")
    )
    with transaction(engine) as connection:
        add = (
            "INSERT INTO audit_pending (at, actor, event, subject, detail) VALUES (now(), 'a', :e, :s, '{}')"
        )
        for event, subject in (("x", "y"), ("x", "z"), ("w", "y")):
            connection.execute(text(add), {"e": event, "s": subject})
        assert Statement(query).rows(connection, {"subject": "y"}) == [("x",)]


def test_a_list_comes_as_it_is_written(engine: Engine) -> None:
    words = ["", "null", "NULL", " a ", "a,b", "{}", 'say "so"', "back\\slash", "\\", "D'Été\n", "%s", ":x"]
    numbers = [-(2**63), 0, 2**63 - 1]
    with transaction(engine) as connection:
        assert [word for word, _ in _WORDS.rows(connection, {"words": words})] == words
        for given in (numbers, []):
            assert _NUMBERS.row(connection, {"numbers": given}) == (given,)
        assert Statement("SELECT CAST(:ids AS uuid[]), CAST(:octets AS bytea[])").row(
            connection, {"ids": [uuid := uuid4()], "octets": [b"\x00", b'"\\']}
        ) == ([uuid], [b"\x00", b'"\\'])
        with pytest.raises(DBAPIError, match="NUL"):
            _WORDS.rows(connection, {"words": ["a\0"]})


def test_one_row_is_one_at_most(engine: Engine) -> None:
    with transaction(engine) as connection:
        assert _WORDS.row(connection, {"words": []}) is None
        assert _WORDS.row(connection, {"words": ["a"]}) == ("a", 1)
        assert _WORDS.rows(connection, {"words": ["a", "b"]}) == [("a", 1), ("b", 2)]
        with pytest.raises(ValueError, match="2 rows"):
            _WORDS.row(connection, {"words": ["a", "b"]})


def test_it_is_part_of_the_transaction_it_is_asked_in(engine: Engine) -> None:
    add = Statement(
        "INSERT INTO audit_pending (at, actor, event, subject, detail)"
        " VALUES (now(), 'a', 'e', 's', '{}') RETURNING subject"
    )
    with engine.connect() as connection, connection.begin() as undone:
        assert add.row(connection, {}) == ("s",)
        undone.rollback()
    assert _lines(engine) == 0
    with transaction(engine) as connection:
        add.row(connection, {})
    assert _lines(engine) == 1


def test_without_a_block_it_begins_one_as_sqlalchemy_does(engine: Engine) -> None:
    add = Statement(
        "INSERT INTO audit_pending (at, actor, event, subject, detail)"
        " VALUES (now(), 'a', 'e', 's', '{}') RETURNING subject"
    )
    with engine.connect() as connection:
        add.row(connection, {})
        connection.commit()
    assert _lines(engine) == 1
    with engine.connect() as connection, connection.begin() as undone:
        undone.rollback()
        with pytest.raises(InvalidRequestError):
            add.row(connection, {})
    assert _lines(engine) == 1


def test_an_instant_without_a_zone_is_refused(engine: Engine) -> None:
    with transaction(engine) as connection, pytest.raises(ValueError, match="naive"):
        Statement("SELECT CAST(:at AS timestamptz)").row(connection, {"at": datetime(2026, 9, 1)})  # noqa: DTZ001


def test_of_a_long_answer_nothing_stays_with_the_connection(engine: Engine) -> None:
    with transaction(engine) as connection:
        for count in (3, 1000, 3):
            assert len(_WORDS.rows(connection, {"words": ["a"] * count})) == count
            kept = [one for one in connection.info.values() if isinstance(one, psycopg.Cursor)]
            assert [one.rowcount for one in kept] == ([] if count == 1000 else [count])


def test_errors_are_those_of_sqlalchemy_and_name_no_parameter(engine: Engine) -> None:
    broken = Statement(
        "INSERT INTO audit_pending (at, actor, event, subject, detail)"
        " VALUES (now(), 'a', 'e', :subject, NULL) RETURNING subject"
    )
    with pytest.raises(IntegrityError) as failed, transaction(engine) as connection:
        broken.row(connection, {"subject": "very-secret"})
    assert "[parameters" not in str(failed.value)
    assert isinstance(failed.value.orig, psycopg.errors.NotNullViolation)
    late = Statement("SELECT pg_advisory_xact_lock(:key)")
    with engine.connect() as holder, transaction(engine) as waiter:
        late.rows(holder, {"key": 1})
        waiter.execute(text("SET LOCAL lock_timeout = '20ms'"))
        with pytest.raises(OperationalError, match="lock timeout"):
            late.rows(waiter, {"key": 1})


def test_a_connection_that_is_gone_goes_back_to_no_pool(engine: Engine) -> None:
    pid = Statement("SELECT pg_backend_pid()")
    others = []

    def lost(connection: Connection) -> Connection:
        (number,) = pid.row(connection, {}) or (0,)
        with asking(engine) as other:
            other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": number})
            others.append(other.connection.driver_connection)
        return connection

    for opened in (transaction(engine), asking(engine)):
        with pytest.raises(DBAPIError) as failed, opened as connection:
            pid.row(lost(connection), {})
        assert failed.value.connection_invalidated
        # Nor is any other that was open then: a server that restarted ended them all.
        with engine.connect() as first, engine.connect() as second:
            assert pid.row(first, {}) != pid.row(second, {})
            now = [first.connection.driver_connection, second.connection.driver_connection]
            assert not any(one is former for one in now for former in others)


def _lines(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM audit_pending")).scalar_one())


def test_what_is_asked_beside_gives_its_row_after_the_first(engine: Engine) -> None:
    """Each as by itself: the one that writes, the one that holds a word of its own, the one with a list."""
    writes = Statement("""
        WITH told AS (INSERT INTO audit_pending (at, actor, event, subject, detail)
            VALUES (now(), 'a', 'x', :subject, '{}'))
        SELECT CAST(:subject AS text), 1
    """)
    counts = Statement(select(func.count()).where(audit_pending.c.event == "x"))
    last = Statement("SELECT max(word) FROM unnest(CAST(:words AS text[])) AS w (word)")
    asked = {"subject": "y", "words": ["a", "b"]}
    with transaction(engine) as connection:
        both = writes.beside(counts, last)
        # A statement sees nothing of what it writes itself.
        assert both.row(connection, asked) == ("y", 1, 0, "b")
        assert both.row(connection, asked) == ("y", 1, 1, "b")
        assert writes.row(connection, {"subject": "z"}) == ("z", 1)
