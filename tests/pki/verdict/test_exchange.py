"""The verdict, every reason alone and together, over the real record, now and as of an instant."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from sqlalchemy import Engine, text

from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.errors import Refusal
from directory.measures import lift_measure, take_measure
from directory.model import MeasureKind
from pki.model import Purpose
from pki.publication.store import live_certificates
from pki.verdict.answer import verdicts
from pki.verdict.model import Answer, Verdict
from tests.factories import clock, depart, rpps, seed_organisation, seed_practitioner, seed_token
from tests.statements import heard

KEPT = timedelta(minutes=15)
YEAR = timedelta(days=365)


def run(engine: Engine, sql: str, **values: object) -> None:
    with engine.begin() as connection:
        connection.execute(text(sql), values)


def certify(
    engine: Engine,
    mailbox: str,
    number: int = 1,
    *,
    issued: datetime,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    profile: str = "practitioner-smime",
) -> str:
    """A certificate's row: the verdict carries its bytes and never reads them."""
    serial = f"{number:040x}"
    row = {
        "serial": serial,
        "mailbox": mailbox,
        "der": f"certificate {number}".encode(),
        "sha": sha256(f"certificate {number}".encode()).digest(),
        "key": sha256(f"key {number}".encode()).digest(),
        "issued": issued,
        "not_before": not_before or issued - timedelta(hours=1),
        "not_after": not_after or issued + YEAR,
        "profile": profile,
    }
    run(
        engine,
        "INSERT INTO reservation (serial, authority_id, profile, shard, mailbox, spki_sha256, tbs,"
        " tbs_sha256, lints, requested_by, reserved_at) VALUES (:serial, 'persons-1', :profile, 0, :mailbox,"
        " :key, '', :sha, '[]', 'x', :issued)",
        **{name: row[name] for name in ("serial", "profile", "mailbox", "key", "sha", "issued")},
    )
    run(
        engine,
        "INSERT INTO certificate (serial, authority_id, profile, shard, mailbox, practitioner, subject,"
        " spki_sha256, der, sha256, not_before, not_after, issued_at) VALUES (:serial, 'persons-1',"
        " :profile, 0, :mailbox, (SELECT holder FROM mailbox WHERE address = :mailbox), 'CN=x',"
        " :key, :der, :sha, :not_before, :not_after, :issued)",
        **row,
    )
    return serial


def revoke(engine: Engine, serial: str, at: datetime, action: str = "revoke") -> None:
    run(
        engine,
        "INSERT INTO revocation (serial, authority_id, shard, action, reason, actor, revoked_at, not_after,"
        " entry) VALUES (:serial, 'persons-1', 0, :action, 'superseded', 'test', :at, :at, :entry)",
        serial=serial, action=action, at=at, entry=None if action == "release" else b"x",
    )  # fmt: skip


def ask(
    engine: Engine,
    *addresses: str,
    sender: str | None = None,
    at: datetime | None = None,
    now: datetime | None = None,
) -> list[Verdict]:
    with transaction(engine, read_only=True) as connection:
        return verdicts(connection, addresses, sender=sender, at=at, now=now or clock(engine), lifetime=KEPT)


def person(engine: Engine, number: int = 1, *, now: datetime) -> str:
    """A mailbox against which nothing stands."""
    mailbox = seed_practitioner(engine, number).mailbox
    certify(engine, mailbox, number, issued=now)
    return mailbox


def answer_for(engine: Engine, mailbox: str, national_id: str, *, approved: bool = True) -> None:
    """An enrolment that names who answers for an organisation's mailbox."""
    first, second = seed_token(engine, "first"), seed_token(engine, "second")
    run(
        engine,
        "INSERT INTO enrolment (practitioner, mailbox, authority, identity_check, state, requested_by,"
        " requested_at, approved_by, approved_at) VALUES (:who, :mailbox, 'CNOM', '{}', :state, :first,"
        " now(), :second, CASE WHEN :second IS NULL THEN NULL ELSE now() END)".replace(
            ":second", "CAST(:second AS bigint)"
        ),
        who=national_id, mailbox=mailbox, state="approved" if approved else "requested",
        first=first, second=second if approved else None,
    )  # fmt: skip


