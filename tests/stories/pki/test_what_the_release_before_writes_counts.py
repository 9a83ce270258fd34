"""An upgrade beside a release that serves on: it revokes while migrations run, and what it writes counts."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta

import pytest
from alembic import command
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from api.installation import bring_up
from directory.base.db import transaction
from directory.base.locks import is_held
from directory.model import MailboxStanding
from pki.model import RevocationAction
from pki.revocation import earlier_keys
from pki.verdict.answer import verdicts
from tests.factories import Seeded, seed_organisation, seed_practitioner
from tests.pki.conftest import Enrolled, Established, Issue, enrol, new_key
from tests.pki.revocation.test_every_form_of_a_lost_key_is_blocked import Roads, last, mirrored, report
from tests.repo.test_migrations import MIGRATIONS, config

BEFORE, GATE = "0021", 4711
HEAD = (MIGRATIONS / "HEAD").read_text().strip()
# The calls of the long work of 0025 and of 0026, and how 0032 ends building its last index, made to wait for
# the test. By the last revision done by then.
LONG_WORK = {
    "0024": """
        ALTER FUNCTION profession_at(timestamptz) RENAME TO profession_kept_at;
        CREATE FUNCTION profession_at(instant timestamptz) RETURNS SETOF profession_history
        LANGUAGE plpgsql AS $$
        BEGIN PERFORM test_wait(); RETURN QUERY SELECT * FROM profession_kept_at(instant); END $$;
    """,
    "0025": """
        ALTER FUNCTION sceau_fold(text) RENAME TO sceau_kept_fold;
        CREATE FUNCTION sceau_fold(raw text) RETURNS text LANGUAGE plpgsql AS $$
        BEGIN PERFORM test_wait(); RETURN sceau_kept_fold(raw); END $$;
    """,
    "0031": """
        CREATE FUNCTION test_built() RETURNS event_trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() d JOIN pg_index i ON i.indexrelid = d.objid
                       WHERE i.indrelid = 'enrolment'::regclass AND NOT i.indisunique) THEN
                PERFORM test_wait();
            END IF;
        END $$;
        CREATE EVENT TRIGGER test_built ON ddl_command_end WHEN TAG IN ('CREATE INDEX')
            EXECUTE FUNCTION test_built();
    """,
}
# Without a wait for a lock, which would end with the migration's lock_timeout.
WAIT = f"""
CREATE FUNCTION test_wait() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    WHILE NOT pg_try_advisory_xact_lock_shared({GATE}) LOOP PERFORM pg_sleep(0.05); END LOOP;
END $$;
"""
# As the release before writes them.
REVOKE = text("""
    INSERT INTO revocation (serial, authority_id, shard, action, reason, actor, revoked_at, not_after, entry)
    SELECT serial, authority_id, shard, 'revoke', 'superseded', 'token:first', issued_at, not_after, '\\x00'
    FROM certificate WHERE serial = :serial
""")
END = text("UPDATE enrolment SET state = 'ended', ended_at = clock_timestamp() WHERE id = :id")
FORGET = """
    ALTER TABLE {table} DISABLE TRIGGER USER; DELETE FROM {table}; ALTER TABLE {table} ENABLE TRIGGER USER
