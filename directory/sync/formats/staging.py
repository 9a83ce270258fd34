"""Where a file's rows wait before anything is decided: temporary tables, filled by COPY in short
transactions.

A transaction as long as the parsing would hold back every reader of the change feed: they read below the
oldest running transaction. So rows travel in batches, each in a transaction of its own, while the next is
read. Memory holds two.
"""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Connection, text

from directory.base import failpoints
from directory.base.pools import Pool
from directory.sync.formats.files import refused

if TYPE_CHECKING:
    from concurrent.futures import Future

    import psycopg

BATCH = 20_000
# More than a tenth of the largest file there is: such a run is refused in any case.
MOST_REJECTIONS = 250_000
EXCERPT = 200
# What stands for SQL's NULL: the one character that no readable row holds, so that no file can forge it.
NULL = "\0"

# What waits in temporary tables is lost with the session anyway: its commits need no disk. The record's
# transaction turns this on again.
_SESSION = "SET temp_buffers = '64MB'; SET work_mem = '64MB'; SET synchronous_commit = off;"
_TABLES = """
CREATE TEMP TABLE rejected (line_number integer, reason text, detail text, excerpt text);
CREATE TEMP TABLE spared (key text);
CREATE TEMP TABLE later (key text);
"""
# A national number, and neither a name nor a date that slipped into its place.
_PLAIN_KEY = re.compile(r"8[0-9]{11}|0[0-9]{2}[0-9A-Z]{7}")
_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})

Progress = Callable[[str, int], None]


def copy_row(fields: Sequence[str]) -> str:
    """One row of COPY's text format."""
    row = "\t".join(fields)
    if "\\" in row or "\r" in row or "\n" in row or row.count("\t") >= len(fields):
        row = "\t".join(field.translate(_ESCAPES) for field in fields)
    return row.replace(NULL, r"\N") + "\n"


class Staging:
    """The temporary tables `staged`, `rejected` and `spared` of a run, on a connection that dies with it."""

    def __init__(self, connection: Connection, tables: str, copy: str, progress: Progress | None) -> None:
        self._connection = connection
        self._copy = copy
        self._progress = progress
        self._rows: list[str] = []
        self._rejected: list[str] = []
        self._spared: list[str] = []
        self._sending: Future[None] | None = None
        self.lines = 0
        self.ignored = 0
        self.recoded = 0
        self.rejections = 0
        # Rows of an increment that say what the record says.
        self.agreed = 0
        # Whether rows hold what is not ours to keep: of a rejected one, then, its reason and key alone.
        self.discreet = False
        with connection.begin():
            self.execute(_SESSION + _TABLES + tables)

    def execute(self, statements: str) -> None:
        """Run several statements at once, in the caller's transaction."""
        self._driver().execute(statements.encode())

    def hand_over(self, *batches: tuple[str, Sequence[str]]) -> None:
        """Send rows in COPY's text format, all in one transaction, while the caller goes on.

        One transaction at a time: it waits for the one before, and raises what that one raised. The caller
        asks the connection for nothing before `wait()`.
        """
        self.wait()
        pool = Pool(1)
        self._sending = pool.submit(self._send_all, batches)
        pool.shutdown(wait=False)

    def wait(self) -> None:
        """Until nothing is being sent; raises what the sending raised."""
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.result()

    def abandon(self) -> None:
        """Until nothing is being sent, whatever comes of it: the connection is about to be closed."""
        if self._sending is not None:
            self._sending.exception()

    def stage(self, fields: Sequence[str]) -> None:
        """Keep one good row."""
        self.lines += 1
        self._rows.append(copy_row(fields))
        if len(self._rows) >= BATCH:
            self._hand_over_rows()

    def ask(self, query: str, **asked: object) -> list[tuple[Any, ...]]:
        """What the record holds, in a short transaction, for a reader that needs to know."""
        self.wait()
        with self._connection.begin():
            return [tuple(row) for row in self._connection.execute(text(query), asked)]

    def recode(self, lines: int) -> None:
        """So many lines were not UTF-8 and were taken for Windows-1252."""
        self.recoded += lines

    def reject(
        self, line_number: int, reason: str, detail: str, line: str, *, spared: tuple[str, ...] = ()
    ) -> None:
        """Keep a bad row's number, reason and beginning. `spared` are the keys it may speak of, which shall
        not be touched, and the other words that the register's `unclear` goes by.
        """
        self.lines += 1
        self.rejections += 1
        if self.rejections > MOST_REJECTIONS:
            raise refused("too-many-rejections", f"More than {MOST_REJECTIONS} rows cannot be read.")
        named = [key for key in spared if key and key.isprintable()]
        if self.discreet:
            detail, line = "", next(filter(_PLAIN_KEY.fullmatch, named), "")
        shown = (part[:EXCERPT].replace(NULL, "\N{REPLACEMENT CHARACTER}") for part in (detail, line))
        self._rejected.append(copy_row((str(line_number), reason, *shown)))
        self._spared.extend(copy_row((key,)) for key in named)
        if len(self._rejected) >= BATCH:
            self._hand_over_rows()

    def flush(self) -> None:
        """Send what has gathered, and see it arrive."""
        self._hand_over_rows()
        self.wait()

    def _hand_over_rows(self) -> None:
        failpoints.passing("sync.copy")
        self.wait()
        if self._progress:
            self._progress("read", self.lines)
        self.hand_over(
            (self._copy, self._rows),
            ("COPY rejected (line_number, reason, detail, excerpt) FROM STDIN", self._rejected),
            ("COPY spared (key) FROM STDIN", self._spared),
        )
        self._rows, self._rejected, self._spared = [], [], []

    def _send_all(self, batches: Sequence[tuple[str, Sequence[str]]]) -> None:
        with self._connection.begin():
            for statement, rows in batches:
                self._send(statement, rows)

    def _send(self, statement: str, rows: Sequence[str]) -> None:
        if not rows:
            return
        with self._driver().cursor() as cursor, cursor.copy(statement.encode()) as copy:
            copy.write("".join(rows).encode())

    def _driver(self) -> "psycopg.Connection[Any]":
        return cast("psycopg.Connection[Any]", self._connection.connection.dbapi_connection)
