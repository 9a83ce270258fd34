"""What the record answers about addresses, people and establishments: whole, now and as of an instant."""

from datetime import UTC, date, datetime, timedelta

from sqlalchemy import Engine, text

from directory.base.db import transaction
from directory.model import MailboxFacts, MailboxKind
from directory.store import (
    addresses_of,
    mailbox_facts,
    organisations,
    practitioners,
    records_begin,
    sources,
)
from tests.factories import depart, rpps, seed_organisation, seed_practitioner


def clock(engine: Engine) -> datetime:
    with engine.connect() as connection:
        return connection.execute(text("SELECT clock_timestamp()")).scalar_one().astimezone(UTC)


def run(engine: Engine, sql: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(sql))


def facts(engine: Engine, *addresses: str, at: datetime | None = None) -> dict[str, MailboxFacts]:
    with transaction(engine, read_only=True) as connection:
        return mailbox_facts(connection, addresses, at)


def test_every_address_asked_is_answered_under_its_own_spelling(engine: Engine) -> None:
    mailbox = seed_practitioner(engine).mailbox
    asked = [mailbox.upper(), mailbox, "garbage", "nobody@one.example", "nobody@elsewhere.example", ""]
    found = facts(engine, *asked)
    assert list(found) == asked
    assert found[mailbox.upper()] == found[mailbox]
    assert [one.well_formed for one in found.values()] == [True, True, False, True, True, False]
    assert [one.mailbox is not None for one in found.values()] == [True, True, False, False, False, False]
    assert [len(one.trusts) for one in found.values()] == [1, 1, 0, 1, 0, 0]


def test_asking_nothing_is_answered_with_nothing(engine: Engine) -> None:
    assert facts(engine) == {}


def test_a_person_comes_with_professions_skills_and_practices(engine: Engine) -> None:
    mailbox = seed_practitioner(engine, professions=(("10", "C"), ("91", "C"))).mailbox
    for skill in ("SM26", "SM04"):
        run(engine, f"INSERT INTO skill VALUES ('{rpps(1)}', '10', 'C', 'S', '{skill}')")
    run(
        engine,
        "UPDATE practice SET town = 'LYON', street = '3 RUE DE L''EXEMPLE' WHERE profession_code = '10'",
    )
    one = facts(engine, mailbox)[mailbox]
    assert one.mailbox is not None
    assert (one.mailbox.kind, one.mailbox.holder, one.mailbox.listed) == (MailboxKind.PERSON, rpps(1), True)
    assert one.holder is not None
    assert one.holder.professions == (("10", "C"), ("91", "C"))
    assert one.holder.skills == ("SM04", "SM26")
    assert {(p.profession_code, p.town, p.department) for p in one.holder.practices} == {
        ("10", "LYON", "75"), ("91", "", "75"),
    }  # fmt: skip


def test_an_organisation_comes_with_its_dates(engine: Engine) -> None:
    mailbox = seed_organisation(engine, service="CARDIOLOGIE")
    run(
        engine,
        "UPDATE organisation SET closed_on = '2026-03-01', departed_at = '2026-04-01T10:00:00.000001+02'",
    )
    one = facts(engine, mailbox)[mailbox]
    assert one.mailbox is not None
    assert (one.mailbox.service, one.mailbox.finess) == ("CARDIOLOGIE", "750990012")
    assert one.organisation is not None
    assert one.organisation.closed_on == date(2026, 3, 1)
    assert one.organisation.departed_at == datetime(2026, 4, 1, 8, 0, 0, 1, tzinfo=UTC)


def test_a_structure_that_is_not_of_finess_is_not_looked_up_there(engine: Engine) -> None:
    mailbox = seed_organisation(engine)
    run(engine, "UPDATE mailbox SET structure_type = '3'")
    assert facts(engine, mailbox)[mailbox].organisation is None


def test_a_domain_is_trusted_through_each_operator_that_has_not_given_it_up(engine: Engine) -> None:
    mailbox = seed_practitioner(engine).mailbox
    for number in (2, 3):
        seed_practitioner(engine, number, operator=f"CN=other-{number}")
    run(
        engine,
        "UPDATE trusted_domain SET departed_at = now() FROM operator o"
        " WHERE o.id = operator_id AND o.certificate_dn = 'CN=other-2'",
    )
    run(engine, "UPDATE operator SET suspended_at = now() WHERE certificate_dn = 'CN=other-3'")
    assert {(t.operator_dn, t.operator_suspended) for t in facts(engine, mailbox)[mailbox].trusts} == {
        ("CN=operator.example,O=Demo operator,C=FR", False), ("CN=other-3", True),
    }  # fmt: skip


