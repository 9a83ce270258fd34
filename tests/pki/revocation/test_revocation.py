"""Taking a certificate back: for good or on hold, for a reason, by whoever may; what departures take."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from directory import access
from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from pki.certificates import der
from pki.impediments.causes import GRACES
from pki.model import REASON_CODES, IssuedCertificate, Revocation, RevocationAction, RevocationReason, Serial
from pki.record import revocations
from pki.revocation import release as releasing
from pki.revocation import requests
from pki.revocation import revoke as revoking
from pki.withdrawal.reconcile import Touched, settle
from tests.factories import depart, seed_organisation, seed_practitioner
from tests.pki.conftest import Enrolled, Issue, enrol, registrar
from tests.pki.issuance.test_issuance import at_once

ADMIN = access.Token(1, "admin", access.Role.ADMIN, "", datetime.fromisoformat("2027-01-01T00:00:00Z"))
OPERATOR = replace(ADMIN, role=access.Role.OPERATOR)
HOLD = RevocationReason.CERTIFICATE_HOLD
LOST = RevocationReason.KEY_COMPROMISE


def revoke(
    engine: Engine, now: datetime, serial: str, reason: RevocationReason = LOST, actor: Actor | None = None
) -> Revocation:
    with transaction(engine) as connection:
        return requests.revoke(
            connection, now=now, actor=actor or Actor("test"), serial=Serial(serial), reason=reason,
            comment="lost laptop",
        )  # fmt: skip


def revoke_as(
    engine: Engine, now: datetime, token: access.Token, serial: str, reason: RevocationReason = LOST
) -> Revocation:
    with transaction(engine) as connection:
        return requests.revoke_as(connection, now=now, token=token, serial=Serial(serial), reason=reason)


def release(engine: Engine, now: datetime, serial: str) -> Revocation:
    """Whoever may: who that is has tests of its own."""
    with transaction(engine) as connection:
        found = revocations.revocable_of(connection, [Serial(serial)])
        return revoking.release(connection, found, now=now, actor=Actor("test"), comment="")[0]


def events(engine: Engine, serial: str) -> list[Any]:
    with engine.connect() as connection:
        query = "SELECT action, reason, entry FROM revocation WHERE serial = :s ORDER BY id"
        return list(connection.execute(text(query), {"s": serial}))


@pytest.mark.parametrize("reason", [reason for reason in RevocationReason if reason is not HOLD])
def test_a_revocation_keeps_its_reason_and_the_entry_of_the_crl(
    engine: Engine, issue: Issue, now: datetime, reason: RevocationReason
) -> None:
    issued = issue()
    made = revoke(engine, now, issued.serial, reason)
    assert (made.action, made.reason, made.not_after) == (RevocationAction.REVOKE, reason, issued.not_after)
    ((action, stored, entry),) = events(engine, issued.serial)
    assert (action, stored) == ("revoke", reason.value)
    serial, _, extensions = der.elements(der.content(entry))
    assert int.from_bytes(der.content(serial), "big") == int(issued.serial, 16)
    assert extensions.endswith(der.octet_string(der.enumerated(REASON_CODES[reason])))


def test_revoked_is_final(engine: Engine, issue: Issue, now: datetime) -> None:
    serial = issue().serial
    revoke(engine, now, serial)
    for act in (
        lambda: revoke(engine, now, serial),
        lambda: revoke(engine, now, serial, HOLD),
    ):
        with pytest.raises(Refusal) as refused:
            act()
        assert (refused.value.kind, refused.value.code) == (Kind.CONFLICT, "already-revoked")
    with pytest.raises(Refusal) as refused:
        release(engine, now, serial)
    assert refused.value.code == "not-on-hold"
    assert len(events(engine, serial)) == 1


def test_the_database_itself_lets_nothing_follow_a_revocation(
    engine: Engine, issue: Issue, now: datetime
) -> None:
    serial = issue().serial
    revoke(engine, now, serial)
    again = "INSERT INTO revocation SELECT * FROM revocation"
    for forbidden in ("DELETE FROM revocation", "UPDATE revocation SET comment = ''", again):
        with pytest.raises(DBAPIError), engine.begin() as connection:
            connection.execute(text(forbidden))


def test_of_two_who_revoke_at_once_one_does(engine: Engine, issue: Issue, now: datetime) -> None:
    serial = issue().serial
    results = at_once(*[lambda: revoke(engine, now, serial)] * 4)
    assert sum(isinstance(result, Revocation) for result in results) == 1
    assert results.count("already-revoked") == 3


def test_a_hold_is_lifted_or_made_final(engine: Engine, issue: Issue, now: datetime) -> None:
    serial = issue().serial
    assert revoke(engine, now, serial, HOLD).action is RevocationAction.HOLD
    with pytest.raises(Refusal) as refused:
        revoke(engine, now, serial, HOLD)
    assert refused.value.code == "already-on-hold"
    assert release(engine, now, serial).action is RevocationAction.RELEASE
    revoke(engine, now, serial, HOLD)
    revoke(engine, now, serial)
    assert [event.action for event in events(engine, serial)] == ["hold", "release", "hold", "revoke"]
    with engine.connect() as connection:
        query = "SELECT event FROM audit_pending WHERE subject = :s ORDER BY id OFFSET 2"
        told = list(connection.execute(text(query), {"s": serial}).scalars())
    assert told == [
        "certificate.held", "certificate.released", "certificate.held", "certificate.revoked",
    ]  # fmt: skip


def test_only_what_exists_and_lives_can_be_revoked(engine: Engine, issue: Issue, now: datetime) -> None:
    with pytest.raises(Refusal) as refused:
        revoke(engine, now, "0" * 39 + "1")
    assert (refused.value.kind, refused.value.code) == (Kind.NOT_FOUND, "unknown-certificate")
    issued = issue()
    with pytest.raises(Refusal) as refused:
        revoke(engine, issued.not_after + timedelta(seconds=1), issued.serial)
    assert refused.value.code == "certificate-expired"


def test_a_comment_has_an_end(engine: Engine, issue: Issue, now: datetime) -> None:
    serial = issue().serial
    with transaction(engine) as connection, pytest.raises(Refusal) as refused:
        requests.revoke(connection, now=now, actor=Actor("x"), serial=serial, reason=LOST, comment="x" * 1001)
    assert refused.value.code == "comment-too-long"


def test_a_registrar_revokes_for_people_of_his_own_authority_only(
    engine: Engine, issue: Issue, enrolled: Enrolled, now: datetime
) -> None:
    serial = issue().serial
    for token, code in (
        (registrar(engine, "p", "CNOP"), "wrong-authority"),
        (OPERATOR, "not-your-certificate"),
    ):
        with pytest.raises(Refusal) as refused:
            revoke_as(engine, now, token, serial)
        assert (refused.value.kind, refused.value.code) == (Kind.FORBIDDEN, code)
    assert revoke_as(engine, now, enrolled.second, serial).actor == f"token:{enrolled.second.id}"


def test_the_authority_that_enrolled_may_revoke_for_one_who_left(
    engine: Engine, issue: Issue, enrolled: Enrolled, now: datetime
) -> None:
    serial = issue().serial
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM profession"))
    depart(engine, enrolled.seeded.national_id, now)
    assert revoke_as(engine, now, enrolled.first, serial)


def test_a_registrar_releases_only_what_he_could_revoke(
    engine: Engine, issue: Issue, enrolled: Enrolled, now: datetime
) -> None:
    serial = issue().serial
    revoke(engine, now, serial, HOLD)
    with transaction(engine) as connection, pytest.raises(Refusal) as refused:
        releasing.release_as(connection, now=now, token=registrar(engine, "p", "CNOP"), serial=serial)
    assert refused.value.code == "wrong-authority"
    with transaction(engine) as connection:
        asked = releasing.release_as(connection, now=now, token=enrolled.second, serial=serial)
    # Another's hold: two persons end it.
    assert (asked.action, asked.release_asked_at) == (RevocationAction.HOLD, now)
    with transaction(engine) as connection:
        released = releasing.release_as(connection, now=now, token=enrolled.first, serial=serial)
    assert released.action is RevocationAction.RELEASE


def test_an_administrator_revokes_anything(engine: Engine, issue: Issue, now: datetime) -> None:
    assert revoke_as(engine, now, ADMIN, issue().serial).actor == "token:1"


def test_only_an_administrator_says_that_the_key_of_the_ca_is_lost(
    engine: Engine, issue: Issue, enrolled: Enrolled, now: datetime
) -> None:
    serial = issue().serial
    with pytest.raises(Refusal) as refused:
        revoke_as(engine, now, enrolled.first, serial, RevocationReason.CA_COMPROMISE)
    assert (refused.value.kind, refused.value.code) == (Kind.FORBIDDEN, "reserved-to-owner")
    assert revoke_as(engine, now, ADMIN, serial, RevocationReason.CA_COMPROMISE)


def withdraw(engine: Engine, now: datetime, *national_ids: str) -> int:
    with transaction(engine) as connection:
        return settle(connection, Touched(frozenset(national_ids)), graces=GRACES, now=now).revoked


def test_a_departure_takes_every_living_certificate_and_enrolment_with_it(
    engine: Engine, issue: Issue, enrolled: Enrolled, now: datetime
) -> None:
    gone = enrolled.seeded
    address = seed_organisation(engine)
    answering = enrol(engine, now, replace(gone, mailbox=address))
    final = issue()
    revoke(engine, now, final.serial)
    held = issue()
    revoke(engine, now, held.serial, HOLD)
    certificates: list[IssuedCertificate] = [held, final, issue(who=answering)]
    stays = enrol(engine, now, seed_practitioner(engine, 2))
    kept = issue(who=stays)
    depart(engine, gone.national_id, now)

    # The reader of the feed passes everyone whose row changed; only who is gone counts.
    assert withdraw(engine, now, gone.national_id, stays.seeded.national_id) == 2
    assert withdraw(engine, now, gone.national_id, stays.seeded.national_id) == 0

    last = [events(engine, issued.serial)[-1].action for issued in certificates]
    assert last == ["revoke", "revoke", "revoke"]
    assert events(engine, kept.serial) == []
    with engine.connect() as connection:
        query = "SELECT practitioner, state FROM enrolment ORDER BY practitioner, mailbox"
        states = list(connection.execute(text(query)))
        query = "SELECT subject, detail ->> 'mailbox' FROM audit_pending WHERE event = 'enrolment.ended'"
        told = {tuple(row) for row in connection.execute(text(query))}
    assert states == [
        (gone.national_id, "ended"), (gone.national_id, "ended"), (stays.seeded.national_id, "approved"),
    ]  # fmt: skip
    assert told == {(str(enrolled.id), gone.mailbox), (str(answering.id), address)}


def test_what_has_expired_is_left_alone_by_a_departure(
    engine: Engine, issue: Issue, enrolled: Enrolled, now: datetime
) -> None:
    issued = issue()
    depart(engine, enrolled.seeded.national_id, now)
    assert withdraw(engine, issued.not_after + timedelta(days=1), enrolled.seeded.national_id) == 0


def test_a_revocation_reaches_the_feed_in_its_own_transaction(
    engine: Engine, issue: Issue, now: datetime
) -> None:
    issued = issue()
    with engine.connect() as connection:
        before = connection.execute(text("SELECT coalesce(max(id), 0) FROM change")).scalar_one()
    revoke(engine, now, issued.serial)
    with engine.connect() as connection:
        query = text("SELECT entity, key, urgent FROM change WHERE id > :id")
        assert connection.execute(query, {"id": before}).all() == [("mailbox", issued.mailbox, True)]
