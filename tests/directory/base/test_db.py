"""What commits, what rolls back, what one snapshot shows, and instants that always have a zone."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Column, Engine, Integer, MetaData, Table, insert, select, text
from sqlalchemy.exc import DBAPIError, StatementError

from directory.base.audit import Actor, Event, record
from directory.base.db import UtcDateTime, connect_engine, libpq, transaction

PARIS_SUMMER = timezone(timedelta(hours=2))
INSTANTS = Table("instants", MetaData(), Column("id", Integer, primary_key=True), Column("at", UtcDateTime))


@pytest.fixture
def instants(engine: Engine) -> Table:
    INSTANTS.create(engine)
    return INSTANTS


def test_an_instant_without_a_zone_is_refused(engine: Engine, instants: Table) -> None:
    with pytest.raises(StatementError, match="naive datetime"), transaction(engine) as connection:
        connection.execute(insert(instants).values(at=datetime(2026, 9, 1, 12)))  # noqa: DTZ001 - the point


def test_an_instant_comes_back_in_utc_whatever_zone_went_in_or_the_session_has(
    engine: Engine, instants: Table
) -> None:
    given = datetime(2026, 9, 1, 14, 30, tzinfo=PARIS_SUMMER)
    with transaction(engine) as connection:
        connection.execute(insert(instants).values(at=given))
        connection.execute(insert(instants).values(at=None))
        connection.execute(text("SET LOCAL timezone = 'Pacific/Auckland'"))
        first, second = connection.execute(select(instants.c.at).order_by(instants.c.id)).scalars()
    assert (first, second) == (given, None)
    assert first.tzinfo is UTC


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("host=%2Fsrv%2Fun%20%C3%A9tat%2Frun", {"host": "/srv/un état/run"}),
        ("host=%2Fsrv%2Fa%2Bb", {"host": "/srv/a+b"}),
        ("host=one:5432&host=two:5433", {"host": "one,two", "port": "5432,5433"}),
        ("sslmode=verify-full&sslrootcert=%2Fetc%2Four%20ca.pem",
         {"sslmode": "verify-full", "sslrootcert": "/etc/our ca.pem"}),
    ],
)  # fmt: skip
def test_libpq_is_told_the_place_that_the_url_names(query: str, told: dict[str, str]) -> None:
    known = conninfo_to_dict(libpq(f"postgresql+psycopg://sceau:a%20b%2Bc@/record?{query}"))
    assert known == {"user": "sceau", "password": "a b+c", "dbname": "record", **told}


def test_a_transaction_commits_when_the_block_ends(engine: Engine, now: datetime, actor: Actor) -> None:
    with transaction(engine) as connection:
        record(connection, now=now, actor=actor, event=Event.LDAP_REBUILT, subject="ldap")
    with transaction(engine) as connection:
        assert connection.execute(text("SELECT subject FROM audit_pending")).scalars().all() == ["ldap"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_transaction_rolls_back_whatever_is_raised_the_audit_line_with_it(
    engine: Engine, now: datetime, actor: Actor, error: type[BaseException]
) -> None:
    with pytest.raises(error), transaction(engine) as connection:  # noqa: PT012 - both lines are the case
        record(connection, now=now, actor=actor, event=Event.LDAP_REBUILT, subject="ldap")
        raise error
    with transaction(engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM audit_pending")).scalar_one() == 0


def test_a_read_only_transaction_shows_one_instant_and_writes_nothing(
    engine: Engine, instants: Table
) -> None:
    count = text("SELECT count(*) FROM instants")
    with transaction(engine, read_only=True) as reader:
        assert reader.execute(count).scalar_one() == 0
        with transaction(engine) as writer:
            writer.execute(insert(instants).values(at=None))
        assert reader.execute(count).scalar_one() == 0
    with transaction(engine, read_only=True) as reader:
        assert reader.execute(count).scalar_one() == 1
    with pytest.raises(DBAPIError, match="read-only"), transaction(engine, read_only=True) as reader:
        reader.execute(insert(instants).values(at=None))
    # The connection that was read-only is back in the pool, and writes again.
    with transaction(engine) as writer:
        writer.execute(insert(instants).values(at=None))


def test_sessions_speak_utc_and_say_who_they_are(database_url: str) -> None:
    engine = connect_engine(database_url, application="someone")
    with transaction(engine) as connection:
        shown = [connection.execute(text(f"SHOW {name}")).scalar() for name in ("timezone", "lock_timeout")]
        assert connection.execute(text("SHOW application_name")).scalar() == "someone"
    engine.dispose()
    assert shown == ["UTC", "30s"]


def test_what_a_connection_had_open_is_undone_when_it_comes_back(
    database_url: str, engine: Engine, instants: Table
) -> None:
    """Rolled back before anybody else gets it, although a commit needs no such thing."""
    pool = connect_engine(database_url, most=1, kept=1)
    link = pool.raw_connection()
    link.cursor().execute("INSERT INTO instants (id) VALUES (7)")
    link.close()
    with transaction(pool) as connection:
        assert connection.execute(select(instants.c.id)).all() == []
        connection.execute(insert(instants).values(id=8))
    with transaction(engine) as connection:
        assert connection.execute(select(instants.c.id)).scalars().all() == [8]
    pool.dispose()
