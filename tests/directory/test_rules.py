"""The directory's decisions by example: who enrols whom, what stands against a mailbox, what shows."""

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from directory.model import (
    Mailbox,
    MailboxFacts,
    MailboxKind,
    MailboxStanding,
    Organisation,
    Practice,
    Practitioner,
    Trust,
)
from directory.rules import is_open, registering_authorities, registering_authority, standing, visible

NOON = datetime(2026, 9, 1, 12, tzinfo=UTC)
PERSON = Practitioner("810099000019", "DR", "MARTIN", "Camille", (("10", "C"),), (), (Practice("10", "C"),))
PLACE = Organisation("750990012", "CLINIQUE DES LILAS")
TRUST = Trust("CN=one", "One")
BOX = Mailbox("a@one.example", MailboxKind.PERSON, PERSON.national_id, "", "", "", "", listed=True)
OF_PERSON = MailboxFacts("a@one.example", well_formed=True, trusts=(TRUST,), mailbox=BOX, holder=PERSON)
OF_PLACE = MailboxFacts(
    "b@one.example",
    well_formed=True,
    trusts=(TRUST,),
    mailbox=replace(
        BOX, kind=MailboxKind.ORGANISATION, holder=None, structure_type="1", structure_id="750990012"
    ),
    organisation=PLACE,
    answerable=(PERSON,),
)


@pytest.mark.parametrize("facts", [OF_PERSON, OF_PLACE], ids=["person", "organisation"])
def test_nothing_stands_against_a_sound_mailbox_and_it_shows(facts: MailboxFacts) -> None:
    assert standing(facts, NOON) == ()
    assert visible(facts, NOON)


@pytest.mark.parametrize(
    ("profession", "authority"),
    [("10", "CNOM"), ("21", "CNOP"), ("40", "ONCD"), ("50", "CNOSF"), ("60", "ONI"), ("70", "CNOMK"),
     ("80", "CNOPP"), ("91", "ARS"), ("94", "ARS"), ("", "ARS")],
)  # fmt: skip
def test_each_profession_is_registered_by_its_ordre_or_by_the_agencies(
    profession: str, authority: str
) -> None:
    assert registering_authority(profession) == authority


def test_a_person_of_two_professions_may_be_enrolled_by_either_body() -> None:
    assert registering_authorities(replace(PERSON, professions=(("10", "C"), ("91", "C")))) == {"CNOM", "ARS"}
    assert registering_authorities(replace(PERSON, professions=())) == frozenset()


def test_an_establishment_is_open_to_the_eve_of_its_closing_and_closed_that_day() -> None:
    closing = replace(PLACE, closed_on=date(2026, 9, 2))
    assert is_open(closing, date(2026, 9, 1))
    assert not is_open(closing, date(2026, 9, 2))
    assert not is_open(replace(PLACE, departed_at=NOON), date(2026, 9, 1))


def test_the_day_an_establishment_closes_begins_at_midnight_in_france() -> None:
    closing = replace(OF_PLACE, organisation=replace(PLACE, closed_on=date(2026, 9, 2)))
    assert standing(closing, datetime(2026, 9, 1, 21, 59, tzinfo=UTC)) == ()
    assert standing(closing, datetime(2026, 9, 1, 22, 0, tzinfo=UTC)) == (
        MailboxStanding.ORGANISATION_CLOSED,
    )


@pytest.mark.parametrize("kind", [MailboxKind.PERSON, MailboxKind.CABINET])
def test_a_mailbox_of_people_needs_its_holder(kind: MailboxKind) -> None:
    facts = replace(OF_PERSON, mailbox=replace(BOX, kind=kind), holder=None)
    assert standing(facts, NOON) == (MailboxStanding.HOLDER_NOT_IN_REGISTRY,)


@pytest.mark.parametrize("kind", [MailboxKind.ORGANISATION, MailboxKind.APPLICATION])
def test_one_answerable_person_in_good_standing_is_enough(kind: MailboxKind) -> None:
    assert OF_PLACE.mailbox is not None
    facts = replace(OF_PLACE, mailbox=replace(OF_PLACE.mailbox, kind=kind))
    fallen = [
        replace(PERSON, suspended=True), replace(PERSON, struck_off=True), replace(PERSON, practices=()),
        replace(PERSON, departed_at=NOON),
    ]  # fmt: skip
    assert standing(replace(facts, answerable=(*fallen, PERSON)), NOON) == ()
    assert standing(replace(facts, answerable=tuple(fallen)), NOON) == (
        MailboxStanding.NO_ANSWERABLE_PROFESSIONAL,
    )


def test_a_domain_of_several_operators_stands_or_falls_with_the_last_of_them() -> None:
    suspended = [replace(TRUST, domain_suspended=True), replace(TRUST, operator_suspended=True)]
    assert standing(replace(OF_PERSON, trusts=(*suspended, TRUST)), NOON) == ()
    assert standing(replace(OF_PERSON, trusts=tuple(suspended)), NOON) == (
        MailboxStanding.DOMAIN_SUSPENDED, MailboxStanding.OPERATOR_SUSPENDED,
    )  # fmt: skip


def test_of_a_malformed_address_nothing_more_is_said() -> None:
    assert standing(MailboxFacts("garbage", well_formed=False), NOON) == (MailboxStanding.MALFORMED_ADDRESS,)


def test_a_red_listed_mailbox_does_not_show_though_nothing_stands_against_it() -> None:
    facts = replace(OF_PERSON, mailbox=replace(BOX, listed=False))
    assert standing(facts, NOON) == ()
    assert not visible(facts, NOON)


def test_an_organisation_shows_before_it_has_named_who_answers_for_it() -> None:
    assert visible(replace(OF_PLACE, answerable=()), NOON)


def test_a_mailbox_of_someone_suspended_does_not_show() -> None:
    assert not visible(replace(OF_PERSON, holder=replace(PERSON, suspended=True)), NOON)
