"""A pooled connection that died while nobody used it is replaced before anybody notices."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from directory.base import db
from directory.base.db import connect_engine, transaction


@pytest.fixture
def impatient(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr(db, "TRUSTED_SECONDS", -1.0)
    made = connect_engine(database_url, most=1)
    yield made
    made.dispose()


def test_a_connection_that_died_in_the_pool_is_replaced(impatient: Engine, engine: Engine) -> None:
    with transaction(impatient) as connection:
        first = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with transaction(engine) as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": first})
    with transaction(impatient) as connection:
        assert connection.execute(text("SELECT pg_backend_pid()")).scalar_one() != first


def test_a_server_that_vanished_from_the_network_is_noticed_within_half_a_minute(engine: Engine) -> None:
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        asked = {option.keyword.decode(): option.val for option in driver.pgconn.info}
    idle, interval, count = (int(asked[f"keepalives_{name}"] or 0) for name in ("idle", "interval", "count"))
    assert 0 < idle + interval * count <= 30
    assert 0 < int(asked["tcp_user_timeout"] or 0) <= 30_000
