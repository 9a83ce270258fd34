"""One holder in the whole system, and none left when the holder is gone."""

import threading
import time

import pytest
from sqlalchemy import Engine, text

from directory.base.db import connect_engine, transaction
from directory.base.locks import lock_key, lock_until_commit, try_lock


def test_a_lock_has_one_holder_and_another_name_is_another_lock(engine: Engine) -> None:
    with try_lock(engine, "a") as first, try_lock(engine, "a") as second:
        assert (first, second) == (True, False)
        with try_lock(engine, "b") as other:
            assert other
    with try_lock(engine, "a") as again:
        assert again


def test_who_did_not_get_the_lock_does_not_free_it(engine: Engine) -> None:
    with try_lock(engine, "a"):
        with try_lock(engine, "a"):
            pass
        with try_lock(engine, "a") as third:
            assert not third


def test_a_lock_is_free_after_its_holder_failed(engine: Engine) -> None:
    with pytest.raises(ZeroDivisionError), try_lock(engine, "a"):
        raise ZeroDivisionError
    with try_lock(engine, "a") as again:
        assert again


def test_a_lock_goes_with_its_connection(engine: Engine, database_url: str) -> None:
    other = connect_engine(database_url)
    query = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
    with other.connect() as link:
        link.execute(text("SELECT pg_advisory_lock(:key)"), {"key": lock_key("a")})
        with try_lock(engine, "a") as free:
            assert not free
        with transaction(engine) as connection:
            pid = connection.execute(text(query)).scalar_one()
            connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        with try_lock(engine, "a") as free:
            assert free
        link.invalidate()
    other.dispose()


def test_who_waits_until_commit_goes_on_when_the_holder_commits(engine: Engine) -> None:
    order: list[str] = []
    holds = threading.Event()

    def first() -> None:
        with transaction(engine) as connection:
            lock_until_commit(connection, "a")
            holds.set()
            time.sleep(0.3)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert holds.wait(10)
    with transaction(engine) as connection:
        lock_until_commit(connection, "a")
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_the_number_of_a_lock_never_changes_and_fits_postgresql() -> None:
    # Two releases may run side by side: they must mean the same lock.
    assert lock_key("job:registers") == 2_258_649_746_001_545_526
    assert all(-(2**63) <= lock_key(f"name {n}") < 2**63 for n in range(1000))