def organisation(engine: Engine, *, now: datetime) -> str:
    mailbox = seed_organisation(engine)
    who = seed_practitioner(engine, 7, finess="750990012")
    answer_for(engine, mailbox, who.national_id)
    certify(engine, mailbox, 77, issued=now)
    return mailbox


def test_nothing_against_a_person_means_allowed_with_the_certificate(engine: Engine, now: datetime) -> None:
    mailbox = person(engine, now=now)
    (found,) = ask(engine, mailbox, now=now)
    assert (found.answer, found.reasons) == (Answer.ALLOWED, ())
    assert [(c.serial, c.der) for c in found.certificates] == [(f"{1:040x}", b"certificate 1")]
    assert (found.decided_at, found.as_of, found.valid_until) == (now, now, now + KEPT)


def test_an_organisation_is_allowed_when_someone_answers_for_it(engine: Engine, now: datetime) -> None:
    assert ask(engine, organisation(engine, now=now), now=now)[0].answer is Answer.ALLOWED


BREAKS: dict[str, str] = {
    "domain-not-trusted": "UPDATE trusted_domain SET departed_at = now()",
    "domain-suspended": "UPDATE trusted_domain SET suspended_at = now()",
    "operator-suspended": "UPDATE operator SET suspended_at = now()",
    "mailbox-closed": "UPDATE mailbox SET departed_at = now()",
    "holder-not-in-registry": "UPDATE practitioner SET departed_at = now()",
    "holder-not-practising": "DELETE FROM practice",
}


@pytest.mark.parametrize(("reason", "sql"), BREAKS.items(), ids=BREAKS)
def test_each_thing_wrong_with_a_person_is_the_one_reason_given_and_the_past_is_unharmed(
    engine: Engine, reason: str, sql: str
) -> None:
    mailbox = person(engine, now=clock(engine))
    before = clock(engine)
    run(engine, sql)
    (found,) = ask(engine, mailbox)
    assert (found.answer, found.reasons, found.certificates) == (Answer.REFUSED, (reason,), ())
    assert ask(engine, mailbox, at=clock(engine))[0].reasons == (reason,)
    assert ask(engine, mailbox, at=before)[0].answer is Answer.ALLOWED


ORGANISATION_BREAKS = {
    "departed from FINESS": ("UPDATE organisation SET departed_at = now()", "organisation-closed"),
    "closed yesterday": ("UPDATE organisation SET closed_on = current_date - 1", "organisation-closed"),
    "nobody answers any more": (
        "UPDATE enrolment SET state = 'ended', ended_at = now()",
        "no-answerable-professional",
    ),
    "who answers has left": ("UPDATE practitioner SET departed_at = now()", "no-answerable-professional"),
    "who answers stopped practising": ("DELETE FROM practice", "no-answerable-professional"),
}


@pytest.mark.parametrize(("sql", "reason"), ORGANISATION_BREAKS.values(), ids=ORGANISATION_BREAKS)
def test_each_thing_wrong_with_an_organisation_is_the_one_reason_given_and_the_past_is_unharmed(
    engine: Engine, sql: str, reason: str
) -> None:
    mailbox = organisation(engine, now=clock(engine))
    before = clock(engine)
    run(engine, sql)
    assert ask(engine, mailbox)[0].reasons == (reason,)
    assert ask(engine, mailbox, at=clock(engine))[0].reasons == (reason,)
    assert ask(engine, mailbox, at=before)[0].answer is Answer.ALLOWED


def test_a_request_that_nobody_approved_names_nobody(engine: Engine, now: datetime) -> None:
    mailbox = seed_organisation(engine)
    answer_for(engine, mailbox, seed_practitioner(engine, 7).national_id, approved=False)
    certify(engine, mailbox, issued=now)
    assert ask(engine, mailbox, now=now)[0].reasons == ("no-answerable-professional",)


