"""What the database itself guards: history, append-only tables, final revocations, a complete feed."""

from sqlalchemy import Engine, text

from directory.base.db import transaction


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
