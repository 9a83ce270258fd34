"""Who may enrol whom, for which mailbox, and who must agree."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from time import monotonic, sleep
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text

from directory import access
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from pki.issuance import batch
from pki.model import Enrolment, EnrolmentState
from pki.registration import enrolment as enrolling
from tests.factories import depart, rpps, seed_organisation, seed_practitioner, seed_token
from tests.pki.conftest import Enrolled, Issue, enrol, identity, registrar
from tests.pki.issuance.test_issuance import at_once


def ask(
    engine: Engine, now: datetime, token: access.Token, practitioner: str, mailbox: str, **check: Any
) -> Enrolment:
    with transaction(engine) as connection:
        return enrolling.request_enrolment(
            connection, now=now, token=token, practitioner=practitioner, mailbox=mailbox,
            identity_check={**identity(now), **check},
        )  # fmt: skip


def approve(engine: Engine, now: datetime, token: access.Token, enrolment: Enrolment) -> Enrolment:
    with transaction(engine) as connection:
        return enrolling.approve_enrolment(connection, now=now, token=token, enrolment_id=enrolment.id)


def run(engine: Engine, sql: str, **values: Any) -> None:
    with engine.begin() as connection:
        connection.execute(text(sql), values)


def test_two_registrars_of_one_authority_enrol_a_doctor(engine: Engine, now: datetime) -> None:
    doctor = seed_practitioner(engine)
    first, second = registrar(engine, "a"), registrar(engine, "b")
    asked = ask(engine, now, first, doctor.national_id, doctor.mailbox)
    assert (asked.state, asked.authority) == (EnrolmentState.REQUESTED, "CNOM")
    assert asked.identity_check == {
        "method": "in-person", "document": "identity card", "checked_on": "2026-09-01",
    }  # fmt: skip
    approved = approve(engine, now, second, asked)
    assert (approved.state, approved.requested_by, approved.approved_by) == (
        EnrolmentState.APPROVED, first.id, second.id,
    )  # fmt: skip
    with engine.connect() as connection:
        query = text("SELECT event, actor FROM audit_pending WHERE subject = :id ORDER BY id")
        lines = connection.execute(query, {"id": str(asked.id)}).all()
    assert lines == [
        ("enrolment.requested", f"token:{first.id}"), ("enrolment.approved", f"token:{second.id}"),
    ]  # fmt: skip


def test_a_registrar_of_another_authority_may_not_ask_nor_approve(engine: Engine, now: datetime) -> None:
    doctor = seed_practitioner(engine)
    pharmacists = registrar(engine, "p", "CNOP")
    with pytest.raises(Refusal) as refused:
        ask(engine, now, pharmacists, doctor.national_id, doctor.mailbox)
    assert (refused.value.kind, refused.value.code) == (Kind.FORBIDDEN, "wrong-authority")
    asked = ask(engine, now, registrar(engine, "a"), doctor.national_id, doctor.mailbox)
    with pytest.raises(Refusal) as refused:
        approve(engine, now, pharmacists, asked)
    assert (refused.value.kind, refused.value.code) == (Kind.NOT_FOUND, "unknown-enrolment")


def test_whoever_holds_two_professions_may_be_enrolled_by_either_authority(
    engine: Engine, now: datetime
) -> None:
    both = seed_practitioner(engine, professions=(("10", "C"), ("21", "C")))
    assert (
        ask(engine, now, registrar(engine, "p", "CNOP"), both.national_id, both.mailbox).authority == "CNOP"
    )


def test_a_profession_without_an_ordre_is_enrolled_by_the_agencies(engine: Engine, now: datetime) -> None:
    speech = seed_practitioner(engine, professions=(("91", "C"),))
    with pytest.raises(Refusal):
        ask(engine, now, registrar(engine, "a"), speech.national_id, speech.mailbox)
    assert ask(engine, now, registrar(engine, "r", "ARS"), speech.national_id, speech.mailbox)


@pytest.mark.parametrize("role", ["operator", "auditor", "admin"])
def test_only_registrars_enrol(engine: Engine, now: datetime, role: str) -> None:
    doctor = seed_practitioner(engine)
    token_id = seed_token(engine, "x", role=role)
    token = access.Token(token_id, "x", access.Role(role), "", now)
    with pytest.raises(Refusal) as refused:
        ask(engine, now, token, doctor.national_id, doctor.mailbox)
    assert (refused.value.kind, refused.value.code) == (Kind.FORBIDDEN, "not-a-registrar")


def test_nobody_approves_his_own_request(engine: Engine, now: datetime) -> None:
    doctor = seed_practitioner(engine)
    first = registrar(engine, "a")
    asked = ask(engine, now, first, doctor.national_id, doctor.mailbox)
    with pytest.raises(Refusal) as refused:
        approve(engine, now, first, asked)
    assert (refused.value.kind, refused.value.code) == (Kind.FORBIDDEN, "self-approval")


def test_an_enrolment_is_approved_once_even_by_two_at_the_same_moment(engine: Engine, now: datetime) -> None:
    doctor = seed_practitioner(engine)
    asked = ask(engine, now, registrar(engine, "a"), doctor.national_id, doctor.mailbox)
    second, third = registrar(engine, "b"), registrar(engine, "c")
    results = at_once(lambda: approve(engine, now, second, asked), lambda: approve(engine, now, third, asked))
    assert sum(isinstance(result, Enrolment) for result in results) == 1
    assert "already-approved" in results


def test_one_person_and_mailbox_have_one_living_enrolment(engine: Engine, now: datetime) -> None:
    doctor = seed_practitioner(engine)
    first, second = registrar(engine, "a"), registrar(engine, "b")
    results = at_once(
        lambda: ask(engine, now, first, doctor.national_id, doctor.mailbox),
        lambda: ask(engine, now, second, doctor.national_id, doctor.mailbox),
    )
    assert sum(isinstance(result, Enrolment) for result in results) == 1
    assert "already-enrolled" in results


def test_unknown_people_mailboxes_and_enrolments_are_not_found(engine: Engine, now: datetime) -> None:
    doctor = seed_practitioner(engine)
    token = registrar(engine, "a")
    for national_id, mailbox, kind, code in (
        (rpps(9), doctor.mailbox, Kind.NOT_FOUND, "unknown-practitioner"),
        (doctor.national_id, "nobody@one.example", Kind.NOT_FOUND, "unknown-mailbox"),
        (doctor.national_id, "no address", Kind.MALFORMED, "malformed-address"),
    ):
        with pytest.raises(Refusal) as refused:
            ask(engine, now, token, national_id, mailbox)
        assert (refused.value.kind, refused.value.code) == (kind, code)
    with transaction(engine) as connection, pytest.raises(Refusal) as refused:
        enrolling.approve_enrolment(connection, now=now, token=token, enrolment_id=uuid4())
    assert refused.value.code == "unknown-enrolment"


def test_a_personal_mailbox_is_for_its_holder_alone(engine: Engine, now: datetime) -> None:
    doctor, other = seed_practitioner(engine), seed_practitioner(engine, 2)
    with pytest.raises(Refusal) as refused:
        ask(engine, now, registrar(engine, "a"), doctor.national_id, other.mailbox)
    assert (refused.value.kind, refused.value.code) == (Kind.UNACCEPTABLE, "not-the-holder")


def test_an_organisation_mailbox_gets_someone_who_answers_for_it(engine: Engine, now: datetime) -> None:
    address = seed_organisation(engine)
    doctor = seed_practitioner(engine, finess="750990012")
    asked = ask(engine, now, registrar(engine, "a"), doctor.national_id, address)
    assert asked.mailbox == address
    with engine.connect() as connection:
        there = connection.execute(text("SELECT detail -> 'practises_there' FROM audit_pending")).scalar_one()
    assert there is True


AGAINST = {
    "holder-not-practising": "DELETE FROM practice",
    "holder-suspended": "INSERT INTO measure (national_id, kind, authority, reason, starts_at, recorded_by,"
    " recorded_at) VALUES (:id, 'suspended', 'CNOM', 'x', '2026-01-01Z', 'x', '2026-01-01Z')",
    "holder-struck-off": "INSERT INTO measure (national_id, kind, authority, reason, starts_at, recorded_by,"
    " recorded_at) VALUES (:id, 'struck-off', 'CNOM', 'x', '2026-01-01Z', 'x', '2026-01-01Z')",
    "mailbox-closed": "UPDATE mailbox SET departed_at = '2026-01-01Z'",
    "domain-not-trusted": "DELETE FROM trusted_domain",
    "domain-suspended": "UPDATE trusted_domain SET suspended_at = '2026-01-01Z'",
    "operator-suspended": "UPDATE operator SET suspended_at = '2026-01-01Z'",
    "mailbox-kind-not-served": "UPDATE mailbox SET kind = 'CAB'",
}


@pytest.mark.parametrize("code", AGAINST)
def test_what_stands_against_person_or_mailbox_stops_request_approval_and_issuance(
    engine: Engine, issue: Issue, now: datetime, code: str
) -> None:
    # Doctor 1 is enrolled already by the fixture; 2 is asked for; 3 is not.
    asked_for, other = seed_practitioner(engine, 2), seed_practitioner(engine, 3)
    first, second = registrar(engine, "a"), registrar(engine, "b")
    asked = ask(engine, now, first, asked_for.national_id, asked_for.mailbox)
    for number in (1, 2, 3):
        run(engine, AGAINST[code], **({"id": rpps(number)} if ":id" in AGAINST[code] else {}))
    acts = (
        lambda: ask(engine, now, first, other.national_id, other.mailbox),
        lambda: approve(engine, now, second, asked),
        issue,
    )
    for act in acts:
        with pytest.raises(Refusal) as refused:
            act()
        assert (refused.value.kind, refused.value.code) == (Kind.UNACCEPTABLE, code)


def test_who_leaves_the_roll_of_an_ordre_for_another_gets_nothing_more_through_it(
    engine: Engine, issue: Issue, now: datetime
) -> None:
    asked_for = seed_practitioner(engine, 2)
    asked = ask(engine, now, registrar(engine, "a"), asked_for.national_id, asked_for.mailbox)
    run(engine, "UPDATE profession SET code = '60'")
    for act in (lambda: approve(engine, now, registrar(engine, "b"), asked), issue):
        with pytest.raises(Refusal) as refused:
            act()
        assert (refused.value.kind, refused.value.code) == (Kind.FORBIDDEN, "wrong-authority")


def test_who_left_the_register_is_not_enrolled(engine: Engine, now: datetime) -> None:
    doctor = seed_practitioner(engine)
    depart(engine, doctor.national_id, now)
    run(engine, "DELETE FROM profession")
    with pytest.raises(Refusal) as refused:
        ask(engine, now, registrar(engine, "a"), doctor.national_id, doctor.mailbox)
    assert (refused.value.kind, refused.value.code) == (Kind.UNACCEPTABLE, "holder-not-in-registry")


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "telephone"},
        {"document": "  "},
        {"document": "x" * 201},
        {"checked_on": "yesterday"},
        {"checked_on": "2026-09-02"},
        {"checked_on": "2024-01-01"},
        {"extra": "field"},
    ],
)
def test_an_identity_check_that_says_too_little_is_refused(
    engine: Engine, now: datetime, wrong: dict[str, str]
) -> None:
    doctor = seed_practitioner(engine)
    with pytest.raises(Refusal) as refused:
        ask(engine, now, registrar(engine, "a"), doctor.national_id, doctor.mailbox, **wrong)
    assert (refused.value.kind, refused.value.code) == (Kind.MALFORMED, "bad-identity-check")


def test_nothing_is_issued_before_the_second_registrar_agreed(
    engine: Engine, now: datetime, issue: Issue
) -> None:
    doctor = seed_practitioner(engine, 2)
    first = registrar(engine, "a")
    asked = ask(engine, now, first, doctor.national_id, doctor.mailbox)
    with pytest.raises(Refusal) as refused:
        issue(who=Enrolled(doctor, asked.id, first, first))
    assert (refused.value.kind, refused.value.code) == (Kind.CONFLICT, "not-approved")


def test_a_registrar_of_another_authority_gets_no_certificate_out_of_an_enrolment(
    engine: Engine, issue: Issue, now: datetime
) -> None:
    enrolled = enrol(engine, now, seed_practitioner(engine, 2))
    with pytest.raises(Refusal) as refused:
        issue(who=replace(enrolled, first=registrar(engine, "p", "CNOP")))
    assert refused.value.code == "unknown-enrolment"


@pytest.mark.behind_the_log
def test_an_ended_enrolment_is_neither_approved_nor_used_and_makes_room_for_another(
    engine: Engine, issue: Issue, now: datetime
) -> None:
    doctor = seed_practitioner(engine, 2)
    enrolled = enrol(engine, now, doctor)
    run(engine, "UPDATE enrolment SET state = 'ended', ended_at = :at", at=now + timedelta(days=1))
    with pytest.raises(Refusal) as refused:
        issue(who=enrolled)
    assert refused.value.code == "enrolment-ended"
    assert ask(engine, now, enrolled.first, doctor.national_id, doctor.mailbox)


def waits_for_a_row(engine: Engine) -> None:
    """Until somebody stands in line for what another transaction holds."""
    ends = monotonic() + 30
    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.execute(waiting).scalar_one():
            assert monotonic() < ends, "nobody waits for the enrolment"
            sleep(0.01)


@pytest.mark.parametrize("road", ["alone", "batch"])
def test_whoever_approves_locks_what_stands_beside_in_the_order_of_ids(
    engine: Engine, now: datetime, monkeypatch: pytest.MonkeyPatch, road: str
) -> None:
    """As the consequences of a departure lock it: they would deadlock with one who holds a later row."""
    ids = iter([3, 1, 4, 5])
    monkeypatch.setattr(enrolling, "uuid4", lambda: UUID(int=next(ids)))
    crew = [enrol(engine, now, seed_practitioner(engine, number)) for number in (1, 2)]
    run(engine, "UPDATE practitioner SET family_name = 'DURAND'")
    later = [ask(engine, now, one.first, one.seeded.national_id, one.seeded.mailbox) for one in crew]

    def approves() -> Sequence[Enrolment | Refusal]:
        if road == "alone":
            return [approve(engine, now, crew[1].second, later[1])]
        asked = [one.id for one in later]
        with transaction(engine) as connection:
            return list(
                batch.approve_all(connection, now=now, token=crew[0].second, enrolment_ids=asked).values()
            )

    hold = text("SELECT id FROM enrolment WHERE id = :id FOR UPDATE")
    free = text("SELECT id FROM enrolment WHERE id <> :id ORDER BY id FOR UPDATE SKIP LOCKED")
    with ThreadPoolExecutor(1) as pool:
        with engine.connect() as departure:
            departure.execute(hold, {"id": crew[1].id})
            approving = pool.submit(approves)
            waits_for_a_row(engine)
            assert departure.execute(free, {"id": crew[1].id}).scalars().all() == [
                UUID(int=number) for number in (3, 4, 5)
            ]
        done = approving.result(timeout=60)
    assert all(isinstance(one, Enrolment) and one.state is EnrolmentState.APPROVED for one in done)