"""
KNOWN = ";".join(
    f"ALTER TABLE {table} DISABLE TRIGGER USER; UPDATE {table} SET sys_from = '2025-09-01Z';"
    f"ALTER TABLE {table} ENABLE TRIGGER USER"
    for table in ("practitioner", "profession", "mailbox")
)


@contextmanager
def migrating(
    engine: Engine, database_url: str, done: str, *, before: str = BEFORE, idle: str = "0"
) -> Iterator[tuple[Future[None], Connection]]:
    """The migrations of this release at work in the middle, behind `done`, until the block ends.

    `idle` is how long the database lets a session's transaction wait for its next statement.
    """
    downgrade(engine, before)
    with engine.begin() as connection:
        connection.exec_driver_sql(WAIT + LONG_WORK[done])
    with ThreadPoolExecutor(1) as pool, engine.connect() as gate:
        gate.exec_driver_sql(
            f"ALTER DATABASE {engine.url.database} SET idle_in_transaction_session_timeout = '{idle}'"
        )
        gate.commit()
        gate.execute(text("SET idle_in_transaction_session_timeout = 0"))
        gate.execute(text("SELECT pg_advisory_xact_lock(:gate)"), {"gate": GATE})
        try:
            running = pool.submit(bring_up.migrate, database_url)
            until(lambda: sleeper(engine) is not None)
            yield running, gate
        finally:
            gate.rollback()


def downgrade(engine: Engine, revision: str) -> None:
    with engine.connect() as connection:
        made = config()
        made.attributes["connection"] = connection
        command.downgrade(made, revision)


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def sleeper(engine: Engine) -> int | None:
    # A transaction of its own would be among those that idle.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        found: int | None = connection.execute(
            text(
                "SELECT pid FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event = 'PgSleep'"
            )
        ).scalar()
        return found


def version(engine: Engine) -> str:
    with engine.connect() as connection:
        return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())


@pytest.mark.parametrize("done", ["0024", "0025"])
@pytest.mark.behind_the_log
def test_a_revocation_goes_through_while_a_long_migration_works(
    engine: Engine, database_url: str, issue: Issue, enrolled: Enrolled, done: str
) -> None:
    issued = issue()
    with engine.begin() as connection:
        connection.exec_driver_sql(KNOWN)
    with migrating(engine, database_url, done) as (running, _):
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL lock_timeout = '3s'"))
            connection.execute(REVOKE, {"serial": issued.serial})
            connection.execute(END, {"id": enrolled.id})
            connection.execute(text("UPDATE api_token SET revoked_at = clock_timestamp()"))
            connection.execute(text("UPDATE crl_shard SET last_number = last_number + 1"))
        assert not running.done()
        assert version(engine) == done
    running.result(timeout=60)
    assert version(engine) == HEAD
    assert last(engine, issued.serial) is RevocationAction.REVOKE


def test_what_was_done_before_a_migration_failed_stays_done(
    engine: Engine, database_url: str, now: datetime
) -> None:
    enrolled = enrol_known(engine, now, 60)
    with migrating(engine, database_url, "0025") as (running, _):
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": sleeper(engine)})
        with pytest.raises(OperationalError):
            running.result(timeout=60)
    assert version(engine) == "0025"
    bring_up.migrate(database_url)
    assert version(engine) == HEAD
    with engine.connect() as connection:
        kept = connection.execute(text("SELECT enrolment_id FROM enrolment_names")).scalars().all()
        unsure = connection.execute(text("SELECT conname FROM pg_constraint WHERE NOT convalidated")).all()
    assert kept == [enrolled.id]
    assert unsure == []


def test_no_second_host_begins_where_sessions_that_idle_are_ended(engine: Engine, database_url: str) -> None:
    """What waits for nothing is ended within a moment: the turn is not lost by it."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as looking:
        with migrating(engine, database_url, "0031", before="0031", idle="500ms") as (running, gate):
            idle = text(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND state = 'idle in transaction' AND pid <> :gate"
            )
            beside = {"gate": gate.execute(text("SELECT pg_backend_pid()")).scalar_one()}
            until(lambda: not looking.execute(idle, beside).scalar_one())
            assert is_held(looking, "migration")
        running.result(timeout=60)
        # The server ends a session some time after its client hung up.
        until(lambda: not is_held(looking, "migration"))
    assert version(engine) == HEAD


def test_verdicts_are_given_while_an_index_of_enrolments_is_built(
    engine: Engine, database_url: str, now: datetime
) -> None:
    """Of an establishment's mailbox: they read who answers for it."""
    address = seed_organisation(engine)
    enrol(engine, now, Seeded(seed_practitioner(engine, 5).national_id, address))
    with migrating(engine, database_url, "0031", before="0031") as (running, _):
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL lock_timeout = '3s'"))
            (found,) = verdicts(
                connection, [address], sender=None, at=None, now=now, lifetime=timedelta(minutes=15)
            )
        assert not running.done()
    running.result(timeout=60)
    assert MailboxStanding.NO_ANSWERABLE_PROFESSIONAL.value not in found.reasons
    assert version(engine) == HEAD


