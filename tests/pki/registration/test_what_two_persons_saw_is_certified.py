"""Names are frozen at approval: what is certified is what two persons saw, or the approval is void."""

from collections.abc import Callable
from datetime import datetime, timedelta
from unicodedata import normalize
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from directory import access, corrections
from directory.base.db import transaction
from directory.base.errors import Refusal
from directory.feed.changes import Entity
from pki.issuance import batch, for_enrolment
from pki.issuance.batch import BatchItem
from pki.model import Enrolment
from pki.record import enrolments
from pki.registration import enrolment as enrolling
from pki.verdict import store as verdict_store
from pki.withdrawal.void_enrolments import void_of
from tests.factories import Seeded, seed_organisation, seed_practitioner
from tests.pki.conftest import (
    BASE_URL,
    Enrolled,
    Established,
    Issue,
    enrol,
    identity,
    new_key,
    registrar,
    request_for,
)

WEEK = timedelta(days=7)


def run(engine: Engine, sql: str, **values: object) -> None:
    with engine.begin() as connection:
        connection.execute(text(sql), values)


def correct(engine: Engine, now: datetime, who: access.Token, someone: Seeded, value: str) -> int:
    """The family name said otherwise here, by one registrar alone; gives the correction's number."""
    with transaction(engine) as connection:
        made = corrections.correct(
            connection, now=now, token=who, entity=Entity.PRACTITIONER, key=someone.national_id,
            field="family_name", value=value, reason="as he says", void_of=void_of,
        )  # fmt: skip
    return made.id


def withdraw(engine: Engine, now: datetime, who: access.Token, number: int) -> None:
    with transaction(engine) as connection:
        corrections.withdraw_correction(connection, now=now, token=who, correction_id=number, void_of=void_of)


def request(engine: Engine, now: datetime, who: access.Token, practitioner: str, mailbox: str) -> Enrolment:
    with transaction(engine) as connection:
        return enrolling.request_enrolment(
            connection, now=now, token=who, practitioner=practitioner, mailbox=mailbox,
            identity_check=identity(now),
        )  # fmt: skip


def approve(engine: Engine, now: datetime, who: access.Token, enrolment: UUID) -> Enrolment:
    with transaction(engine) as connection:
        return enrolling.approve_enrolment(connection, now=now, token=who, enrolment_id=enrolment)


@pytest.fixture
def batched(engine: Engine, authority: Established, now: datetime) -> Callable[[Enrolled], str]:
    """The code with which a batch refuses a certificate, '' when it issues one."""

    def act(who: Enrolled) -> str:
        _, (item,) = batch.issue_all(
            engine, authority.signer, now=now, token=who.first,
            asked=[BatchItem(who.id, request_for(new_key()))], base_url=BASE_URL,
        )  # fmt: skip
        return "" if item.refusal is None else str(item.refusal["code"])

    return act


def test_a_name_corrected_after_the_approval_is_not_certified(
    engine: Engine, enrolled: Enrolled, issue: Issue, now: datetime, batched: Callable[[Enrolled], str]
) -> None:
    """Corrected, certified, withdrawn again: the common name would be of the registrar's choice."""
    number = correct(engine, now, enrolled.first, enrolled.seeded, "CHOSEN")
    with pytest.raises(Refusal) as refused:
        issue()
    assert (refused.value.code, refused.value.details["differs"]) == ("enrolment-void", ["family_name"])
    assert batched(enrolled) == "enrolment-void"
    withdraw(engine, now, enrolled.first, number)
    subject = x509.load_der_x509_certificate(issue().der).subject
    assert [one.value for one in subject.get_attributes_for_oid(NameOID.SURNAME)] == ["MARTIN"]


