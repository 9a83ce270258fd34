"""What the database itself guards: history, append-only tables, final revocations, a complete feed."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from directory.base.db import transaction
from tests.directory.ldap.conftest import RUNS_OUT, issue
from tests.factories import LONG_AGO, seed_practitioner


def test_an_update_leaves_what_was_before_readable_as_of_then(engine: Engine) -> None:
    insert = (
        "INSERT INTO organisation (finess, name, row_hash, sys_from) VALUES ('750990012', :name, '', now())"
    )
    with transaction(engine) as connection:
        connection.execute(text(insert), {"name": "BEFORE"})
    with transaction(engine) as connection:
        between = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    with transaction(engine) as connection:
        connection.execute(text("UPDATE organisation SET name = 'AFTER'"))
    with transaction(engine, read_only=True) as connection:
        names = [
            connection.execute(text("SELECT name FROM organisation_at(:at)"), {"at": at}).scalar_one()
            for at in (between, connection.execute(text("SELECT now()")).scalar_one())
        ]
    assert names == ["BEFORE", "AFTER"]


def test_a_release_that_races_a_revocation_comes_too_late(engine: Engine) -> None:
    serial = issue(engine, seed_practitioner(engine).mailbox)
    insert = text(
        "INSERT INTO revocation"
        " (serial, authority_id, shard, action, reason, actor, revoked_at, not_after, entry)"
        " VALUES (:serial, 'persons-1', 0, :action, 'x', 'test', :at, :until, :entry)"
    )
    row = {"serial": serial, "at": LONG_AGO, "until": RUNS_OUT}

    def release() -> None:
        with transaction(engine) as connection:
            connection.execute(insert, row | {"action": "release", "entry": None})

    with ThreadPoolExecutor(1) as pool:
        with transaction(engine) as connection:
            connection.execute(insert, row | {"action": "revoke", "entry": b""})
            released = pool.submit(release)
            with pytest.raises(TimeoutError):
                released.result(0.3)
        with pytest.raises(IntegrityError, match="revoked for good"):
            released.result()
