"""What must hold of every standing and every verdict, whatever the facts."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

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
from directory.rules import standing, visible
from pki.model import JOINED, Purpose, serial_of
from pki.verdict.decide import NOT_KNOWING, Occasion, Party, decide, reasons_against, side_of
from pki.verdict.model import Answer, CertificateFacts, CertificateReason, Side

NOON = datetime(2026, 9, 1, 12, tzinfo=UTC)
KEPT = timedelta(minutes=15)
ORDER = [standing.value for standing in MailboxStanding] + [reason.value for reason in CertificateReason]

moments = st.none() | st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
instants = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
people = st.builds(
    Practitioner,
    st.just("810099000019"), st.just("DR"), st.just("MARTIN"), st.just("Camille"),
    practices=st.sampled_from([(), (Practice("10", "C"),)]),
    suspended=st.booleans(), struck_off=st.booleans(), departed_at=moments,
)  # fmt: skip
places = st.builds(
    Organisation, st.just("750990012"), st.just("X"), departed_at=moments,
    closed_on=st.none() | st.dates(date(2026, 8, 30), date(2026, 9, 3)),
)  # fmt: skip
mailboxes = st.builds(
    Mailbox, st.just("a@one.example"), st.sampled_from(MailboxKind), st.none(), st.just("1"),
    st.just("750990012"), st.just(""), st.just(""), st.booleans(), moments,
)  # fmt: skip
trusts = st.builds(Trust, st.just("CN=x"), st.just("X"), st.booleans(), st.booleans())
facts = st.builds(
    MailboxFacts, st.just("a@one.example"), well_formed=st.sampled_from([True, True, True, False]),
    trusts=st.lists(trusts, max_size=3).map(tuple), mailbox=st.none() | mailboxes, holder=st.none() | people,
    organisation=st.none() | places, answerable=st.lists(people, max_size=3).map(tuple),
)  # fmt: skip
certificates = st.builds(
    CertificateFacts, st.integers(1, 9).map(serial_of), st.just(b"der"), st.just(b"sha"), instants, instants,
    st.sampled_from([JOINED, *(frozenset({purpose}) for purpose in Purpose)]), revoked_at=moments,
    on_hold=st.booleans(),
)  # fmt: skip
parties = st.builds(Party, facts, st.lists(certificates, max_size=3).map(tuple))
sides = parties.map(lambda party: side_of(party, NOON))
occasions = st.builds(Occasion, st.just(NOON), st.just(NOON), st.just(KEPT), st.just({}), st.booleans())


@given(facts)
def test_standing_is_told_in_order_and_each_thing_once(one: MailboxFacts) -> None:
    found = [each.value for each in standing(one, NOON)]
    assert found == sorted(set(found), key=ORDER.index)


@given(facts, people)
def test_what_befalls_a_person_never_helps_a_mailbox(one: MailboxFacts, person: Practitioner) -> None:
    before = set(standing(replace(one, holder=person), NOON))
    for worse in (
        replace(person, suspended=True), replace(person, struck_off=True), replace(person, departed_at=NOON),
    ):  # fmt: skip
        # Gone from the register, "not practising" is no longer said: the graver word replaces it.
        forgiven = {MailboxStanding.HOLDER_NOT_PRACTISING} if worse.departed_at else set()
        assert set(standing(replace(one, holder=worse), NOON)) >= before - forgiven


@given(facts, trusts)
def test_one_more_operator_never_harms_a_known_domain(one: MailboxFacts, another: Trust) -> None:
    worse = set(standing(replace(one, trusts=(*one.trusts, another)), NOON)) - set(standing(one, NOON))
    already_bad = not one.trusts or all(t.domain_suspended or t.operator_suspended for t in one.trusts)
    assert not worse or (
        already_bad and worse <= {MailboxStanding.DOMAIN_SUSPENDED, MailboxStanding.OPERATOR_SUSPENDED}
    )


@given(facts)
def test_only_listed_registered_mailboxes_show(one: MailboxFacts) -> None:
    if visible(one, NOON):
        assert one.mailbox is not None
        assert one.mailbox.listed
        assert set(standing(one, NOON)) <= {MailboxStanding.NO_ANSWERABLE_PROFESSIONAL}


@given(sides, st.none() | sides, occasions)
def test_allowed_means_no_reason_and_a_certificate_good_at_that_instant(
    recipient: Side, sender: Side | None, occasion: Occasion
) -> None:
    verdict = decide("a@one.example", recipient, sender, occasion)
    assert (verdict.answer is Answer.ALLOWED) == (verdict.reasons == ())
    assert (verdict.answer is Answer.ALLOWED) == bool(verdict.certificates)
    for certificate in verdict.certificates:
        assert certificate in recipient.certificates
        assert Purpose.ENCRYPTION in certificate.purposes
        assert certificate.not_before <= NOON <= certificate.not_after
        assert certificate.revoked_at is None
        assert not certificate.on_hold


@given(sides, st.none() | sides, occasions)
def test_unknown_is_never_said_of_a_known_refusal(
    recipient: Side, sender: Side | None, occasion: Occasion
) -> None:
    verdict = decide("a@one.example", recipient, sender, occasion)
    if verdict.answer is Answer.UNKNOWN:
        assert not occasion.recorded or set(verdict.reasons) <= NOT_KNOWING


@given(sides, st.none() | sides, occasions)
def test_a_verdict_is_kept_from_now_to_its_lifetime_at_most(
    recipient: Side, sender: Side | None, occasion: Occasion
) -> None:
    verdict = decide("a@one.example", recipient, sender, occasion)
    assert NOON <= verdict.valid_until <= NOON + KEPT
    assert all(verdict.valid_until <= certificate.not_after for certificate in verdict.certificates)


@given(sides, sides, occasions)
def test_naming_a_sender_only_ever_adds_reasons(recipient: Side, sender: Side, occasion: Occasion) -> None:
    alone = decide("a@one.example", recipient, None, occasion).reasons
    both = decide("a@one.example", recipient, sender, occasion).reasons
    assert both[: len(alone)] == alone
    added = reasons_against(sender, Purpose.SIGNATURE, NOON) if occasion.recorded else ()
    assert both[len(alone) :] == tuple(f"sender-{reason}" for reason in added)


@given(sides, st.none() | sides, occasions)
def test_before_our_records_nothing_else_is_said(
    recipient: Side, sender: Side | None, occasion: Occasion
) -> None:
    verdict = decide("a@one.example", recipient, sender, replace(occasion, recorded=False))
    assert (verdict.answer, verdict.reasons) == (Answer.UNKNOWN, ("before-our-records",))
    assert verdict.certificates == ()


@given(sides, sides, occasions, st.sampled_from(Purpose))
def test_certificates_for_the_other_purpose_change_nothing(
    recipient: Side, sender: Side, occasion: Occasion, purpose: Purpose
) -> None:
    """As a recipient what is for signatures alone is as if it were not there, as a sender the other kind."""

    def without(party: Side, other: Purpose) -> Side:
        return party._replace(certificates=tuple(c for c in party.certificates if c.purposes != {other}))

    assert decide("a@one.example", recipient, sender, occasion) == decide(
        "a@one.example", without(recipient, Purpose.SIGNATURE), without(sender, Purpose.ENCRYPTION), occasion
    )
    assert reasons_against(recipient, purpose, NOON) == reasons_against(
        without(recipient, next(iter(JOINED - {purpose}))), purpose, NOON
    )


@given(sides, st.sampled_from(Purpose))
def test_reasons_come_in_the_order_of_the_checks(party: Side, purpose: Purpose) -> None:
    found = list(reasons_against(party, purpose, NOON))
    assert found == sorted(set(found), key=ORDER.index)
