"""Blocked and weak keys are refused on every road; a report with proof takes the certificates along."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha1, sha256
from math import prod
from threading import Timer

import badkeys  # type: ignore[import-untyped] # ships no types
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from directory.access import Token
from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.errors import Refusal
from pki.certificates import public_keys
from pki.certificates.csr import public_key_of_request
from pki.issuance import batch
from pki.issuance.quotas import Quotas, audit_quota_refusals, charge
from pki.lint.key import _ROCA_PRIMES, weaknesses
from pki.model import RevocationAction, RevocationReason, Serial
from pki.record import enrolments, revocations
from pki.registration import enrolment
from pki.revocation import blocked_keys, compromise_reports, requests
from pki.revocation.blocked_keys import BlockCause, Form, Listed
from pki.signing.inprocess import InProcessSigner
from tests.factories import seed_practitioner
from tests.pki.conftest import Enrolled, Established, Issue, Key, enrol, identity, new_key, request_for

ACTOR = Actor("test:someone")


def confession(key: Key, words: str = "This key is compromised") -> bytes:
    return request_for(key, words)


def refusal_of(issue: Issue, key: Key, **more: object) -> str:
    with pytest.raises(Refusal) as refused:
        issue(key, **more)
    return refused.value.code


def test_a_key_reported_by_itself_falls_with_its_certificate_and_is_refused_for_ever(
    engine: Engine, issue: Issue, enrolled: Enrolled, now: datetime
) -> None:
    key = new_key()
    serial = issue(key).serial
    for expected in ((serial,), ()):
        with transaction(engine) as connection:
            reported = compromise_reports.report(connection, now=now, actor=ACTOR, csr=confession(key))
        assert reported.revoked == expected
    with transaction(engine) as connection:
        assert revocations.last_actions(connection, [serial]) == {serial: RevocationAction.REVOKE}
    other = enrol(engine, now, seed_practitioner(engine, 2))
    assert refusal_of(issue, key) == "key-blocked"
    assert refusal_of(issue, key, who=other) == "key-blocked"
    assert enrolled.id != other.id


def test_a_request_that_says_something_else_proves_nothing(
    engine: Engine, issue: Issue, now: datetime
) -> None:
    key = new_key()
    issue(key)
    with transaction(engine) as connection, pytest.raises(Refusal) as refused:
        compromise_reports.report(connection, now=now, actor=ACTOR, csr=confession(key, "Camille MARTIN"))
    assert refused.value.code == "no-compromise-proof"
    with transaction(engine) as connection:
        blocked_keys.check_again(connection, public_keys.spki_sha256(key.public_key()))


def test_a_key_revoked_as_compromised_is_blocked(engine: Engine, issue: Issue, now: datetime) -> None:
    key = new_key()
    serial = issue(key).serial
    with transaction(engine) as connection:
        requests.revoke(
            connection, now=now, actor=ACTOR, serial=serial, reason=RevocationReason.KEY_COMPROMISE
        )
    assert refusal_of(issue, key) == "key-blocked"


class Slow(InProcessSigner):
    """The real signer; while it works, somebody begins to say that the key is lost, and ends it later."""

    def __init__(self, signer: InProcessSigner, engine: Engine, act: Callable[[Connection], object]) -> None:
        vars(self).update(vars(signer))
        self._begun, self._act = engine, act

    def sign_certificates(self, serials: Sequence[Serial]) -> list[bytes | Refusal]:
        signed = super().sign_certificates(serials)
        connection = self._begun.connect()
        self._act(connection)

        def end() -> None:
            connection.commit()
            connection.close()

        Timer(0.3, end).start()
        return signed


def test_a_key_said_to_be_lost_while_its_renewal_is_stored_serves_neither(
    engine: Engine, issue: Issue, authority: Established
) -> None:
    key = new_key()
    first = issue(key)
    late = first.not_after - timedelta(days=30)
    authority.signer.clock = lambda: late
    lost = RevocationReason.KEY_COMPROMISE
    slow = Slow(
        authority.signer, engine,
        lambda connection: requests.revoke(
            connection, now=late, actor=ACTOR, serial=first.serial, reason=lost
        ),
    )  # fmt: skip
    assert refusal_of(issue, key, at=late, signer=slow) == "key-blocked"
    with engine.connect() as connection:
        query = "SELECT count(*), count(*) FILTER (WHERE action = 'revoke') FROM certificate c LEFT JOIN"
        query += " revocation r USING (serial) WHERE c.practitioner IS NOT NULL"
        assert tuple(connection.execute(text(query)).one()) == (2, 2)


def test_a_key_reported_while_its_batch_is_stored_is_refused(
    engine: Engine, authority: Established, enrolled: Enrolled, now: datetime
) -> None:
    key = new_key()
    slow = Slow(
        authority.signer, engine,
        lambda connection: compromise_reports.report(connection, now=now, actor=ACTOR, csr=confession(key)),
    )  # fmt: skip
    _, items = batch.issue_all(
        engine, slow, now=now, token=enrolled.first, asked=[batch.BatchItem(enrolled.id, request_for(key))],
        base_url="https://sceau.example",
    )  # fmt: skip
    assert [item.refusal and item.refusal["code"] for item in items] == ["key-blocked"]


def test_nothing_takes_a_key_off_the_list(engine: Engine, now: datetime) -> None:
    with transaction(engine) as connection:
        block = partial(blocked_keys.block, connection, now=now, actor=ACTOR, spki_sha256=b"\1" * 32)
        assert block(cause=BlockCause.WEAK.value)
        assert not block(cause=BlockCause.ANOTHER_PERSON.value)
    for statement in (
        "DELETE FROM blocked_key",
        "UPDATE blocked_key SET cause = 'weak'",
        "TRUNCATE blocked_key",
    ):
        with pytest.raises(DBAPIError), engine.begin() as connection:
            connection.execute(text(statement))


def test_lists_name_keys_as_debian_and_badkeys_do(engine: Engine, issue: Issue, now: datetime) -> None:
    debian = rsa.generate_private_key(65537, 3072)
    number = rsa.generate_private_key(65537, 3072)
    curve, whole = new_key(), new_key()
    modulus = f"Modulus={debian.public_key().public_numbers().n:X}\n"
    n = number.public_key().public_numbers().n
    x = curve.public_key().public_numbers().x
    lines = [
        "# a comment",
        "",
        sha1(modulus.encode(), usedforsecurity=False).hexdigest()[20:],
        sha256(n.to_bytes(384)).hexdigest()[:30],
        sha256(x.to_bytes((x.bit_length() + 7) // 8)).hexdigest()[:30].upper(),
        public_keys.spki_sha256(whole.public_key()).hex(),
    ]
    with transaction(engine) as connection:
        for added in (4, 0):
            listed = blocked_keys.read_list(lines)
            assert blocked_keys.import_list(connection, listed, name="known", now=now, actor=ACTOR) == added
    assert [refusal_of(issue, key) for key in (debian, number, curve, whole)] == [
        "weak-key", "weak-key", "weak-key", "key-blocked",
    ]  # fmt: skip
    assert issue().serial


@pytest.mark.parametrize("line", ["xyz", "0" * 63, "0" * 20 + "g", "a b"])
def test_a_list_with_another_line_is_refused_by_its_number(line: str) -> None:
    with pytest.raises(Refusal) as refused:
        list(blocked_keys.read_list(["0" * 64, line]))
    assert (refused.value.code, refused.value.details["line"]) == ("bad-key-list", 2)


def test_forms_are_read_by_length() -> None:
    assert list(blocked_keys.read_list(["0" * 20])) == [Listed(bytes(10), Form.MODULUS)]


def close_primes() -> rsa.RSAPublicNumbers:
    def prime_from(start: int) -> int:
        number = start | 1
        while pow(2, number - 1, number) != 1:
            number += 2
        return number

    first = prime_from(3 << 1534)
    return rsa.RSAPublicNumbers(65537, first * prime_from(first + 2))


def infineon() -> rsa.RSAPublicNumbers:
    """A modulus with the generator's fingerprint: a power of 65537 modulo the product of small primes."""
    product = 2 * prod(_ROCA_PRIMES)
    return rsa.RSAPublicNumbers(65537, pow(65537, 1234, product) + product * ((1 << 3071) // product + 2))


@pytest.mark.waits
def test_each_class_of_weak_key_that_badkeys_knows_is_refused() -> None:
    sound = rsa.generate_private_key(65537, 3072).public_key().public_numbers().n
    weak = {
        "fermat": close_primes(),
        "smallfactors": rsa.RSAPublicNumbers(65537, (sound >> 10 | 1) * 641),
        "roca": infineon(),
    }
    for name, numbers in weak.items():
        assert name in badkeys.checkrsa(numbers.n, e=65537, checks=[name]), name
        assert weaknesses(numbers.public_key()), name
    assert not badkeys.checkrsa(sound, e=65537, checks=["fermat", "roca", "smallfactors", "rsainvalid"])
    assert not weaknesses(rsa.RSAPublicNumbers(65537, sound).public_key())


@pytest.mark.parametrize("encoded", [b"\0", b"\4" + b"\1" * 64])
def test_points_at_infinity_and_off_the_curve_are_no_keys(encoded: bytes) -> None:
    good = request_for(new_key())
    point = new_key_point(good)
    broken = good.replace(point, encoded.ljust(65, b"\1"))
    with pytest.raises(Refusal) as refused:
        public_key_of_request(broken)
    assert refused.value.code in {"bad-csr", "weak-key", "bad-proof-of-possession"}


def new_key_point(csr: bytes) -> bytes:
    from cryptography.hazmat.primitives.serialization import PublicFormat

    key = x509.load_der_x509_csr(csr).public_key()
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def test_a_key_is_certified_again_near_its_end_while_its_period_lasts(
    engine: Engine, issue: Issue, authority: Established, now: datetime
) -> None:
    key = new_key()
    first = issue(key)
    assert refusal_of(issue, key, at=now + timedelta(days=100)) == "key-already-certified"
    late = first.not_after - timedelta(days=30)
    authority.signer.clock = lambda: late
    second = issue(key, at=late)
    assert second.serial != first.serial
    with transaction(engine) as connection:
        assert revocations.last_actions(connection, [first.serial]) == {}
    again = late + timedelta(days=800)
    with engine.begin() as connection:
        day = {"day": again.date().isoformat()}
        connection.execute(
            text(
                "UPDATE enrolment SET identity_check = identity_check"
                " || jsonb_build_object('checked_on', CAST(:day AS text))"
            ),
            day,
        )
    assert refusal_of(issue, key, at=again) == "key-period-over"


def test_an_identity_checked_too_long_ago_needs_a_new_enrolment_and_may_have_one(
    engine: Engine, issue: Issue, enrolled: Enrolled, now: datetime
) -> None:
    late = now + timedelta(days=826)
    assert refusal_of(issue, new_key(), at=late) == "identity-too-old"
    with transaction(engine) as connection:
        asked = enrolment.request_enrolment(
            connection,
            now=late,
            token=enrolled.first,
            practitioner=enrolled.seeded.national_id,
            mailbox=enrolled.seeded.mailbox,
            identity_check=identity(late),
        )
        enrolment.approve_enrolment(connection, now=late, token=enrolled.second, enrolment_id=asked.id)
        before = enrolments.load_enrolment(connection, enrolled.id)
    assert asked.id != enrolled.id
    assert before is not None
    assert before.ended_at == late


def test_a_quota_stops_a_burst_says_when_it_opens_and_tells_the_log_once(
    engine: Engine, enrolled: Enrolled, now: datetime
) -> None:
    quotas = Quotas(token_hour=2, token_day=3, authority_hour=4, authority_day=100)

    def take(who: Token, at: datetime) -> str:
        try:
            with audit_quota_refusals(engine, who, at), transaction(engine) as connection:
                charge(connection, quotas, who, now=at)
        except Refusal as refusal:
            return f"{refusal.details['scope'].partition(':')[0]} {refusal.details['opens_at'][11:16]}"
        return "ok"

    first, second = enrolled.first, enrolled.second
    assert [take(first, now) for _ in range(4)] == ["ok", "ok", "token 13:00", "token 13:00"]
    assert [take(second, now) for _ in range(2)] == ["ok", "ok"]
    later = now + timedelta(hours=1)
    assert [take(first, later) for _ in range(2)] == ["ok", "token 12:00"]
    with engine.begin() as connection:
        query = text("SELECT subject FROM audit_pending WHERE event = 'quota.reached'")
        assert connection.execute(query).scalars().all() == [f"token:{first.id}"] * 2
