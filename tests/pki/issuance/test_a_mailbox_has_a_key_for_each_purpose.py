"""Signature and encryption separate: for an enrolment one certificate of each, each on a key of its own."""

from datetime import datetime, timedelta
from threading import Barrier, Thread

import pytest
from sqlalchemy import Engine

from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.errors import Refusal
from directory.model import MeasureKind
from pki.certificates import mailbox_profiles
from pki.impediments.causes import GRACES, kind_of_profile
from pki.issuance import batch
from pki.issuance.batch import BatchItem
from pki.model import JOINED, IssuedCertificate, MailKeys, Purpose, RevocationAction, RevocationReason
from pki.record import revocations
from pki.revocation import key_compromise, requests
from pki.verdict.answer import verdicts
from pki.verdict.model import Answer
from pki.withdrawal import measures, reconcile
from tests.factories import depart, seed_organisation, seed_practitioner
from tests.pki.conftest import BASE_URL, Enrolled, Established, Issue, enrol, new_key, request_for
from tests.pki.issuance.test_issuance import identify_again

SIGN, ENCRYPT = frozenset({Purpose.SIGNATURE}), frozenset({Purpose.ENCRYPTION})
KEPT = timedelta(minutes=15)


def refused(act: object, *values: object, **named: object) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        act(*values, **named)  # type: ignore[operator]
    return refusal.value


def revoke(engine: Engine, issued: IssuedCertificate, now: datetime, reason: RevocationReason) -> None:
    with transaction(engine) as connection:
        requests.revoke(
            connection, now=now, actor=Actor("test"), serial=issued.serial, reason=reason, comment=""
        )


def verdict(engine: Engine, address: str, now: datetime) -> tuple[Answer, tuple[str, ...]]:
    """On a mailbox that writes to itself: it needs both."""
    with transaction(engine, read_only=True) as connection:
        (one,) = verdicts(connection, [address], sender=address, at=None, now=now, lifetime=KEPT)
    return one.answer, one.reasons


def last_of(engine: Engine, *issued: IssuedCertificate) -> list[RevocationAction | None]:
    with transaction(engine, read_only=True) as connection:
        done = revocations.last_actions(connection, [one.serial for one in issued])
    return [done.get(one.serial) for one in issued]


def test_a_purpose_is_named_where_they_are_separate_and_only_there() -> None:
    assert mailbox_profiles.purposes_asked(MailKeys.JOINED, None) == JOINED
    assert mailbox_profiles.purposes_asked(MailKeys.SEPARATE, Purpose.SIGNATURE) == SIGN
    assert refused(mailbox_profiles.purposes_asked, MailKeys.SEPARATE, None).code == "purpose-missing"
    for purpose in Purpose:
        assert (
            refused(mailbox_profiles.purposes_asked, MailKeys.JOINED, purpose).code == "purpose-not-separate"
        )


def test_an_enrolment_has_one_of_each(
    issue: Issue, engine: Engine, enrolled: Enrolled, now: datetime
) -> None:
    sign = issue(purposes=SIGN, thorough=True)
    assert verdict(engine, enrolled.seeded.mailbox, now) == (Answer.REFUSED, ("no-certificate",))
    encrypt = issue(purposes=ENCRYPT, thorough=True)
    assert (sign.profile, encrypt.profile) == ("practitioner-smime-sign", "practitioner-smime-encrypt")
    assert verdict(engine, enrolled.seeded.mailbox, now) == (Answer.ALLOWED, ())
    for purposes, serial in ((SIGN, sign.serial), (ENCRYPT, encrypt.serial)):
        again = refused(issue, purposes=purposes)
        assert (again.code, again.details["serial"]) == ("already-certified", serial)


@pytest.mark.parametrize("single", [SIGN, ENCRYPT], ids=["sign", "encrypt"])
def test_a_joined_one_counts_as_both(
    issue: Issue, engine: Engine, now: datetime, single: frozenset[Purpose]
) -> None:
    joined = issue()
    assert refused(issue, purposes=single).details["serial"] == joined.serial
    revoke(engine, joined, now, RevocationReason.SUPERSEDED)
    alone = issue(purposes=single)
    assert refused(issue).details["serial"] == alone.serial
    issue(purposes=JOINED - single)