def test_a_name_corrected_between_request_and_approval_is_not_approved(engine: Engine, now: datetime) -> None:
    someone = seed_practitioner(engine)
    first, second = registrar(engine, "a"), registrar(engine, "b")
    asked = request(engine, now, first, someone.national_id, someone.mailbox)
    correct(engine, now, first, someone, "CHOSEN")
    with pytest.raises(Refusal) as refused:
        approve(engine, now, second, asked.id)
    assert refused.value.code == "enrolment-void"
    # In bulk each is looked at as alone.
    with transaction(engine) as connection:
        done = batch.approve_all(connection, now=now, token=second, enrolment_ids=[asked.id])
    assert [one.code for one in done.values() if isinstance(one, Refusal)] == ["enrolment-void"]
    # Asked for again, the second person sees what is to be certified.
    again = request(engine, now, first, someone.national_id, someone.mailbox)
    assert again.names
    assert again.names["family_name"] == "CHOSEN"
    assert approve(engine, now, second, again.id).state.value == "approved"


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ("UPDATE practitioner SET given_name = 'Camille Anne'", "given_name"),
        ("UPDATE practitioner SET family_name = 'Martin'", "family_name"),
        ("UPDATE practitioner SET family_name = 'MÂRTIN'", "family_name"),
        (
            "INSERT INTO profession (national_id, code, category) SELECT holder, '40', 'C' FROM mailbox",
            "professions",
        ),
    ],
)
def test_whatever_enters_the_certificate_voids_it(
    engine: Engine, enrolled: Enrolled, issue: Issue, change: str, differs: str
) -> None:
    """By a register's night as well as by a correction; case and accents count."""
    assert enrolled
    run(engine, change)
    with pytest.raises(Refusal) as refused:
        issue()
    assert refused.value.details["differs"] == [differs]


def test_only_how_a_letter_is_composed_and_white_space_do_not_count(
    engine: Engine, issue: Issue, now: datetime
) -> None:
    who = enrol(engine, now, seed_practitioner(engine, 5, family_name="Lefèvre du Pré"))
    run(
        engine, "UPDATE practitioner SET family_name = :name WHERE national_id = :id",
        name=normalize("NFD", "Lefèvre\u00a0du  Pré"), id=who.seeded.national_id,
    )  # fmt: skip
    subject = x509.load_der_x509_certificate(issue(who=who).der).subject
    assert [one.value for one in subject.get_attributes_for_oid(NameOID.SURNAME)] == ["Lefèvre du Pré"]


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ("UPDATE organisation SET name = 'CLINIQUE DU CHOIX'", "name"),
        ("UPDATE mailbox SET service = 'Urgences' WHERE kind = 'ORG'", "service"),
        ("UPDATE mailbox SET kind = 'APP' WHERE kind = 'ORG'", "kind"),
    ],
)
def test_the_names_of_establishments_and_applications_are_frozen_too(
    engine: Engine, authority: Established, now: datetime, change: str, differs: str
) -> None:
    someone, address = seed_practitioner(engine), seed_organisation(engine)
    who = enrol(engine, now, Seeded(someone.national_id, address))
    run(engine, change)
    with pytest.raises(Refusal) as refused:
        for_enrolment.issue_for_enrolment(
            engine, authority.signer, now=now, token=who.first, enrolment_id=who.id,
            csr=request_for(new_key()), base_url=BASE_URL, thorough=False,
        )  # fmt: skip
    assert refused.value.code == "enrolment-void"
    assert differs in refused.value.details["differs"]


def test_years_later_a_new_name_needs_a_new_enrolment(
    engine: Engine, authority: Established, enrolled: Enrolled, issue: Issue
) -> None:
    """Married meanwhile: the certificate stays, its successor is for two persons to vouch for."""
    before = issue()
    run(engine, "UPDATE practitioner SET family_name = 'DURAND'")
    late = before.not_after - WEEK
    authority.signer.clock = lambda: late
    with pytest.raises(Refusal) as refused:
        issue(at=late)
    assert refused.value.code == "enrolment-void"
    again = request(engine, late, enrolled.second, enrolled.seeded.national_id, enrolled.seeded.mailbox)
    approve(engine, late, enrolled.first, again.id)
    made = issue(at=late, who=Enrolled(enrolled.seeded, again.id, enrolled.first, enrolled.second))
    assert "SN=DURAND" in made.subject


