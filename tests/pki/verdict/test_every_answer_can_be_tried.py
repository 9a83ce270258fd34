"""Each verdict and each reason has an address that is answered with it alone, where the setting says so."""

import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from sqlalchemy import Engine, text

from directory.base.db import transaction
from directory.feed.changes import Entity
from directory.model import MailboxStanding
from directory.store import keys_that_may_show
from pki.model import BEFORE_OUR_RECORDS
from pki.publication.values import public_values
from pki.verdict.answer import verdicts
from pki.verdict.model import Answer, CertificateReason, Verdict
from pki.verdict.trial_addresses import ALLOWED, UNKNOWN, address_of, trial_of, words
from tests.factories import seed_practitioner
from tests.pki.conftest import Enrolled, Issue

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
GOOD = address_of(ALLOWED)
REASONS = (BEFORE_OUR_RECORDS, *(one.value for one in (*MailboxStanding, *CertificateReason)))
NOT_KNOWING = {MailboxStanding.MAILBOX_UNKNOWN.value, BEFORE_OUR_RECORDS}


def several(
    engine: Engine,
    addresses: Sequence[str],
    *,
    sender: str | None = None,
    at: datetime | None = None,
    now: datetime = NOW,
    trials: bool = True,
) -> list[Verdict]:
    with transaction(engine, read_only=True) as connection:
        return verdicts(
            connection,
            addresses,
            sender=sender,
            at=at,
            now=now,
            lifetime=timedelta(minutes=15),
            trials=trials,
        )


def judged(engine: Engine, address: str, **asked: Any) -> Verdict:
    (found,) = several(engine, [address], **asked)
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


NOBODY_S = ("sender-domain-not-trusted", "sender-mailbox-unknown")


@pytest.mark.parametrize("word", words())
def test_none_is_a_sender_towards_a_mailbox_of_the_record(
    engine: Engine, enrolled: Enrolled, issue: Issue, word: str
) -> None:
    issue()
    mailbox, now = enrolled.seeded.mailbox, datetime.now(UTC) + timedelta(minutes=5)
    expected = ("sender-malformed-address",) if word == "malformed-address" else NOBODY_S
    assert judged(engine, mailbox, now=now).answer is Answer.ALLOWED
    for at in (None, now):
        found = judged(engine, mailbox, sender=address_of(word), at=at, now=now)
        assert (found.answer, found.reasons, found.certificates) == (Answer.REFUSED, expected, ())
    many = several(engine, [mailbox, GOOD, mailbox], sender=address_of(word), now=now)
    assert [one.reasons for one in many[::2]] == [expected, expected]
    assert many[1].reasons == judged(engine, GOOD, sender=address_of(word), now=now).reasons


def test_a_sender_of_the_record_tries_every_reason(engine: Engine, enrolled: Enrolled, issue: Issue) -> None:
    issue()
    mailbox, now = enrolled.seeded.mailbox, datetime.now(UTC) + timedelta(minutes=5)
    for at in (None, now):
        for reason in REASONS:
            found = judged(engine, address_of(reason), sender=mailbox, at=at, now=now)
            assert (found.reasons, found.certificates) == ((reason,), ())
        assert judged(engine, GOOD, sender=mailbox, at=at, now=now).answer is Answer.ALLOWED
    # He is judged as ever: one with nothing to sign with sends to nobody.
    other = seed_practitioner(engine, 2)
    assert judged(engine, GOOD, sender=other.mailbox, now=now).reasons == ("sender-no-certificate",)
    one, two = several(engine, [GOOD, other.mailbox], sender=mailbox, now=now)
    assert (one.answer, two.reasons) == (Answer.ALLOWED, ("no-certificate",))


def test_the_malformed_one_is_tried_with_senders_to_try(engine: Engine) -> None:
    assert judged(engine, address_of("malformed-address"), sender=GOOD).reasons == ("malformed-address",)


def test_who_trusts_the_certificate_cannot_use_it_either(engine: Engine, tmp_path: Path) -> None:
    (given,) = judged(engine, GOOD).certificates
    path = tmp_path / "given.pem"
    path.write_bytes(x509.load_der_x509_certificate(given.der).public_bytes(Encoding.PEM))
    asked = ("openssl", "verify", "-partial_chain", "-no_check_time", "-trusted", path, path)
    told = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert told.returncode != 0
    assert "unhandled critical extension" in told.stderr


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
