"""Each cause from the present rows: which reason, after which grace, undone when it goes; nothing twice."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Event as Flag
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import Engine, text

from directory.attention import Noted, matters_noted
from directory.base.audit import Actor
from directory.base.comments import LONGEST_REASON
from directory.base.db import transaction
from directory.base.errors import Refusal
from directory.model import MeasureKind
from directory.store import lock_person
from pki.impediments.causes import GRACES, WithdrawalCause
from pki.model import IssuedCertificate, RevocationReason, Serial
from pki.publication.store import live_certificates
from pki.record import enrolments
from pki.registration import enrolment
from pki.revocation import requests
from pki.verdict.answer import verdicts
from pki.withdrawal.measures import lift, take
from pki.withdrawal.reconcile import Follower, Outcome, Touched, list_claims, settle, settle_due
from tests.api.certificates import certify
from tests.factories import depart, rpps, seed_organisation, seed_practitioner
from tests.pki.conftest import Enrolled, Established, Issue, enrol, identity

WEEK = timedelta(days=7)
MINUTE = timedelta(minutes=1)


def run(engine: Engine, sql: str, **values: object) -> None:
    with engine.begin() as connection:
        connection.execute(text(sql), values)


def rows(engine: Engine, sql: str, **values: object) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(sql), values)]


def events(engine: Engine, serial: str) -> list[tuple[Any, ...]]:
    return rows(engine, "SELECT action, reason FROM revocation WHERE serial = :s ORDER BY id", s=serial)


def states(engine: Engine) -> list[str]:
    return [row[0] for row in rows(engine, "SELECT state FROM enrolment ORDER BY requested_at, mailbox")]


def open_matters(engine: Engine) -> list[Noted]:
    with engine.connect() as connection:
        return matters_noted(connection, authority=None, kind=None, closed=False, after=None, limit=100)


def kinds(engine: Engine) -> list[tuple[str, str]]:
    return [(one.kind, one.subject) for one in open_matters(engine)]


@pytest.fixture
def follower(engine: Engine) -> Follower:
    return Follower(engine, GRACES)


def follow(follower: Follower, now: datetime) -> Outcome:
    """Until nothing waits, as the job does."""
    done = Outcome()
    for _ in range(20):
        step = follower.step(now)
        if not step.changes:
            return done
        done += step
    raise AssertionError("the follower feeds itself for ever")


def stops_practising(engine: Engine, someone: str) -> None:
    run(engine, "DELETE FROM practice WHERE national_id = :id", id=someone)


def practises_again(engine: Engine, someone: str) -> None:
    run(
        engine,
        "INSERT INTO practice (national_id, digest, profession_code, category)"
        " VALUES (:id, substring(sha256('x') FROM 1 FOR 16), '10', 'C')",
        id=someone,
    )


def strike_off(engine: Engine, someone: str, at: datetime, kind: str = "struck-off") -> None:
    """As a row of the record alone, so that what follows is the follower's doing."""
    run(
        engine,
        "INSERT INTO measure (national_id, kind, authority, reason, starts_at, recorded_by, recorded_at)"
        " VALUES (:id, :kind, 'CNOM', 'x', :at, 'x', :at)",
        id=someone, kind=kind, at=at,
    )  # fmt: skip


def replaced(engine: Engine, old: str, new: str | None, at: datetime) -> None:
    run(
        engine,
        "INSERT INTO register_run (register, file_name, file_sha256, generated_at, started_at, state)"
        " VALUES ('rpps', 'x', sha256('x'), :at, :at, 'applied')",
        at=at,
    )
    run(
        engine,
        "INSERT INTO succession (national_id, successor, run_id, linked_at)"
        " SELECT :old, :new, max(id), :at FROM register_run",
        old=old, new=new, at=at,
    )  # fmt: skip


def suspend(engine: Engine, someone: str, at: datetime) -> None:
    strike_off(engine, someone, at, "suspended")


def close_mailbox(engine: Engine, someone: str, at: datetime) -> None:
    run(engine, "UPDATE mailbox SET departed_at = :at WHERE holder = :id", at=at, id=someone)


def hand_on_mailbox(engine: Engine, someone: str, _: datetime) -> None:
    seed_practitioner(engine, 7)
    run(engine, "UPDATE mailbox SET holder = :new WHERE holder = :id", new=rpps(7), id=someone)


