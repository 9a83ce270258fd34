"""How long an answer waits for the record: a database that hangs costs an answer, not the thread that asked.

A dead database says so at once. One that hangs (a stopped machine, a cut network, a full disk) says nothing,
and a limit it keeps itself is no help. So the limit is kept here, on our side of the connection.
"""

import threading
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, event

# psycopg, like libpq, counts a shorter wait for a connection as this.
CONNECT_SECONDS = 2


class ImpatientConnection(psycopg.Connection[Any]):
    """A connection that is closed when the server stays silent for `patience` seconds (OperationalError).

    `told` hears of it.
    """

    patience: float = 2.0
    told: Callable[[], None] | None = None

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """As psycopg waits for every answer; a `timeout` of the caller's own is his to judge."""
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.patience)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                # The answer may come yet, to a question that nobody remembers.
                self.close()
                if self.told is not None:
                    self.told()
            raise


def impatient(engine: Engine, seconds: float) -> Engine:
    """The same engine, none of whose connections waits longer than that for an answer.

    After a silence or a failure to connect, one thread at a time connects again. The others fail at once
    (OperationalError), until one is through. They have others to answer, who need no database.
    """
    door = _Door(seconds)
    event.listen(engine, "do_connect", door.connect)
    return engine


class _Door:
    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._shut = False
        self._trying = threading.Lock()

    def connect(self, dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> Any:
        del dialect, record
        first = self._trying.acquire(blocking=False)
        try:
            if self._shut and not first:
                raise psycopg.OperationalError("the database did not answer a moment ago")
            made = ImpatientConnection.connect(*arguments, **options | {"connect_timeout": CONNECT_SECONDS})
        except psycopg.Error:
            self.shut()
            raise
        finally:
            if first:
                self._trying.release()
        self._shut = False
        made.patience, made.told = self._patience, self.shut
        return made

    def shut(self) -> None:
        self._shut = True