def test_of_a_pair_each_is_on_a_key_of_its_own(issue: Issue, engine: Engine, now: datetime) -> None:
    key = new_key()
    first = issue(key, purposes=SIGN)
    again = refused(issue, key, purposes=ENCRYPT)
    assert (again.code, again.details["serial"]) == ("key-already-certified", first.serial)
    revoke(engine, first, now, RevocationReason.SUPERSEDED)
    assert refused(issue, key).code == "key-already-certified"


@pytest.mark.parametrize("before", [JOINED, SIGN, ENCRYPT], ids=["joined", "sign", "encrypt"])
def test_a_key_is_renewed_for_what_it_served_and_for_nothing_else(
    issue: Issue, authority: Established, engine: Engine, before: frozenset[Purpose]
) -> None:
    key = new_key()
    first = issue(key, purposes=before)
    late = first.not_after - timedelta(days=50)
    identify_again(engine, late)
    authority.signer.clock = lambda: late
    for other in {JOINED, SIGN, ENCRYPT} - {before}:
        assert refused(issue, key, at=late, purposes=other).code == "key-already-certified"
    assert issue(key, at=late, purposes=before).profile == first.profile


def test_a_reservation_is_taken_up_for_the_same_purpose_alone(issue: Issue, now: datetime) -> None:
    class Away:
        def sign_certificate(self, serial: object) -> bytes:
            raise ConnectionError(serial)

    key = new_key()
    with pytest.raises(ConnectionError):
        issue(key, purposes=SIGN, signer=Away())
    assert refused(issue, key, purposes=ENCRYPT).code == "key-already-certified"
    assert issue(key, purposes=SIGN, at=now + timedelta(minutes=1)).profile == "practitioner-smime-sign"


