"""A statement that is asked at every step of a request, handed to psycopg as it is written.

What SQLAlchemy does around each question (finding what it compiled, types, rows that know their columns)
takes as long again as all that psycopg does. Same connection, same transaction, same errors; whatever is
asked now and then is asked through SQLAlchemy.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

import psycopg
from sqlalchemy import Connection, Select, TextClause, text
from sqlalchemy.dialects.postgresql.psycopg import dialect
from sqlalchemy.exc import DBAPIError

_DIALECT = dialect()  # type: ignore[no-untyped-call]
# Kept with the connection for as long as that lives.
_CURSOR = "sceau-statement-cursor"
# A cursor holds its last answer until the next one: of so many rows none is kept.
_MANY = 100


class Statement:
    """Compiled once; its rows are plain tuples of what psycopg makes of PostgreSQL's types.

    Values are given as psycopg takes them: an enumeration by its value, JSON as text.
    """

    def __init__(self, written: Select[Any] | TextClause | str) -> None:
        clause = text(written) if isinstance(written, str) else written
        compiled = clause.compile(dialect=_DIALECT)
        self.sql = str(compiled)
        # What a select holds by itself, such as a state it asks for.
        self.given = {name: value for name, value in compiled.params.items() if value is not None}

    def beside(self, *others: "Statement") -> "Statement":
        """All of them at once: the one row of this, then the one row of each of the others.

        Of what is seen under locks that are held already. This one selects from nothing; a name is one value
        in all of them.
        """
        made = Statement("SELECT")
        places = " CROSS JOIN ".join(f"({other.sql}) AS beside_{n}" for n, other in enumerate(others))
        made.sql = f"{self.sql}, {', '.join(f'beside_{n}.*' for n in range(len(others)))} FROM {places}"
        made.given = {name: value for statement in (*others, self) for name, value in statement.given.items()}
        return made

    def rows(self, connection: Connection, asked: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Every row; raises as `connection.execute` does."""
        given = _as_given(self.given, asked)
        if not connection.in_transaction():
            # As SQLAlchemy does by itself; it refuses where a transaction was ended within its block.
            connection.begin()
        try:
            rows = _cursor(connection).execute(self.sql, given).fetchall()
        except psycopg.Error as error:
            raise _as_ever(connection, self.sql, error) from error
        if len(rows) > _MANY:
            connection.info.pop(_CURSOR).close()
        return rows

    def row(self, connection: Connection, asked: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """The one row, None when there is none; ValueError when there are more."""
        rows = self.rows(connection, asked)
        if len(rows) > 1:
            raise ValueError(f"{len(rows)} rows where there is one at most: {self.sql}")
        return rows[0] if rows else None


def _as_given(by_itself: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters as psycopg takes them; ValueError for an instant without a zone."""
    given = {**by_itself, **asked}
    for name, value in asked.items():
        if type(value) is list:
            given[name] = _as_array(value)
        elif isinstance(value, datetime) and value.tzinfo is None:
            raise ValueError("naive datetime")
    return given


def _as_array(value: list[Any]) -> Any:
    """A list of texts or whole numbers as PostgreSQL writes an array; of anything else as it is.

    To find out what a list holds takes psycopg longer than all else it does for a question.
    """
    if all(type(element) is int for element in value):
        return "{" + ",".join(map(str, value)) + "}"
    if all(type(element) is str for element in value):
        return "{" + ",".join(map(_quoted, value)) + "}"
    return value


def _quoted(element: str) -> str:
    # An element in quotes is no NULL and no braces; two characters mean something within them.
    escaped = element.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _cursor(connection: Connection) -> psycopg.Cursor[Any]:
    """The one cursor of this connection: to make one for each question takes a fifth of it."""
    cursor = connection.info.get(_CURSOR)
    if cursor is None:
        link = connection.connection.driver_connection
        assert isinstance(link, psycopg.Connection)
        cursor = connection.info[_CURSOR] = link.cursor()
    return cast("psycopg.Cursor[Any]", cursor)


def _as_ever(connection: Connection, sql: str, error: psycopg.Error) -> BaseException:
    """The error that SQLAlchemy makes of this one; a connection that is gone goes back to no pool."""
    is_gone = bool(connection.dialect.is_disconnect(error, connection.connection, None))  # type: ignore[arg-type]
    if is_gone:
        # All of the pool, as SQLAlchemy does: a server that restarted has ended the others too.
        connection.engine.pool._invalidate(connection.connection, error)  # noqa: SLF001 - it has no other name
        connection.invalidate(error)
    # Without what was asked with, digests of tokens among it; what PostgreSQL says of a row is its own.
    return DBAPIError.instance(
        sql, None, error, psycopg.Error, connection_invalidated=is_gone, dialect=connection.dialect
    )
