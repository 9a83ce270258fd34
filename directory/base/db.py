"""The one way to PostgreSQL: engine, transaction, and a column type that only holds instants in UTC.

The entry point (a view, a job, a command) opens `transaction()`; use cases receive the connection and never
commit.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import orjson
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from sqlalchemy import URL, Connection, DateTime, Dialect, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection, PoolResetState
from sqlalchemy.types import TypeDecorator

from directory.base.commits import committed

# Across a network that went away without a word: 25 s until a wait ends. The system's own figures are two
# hours, for which a job would hold its lock and the signer its keys.
_NOTICE_SILENCE = {
    "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 25_000,
}  # fmt: skip
# How long a connection that was just in use is taken to live.
TRUSTED_SECONDS = 1.0
_UNPROMISED = text("SET LOCAL synchronous_commit = off")
_VERSION = text("SHOW server_version")
_REVISION = text("SELECT version_num FROM alembic_version")


class UtcDateTime(TypeDecorator[datetime]):
    """`timestamptz` that refuses naive values and always comes back in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse an instant without a zone: nobody could say later which hour it meant."""
        del dialect
        if value is not None and value.tzinfo is None:
            raise ValueError("naive datetime")
        return value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """The stored instant, in UTC whatever the session's zone."""
        del dialect
        return None if value is None else value.astimezone(UTC)


def connect_engine(url: str, *, most: int = 10, kept: int = 10, application: str = "sceau") -> Engine:
    """An engine on `url` (`postgresql+psycopg://…`): sessions in UTC, no wait for a lock beyond 30 s.

    A thread that wants one while `most` connections are in use waits 30 s for it. Threads that want a second
    one while they hold a first must find `most` larger than what all of them can hold. `kept` stay open once
    they were needed: one beyond them is opened and closed at each use, and plans its statements anew.
    """
    engine = create_engine(
        url,
        pool_size=min(kept, most),
        pool_use_lifo=True,
        max_overflow=max(0, most - kept),
        json_deserializer=orjson.loads,
        # By `_reset_what_is_open`.
        pool_reset_on_return=None,
        connect_args={
            "application_name": application,
            "options": "-c timezone=UTC -c lock_timeout=30s",
            "connect_timeout": 5,
            **_NOTICE_SILENCE,
        },
    )
    _ask_after_a_pause(engine)
    _reset_what_is_open(engine)
    _tell_of_commits(engine)
    return engine


def libpq(url: str | URL) -> str:
    """The database of an SQLAlchemy URL as libpq names it, never the URL again. A space in that is a `+` to
    the one and not to the other, and several hosts are repeated where libpq wants a list.
    """
    known = make_url(url).set(drivername="postgresql+psycopg")
    _, words = known.get_dialect()().create_connect_args(known)
    return make_conninfo(**words)


def _ask_after_a_pause(engine: Engine) -> None:
    """See that a pooled connection still lives, unless it was in use a moment ago.

    Asking each time is one of seven round trips of a verdict. A connection that answered within the last
    second and died since fails the request in hand, as if it had died during it.
    """

    @event.listens_for(engine, "checkin")
    def note(_: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        record.info["back"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def ask(link: DBAPIConnection, record: ConnectionPoolEntry, _: PoolProxiedConnection) -> None:
        if time.monotonic() - record.info.get("back", time.monotonic()) <= TRUSTED_SECONDS:
            return
        try:
            engine.dialect.do_ping(link)
        except engine.dialect.loaded_dbapi.Error as error:
            raise DisconnectionError from error


def _reset_what_is_open(engine: Engine) -> None:
    """Roll back what a connection that comes back has open; after each commit that is nothing.

    SQLAlchemy, left to itself, rolls back all the same, which psycopg takes long to find needless.
    """

    @event.listens_for(engine, "reset")
    def reset(link: Any, _: ConnectionPoolEntry, state: PoolResetState) -> None:
        if not state.terminate_only and link.pgconn.transaction_status != TransactionStatus.IDLE:
            link.rollback()


def _tell_of_commits(engine: Engine) -> None:
    """Have `directory/base/commits.py` told of each, once it is one: SQLAlchemy's own event comes before."""
    commit = engine.dialect.do_commit

    def commit_and_tell(link: Any) -> None:
        try:
            commit(link)
        finally:
            # It may have been one although the answer was lost.
            if not link.read_only:
                committed()

    engine.dialect.do_commit = commit_and_tell  # type: ignore[method-assign,assignment]


@contextmanager
def asking(engine: Engine) -> Iterator[Connection]:
    """For one question that one statement asks: a snapshot by itself, without the two trips of a transaction.

    Nothing is to be written in it.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


@contextmanager
def transaction(engine: Engine, *, read_only: bool = False) -> Iterator[Connection]:
    """One transaction: committed when the block ends, rolled back when it raises.

    `read_only` opens a repeatable-read snapshot, so that an answer of several queries is of one instant.
    """
    with engine.connect() as connection:
        if read_only:
            connection = connection.execution_options(  # noqa: PLW2901 - same connection, narrower
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        with connection.begin():
            yield connection


def unpromised(connection: Connection) -> None:
    """Let this transaction commit before it is on the disk: for what nobody was promised.

    A crash costs its last half second.
    """
    connection.execute(_UNPROMISED)


def server_version(connection: Connection) -> str:
    """The version of PostgreSQL that answers."""
    return str(connection.execute(_VERSION).scalar_one())


def schema_revision(connection: Connection) -> str | None:
    """The migration that the schema is at, None of a database that has had none."""
    revision: str | None = connection.execute(_REVISION).scalar()
    return revision