def test_the_past_is_answered_as_it_was_recorded_and_the_present_as_it_is(engine: Engine) -> None:
    start = clock(engine)
    mailbox, place = seed_practitioner(engine).mailbox, seed_organisation(engine)
    before = facts(engine, mailbox, place)
    then = clock(engine)
    run(engine, "UPDATE mailbox SET listed = false, service = 'NEW'")
    run(engine, "UPDATE practitioner SET family_name = 'NEW'")
    run(engine, "UPDATE organisation SET name = 'NEW'")
    run(engine, "UPDATE trusted_domain SET suspended_at = now()")
    run(engine, "UPDATE operator SET name = 'NEW'")
    run(engine, "DELETE FROM practice")
    run(engine, "DELETE FROM profession")
    assert facts(engine, mailbox, place, at=then) == before
    now = facts(engine, mailbox, place)
    assert all(now[address] != before[address] for address in before)
    assert facts(engine, mailbox, place, at=clock(engine)) == now
    assert facts(engine, mailbox, at=start)[mailbox].mailbox is None
    assert facts(engine, mailbox, at=start)[mailbox].trusts == ()


def test_people_and_places_are_found_now_and_then_and_unknown_ones_are_left_out(engine: Engine) -> None:
    start = clock(engine)
    seed_practitioner(engine)
    seed_organisation(engine)
    gone = clock(engine)
    depart(engine, rpps(1), gone)
    with transaction(engine, read_only=True) as connection:
        people = practitioners(connection, [rpps(1), rpps(2), rpps(1)])
        places = organisations(connection, ["750990012", "000000000"])
        assert (list(people), people[rpps(1)].departed_at) == ([rpps(1)], gone)
        assert list(places) == ["750990012"]
        assert practitioners(connection, [rpps(1)], gone)[rpps(1)].departed_at is None
        assert (
            practitioners(connection, [rpps(1)], start),
            organisations(connection, ["750990012"], start),
        ) == ({}, {})
        assert practitioners(connection, []) == {}


def test_a_person_holds_the_mailboxes_that_are_open(engine: Engine) -> None:
    seed_practitioner(engine, 1)
    seed_practitioner(engine, 2)
    run(
        engine,
        "INSERT INTO mailbox (address, kind, holder, row_hash)"
        f" VALUES ('a@one.example', 'PER', '{rpps(1)}', '')",
    )
    run(engine, "UPDATE mailbox SET departed_at = now() WHERE address = 'person-2@one.example'")
    with transaction(engine) as connection:
        held = addresses_of(connection, [rpps(2), rpps(1)])
    assert held == {rpps(2): (), rpps(1): ("a@one.example", "person-1@one.example")}


def test_the_registers_in_force_are_the_last_applied_ones(engine: Engine) -> None:
    insert = (
        "INSERT INTO register_run (register, file_name, file_sha256, generated_at, started_at, finished_at,"
        " state, reason)"
        " VALUES (:register, 'f', sha256(''), :generated, :finished, :finished, :state, :reason)"
    )
    day = datetime(2026, 9, 1, tzinfo=UTC)
    runs = [("rpps", 1, 1, "applied"), ("rpps", 2, 3, "applied"), ("rpps", 4, 4, "refused"),
            ("rpps", 5, 5, "planned"), ("finess", 1, 2, "applied"),
            ("mailboxes", 1, 2, "planned")]  # fmt: skip
    with transaction(engine) as connection:
        assert records_begin(connection) is None
        for register, generated, finished, state in runs:
            connection.execute(
                text(insert),
                {"register": register, "generated": day + timedelta(days=generated),
                 "finished": day + timedelta(days=finished), "state": state,
                 "reason": "x" if state == "refused" else None},
            )  # fmt: skip
        none_of_others = {"mailboxes": None, "trusted-domains": None}
        one, two = day + timedelta(days=1), day + timedelta(days=2)
        assert sources(connection) == {"rpps": two, "finess": one, **none_of_others}
        assert sources(connection, at=two) == {"rpps": one, "finess": one, **none_of_others}
        assert sources(connection, at=one) == {"rpps": one, "finess": None, **none_of_others}
        assert set(sources(connection, at=day).values()) == {None}
        assert records_begin(connection) == one