def test_a_mailbox_red_listed_while_the_list_is_made_is_on_it(engine: Engine, database_url: str) -> None:
    someone, unlisted = seed_practitioner(engine, 60), "UPDATE mailbox SET listed = false"
    downgrade(engine, "0030")
    waiting = text("SELECT count(*) FROM pg_locks WHERE relation = 'mailbox'::regclass AND NOT granted")
    with ThreadPoolExecutor(1) as pool, engine.connect() as looking:
        with engine.begin() as release_before:
            release_before.execute(text(unlisted))
            running = pool.submit(bring_up.migrate, database_url)
            until(lambda: looking.execute(waiting).scalar_one() > 0)
        running.result(timeout=60)
        known = looking.execute(text("SELECT address FROM red_listed")).scalars().all()
    assert known == [someone.mailbox]


def enrol_known(engine: Engine, now: datetime, number: int) -> Enrolled:
    """Of somebody whom the record has known for a year: its history tells of them."""
    seeded = seed_practitioner(engine, number)
    with engine.begin() as connection:
        connection.exec_driver_sql(KNOWN)
    return enrol(engine, now, seeded)


def forget(engine: Engine, table: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(FORGET.format(table=table))


def test_an_enrolment_that_the_release_before_wrote_is_not_void(
    engine: Engine, authority: Established, now: datetime
) -> None:
    """Alone and in a batch: the history says what both persons saw."""
    alone, of_batch, renamed = (enrol_known(engine, now, number) for number in (60, 61, 62))
    road = Roads(engine, authority, now)
    forget(engine, "enrolment_names")
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE practitioner SET family_name = 'CHOSEN' WHERE national_id = :who"),
            {"who": renamed.seeded.national_id},
        )
    assert road.alone(alone, new_key()) == ""
    assert road.batch((of_batch, new_key()), (renamed, new_key())) == ["", "enrolment-void"]
    assert road.alone(renamed, new_key()) == "enrolment-void"


def test_what_the_release_before_certifies_falls_with_another_form_of_its_key(
    engine: Engine, issue: Issue, now: datetime
) -> None:
    """It knows no numbers: the job gives them, and revokes what a report could not know of."""
    lost, sound = new_key(), new_key()
    crew = [enrol(engine, now, seed_practitioner(engine, number)) for number in (60, 61)]
    first, other = issue(lost, who=crew[0]), issue(sound, who=crew[1])
    forget(engine, "key_number")
    report(engine, now, mirrored(lost))
    assert last(engine, first.serial) is None
    with transaction(engine) as connection:
        done = earlier_keys.number(connection, now=now)
        again = earlier_keys.number(connection, now=now)
    assert done.revoked == (first.serial,)
    assert (again.keys, again.revoked) == (0, ())
    assert last(engine, first.serial) is RevocationAction.REVOKE
    assert last(engine, other.serial) is None
    # In any form, from now on.
    assert report(engine, now, mirrored(sound)).revoked == (other.serial,)


def test_the_keys_of_the_release_before_are_numbered_in_portions(
    engine: Engine, issue: Issue, now: datetime
) -> None:
    for number in (60, 61, 62):
        issue(new_key(), who=enrol(engine, now, seed_practitioner(engine, number)))
    forget(engine, "key_number")
    counts = []
    while not counts or counts[-1] == 2:
        with transaction(engine) as connection:
            counts.append(earlier_keys.number(connection, now=now, most=2).keys)
    with engine.connect() as connection:
        lacking = connection.execute(
            text("SELECT spki_sha256 FROM certificate EXCEPT SELECT spki_sha256 FROM key_number")
        ).all()
    assert sum(counts) > 3
    assert lacking == []


def test_a_row_under_the_digest_of_another_key_is_numbered_once(
    engine: Engine, issue: Issue, now: datetime
) -> None:
    """It stays under that digest: what looks for keys without a number would find it again for ever."""
    issued = issue(new_key())
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE certificate DISABLE TRIGGER USER"))
        connection.execute(text("UPDATE certificate SET spki_sha256 = sha256('another key')"))
        connection.execute(text("ALTER TABLE certificate ENABLE TRIGGER USER"))
    with transaction(engine) as connection:
        done = [earlier_keys.number(connection, now=now).keys for _ in range(2)]
        known = connection.execute(text("SELECT count(*) FROM key_number")).scalar_one()
    assert done == [1, 0]
    assert known == 2
    assert last(engine, issued.serial) is None