def test_who_answered_for_an_establishment_answers_until_the_new_enrolment_is_approved(
    engine: Engine, now: datetime
) -> None:
    """A new name of the establishment stops no mail: a request in place of an approval ends nothing yet."""
    someone, address = seed_practitioner(engine), seed_organisation(engine)
    who = enrol(engine, now, Seeded(someone.national_id, address))
    run(engine, "UPDATE organisation SET name = 'CLINIQUE DES ROSES'")

    def answer() -> tuple[str, ...]:
        with engine.connect() as connection:
            return verdict_store.answerable_for(connection, [address], None).get(address, ())

    again = request(engine, now + WEEK, who.second, someone.national_id, address)
    assert answer() == (someone.national_id,)
    approve(engine, now + WEEK, who.first, again.id)
    assert answer() == (someone.national_id,)
    with transaction(engine) as connection:
        enrolments.end(connection, again.id, now + 2 * WEEK)
    assert answer() == ()


@pytest.mark.parametrize("outdated", ["name", "identity"])
def test_one_registrar_takes_nobody_s_answering_away_by_a_request_and_its_withdrawal(
    engine: Engine, now: datetime, outdated: str
) -> None:
    someone, address = seed_practitioner(engine), seed_organisation(engine)
    who = enrol(engine, now, Seeded(someone.national_id, address))
    late = now + (WEEK if outdated == "name" else timedelta(days=900))
    if outdated == "name":
        run(engine, "UPDATE organisation SET name = 'CLINIQUE DES ROSES'")
    again = request(engine, late, who.second, someone.national_id, address)
    with pytest.raises(Refusal) as refused:
        request(engine, late, who.second, someone.national_id, address)
    assert refused.value.code == "already-enrolled"
    with transaction(engine) as connection:
        enrolling.withdraw_enrolment(
            connection, now=late, token=who.second, enrolment_id=again.id, comment=""
        )
        assert verdict_store.answerable_for(connection, [address], None) == {address: (someone.national_id,)}


def test_the_enrolment_before_ends_with_the_approval_of_its_successor_whatever_the_clock(
    engine: Engine, now: datetime
) -> None:
    """The approval before was dated by a clock ahead; of two who answer there is one at a time."""
    someone, address = seed_practitioner(engine), seed_organisation(engine)
    who = enrol(engine, now, Seeded(someone.national_id, address))
    run(engine, "UPDATE organisation SET name = 'CLINIQUE DES ROSES'")
    run(engine, "UPDATE enrolment SET approved_at = :at", at=now + WEEK)
    again = request(engine, now, who.second, someone.national_id, address)
    approve(engine, now, who.first, again.id)
    with transaction(engine) as connection:
        before, after = (enrolments.load_enrolment(connection, one) for one in (who.id, again.id))
        assert before is not None
        assert after is not None
        assert (before.state.value, before.ended_at, after.state.value) == ("ended", now + WEEK, "approved")


def test_what_was_recorded_cannot_be_changed(engine: Engine, enrolled: Enrolled) -> None:
    assert enrolled
    for forbidden in (
        'UPDATE enrolment_names SET names = \'{"kind": "PER"}\'',
        "DELETE FROM enrolment_names",
    ):
        with pytest.raises(DBAPIError):
            run(engine, forbidden)


def test_the_log_tells_a_digest_of_what_each_saw(engine: Engine, enrolled: Enrolled) -> None:
    told = text(
        "SELECT detail ->> 'names_sha256' FROM audit_pending WHERE subject = :id AND event LIKE 'enrolment.%'"
    )
    with engine.connect() as connection:
        digests = list(connection.execute(told, {"id": str(enrolled.id)}).scalars())
    assert len(digests) == 2
    assert len(set(digests)) == 1
    assert len(digests[0]) == 64
