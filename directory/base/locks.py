"""Locks that only the database can give: one holder in the whole system, freed when the session ends.

Advisory locks survive nothing: a killed holder frees its lock with its connection, so no lock is ever stale.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256

from sqlalchemy import Connection, Engine, text

_HOLD = text("SELECT pg_advisory_xact_lock(:key)")
_HOLD_ALL = text("SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS key")


def lock_key(name: str) -> int:
    """The signed 64-bit number PostgreSQL wants, from a name a person can read."""
    return int.from_bytes(sha256(name.encode()).digest()[:8], "big", signed=True)


def lock_key_sql(name: str) -> str:
    """`lock_key` of a name that is an SQL expression, for a lock whose name the database finds out."""
    digest = f"encode(substr(sha256(convert_to({name}, 'UTF8')), 1, 8), 'hex')"
    return f"CAST(CAST('x' || {digest} AS bit(64)) AS bigint)"


def lock_until_commit(connection: Connection, name: str) -> None:
    """Wait for the lock `name` and keep it until this transaction ends."""
    connection.execute(_HOLD, {"key": lock_key(name)})


def hold_until_disconnected(connection: Connection, name: str) -> None:
    """Wait for the lock `name` and keep it for as long as this session lasts, over all its transactions.

    Not to be used on a connection that goes back to a pool in use.
    """
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": lock_key(name)})


def lock_all_until_commit(connection: Connection, names: Iterable[str]) -> None:
    """As `lock_until_commit` for each, always in one order, so that two who want several cannot deadlock."""
    connection.execute(_HOLD_ALL, {"keys": sorted(lock_key(name) for name in set(names))})


def try_lock_until_commit(connection: Connection, name: str) -> bool:
    """Whether nobody else holds the lock `name`; if so it is held until this transaction ends."""
    query = text("SELECT pg_try_advisory_xact_lock(:key)")
    return bool(connection.execute(query, {"key": lock_key(name)}).scalar_one())


def share_until_commit_if_free(connection: Connection, name: str) -> bool:
    """Whether nobody holds the lock `name` alone; if so others may share it, until this transaction ends."""
    query = text("SELECT pg_try_advisory_xact_lock_shared(:key)")
    return bool(connection.execute(query, {"key": lock_key(name)}).scalar_one())


def is_held(connection: Connection, name: str) -> bool:
    """Whether anybody holds the lock `name` at this moment."""
    high, low = divmod(lock_key(name) % 2**64, 2**32)
    query = (
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
        " AND classid::bigint = :high AND objid::bigint = :low"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
    )
    return bool(connection.execute(text(query), {"high": high, "low": low}).scalar_one())


@contextmanager
def try_lock(engine: Engine, name: str) -> Iterator[bool]:
    """Whether the lock `name` was free; if so it is held, on its own connection, until the block ends."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        key = lock_key(name)
        taken = bool(connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}).scalar_one())
        try:
            yield taken
        finally:
            if taken:
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": key})
