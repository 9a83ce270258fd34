"""What comes due without anybody writing a row is told to the feed: once, when it holds for everybody."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from directory.base.db import transaction
from directory.feed.retention import CLOCKS_AGREE_WITHIN, tell_of_time
from directory.ldap.publish import Publisher
from tests.directory.ldap.conftest import RUNS_OUT, issue
from tests.factories import rpps, seed_organisation, seed_practitioner

Told = list[tuple[str, str, bool]]
MINUTE = timedelta(minutes=1)


def told_between(engine: Engine, since: datetime, until: datetime) -> Told:
    """What the feed hears when the job last looked at `since` and looks again at `until`."""
    with transaction(engine) as connection:
        connection.execute(text("DELETE FROM change"))
        connection.execute(text("UPDATE feed_clock SET reached = :since"), {"since": since})
    with transaction(engine) as connection:
        tell_of_time(connection, until + CLOCKS_AGREE_WITHIN)
        rows = connection.execute(text("SELECT entity, key, urgent FROM change ORDER BY entity, key"))
        return [(row.entity, row.key, row.urgent) for row in rows]


def test_a_certificate_that_runs_out_is_told_once_at_its_last_instant(engine: Engine) -> None:
    address = seed_practitioner(engine).mailbox
    issue(engine, address)
    issue(engine, address)
    assert told_between(engine, RUNS_OUT - MINUTE, RUNS_OUT - timedelta(seconds=1)) == []
    assert told_between(engine, RUNS_OUT - MINUTE, RUNS_OUT) == [("mailbox", address, True)]
    assert told_between(engine, RUNS_OUT, RUNS_OUT + MINUTE) == []


def test_an_establishment_closes_with_the_first_minute_of_a_french_day(engine: Engine) -> None:
    address = seed_organisation(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE organisation SET closed_on = :day"), {"day": date(2026, 10, 1)})
    midnight = datetime(2026, 9, 30, 22, tzinfo=UTC)
    assert told_between(engine, midnight - timedelta(hours=20), midnight - MINUTE) == []
    assert told_between(engine, midnight - MINUTE, midnight) == [
        ("mailbox", address, True),
        ("organisation", "750990012", True),
    ]
    assert told_between(engine, midnight, midnight + timedelta(hours=23)) == []


@pytest.mark.parametrize(("day", "urgent"), [(10, True), (20, False)], ids=["begins", "ends"])
def test_a_measure_is_told_when_it_begins_and_when_it_ends(
    engine: Engine, now: datetime, day: int, urgent: object
) -> None:
    address = seed_practitioner(engine).mailbox
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO measure (national_id, kind, authority, reason, starts_at, ends_at, recorded_by,"
                " recorded_at) VALUES (:id, 'suspended', 'CNOM', 'x', :starts, :ends, 'test', :now)"
            ),
            {"id": rpps(1), "starts": now + timedelta(days=10), "ends": now + timedelta(days=20), "now": now},
        )
    due = now + timedelta(days=day)
    told = told_between(engine, due - MINUTE, due)
    assert told == [("mailbox", address, urgent), ("practitioner", rpps(1), urgent)]
    assert told_between(engine, due, due + MINUTE) == []


def test_nothing_is_told_while_a_reader_with_a_slower_clock_might_not_see_it_yet(engine: Engine) -> None:
    issue(engine, seed_practitioner(engine).mailbox)
    with transaction(engine) as connection:
        connection.execute(text("UPDATE feed_clock SET reached = :at"), {"at": RUNS_OUT - timedelta(days=1)})
        assert tell_of_time(connection, RUNS_OUT + CLOCKS_AGREE_WITHIN - timedelta(seconds=1)) == 0
        assert tell_of_time(connection, RUNS_OUT + CLOCKS_AGREE_WITHIN) == 1
        # A clock that was put back tells nothing twice.
        assert tell_of_time(connection, RUNS_OUT - timedelta(days=2)) == 0
        assert tell_of_time(connection, RUNS_OUT + CLOCKS_AGREE_WITHIN) == 0


def test_two_workers_at_once_tell_it_once(engine: Engine) -> None:
    issue(engine, seed_practitioner(engine).mailbox)
    with transaction(engine) as connection:
        connection.execute(text("UPDATE feed_clock SET reached = :at"), {"at": RUNS_OUT - timedelta(days=1)})

    def tell(_: int) -> int:
        with transaction(engine) as connection:
            return tell_of_time(connection, RUNS_OUT + timedelta(days=1))

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(tell, range(2))) == [0, 1]


def test_ldap_follows_the_calendar(engine: Engine, publisher: Publisher, now: datetime) -> None:
    address = seed_organisation(engine)
    closes = now.date() + timedelta(days=1)
    with engine.begin() as connection:
        connection.execute(text("UPDATE organisation SET closed_on = :day"), {"day": closes})
        connection.execute(text("UPDATE feed_clock SET reached = :now"), {"now": now})
    dn = f"mail={address},ou=mailboxes,o=sceau,c=fr"
    publisher.publish_once(now)
    assert publisher.client.read(dn) is not None
    later = now + timedelta(days=1)
    with transaction(engine) as connection:
        tell_of_time(connection, later)
    publisher.publish_once(later)
    assert publisher.client.read(dn) is None
    assert publisher.client.read("uid=750990012,ou=organizations,o=sceau,c=fr") is None
