"""When an act happened: by the primary database's clock, read once the act holds its locks.

Machines' clocks differ, and a request may wait for another whose instant is then the later one. An instant
read before the lock, or from the machine, dated acts before what they follow. The record refused them. Entry
points of a running service use engines of `dated_by_database`. On any other, `now` is what the caller says,
so that a test or an import may act at any instant. What an act follows, only the act knows.
"""

from datetime import UTC, datetime, timedelta
from typing import cast

from sqlalchemy import Connection, Engine

from directory.base.prepared_statement import Statement

_OPTION = "sceau_dated_by_database"
_READ = Statement("SELECT clock_timestamp()")
TICK = timedelta(microseconds=1)


def dated_by_database(engine: Engine) -> Engine:
    """The same engine, whose acts from now on are dated by the database."""
    engine.update_execution_options(**{_OPTION: True})
    return engine


def is_dated_by_database(engine: Engine) -> bool:
    """Whether acts over this engine are dated by the database."""
    return bool(engine.get_execution_options().get(_OPTION))


def present(connection: Connection, now: datetime) -> datetime:
    """The instant of an act that holds its locks: the database's, or `now` where the caller dates it."""
    return read(connection) if is_dated(connection) else now


def dated(connection: Connection, by_database: datetime, now: datetime) -> datetime:
    """The same, where the statement that took the locks has read the database's clock after them."""
    return by_database.astimezone(UTC) if is_dated(connection) else now


def is_dated(connection: Connection) -> bool:
    """Whether acts over this connection are dated by the database."""
    return bool(connection.get_execution_options().get(_OPTION))


def read(connection: Connection) -> datetime:
    """What the database's clock says, not what it said when the transaction began."""
    ((instant,),) = _READ.rows(connection, {})
    return cast("datetime", instant).astimezone(UTC)


def after(instant: datetime, *followed: datetime | None) -> datetime:
    """This instant, or the first one after all that is followed; a None is nothing to follow."""
    return not_before(instant, *(None if earlier is None else earlier + TICK for earlier in followed))


def not_before(instant: datetime, *followed: datetime | None) -> datetime:
    """This instant, or the last of those followed where their clock was ahead."""
    return max([instant, *(earlier for earlier in followed if earlier is not None)])