def give_mailbox_to_an_establishment(engine: Engine, someone: str, _: datetime) -> None:
    seed_organisation(engine)
    run(
        engine,
        "UPDATE mailbox SET kind = 'ORG', holder = NULL, structure_type = '1', structure_id = '750990012'"
        " WHERE holder = :id",
        id=someone,
    )


AT_ONCE: dict[str, tuple[Callable[[Engine, str, datetime], None], str, str]] = {
    "departed": (depart, "revoke", "cessationOfOperation"),
    "struck off": (strike_off, "revoke", "privilegeWithdrawn"),
    "suspended": (suspend, "hold", "certificateHold"),
    "mailbox closed": (close_mailbox, "revoke", "cessationOfOperation"),
    "mailbox moved": (hand_on_mailbox, "revoke", "affiliationChanged"),
    "mailbox given to an establishment": (
        give_mailbox_to_an_establishment, "revoke", "affiliationChanged",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", AT_ONCE.values(), ids=AT_ONCE)
def test_what_has_no_grace_is_taken_back_as_soon_as_the_feed_tells(
    engine: Engine, issue: Issue, enrolled: Enrolled, now: datetime,
    case: tuple[Callable[[Engine, str, datetime], None], str, str],
) -> None:  # fmt: skip
    follower = Follower(engine, GRACES)
    happen, action, reason = case
    serial = issue().serial
    assert follow(follower, now).revoked == 0
    happen(engine, enrolled.seeded.national_id, now)
    follow(follower, now)
    assert events(engine, serial) == [(action, reason)]
    assert states(engine) == ["approved" if action == "hold" else "ended"]
    # Once more, by a follower that knows nothing: looking twice changes nothing.
    run(engine, "DELETE FROM feed_cursor")
    again = follow(Follower(engine, GRACES), now)
    assert (again.revoked, again.held, again.ended) == (0, 0, 0)
    assert len(events(engine, serial)) == 1


@pytest.fixture
def answering(engine: Engine, now: datetime) -> Enrolled:
    """Doctor 5, enrolled to answer for the mailbox of an establishment."""
    who = seed_practitioner(engine, 5)
    return enrol(engine, now, replace(who, mailbox=seed_organisation(engine)))


MOVE = "UPDATE mailbox SET structure_id = '750990038' WHERE kind = 'ORG'"
OF_ESTABLISHMENTS = {
    "moved": (MOVE, "affiliationChanged"),
    "closed": ("UPDATE organisation SET closed_on = date '2026-08-31'", "cessationOfOperation"),
    "gone": ("UPDATE organisation SET departed_at = now()", "cessationOfOperation"),
    "mailbox closed": ("UPDATE mailbox SET departed_at = now() WHERE kind = 'ORG'", "cessationOfOperation"),
}


@pytest.mark.parametrize("case", OF_ESTABLISHMENTS.values(), ids=OF_ESTABLISHMENTS)
def test_a_certificate_of_an_establishment_goes_with_it(
    engine: Engine, issue: Issue, answering: Enrolled, now: datetime, case: tuple[str, str]
) -> None:
    statement, reason = case
    seed_organisation(engine, "750990038")
    serial = issue(who=answering).serial
    run(engine, statement)
    follow(Follower(engine, GRACES), now)
    assert events(engine, serial) == [("revoke", reason)]
    assert rows(engine, "SELECT state FROM enrolment WHERE id = :id", id=answering.id) == [("ended",)]


def test_a_certificate_naming_another_establishment_is_handed_out_by_nobody(
    engine: Engine, issue: Issue, answering: Enrolled, now: datetime
) -> None:
    """From the commit on, before any job has run."""
    seed_organisation(engine, "750990038")
    issued = issue(who=answering)
    address = answering.seeded.mailbox

    def shown() -> tuple[dict[str, list[bytes]], tuple[str, ...]]:
        with transaction(engine, read_only=True) as connection:
            (found,) = verdicts(connection, [address], sender=None, at=None, now=now, lifetime=MINUTE)
            return live_certificates(connection, [address], now), found.reasons

    assert shown() == ({address: [issued.der]}, ())
    run(engine, MOVE)
    assert shown() == ({}, ("no-certificate",))


def test_who_practises_nowhere_any_more_has_a_week(
    engine: Engine, issue: Issue, enrolled: Enrolled, follower: Follower, now: datetime
) -> None:
    serial = issue().serial
    stops_practising(engine, enrolled.seeded.national_id)
    follow(follower, now)
    assert events(engine, serial) == []
    (matter,) = open_matters(engine)
    assert (matter.kind, matter.subject, matter.authorities) == ("withdrawal-pending", serial, ("CNOM",))
    assert matter.detail["cause"] == "end-of-practice"
    assert datetime.fromisoformat(matter.detail["due_at"]) == now + WEEK

    def due(at: datetime) -> Outcome:
        with transaction(engine) as connection:
            return settle_due(connection, graces=GRACES, now=at)

    assert due(now + WEEK - MINUTE) == Outcome()
    # Told again meanwhile: the week goes on from its first day.
    run(engine, "UPDATE practitioner SET title = 'PR'")
    follow(follower, now + WEEK / 2)
    assert due(now + WEEK).revoked == 1
    assert events(engine, serial) == [("revoke", "cessationOfOperation")]
    assert states(engine) == ["ended"]
    assert open_matters(engine) == []
    assert due(now + WEEK) == Outcome()


def test_who_practises_again_within_the_week_keeps_what_he_has(
    engine: Engine, issue: Issue, enrolled: Enrolled, follower: Follower, now: datetime
) -> None:
    serial = issue().serial
    stops_practising(engine, enrolled.seeded.national_id)
    follow(follower, now)
    practises_again(engine, enrolled.seeded.national_id)
    # Even when the feed has not been read: what is due is looked at again before it is done.
    with transaction(engine) as connection:
        assert settle_due(connection, graces=GRACES, now=now + WEEK).revoked == 0
    follow(follower, now + WEEK)
    assert events(engine, serial) == []
    assert rows(engine, "SELECT * FROM withdrawal_due") == []
    assert open_matters(engine) == []
    assert states(engine) == ["approved"]


def test_a_certificate_revoked_by_hand_waits_for_nothing_more(
    engine: Engine, issue: Issue, enrolled: Enrolled, follower: Follower, now: datetime
) -> None:
    serial = issue().serial
    stops_practising(engine, enrolled.seeded.national_id)
    follow(follower, now)
    with transaction(engine) as connection:
        requests.revoke(
            connection, now=now, actor=Actor("x"), serial=serial, reason=RevocationReason.KEY_COMPROMISE
        )
    follow(follower, now)
    assert rows(engine, "SELECT * FROM withdrawal_due") == []
    assert open_matters(engine) == []


def test_a_grace_is_the_operators_to_set(
    engine: Engine, issue: Issue, enrolled: Enrolled, now: datetime
) -> None:
    serial = issue().serial
    patient = Follower(
        engine, {**GRACES, WithdrawalCause.DEPARTED: WEEK, WithdrawalCause.END_OF_PRACTICE: timedelta()}
    )
    depart(engine, enrolled.seeded.national_id, now)
    follow(patient, now)
    assert events(engine, serial) == []
    run(engine, "UPDATE practitioner SET departed_at = NULL")
    stops_practising(engine, enrolled.seeded.national_id)
    follow(patient, now)
    assert events(engine, serial) == [("revoke", "cessationOfOperation")]


def test_a_person_under_a_new_number_has_a_month(
    engine: Engine, issue: Issue, enrolled: Enrolled, follower: Follower, now: datetime
) -> None:
    serial, old, new = issue().serial, enrolled.seeded.national_id, seed_practitioner(engine, 8).national_id
    replaced(engine, old, new, now)
    depart(engine, old, now)
    run(engine, "UPDATE mailbox SET holder = :new WHERE holder = :old", new=new, old=old)
    follow(follower, now)
    assert events(engine, serial) == []
    with transaction(engine) as connection:
        settle_due(connection, graces=GRACES, now=now + timedelta(days=30))
    assert events(engine, serial) == [("revoke", "superseded")]


def test_a_number_retired_without_successor_is_for_a_person_to_look_at(
    engine: Engine, issue: Issue, enrolled: Enrolled, follower: Follower, now: datetime
) -> None:
    serial, old = issue().serial, enrolled.seeded.national_id
    replaced(engine, old, None, now)
    depart(engine, old, now)
    follow(follower, now)
    assert events(engine, serial) == [("revoke", "cessationOfOperation")]
    assert kinds(engine) == [("number-retired", old)]
    run(engine, "UPDATE practitioner SET departed_at = NULL WHERE national_id = :id", id=old)
    follow(follower, now)
    assert kinds(engine) == []


def test_a_retired_number_is_no_matter_any_more_once_the_mailbox_list_links_it(
    engine: Engine, enrolled: Enrolled, follower: Follower, now: datetime
) -> None:
    old, new = enrolled.seeded.national_id, seed_practitioner(engine, 8).national_id
    replaced(engine, old, None, now)
    depart(engine, old, now)
    follow(follower, now)
    assert kinds(engine) == [("number-retired", old)]
    run(engine, "UPDATE succession SET successor = :new", new=new)
    follow(follower, now)
    assert kinds(engine) == []


def test_a_suspension_holds_and_its_end_releases(
    engine: Engine, issue: Issue, enrolled: Enrolled, follower: Follower, now: datetime
) -> None:
    serial = issue().serial
    strike_off(engine, enrolled.seeded.national_id, now, "suspended")
    follow(follower, now)
    run(engine, "UPDATE measure SET ends_at = starts_at + interval '1 hour'")
    follow(follower, now + 2 * MINUTE)
    assert events(engine, serial) == [("hold", "certificateHold"), ("release", "certificateHold")]


def test_a_hold_put_by_somebody_else_outlives_the_suspension(
    engine: Engine, issue: Issue, enrolled: Enrolled, follower: Follower, now: datetime
) -> None:
    serial = issue().serial
    with transaction(engine) as connection:
        requests.revoke(
            connection, now=now, actor=Actor("token:1"), serial=serial,
            reason=RevocationReason.CERTIFICATE_HOLD,
        )  # fmt: skip
    strike_off(engine, enrolled.seeded.national_id, now, "suspended")
    follow(follower, now)
    run(engine, "UPDATE measure SET ends_at = starts_at + interval '1 hour'")
    follow(follower, now)
    assert events(engine, serial) == [("hold", "certificateHold")]


def test_who_is_suspended_and_then_struck_off_is_revoked_for_good(
    engine: Engine, issue: Issue, enrolled: Enrolled, follower: Follower, now: datetime
) -> None:
    serial = issue().serial
    for kind in ("suspended", "struck-off"):
        strike_off(engine, enrolled.seeded.national_id, now, kind)
        follow(follower, now)
    assert events(engine, serial) == [("hold", "certificateHold"), ("revoke", "privilegeWithdrawn")]


def test_a_mailbox_left_without_anybody_answering_is_listed_until_somebody_does(
    engine: Engine, answering: Enrolled, follower: Follower, now: datetime
) -> None:
    address = answering.seeded.mailbox
    # Another establishment, for which nobody ever answered: that is no news.
    seed_organisation(engine, "750990038")
    follow(follower, now)
    assert kinds(engine) == []
    depart(engine, answering.seeded.national_id, now)
    follow(follower, now)
    assert kinds(engine) == [("no-answerable-professional", address)]
    assert open_matters(engine)[0].authorities == ("CNOM",)
    with transaction(engine) as connection:
        asked = enrolment.request_enrolment(
            connection, now=now, token=answering.first, practitioner=seed_practitioner(engine, 6).national_id,
            mailbox=address, identity_check=identity(now),
        )  # fmt: skip
    follow(follower, now)
    assert kinds(engine) == [("no-answerable-professional", address)]
    with transaction(engine) as connection:
        enrolment.approve_enrolment(connection, now=now, token=answering.second, enrolment_id=asked.id)
    follow(follower, now)
    assert kinds(engine) == []
    closed = rows(engine, "SELECT resolved_by, resolved_at FROM attention")
    assert closed == [("job:consequences", now)]


def test_a_mailbox_claimed_twice_is_listed_while_the_last_file_says_so(engine: Engine, now: datetime) -> None:
    holder = seed_practitioner(engine)
    applied = (
        "INSERT INTO register_run (register, file_name, file_sha256, generated_at, started_at, finished_at,"
        " state) VALUES ('mailboxes', 'x', sha256('x'), :at, :at, :at, 'applied')"
    )
    run(engine, applied, at=now)
    run(
        engine,
        "INSERT INTO register_rejection"
        " SELECT id, 12, 'address-claimed-twice', :address, 'x' FROM register_run",
        address=holder.mailbox,
    )

    def listed() -> list[tuple[str, str]]:
        with transaction(engine) as connection:
            list_claims(connection, now)
        return kinds(engine)

    assert listed() == [("mailbox-claimed-twice", holder.mailbox)]
    assert listed() == [("mailbox-claimed-twice", holder.mailbox)]
    assert open_matters(engine)[0].authorities == ("CNOM",)
    run(engine, applied, at=now + MINUTE)
    assert listed() == []


def test_an_enrolment_for_one_establishment_does_not_serve_another(
    engine: Engine, follower: Follower
) -> None:
    """The mailbox moves before any certificate: what two registrars vouched for was the other place."""
    present = datetime.now(UTC)
    address = seed_organisation(engine)
    seed_organisation(engine, "750990038")
    who = enrol(engine, datetime.now(UTC), replace(seed_practitioner(engine, 5), mailbox=address))
    run(engine, MOVE + " AND address = :a", a=address)
    follow(follower, present)
    assert rows(engine, "SELECT state FROM enrolment WHERE id = :id", id=who.id) == [("ended",)]


@pytest.fixture
def long_import(engine: Engine) -> Iterator[None]:
    """A transaction begun before everything else, with a number of its own, that does not end."""
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_current_xact_id()"))
        yield


@pytest.mark.usefixtures("long_import")
def test_nobody_waits_behind_an_older_open_transaction(
    engine: Engine, issue: Issue, enrolled: Enrolled, follower: Follower, now: datetime
) -> None:
    serial = issue().serial
    strike_off(engine, enrolled.seeded.national_id, now)
    assert follow(follower, now).revoked == 1
    assert events(engine, serial) == [("revoke", "privilegeWithdrawn")]
    # It is not counted as read: another follower would look again.
    assert rows(engine, "SELECT * FROM feed_cursor") == []


def test_what_takes_away_overtakes_a_long_queue(
    engine: Engine, issue: Issue, enrolled: Enrolled, follower: Follower, now: datetime
) -> None:
    serial = issue().serial
    run(
        engine, "INSERT INTO change (entity, key) SELECT 'mailbox', n || '@x' FROM generate_series(1, 9000) n"
    )
    strike_off(engine, enrolled.seeded.national_id, now)
    assert follower.step(now).revoked == 1
    assert events(engine, serial) == [("revoke", "privilegeWithdrawn")]
    assert follow(follower, now).revoked == 0


def test_a_step_that_fails_is_taken_again(
    engine: Engine, issue: Issue, enrolled: Enrolled, follower: Follower, now: datetime
) -> None:
    serial = issue().serial
    strike_off(engine, enrolled.seeded.national_id, now)
    run(engine, "ALTER TABLE attention RENAME TO elsewhere")
    with pytest.raises(Exception, match="attention"):
        follower.step(now)
    assert events(engine, serial) == []
    run(engine, "ALTER TABLE elsewhere RENAME TO attention")
    assert follow(follower, now).revoked == 1


def test_a_hundred_leave_in_one_batch_with_one_line_each(engine: Engine, now: datetime) -> None:
    people = [seed_practitioner(engine, number) for number in range(1, 101)]
    for number, who in enumerate(people, 1):
        certify(engine, who.mailbox, now, number=number, holder=who.national_id)
    run(engine, "UPDATE practitioner SET departed_at = :at", at=now)
    everybody = Touched(frozenset(who.national_id for who in people))
    with transaction(engine) as connection:
        assert settle(connection, everybody, graces=GRACES, now=now).revoked == 100
        assert settle(connection, everybody, graces=GRACES, now=now) == Outcome()
    query = "SELECT count(*), count(DISTINCT subject) FROM audit_pending WHERE event = 'certificate.revoked'"
    assert rows(engine, query) == [(100, 100)]


# Strike-off, issuance and lifting beside one another (lock order: the person, then the enrolment).


class _Slow:
    """A signer that lets something happen before it signs."""

    def __init__(self, authority: Established, meanwhile: Callable[[], object]) -> None:
        self._authority, self._meanwhile = authority, meanwhile

    def sign_certificate(self, serial: Serial) -> bytes:
        self._meanwhile()
        return self._authority.signer.sign_certificate(serial)


def live(engine: Engine) -> int:
    query = (
        "SELECT count(*) FROM certificate c WHERE mailbox IS NOT NULL AND NOT EXISTS"
        " (SELECT FROM revocation r WHERE r.serial = c.serial AND r.action = 'revoke')"
    )
    return int(rows(engine, query)[0][0])


def take_over_rest(engine: Engine, who: Enrolled, now: datetime, kind: MeasureKind) -> int:
    with transaction(engine) as connection:
        return take(
            connection, now=now, token=who.first, national_id=who.seeded.national_id, kind=kind,
            reason="decision 12", graces=GRACES,
        ).id  # fmt: skip


def test_struck_off_while_the_signer_works_leaves_no_live_certificate(
    engine: Engine, authority: Established, issue: Issue, enrolled: Enrolled, now: datetime
) -> None:
    slow = _Slow(authority, lambda: take_over_rest(engine, enrolled, now, MeasureKind.STRUCK_OFF))
    with pytest.raises(Refusal) as refused:
        issue(signer=slow)
    assert refused.value.code in ("enrolment-ended", "holder-struck-off")
    assert live(engine) == 0


def test_suspended_while_the_signer_works_leaves_no_live_certificate(
    engine: Engine, authority: Established, issue: Issue, enrolled: Enrolled, now: datetime
) -> None:
    slow = _Slow(authority, lambda: take_over_rest(engine, enrolled, now, MeasureKind.SUSPENDED))
    with pytest.raises(Refusal) as refused:
        issue(signer=slow)
    assert refused.value.code == "holder-suspended"
    assert live(engine) == 0


@pytest.mark.parametrize("first", ["issue", "strike off"])
def test_of_storing_and_striking_off_at_once_the_second_waits_and_nothing_stays(
    engine: Engine, issue: Issue, enrolled: Enrolled, now: datetime, first: str
) -> None:
    """Two sessions, in either order, each holding its locks while the other comes."""
    holding, go_on = Flag(), Flag()
    refusals: list[str] = []

    def struck_off() -> None:
        with transaction(engine) as connection:
            take(
                connection, now=now, token=enrolled.second, national_id=enrolled.seeded.national_id,
                kind=MeasureKind.STRUCK_OFF, reason="decision 12", graces=GRACES,
            )  # fmt: skip
            if first == "strike off":
                holding.set()
                assert go_on.wait(10)

    def issued() -> None:
        try:
            issue()
        except Refusal as refusal:
            refusals.append(refusal.code)

    if first == "strike off":
        striking = Thread(target=struck_off)
        striking.start()
        assert holding.wait(10)
        issuing = Thread(target=issued)
        issuing.start()
        go_on.set()
    else:
        with engine.connect() as blocker:
            # The person is held, as by an issuance that is storing; then both come.
            lock_person(blocker, enrolled.seeded.national_id)
            issuing, striking = Thread(target=issued), Thread(target=struck_off)
            issuing.start()
            striking.start()
            blocker.rollback()
    for thread in (issuing, striking):
        thread.join(20)
        assert not thread.is_alive()
    assert live(engine) == 0, refusals


def test_a_person_struck_off_and_restored_needs_a_new_enrolment(
    engine: Engine, issue: Issue, enrolled: Enrolled, now: datetime
) -> None:
    made: IssuedCertificate = issue()
    measure = take_over_rest(engine, enrolled, now, MeasureKind.STRUCK_OFF)
    for token in (enrolled.first, enrolled.second):
        with transaction(engine) as connection:
            lift(connection, now=now, token=token, measure_id=measure, reason="appeal", graces=GRACES)
    assert events(engine, made.serial) == [("revoke", "privilegeWithdrawn")]
    with pytest.raises(Refusal) as refused:
        issue()
    assert refused.value.code == "enrolment-ended"


@pytest.mark.parametrize(
    ("reason", "code"),
    [("", "reason-missing"), ("  ", "reason-missing"), ("x" * (LONGEST_REASON + 1), "reason-too-long")],
)
def test_nobody_asks_for_the_end_of_a_measure_without_saying_why(
    engine: Engine, enrolled: Enrolled, now: datetime, reason: str, code: str
) -> None:
    measure = take_over_rest(engine, enrolled, now, MeasureKind.SUSPENDED)
    with pytest.raises(Refusal) as refused, transaction(engine) as connection:
        lift(connection, now=now, token=enrolled.first, measure_id=measure, reason=reason, graces=GRACES)
    assert refused.value.code == code
    assert rows(engine, "SELECT * FROM measure_lifting") == []


def test_a_strike_off_waits_for_no_register_being_taken_in(
    engine: Engine, issue: Issue, enrolled: Enrolled, now: datetime
) -> None:
    serial, who = issue().serial, enrolled.seeded.national_id
    with engine.connect() as night:
        # As the apply step does with those it changes, for as long as it takes.
        night.execute(text("UPDATE practitioner SET title = 'PR' WHERE national_id = :id"), {"id": who})
        night.execute(text("UPDATE mailbox SET service = 'x' WHERE holder = :id"), {"id": who})
        with transaction(engine) as impatient:
            impatient.execute(text("SET LOCAL lock_timeout = '1s'"))
            take(
                impatient, now=now, token=enrolled.first, national_id=who, kind=MeasureKind.STRUCK_OFF,
                reason="decision 12", graces=GRACES,
            )  # fmt: skip
        assert events(engine, serial) == [("revoke", "privilegeWithdrawn")]
        night.commit()
    assert live(engine) == 0


def test_who_leaves_while_being_certified_is_found_by_the_follower(
    engine: Engine, issue: Issue, enrolled: Enrolled, follower: Follower, now: datetime
) -> None:
    """The night commits after the last look of issuing, and is read before the certificate is stored."""
    who = enrolled.seeded.national_id
    with engine.connect() as night:
        gone = "UPDATE practitioner SET departed_at = :at WHERE national_id = :id"
        night.execute(text(gone), {"at": now, "id": who})
        serial = issue().serial
        follow(follower, now)
        assert events(engine, serial) == []
        night.commit()
    follow(follower, now)
    assert events(engine, serial) == [("revoke", "cessationOfOperation")]


def test_a_look_at_somebody_waits_for_nobody_who_is_certifying_him(
    engine: Engine, issue: Issue, enrolled: Enrolled, now: datetime
) -> None:
    """Of whom nothing follows, nothing is locked: not for an issuance under way, nor before the next one."""
    issue()
    with engine.connect() as certifying, engine.connect() as looking:
        assert enrolments.lock_enrolment(certifying, enrolled.id) is not None
        looking.execute(text("SET lock_timeout = '100ms'"))
        whom = Touched(people=frozenset({enrolled.seeded.national_id}))
        assert settle(looking, whom, graces=GRACES, now=now) == Outcome()
        locked = "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND mode = 'RowShareLock'"
        assert looking.execute(text(locked)).scalar_one() == 0


def test_who_is_taken_something_from_waits_for_no_colleague_at_the_same_mailbox(
    engine: Engine, answering: Enrolled, issue: Issue, now: datetime
) -> None:
    serial = issue(who=answering).serial
    with transaction(engine) as connection:
        colleague = enrolment.request_enrolment(
            connection, now=now, token=answering.first, practitioner=seed_practitioner(engine, 6).national_id,
            mailbox=answering.seeded.mailbox, identity_check=identity(now),
        )  # fmt: skip
    depart(engine, answering.seeded.national_id, now)
    with engine.connect() as certifying:
        assert enrolments.lock_enrolment(certifying, colleague.id) is not None
        with transaction(engine) as connection:
            connection.execute(text("SET LOCAL lock_timeout = '100ms'"))
            whom = Touched(frozenset({answering.seeded.national_id}), frozenset({answering.seeded.mailbox}))
            assert settle(connection, whom, graces=GRACES, now=now) == Outcome(revoked=1, ended=1)
    assert events(engine, serial) == [("revoke", "cessationOfOperation")]
    asked = "SELECT state FROM enrolment WHERE id = ANY(:ids) ORDER BY state"
    assert rows(engine, asked, ids=[answering.id, colleague.id]) == [("ended",), ("requested",)]