@pytest.mark.parametrize("kind", list(MeasureKind))
def test_a_measure_refuses_until_it_is_lifted_and_the_past_keeps_it(
    engine: Engine, actor: Actor, kind: MeasureKind
) -> None:
    mailbox = person(engine, now=clock(engine))
    with transaction(engine) as connection:
        measure = take_measure(
            connection, now=clock(engine), actor=actor, national_id=rpps(1), kind=kind, authority="CNOM",
            reason="decision 12",
        )  # fmt: skip
    taken = clock(engine)
    assert ask(engine, mailbox)[0].reasons == (f"holder-{kind.value}",)
    with transaction(engine) as connection:
        lift_measure(connection, now=clock(engine), actor=actor, measure_id=measure, authority="CNOM")
    assert ask(engine, mailbox)[0].answer is Answer.ALLOWED
    assert ask(engine, mailbox, at=taken)[0].reasons == (f"holder-{kind.value}",)


def test_a_domain_of_two_operators_is_trusted_while_one_of_them_is(engine: Engine, now: datetime) -> None:
    mailbox = person(engine, now=now)
    seed_practitioner(engine, 2, operator="CN=other,O=Other,C=FR")
    run(engine, "UPDATE operator SET suspended_at = now() WHERE certificate_dn LIKE 'CN=other%'")
    assert ask(engine, mailbox, now=now)[0].answer is Answer.ALLOWED
    run(engine, "UPDATE operator SET suspended_at = now()")
    assert ask(engine, mailbox, now=now)[0].reasons == ("operator-suspended",)


def test_every_reason_is_told_not_the_first(engine: Engine, now: datetime) -> None:
    mailbox = seed_practitioner(engine, practising=False).mailbox
    run(engine, "UPDATE trusted_domain SET suspended_at = now()")
    run(engine, "UPDATE operator SET suspended_at = now()")
    run(engine, "UPDATE mailbox SET departed_at = now()")
    for kind in MeasureKind:
        with transaction(engine) as connection:
            take_measure(
                connection,
                now=now,
                actor=Actor("x"),
                national_id=rpps(1),
                kind=kind,
                authority="CNOM",
                reason="r",
            )
    depart(engine, rpps(1), now)
    assert ask(engine, mailbox, now=now)[0].reasons == (
        "domain-suspended", "operator-suspended", "mailbox-closed", "holder-not-in-registry",
        "holder-suspended", "holder-struck-off", "no-certificate",
    )  # fmt: skip


