"""A name that changes voids the approvals that vouched for the one before: each is told, and counts."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Engine, event, text

from directory import corrections, withdrawal_limits
from directory.access import Allowance, Role, Token
from directory.attention import Noted, matters_noted
from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.errors import Refusal
from directory.corrections import Correction
from directory.feed.changes import Entity
from directory.sync.runs.run import run_register
from pki.impediments.causes import GRACES
from pki.registration import enrolment
from pki.withdrawal.reconcile import Follower
from pki.withdrawal.void_enrolments import void_of
from tests.directory.sync.files import activity, header, zipped
from tests.directory.sync.files import someone as of_number
from tests.factories import Seeded, rpps, seed_organisation, seed_practitioner, seed_token
from tests.pki.conftest import Enrolled, enrol, identity

HOSPITAL = "750990012"
HER_NAME = "Nom d'exercice"
WEEK = timedelta(days=7)
Follow = Callable[..., None]
Correct = Callable[..., Correction]


def run(engine: Engine, sql: str, **values: object) -> None:
    with engine.begin() as connection:
        connection.execute(text(sql), values)


def voids(engine: Engine, *, authority: str | None = None, closed: bool = False) -> list[Noted]:
    with engine.connect() as connection:
        return matters_noted(
            connection, authority=authority, kind="enrolment-void", closed=closed, after=None, limit=100
        )


def subjects(engine: Engine) -> set[str]:
    return {one.subject for one in voids(engine)}


@pytest.fixture
def follow(engine: Engine, now: datetime) -> Follow:
    """What the job does: until nothing waits in the feed."""
    follower = Follower(engine, GRACES)

    def act(at: datetime = now) -> None:
        for _ in range(20):
            if not follower.step(at).changes:
                return
        raise AssertionError("the follower feeds itself for ever")

    return act


@pytest.fixture
def answering(engine: Engine, now: datetime) -> Enrolled:
    """Doctor 5, enrolled to answer for the mailbox of the hospital."""
    who = seed_practitioner(engine, 5)
    return enrol(engine, now, Seeded(who.national_id, seed_organisation(engine, HOSPITAL)))


@pytest.fixture
def staff(engine: Engine, now: datetime, answering: Enrolled) -> list[UUID]:
    """Six mailboxes of the hospital, each with a doctor approved to answer for it."""
    made = [answering.id]
    for number in range(11, 16):
        who, address = seed_practitioner(engine, number), f"service-{number}@two.example"
        seed_organisation(engine, HOSPITAL, address=address)
        made.append(enrol(engine, now, Seeded(who.national_id, address)).id)
    return made


@pytest.fixture
def admins(engine: Engine, now: datetime) -> tuple[Token, Token]:
    """Two administrators, of whom each takes trust from three within an hour."""
    numbers = {name: seed_token(engine, name, role="admin") for name in ("a", "b")}
    first, second = (
        Token(number, name, Role.ADMIN, "", now + timedelta(days=9), allowance=Allowance(3, 9))
        for name, number in numbers.items()
    )
    return first, second


@pytest.fixture
def correct(engine: Engine, now: datetime, admins: tuple[Token, Token]) -> Correct:
    """One field, by the first administrator: `correct("name", "…")`."""

    def act(field: str, value: str, entity: Entity = Entity.ORGANISATION, key: str = HOSPITAL) -> Correction:
        with transaction(engine) as connection:
            return corrections.correct(
                connection, now=now, token=admins[0], entity=entity, key=key, field=field, value=value,
                reason="letterhead", void_of=void_of,
            )  # fmt: skip

    return act


def withdraw(engine: Engine, now: datetime, who: Token, made: Correction) -> None:
    with transaction(engine) as connection:
        corrections.withdraw_correction(
            connection, now=now, token=who, correction_id=made.id, void_of=void_of
        )


def agree(engine: Engine, now: datetime, admins: tuple[Token, Token]) -> None:
    with transaction(engine) as connection:
        withdrawal_limits.agree(
            connection, now=now, token=admins[1], token_id=admins[0].id, reason="letterhead seen"
        )


def used(engine: Engine, now: datetime, who: Token) -> int:
    with engine.connect() as connection:
        seen = withdrawal_limits.standings_seen(connection, token=who, now=now)
    return next((one.used for one in seen if one.scope == f"token:{who.id}"), 0)


OF_PEOPLE = {
    "family name": ("UPDATE practitioner SET family_name = 'DURAND'", "family_name"),
    "given name": ("UPDATE practitioner SET given_name = 'Camille Anne'", "given_name"),
    "profession": (
        "INSERT INTO profession (national_id, code, category) VALUES ('810099000019', '40', 'C')",
        "professions",
    ),
}
OF_ESTABLISHMENTS = {
    "name": ("UPDATE organisation SET name = 'CLINIQUE DES ROSES'", "name"),
    "service": ("UPDATE mailbox SET service = 'Urgences' WHERE kind = 'ORG'", "service"),
    "kind": ("UPDATE mailbox SET kind = 'APP' WHERE kind = 'ORG'", "kind"),
}


@pytest.mark.parametrize("case", OF_PEOPLE.values(), ids=OF_PEOPLE)
def test_a_person_renamed_by_a_register_is_a_matter_until_somebody_looks(
    engine: Engine, now: datetime, enrolled: Enrolled, follow: Follow, case: tuple[str, str]
) -> None:
    change, differs = case
    follow()
    assert voids(engine) == []
    run(engine, change)
    follow(now + WEEK)
    (matter,) = voids(engine)
    assert (matter.subject, matter.since, matter.authorities) == (str(enrolled.id), now + WEEK, ("CNOM",))
    assert matter.detail == {
        "practitioner": enrolled.seeded.national_id,
        "mailbox": enrolled.seeded.mailbox,
        "differs": [differs],
    }
    # Seen by whoever may enrol anew, and by no other body.
    assert voids(engine, authority="CNOM") == [matter]
    assert voids(engine, authority="CNOP") == []


@pytest.mark.parametrize(("change", "differs"), OF_ESTABLISHMENTS.values(), ids=OF_ESTABLISHMENTS)
def test_each_approval_of_a_renamed_establishment_is_a_matter(
    engine: Engine, staff: list[UUID], follow: Follow, change: str, differs: str
) -> None:
    run(engine, change)
    follow()
    found = voids(engine)
    assert {one.subject for one in found} == {str(one) for one in staff}
    assert all(differs in one.detail["differs"] for one in found)
    assert len({one.detail["mailbox"] for one in found}) == len(staff)


def test_a_night_that_renames_somebody_is_followed(
    engine: Engine, now: datetime, actor: Actor, tmp_path: Path, follow: Follow
) -> None:
    """The register's own file, by the road of every night; a name it has put right settles it."""
    someone = seed_practitioner(engine)

    def night(day: int, name: str) -> None:
        stamp = f"202608{20 + day}0200"
        rows = [header(), *(of_number(rpps(n)[1:]) for n in range(2, 20)), activity(**{HER_NAME: name})]
        member = f"PS_LibreAcces_Personne_activite_{stamp}.txt"
        path = zipped(tmp_path / f"PS_LibreAcces_{stamp}.zip", {member: "".join(rows).encode()})
        report = run_register(
            engine, register="rpps", path=path, now=now, actor=actor, apply=True, strict_rpps=False
        )
        assert report.state == "applied", report

    night(1, "EXEMPLE")
    who = enrol(engine, now, someone)
    night(2, "EXEMPLE-MARTIN")
    follow()
    assert [(one.subject, one.detail["differs"]) for one in voids(engine)] == [(str(who.id), ["family_name"])]
    night(3, "EXEMPLE")
    follow()
    assert voids(engine) == []


