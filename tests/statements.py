"""What is asked of PostgreSQL, however it is asked: through SQLAlchemy or as a `Statement`."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from sqlalchemy import Connection, Engine, event

from directory.base.prepared_statement import Statement

Heard = Callable[[str], object]


@contextmanager
def heard(
    whose: Engine | Connection, before: Heard | None = None, after: Heard | None = None
) -> Iterator[None]:
    """Call these with each statement, before and after it is run; what they raise is raised in its place.

    One asked as a `Statement` is heard whoever's connection it is.
    """
    rows = Statement.rows

    def told(self: Statement, connection: Connection, asked: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        if before is not None:
            before(self.sql)
        found = rows(self, connection, asked)
        if after is not None:
            after(self.sql)
        return found

    def note_before(_: Any, __: Any, statement: str, *___: Any) -> None:
        if before is not None:
            before(statement)

    def note_after(_: Any, __: Any, statement: str, *___: Any) -> None:
        if after is not None:
            after(statement)

    event.listen(whose, "before_cursor_execute", note_before)
    event.listen(whose, "after_cursor_execute", note_after)
    try:
        with patch.object(Statement, "rows", told):
            yield
    finally:
        event.remove(whose, "before_cursor_execute", note_before)
        event.remove(whose, "after_cursor_execute", note_after)