Acts = Callable[[Engine, str, datetime], object]
CERTIFICATES: dict[str, tuple[Acts, tuple[str, ...]]] = {
    "none": (lambda _e, _m, _now: None, ("no-certificate",)),
    "revoked": (lambda e, m, now: revoke(e, certify(e, m, issued=now), now), ("certificate-revoked",)),
    "on hold": (
        lambda e, m, now: revoke(e, certify(e, m, issued=now), now, "hold"), ("certificate-on-hold",),
    ),
    "expired": (
        lambda e, m, now: certify(e, m, issued=now - YEAR, not_after=now - timedelta(seconds=1)),
        ("certificate-expired",),
    ),
    "not yet valid": (
        lambda e, m, now: certify(e, m, issued=now, not_before=now + timedelta(seconds=1)),
        ("no-certificate",),
    ),
    "valid to this very instant": (lambda e, m, now: certify(e, m, issued=now - YEAR, not_after=now), ()),
    "released from hold": (
        lambda e, m, now: [
            revoke(e, certify(e, m, issued=now), now, "hold"), revoke(e, f"{1:040x}", now, "release"),
        ],
        (),
    ),
    "one revoked, one expired": (
        lambda e, m, now: [
            revoke(e, certify(e, m, 1, issued=now), now),
            certify(e, m, 2, issued=now - YEAR, not_after=now - timedelta(days=1)),
        ],
        ("certificate-revoked",),
    ),
    "one revoked, one good": (
        lambda e, m, now: [revoke(e, certify(e, m, 1, issued=now), now), certify(e, m, 2, issued=now)],
        (),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("arrange", "reasons"), CERTIFICATES.values(), ids=CERTIFICATES)
def test_the_most_telling_thing_about_the_certificates_is_said(
    engine: Engine, now: datetime, arrange: Acts, reasons: tuple[str, ...]
) -> None:
    mailbox = seed_practitioner(engine).mailbox
    arrange(engine, mailbox, now)
    (found,) = ask(engine, mailbox, now=now)
    assert found.reasons == reasons
    assert bool(found.certificates) == (reasons == ())


def test_a_revocation_does_not_reach_into_the_past(engine: Engine) -> None:
    mailbox = person(engine, now=clock(engine))
    before = clock(engine)
    revoke(engine, f"{1:040x}", clock(engine))
    assert ask(engine, mailbox)[0].reasons == ("certificate-revoked",)
    (then,) = ask(engine, mailbox, at=before)
    assert then.answer is Answer.ALLOWED
    assert [certificate.revoked_at for certificate in then.certificates] == [None]


def test_a_certificate_of_the_former_holder_serves_the_next_one_nothing(engine: Engine) -> None:
    mailbox = person(engine, now=clock(engine))
    seed_practitioner(engine, 2)
    before = clock(engine)
    run(engine, "UPDATE mailbox SET holder = :next WHERE address = :mailbox", next=rpps(2), mailbox=mailbox)
    assert ask(engine, mailbox)[0].reasons == ("no-certificate",)
    assert ask(engine, "person-2@one.example", sender=mailbox)[0].reasons == (
        "no-certificate", "sender-no-certificate",
    )  # fmt: skip
    with transaction(engine, read_only=True) as connection:
        assert live_certificates(connection, [mailbox], clock(engine)) == {}
    assert ask(engine, mailbox, at=before)[0].answer is Answer.ALLOWED
    certify(engine, mailbox, 2, issued=clock(engine))
    assert [c.serial for c in ask(engine, mailbox)[0].certificates] == [f"{2:040x}"]
    with transaction(engine, read_only=True) as connection:
        assert live_certificates(connection, [mailbox], clock(engine)) == {mailbox: [b"certificate 2"]}


SIGN, ENCRYPT = "practitioner-smime-sign", "practitioner-smime-encrypt"


def test_a_recipient_needs_a_certificate_to_encrypt_with_and_a_sender_one_to_sign_with(
    engine: Engine, now: datetime
) -> None:
    signer, reader, both = (seed_practitioner(engine, number).mailbox for number in (1, 2, 3))
    certify(engine, signer, 1, issued=now, profile=SIGN)
    certify(engine, reader, 2, issued=now, profile=ENCRYPT)
    certify(engine, both, 3, issued=now)
    assert [one.reasons for one in ask(engine, signer, reader, both, now=now)] == [
        ("no-certificate",),
        (),
        (),
    ]
    assert ask(engine, reader, sender=signer, now=now)[0].answer is Answer.ALLOWED
    assert ask(engine, both, sender=reader, now=now)[0].reasons == ("sender-no-certificate",)
    assert ask(engine, signer, sender=reader, now=now)[0].reasons == (
        "no-certificate", "sender-no-certificate",
    )  # fmt: skip


def test_of_a_pair_the_verdict_hands_out_what_one_encrypts_with(engine: Engine, now: datetime) -> None:
    mailbox = seed_practitioner(engine).mailbox
    certify(engine, mailbox, 1, issued=now, profile=SIGN, not_after=now + 2 * YEAR)
    certify(engine, mailbox, 2, issued=now, profile=ENCRYPT)
    (verdict,) = ask(engine, mailbox, sender=mailbox, now=now)
    assert [(one.serial, one.purposes) for one in verdict.certificates] == [
        (f"{2:040x}", {Purpose.ENCRYPTION})
    ]


def test_what_became_of_the_other_of_a_pair_is_not_said(engine: Engine, now: datetime) -> None:
    mailbox = seed_practitioner(engine).mailbox
    revoke(engine, certify(engine, mailbox, 1, issued=now, profile=SIGN), now)
    assert ask(engine, mailbox, now=now)[0].reasons == ("no-certificate",)
    certify(engine, mailbox, 2, issued=now, profile=ENCRYPT)
    assert ask(engine, mailbox, now=now)[0].answer is Answer.ALLOWED
    revoke(engine, f"{2:040x}", now, "hold")
    (verdict,) = ask(engine, mailbox, sender=mailbox, now=now)
    assert verdict.reasons == ("certificate-on-hold", "sender-certificate-revoked")


def test_a_verdict_is_kept_until_the_first_end_of_what_each_side_uses(engine: Engine, now: datetime) -> None:
    mailbox, minute = seed_practitioner(engine).mailbox, timedelta(minutes=1)
    certify(engine, mailbox, 1, issued=now, profile=SIGN, not_after=now + minute)
    certify(engine, mailbox, 2, issued=now, profile=ENCRYPT, not_after=now + 2 * minute)
    assert ask(engine, mailbox, now=now)[0].valid_until == now + 2 * minute
    assert ask(engine, mailbox, sender=mailbox, now=now)[0].valid_until == now + minute


def test_a_certificate_of_a_profile_we_do_not_know_is_good_for_nothing(engine: Engine, now: datetime) -> None:
    mailbox = seed_practitioner(engine).mailbox
    certify(engine, mailbox, issued=now, profile="practitioner-smime-escrowed")
    assert ask(engine, mailbox, sender=mailbox, now=now)[0].reasons == (
        "no-certificate", "sender-no-certificate",
    )  # fmt: skip


def test_a_certificate_does_not_exist_before_it_was_issued(engine: Engine) -> None:
    mailbox = seed_practitioner(engine).mailbox
    before = clock(engine)
    certify(engine, mailbox, issued=clock(engine))
    assert ask(engine, mailbox, at=before)[0].reasons == ("no-certificate",)


def test_a_revocation_by_a_machine_whose_clock_is_ahead_counts_at_once(engine: Engine, now: datetime) -> None:
    mailbox = person(engine, now=now)
    revoke(engine, f"{1:040x}", now + timedelta(minutes=5))
    assert ask(engine, mailbox, now=now)[0].reasons == ("certificate-revoked",)


UNKNOWN_SIDES = {
    "unknown in a trusted domain": ("nobody@one.example", None, Answer.UNKNOWN, ("mailbox-unknown",)),
    "unknown in another domain": (
        "nobody@elsewhere.example", None, Answer.REFUSED, ("domain-not-trusted", "mailbox-unknown"),
    ),
    "unknown sender": (
        "person-1@one.example", "nobody@one.example", Answer.UNKNOWN, ("sender-mailbox-unknown",),
    ),
    "both unknown": (
        "a@one.example", "b@one.example", Answer.UNKNOWN, ("mailbox-unknown", "sender-mailbox-unknown"),
    ),
    "malformed": ("not an address", None, Answer.REFUSED, ("malformed-address",)),
    "malformed sender": ("person-1@one.example", "@", Answer.REFUSED, ("sender-malformed-address",)),
    "empty": ("", None, Answer.REFUSED, ("malformed-address",)),
    "NUL": ("a\0@one.example", None, Answer.REFUSED, ("malformed-address",)),
    "half a surrogate pair": ("a\ud800@one.example", None, Answer.REFUSED, ("malformed-address",)),
}  # fmt: skip


@pytest.mark.parametrize("case", UNKNOWN_SIDES.values(), ids=UNKNOWN_SIDES)
def test_unknown_is_said_only_of_what_nobody_told_us(
    engine: Engine, now: datetime, case: tuple[str, str | None, Answer, Sequence[str]]
) -> None:
    recipient, sender, answer, reasons = case
    person(engine, now=now)
    (found,) = ask(engine, recipient, sender=sender, now=now)
    assert (found.address, found.answer, found.reasons) == (recipient, answer, reasons)


def test_the_sender_is_held_to_the_same_rules(engine: Engine, now: datetime) -> None:
    recipient, sender = person(engine, 1, now=now), person(engine, 2, now=now)
    assert ask(engine, recipient, sender=sender, now=now)[0].answer is Answer.ALLOWED
    revoke(engine, f"{2:040x}", now)
    depart(engine, rpps(2), now)
    (found,) = ask(engine, recipient, sender=sender, now=now)
    assert found.reasons == ("sender-holder-not-in-registry", "sender-certificate-revoked")
    assert (found.answer, found.certificates) == (Answer.REFUSED, ())


def test_the_red_list_hides_from_search_not_from_the_verdict(engine: Engine, now: datetime) -> None:
    mailbox = seed_practitioner(engine, listed=False).mailbox
    certify(engine, mailbox, issued=now)
    assert ask(engine, mailbox, now=now)[0].answer is Answer.ALLOWED


def test_a_verdict_is_kept_no_longer_than_the_certificates_it_rests_on(engine: Engine, now: datetime) -> None:
    recipient, sender = seed_practitioner(engine, 1).mailbox, seed_practitioner(engine, 2).mailbox
    certify(engine, recipient, 1, issued=now, not_after=now + timedelta(minutes=9))
    certify(engine, sender, 2, issued=now, not_after=now + timedelta(minutes=4))
    assert ask(engine, recipient, now=now)[0].valid_until == now + timedelta(minutes=9)
    assert ask(engine, recipient, sender=sender, now=now)[0].valid_until == now + timedelta(minutes=4)


def test_a_verdict_on_the_past_is_never_kept_until_before_it_was_given(engine: Engine) -> None:
    issued = clock(engine)
    mailbox = seed_practitioner(engine).mailbox
    certify(engine, mailbox, issued=issued, not_after=issued + timedelta(hours=1))
    later = issued + timedelta(hours=2)
    (found,) = ask(engine, mailbox, at=clock(engine), now=later)
    assert (found.answer, found.valid_until) == (Answer.ALLOWED, later)


def apply_register(engine: Engine, register: str, generated: datetime, finished: datetime) -> None:
    run(
        engine,
        "INSERT INTO register_run (register, file_name, file_sha256, generated_at, started_at, finished_at,"
        " state) VALUES (:register, 'f', sha256(''), :generated, :finished, :finished, 'applied')",
        register=register, generated=generated, finished=finished,
    )  # fmt: skip


def test_of_what_was_before_our_records_nothing_is_known(engine: Engine) -> None:
    mailbox = person(engine, now=clock(engine))
    began = clock(engine)
    apply_register(engine, "rpps", began - timedelta(hours=5), began)
    (before,) = ask(engine, mailbox, at=began - timedelta(microseconds=1))
    assert before.answer is Answer.UNKNOWN
    assert before.reasons == ("before-our-records",)
    assert ask(engine, mailbox, at=began)[0].answer is Answer.ALLOWED
    assert ask(engine, mailbox, at=datetime.min.replace(tzinfo=UTC))[0].answer is Answer.UNKNOWN


def test_the_registers_it_rests_on_are_those_of_that_instant(engine: Engine) -> None:
    start = clock(engine)
    apply_register(engine, "rpps", start - timedelta(days=1), start)
    middle = clock(engine)
    apply_register(engine, "rpps", start, clock(engine))
    nothing_of_others = {"finess": None, "mailboxes": None, "trusted-domains": None}
    assert ask(engine, "x@y.example")[0].sources == {"rpps": start, **nothing_of_others}
    (then,) = ask(engine, "x@y.example", at=middle)
    assert then.sources == {"rpps": start - timedelta(days=1), **nothing_of_others}


def test_what_will_be_cannot_be_asked(engine: Engine, now: datetime) -> None:
    with pytest.raises(Refusal) as refused:
        ask(engine, "x@y.example", at=now + timedelta(microseconds=1), now=now)
    assert refused.value.code == "at-in-the-future"


def test_answers_come_in_the_order_asked_whatever_the_spelling_and_however_often(
    engine: Engine, now: datetime
) -> None:
    mailbox = person(engine, now=now)
    asked = [mailbox.upper(), "garbage", mailbox, "nobody@one.example", mailbox.upper()]
    found = ask(engine, *asked, now=now)
    assert [verdict.address for verdict in found] == asked
    assert [verdict.answer.value for verdict in found] == [
        "allowed",
        "refused",
        "allowed",
        "unknown",
        "allowed",
    ]
    assert found[0]._replace(address=mailbox) == found[2]


def test_many_are_answered_in_as_many_statements_as_one(engine: Engine, now: datetime) -> None:
    addresses = [person(engine, number, now=now) for number in range(1, 30)]
    one, many = (_statements(engine, asked, now) for asked in (addresses[:1], addresses))
    assert one == many


def _statements(engine: Engine, addresses: Sequence[str], now: datetime) -> int:
    seen: list[str] = []
    with transaction(engine, read_only=True) as connection, heard(connection, seen.append):
        answers = verdicts(connection, addresses, sender=None, at=None, now=now, lifetime=KEPT)
    assert all(verdict.answer is Answer.ALLOWED for verdict in answers)
    return len(seen)
