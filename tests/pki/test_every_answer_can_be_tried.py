"""Each verdict and each reason has an address that is answered with it alone, where the setting says so."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID
from sqlalchemy import Engine, text

from directory.base.db import transaction
from directory.changes import Entity
from directory.model import Standing
from directory.store import keys_that_may_show
from pki.exchange import verdicts
from pki.model import BEFORE_OUR_RECORDS, Answer, CertificateReason, Verdict
from pki.public import public_values
from pki.trial_addresses import ALLOWED, UNKNOWN, address_of, trial_of, words
from tests.factories import seed_practitioner

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
GOOD = address_of(ALLOWED)
REASONS = (BEFORE_OUR_RECORDS, *(one.value for one in (*Standing, *CertificateReason)))
NOT_KNOWING = {Standing.MAILBOX_UNKNOWN.value, BEFORE_OUR_RECORDS}


def judged(
    engine: Engine,
    address: str,
    *,
    sender: str | None = None,
    at: datetime | None = None,
    trials: bool = True,
) -> Verdict:
    with transaction(engine, read_only=True) as connection:
        (found,) = verdicts(
            connection,
            [address],
            sender=sender,
            at=at,
            now=NOW,
            lifetime=timedelta(minutes=15),
            trials=trials,
        )
    return found


@pytest.mark.parametrize("reason", REASONS)
def test_a_reason_is_answered_alone(engine: Engine, reason: str) -> None:
    found = judged(engine, address_of(reason))
    answer = Answer.UNKNOWN if reason in NOT_KNOWING else Answer.REFUSED
    assert (found.answer, found.reasons, found.certificates) == (answer, (reason,), ())


@pytest.mark.parametrize("reason", [one for one in REASONS if one != BEFORE_OUR_RECORDS])
def test_a_reason_about_the_sender_is_answered_alone(engine: Engine, reason: str) -> None:
    found = judged(engine, GOOD, sender=address_of(reason))
    assert found.reasons == (f"sender-{reason}",)
    assert found.answer is (Answer.UNKNOWN if reason in NOT_KNOWING else Answer.REFUSED)


def test_each_verdict_is_answered(engine: Engine) -> None:
    found = judged(engine, GOOD, sender=GOOD)
    assert (found.answer, found.reasons) == (Answer.ALLOWED, ())
    assert judged(engine, address_of(UNKNOWN)).answer is Answer.UNKNOWN
    assert judged(engine, GOOD, sender=address_of(BEFORE_OUR_RECORDS)).reasons == (BEFORE_OUR_RECORDS,)
    # Of the past as of the present, in any spelling.
    assert judged(engine, GOOD, at=NOW - timedelta(days=4000)).answer is Answer.ALLOWED
    assert judged(engine, "Holder-Suspended@REASONS.test.").reasons == ("holder-suspended",)


def test_all_words_are_tried_above() -> None:
    assert set(words()) == {ALLOWED, UNKNOWN, *REASONS}


def test_the_certificate_names_nobody_and_is_made_by_nobody(engine: Engine) -> None:
    (given,) = judged(engine, GOOD).certificates
    certificate = x509.load_der_x509_certificate(given.der)
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert str(name.value).startswith("TEST ")
    with pytest.raises((InvalidSignature, TypeError, ValueError)):
        certificate.verify_directly_issued_by(certificate)
    again = trial_of(GOOD, NOW)
    assert again is not None
    assert again.certificates == (given,)


@pytest.mark.parametrize("word", words())
def test_without_the_setting_they_are_nobody_s(engine: Engine, word: str) -> None:
    found = judged(engine, address_of(word), trials=False)
    if word == "malformed-address":
        assert found.reasons == (word,)
    else:
        assert (found.answer, found.reasons) == (Answer.REFUSED, ("domain-not-trusted", "mailbox-unknown"))


@pytest.mark.parametrize(
    "address",
    ["nobody@reasons.test", "allowed@x.reasons.test", "allowed@reasons.test.example", "allowed@reasons.tes"],
)
def test_any_other_address_is_judged_by_the_record(engine: Engine, address: str) -> None:
    assert judged(engine, address).reasons == ("domain-not-trusted", "mailbox-unknown")


def test_a_real_recipient_is_judged_as_ever_beside_them(engine: Engine) -> None:
    someone = seed_practitioner(engine)
    found = judged(engine, someone.mailbox, sender=address_of("holder-suspended"))
    assert found.reasons == ("no-certificate", "sender-holder-suspended")


def test_nothing_that_is_copied_or_searched_has_them(engine: Engine) -> None:
    for word in words():
        judged(engine, address_of(word))
    with engine.begin() as connection:
        for entity in (Entity.MAILBOX, Entity.PRACTITIONER, Entity.ORGANISATION):
            assert keys_that_may_show(connection, entity, "", 10) == []
        keys = [(Entity.MAILBOX, address_of(word)) for word in words() if word != "malformed-address"]
        assert public_values(connection, keys, NOW) == {}
        assert connection.execute(text("SELECT count(*) FROM change")).scalar_one() == 0
        assert connection.execute(text("SELECT count(*) FROM certificate")).scalar_one() == 0