def test_a_correction_is_followed_like_a_register_and_its_withdrawal_settles_it(
    engine: Engine, now: datetime, answering: Enrolled, admins: tuple[Token, Token], *, follow: Follow,
    correct: Correct,
) -> None:  # fmt: skip
    made = correct("name", "CLINIQUE DES ROSES")
    follow()
    assert subjects(engine) == {str(answering.id)}
    withdraw(engine, now, admins[0], made)
    follow(now + WEEK)
    assert voids(engine) == []
    (settled,) = voids(engine, closed=True)
    assert (settled.resolved_by, settled.resolved_at) == ("job:consequences", now + WEEK)


def test_names_that_are_right_again_settle_it_and_another_change_says_since_when(
    engine: Engine, now: datetime, enrolled: Enrolled, follow: Follow
) -> None:
    run(engine, "UPDATE practitioner SET family_name = 'DURAND'")
    follow()
    # Told again, with more that differs: one matter still, from its first day.
    run(engine, "UPDATE practitioner SET given_name = 'Anne'")
    follow(now + WEEK)
    (matter,) = voids(engine)
    assert (matter.since, matter.detail["differs"]) == (now, ["family_name", "given_name"])
    run(engine, "UPDATE practitioner SET family_name = 'MARTIN', given_name = 'Camille'")
    follow(now + WEEK)
    assert voids(engine) == []
    run(engine, "UPDATE practitioner SET family_name = 'DURAND'")
    follow(now + 2 * WEEK)
    assert [(one.subject, one.since) for one in voids(engine)] == [(str(enrolled.id), now + 2 * WEEK)]