def test_two_keys_for_one_purpose_at_the_same_moment_make_one_certificate(
    issue: Issue, engine: Engine, enrolled: Enrolled, now: datetime
) -> None:
    """And the other purpose, asked for meanwhile, is served."""
    start, results = Barrier(5), []

    def ask(purposes: frozenset[Purpose]) -> None:
        start.wait()
        try:
            results.append(issue(purposes=purposes).profile)
        except Refusal as refusal:
            results.append(refusal.code)

    asking = [Thread(target=ask, args=(purposes,)) for purposes in (SIGN, SIGN, SIGN, SIGN, ENCRYPT)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert sorted(results) == [
        *["already-certified"] * 3, "practitioner-smime-encrypt", "practitioner-smime-sign",
    ]  # fmt: skip
    assert verdict(engine, enrolled.seeded.mailbox, now) == (Answer.ALLOWED, ())


def test_establishments_have_pairs_too(issue: Issue, engine: Engine, now: datetime) -> None:
    address = seed_organisation(engine)
    person = seed_practitioner(engine, 2, finess="750990012")
    answering = enrol(engine, now, type(person)(person.national_id, address))
    made = [issue(who=answering, purposes=purposes, thorough=True) for purposes in (SIGN, ENCRYPT)]
    assert [one.profile for one in made] == ["organisation-smime-sign", "organisation-smime-encrypt"]
    assert verdict(engine, address, now) == (Answer.ALLOWED, ())


def test_who_leaves_loses_both(issue: Issue, engine: Engine, enrolled: Enrolled, now: datetime) -> None:
    made = [issue(purposes=SIGN), issue(purposes=ENCRYPT)]
    depart(engine, enrolled.seeded.national_id, now)
    follower = reconcile.Follower(engine, GRACES)
    while follower.step(now).changes:
        pass
    assert last_of(engine, *made) == [RevocationAction.REVOKE] * 2


def test_a_measure_holds_both_and_its_end_releases_both(
    issue: Issue, engine: Engine, enrolled: Enrolled, now: datetime
) -> None:
    made = [issue(purposes=SIGN), issue(purposes=ENCRYPT)]
    with transaction(engine) as connection:
        taken = measures.take(
            connection, now=now, token=enrolled.first, national_id=enrolled.seeded.national_id,
            kind=MeasureKind.SUSPENDED, reason="inquiry", graces=GRACES,
        )  # fmt: skip
    assert last_of(engine, *made) == [RevocationAction.HOLD] * 2
    for token in (enrolled.first, enrolled.second):
        with transaction(engine) as connection:
            measures.lift(
                connection, now=now, token=token, measure_id=taken.id, reason="cleared", graces=GRACES
            )
    assert last_of(engine, *made) == [RevocationAction.RELEASE] * 2


def test_a_lost_key_takes_its_own_certificate_and_lists_the_other_of_the_pair(
    issue: Issue, engine: Engine, now: datetime
) -> None:
    sign, encrypt = issue(purposes=SIGN), issue(purposes=ENCRYPT)
    revoke(engine, sign, now, RevocationReason.KEY_COMPROMISE)
    assert last_of(engine, sign, encrypt) == [RevocationAction.REVOKE, None]
    with transaction(engine, read_only=True) as connection:
        listed = connection.exec_driver_sql("SELECT subject FROM attention WHERE resolved_at IS NULL")
        assert listed.scalars().all() == [encrypt.serial]
    revoke(engine, encrypt, now, RevocationReason.SUPERSEDED)
    with transaction(engine) as connection:
        key_compromise.settle_matters(connection, now)
        open_ones = connection.exec_driver_sql("SELECT 1 FROM attention WHERE resolved_at IS NULL")
        assert open_ones.all() == []


class Sent:
    """A registrar who sends batches."""

    def __init__(self, engine: Engine, authority: Established, enrolled: Enrolled, now: datetime) -> None:
        self.engine, self.signer, self.who, self.now = engine, authority.signer, enrolled, now

    def __call__(self, *asked: BatchItem) -> tuple[object, list[str | None]]:
        made, items = batch.issue_all(
            self.engine, self.signer, now=self.now, token=self.who.first, asked=asked, base_url=BASE_URL
        )
        return made.id, [
            item.refusal["code"] if item.refusal else item.certificate and item.certificate.profile
            for item in items
        ]


@pytest.fixture
def send(engine: Engine, authority: Established, enrolled: Enrolled, now: datetime) -> Sent:
    return Sent(engine, authority, enrolled, now)


def test_a_batch_makes_pairs(send: Sent, engine: Engine, enrolled: Enrolled, now: datetime) -> None:
    other = enrol(engine, now, seed_practitioner(engine, 2))
    pairs = [
        BatchItem(one.id, request_for(new_key()), purposes)
        for one in (enrolled, other)
        for purposes in (SIGN, ENCRYPT)
    ]
    made, results = send(*pairs)
    assert results == ["practitioner-smime-sign", "practitioner-smime-encrypt"] * 2
    assert verdict(engine, other.seeded.mailbox, now) == (Answer.ALLOWED, ())
    assert send(*pairs) == (made, results)
    _, again = send(*[BatchItem(one.enrolment_id, request_for(new_key()), one.purposes) for one in pairs])
    assert again == ["already-certified"] * 4


def test_a_batch_holds_each_purpose_of_an_enrolment_once(send: Sent, enrolled: Enrolled) -> None:
    def asked(purposes: frozenset[Purpose]) -> BatchItem:
        return BatchItem(enrolled.id, request_for(new_key()), purposes)

    for twice in ((SIGN, SIGN), (JOINED, ENCRYPT), (JOINED, JOINED)):
        assert refused(send, *map(asked, twice)).code == "bad-batch"


def test_a_pair_on_one_key_is_no_pair_in_a_batch_either(send: Sent, enrolled: Enrolled) -> None:
    csr = request_for(new_key())
    _, results = send(BatchItem(enrolled.id, csr, SIGN), BatchItem(enrolled.id, csr, ENCRYPT))
    assert results == ["practitioner-smime-sign", "key-already-certified"]


def test_the_same_requests_for_another_purpose_are_another_batch(send: Sent, enrolled: Enrolled) -> None:
    csr = request_for(new_key())
    made, _ = send(BatchItem(enrolled.id, csr, SIGN))
    other, results = send(BatchItem(enrolled.id, csr, ENCRYPT))
    assert (made != other, results) == (True, ["key-already-certified"])


def test_each_profile_tells_what_kind_of_mailbox_it_was_made_for() -> None:
    """A mailbox that passes from a person to an establishment loses its certificates by it."""
    for kind, joined in mailbox_profiles.PROFILE_OF_MAILBOX.items():
        for purposes in (JOINED, SIGN, ENCRYPT):
            profile = mailbox_profiles.mail_profile(kind, purposes)
            assert (profile.family, kind_of_profile(profile.name)) == (joined.name, kind)
    assert kind_of_profile("service-tls") is None