def test_a_void_enrolment_is_a_matter_until_another_takes_its_place(
    engine: Engine, now: datetime, enrolled: Enrolled, follow: Follow
) -> None:
    run(engine, "UPDATE practitioner SET family_name = 'DURAND'")
    follow()
    with transaction(engine) as connection:
        asked = enrolment.request_enrolment(
            connection, now=now, token=enrolled.first, practitioner=enrolled.seeded.national_id,
            mailbox=enrolled.seeded.mailbox, identity_check=identity(now),
        )  # fmt: skip
    follow()
    assert subjects(engine) == {str(enrolled.id)}
    with transaction(engine) as connection:
        enrolment.approve_enrolment(connection, now=now, token=enrolled.second, enrolment_id=asked.id)
    follow()
    assert voids(engine) == []


def test_a_void_enrolment_that_ends_is_no_matter_any_more(
    engine: Engine, answering: Enrolled, follow: Follow
) -> None:
    run(engine, "UPDATE organisation SET name = 'CLINIQUE DES ROSES'")
    follow()
    assert subjects(engine) == {str(answering.id)}
    run(engine, "UPDATE organisation SET closed_on = date '2026-01-01'")
    follow()
    assert voids(engine) == []


def test_a_request_that_nobody_approved_yet_is_no_matter(
    engine: Engine, now: datetime, enrolled: Enrolled, follow: Follow
) -> None:
    other = seed_practitioner(engine, 7)
    with transaction(engine) as connection:
        enrolment.request_enrolment(
            connection, now=now, token=enrolled.first, practitioner=other.national_id, mailbox=other.mailbox,
            identity_check=identity(now),
        )  # fmt: skip
    run(
        engine, "UPDATE practitioner SET family_name = 'DURAND' WHERE national_id = :id", id=other.national_id
    )
    follow()
    assert voids(engine) == []


def test_an_approval_of_which_nobody_recorded_names_is_a_matter_too(
    engine: Engine, enrolled: Enrolled, follow: Follow
) -> None:
    """As a release before left them: `enrolment-void` says the same of it."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("DELETE FROM enrolment_names"))
        # The history does not reach back to the request either.
        connection.execute(text("UPDATE mailbox SET sys_from = '2027-01-01'"))
    run(engine, "UPDATE practitioner SET title = 'PR'")
    follow()
    assert [(one.subject, one.detail["differs"]) for one in voids(engine)] == [(str(enrolled.id), ["names"])]


def test_a_page_of_the_feed_is_looked_at_by_as_many_statements_however_many_it_voids(
    engine: Engine, now: datetime, staff: list[UUID]
) -> None:
    """The one statement for all, and no scan: a night renames thousands."""
    asked: list[str] = []

    def note(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    def followed(change: str) -> int:
        run(engine, change)
        asked.clear()
        event.listen(engine, "before_cursor_execute", note)
        try:
            Follower(engine, GRACES).step(now)
        finally:
            event.remove(engine, "before_cursor_execute", note)
        return len(asked)

    while Follower(engine, GRACES).step(now).changes:
        pass
    one = followed(
        "UPDATE mailbox SET service = 'Urgences' WHERE address = (SELECT max(address) FROM mailbox"
        " WHERE kind = 'ORG')"
    )
    assert len(voids(engine)) == 1
    assert followed("UPDATE organisation SET name = 'CLINIQUE DES ROSES'") == one
    assert len(voids(engine)) == len(staff)
    with engine.connect() as connection:
        connection.execute(text("SET enable_seqscan = off"))
        query = next(each for each in asked if "e.state = 'approved' AS approved" in each)
        told = {"people": [], "mailboxes": [f"contact-{HOSPITAL}@two.example"]}
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {query}", told).scalars())
    assert "Seq Scan" not in plan, plan


def test_one_administrator_alone_renames_no_hospital_that_many_answer_for(
    engine: Engine, now: datetime, staff: list[UUID], admins: tuple[Token, Token], *, follow: Follow,
    correct: Correct,
) -> None:  # fmt: skip
    """Charged by the approvals it voids; with a second administrator's agreement it goes through."""
    with pytest.raises(Refusal, match="take trust from 3 within an hour") as refused:
        correct("name", "CLINIQUE DES ROSES")
    assert refused.value.code == "withdrawal-limit-reached"
    follow()
    assert voids(engine) == []
    agree(engine, now, admins)
    correct("name", "CLINIQUE DES ROSES")
    assert used(engine, now, admins[0]) == len(staff) == 6
    follow()
    assert subjects(engine) == {str(one) for one in staff}


def test_a_correction_counts_what_it_voids_and_nothing_that_was_void_before(
    engine: Engine, now: datetime, staff: list[UUID], admins: tuple[Token, Token], correct: Correct
) -> None:
    # What no certificate holds voids nothing.
    correct("telephone", "01 00 00 00 00")
    assert used(engine, now, admins[0]) == 1
    run(engine, "UPDATE organisation SET name = 'CLINIQUE DES LYS'")
    correct("name", "CLINIQUE DES ROSES")
    assert used(engine, now, admins[0]) == 2
    assert len(staff) == 6


def test_corrections_of_people_and_mailboxes_count_their_approvals(
    engine: Engine, now: datetime, answering: Enrolled, admins: tuple[Token, Token], correct: Correct
) -> None:
    """A mailbox of an establishment that four answer for: all four approvals fall with its service."""
    address = answering.seeded.mailbox
    for number in (6, 7, 8):
        who = seed_practitioner(engine, number)
        with transaction(engine) as connection:
            asked = enrolment.request_enrolment(
                connection, now=now, token=answering.first, practitioner=who.national_id, mailbox=address,
                identity_check=identity(now),
            )  # fmt: skip
            enrolment.approve_enrolment(connection, now=now, token=answering.second, enrolment_id=asked.id)
    with pytest.raises(Refusal, match="take trust from 3 within an hour"):
        correct("service", "Urgences", Entity.MAILBOX, address)
    # Who answers for an establishment is not named in its certificates.
    correct("family_name", "DURAND", Entity.PRACTITIONER, answering.seeded.national_id)
    assert used(engine, now, admins[0]) == 1
    agree(engine, now, admins)
    correct("service", "Urgences", Entity.MAILBOX, address)
    assert used(engine, now, admins[0]) == 5


def test_the_withdrawal_of_a_correction_counts_what_was_approved_under_its_name(
    engine: Engine, now: datetime, admins: tuple[Token, Token], correct: Correct
) -> None:
    seed_organisation(engine, HOSPITAL)
    made = correct("name", "CLINIQUE DES ROSES")
    for number in range(1, 5):
        address = f"service-{number}@two.example"
        seed_organisation(engine, HOSPITAL, address=address)
        enrol(engine, now, Seeded(seed_practitioner(engine, number).national_id, address))
    with pytest.raises(Refusal, match="take trust from 3 within an hour"):
        withdraw(engine, now, admins[0], made)
    agree(engine, now, admins)
    withdraw(engine, now, admins[0], made)
    assert used(engine, now, admins[0]) == 5


def test_a_correction_that_voids_more_than_two_allotments_still_goes_through_with_two_persons(
    engine: Engine, now: datetime, staff: list[UUID], admins: tuple[Token, Token], correct: Correct
) -> None:
    seed_organisation(engine, HOSPITAL, address="service-16@two.example")
    enrol(engine, now, Seeded(seed_practitioner(engine, 16).national_id, "service-16@two.example"))
    agree(engine, now, admins)
    correct("name", "CLINIQUE DES ROSES")
    assert used(engine, now, admins[0]) == 6 < len(staff) + 1
