"""A certificate from request to hand-out, judged by OpenSSL, and what is left when it stops in between."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import IntegrityError

from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.store import lock_person
from pki.certificates import serials as serials_wing
from pki.certificates.profiles import RESERVATION_LIFE
from pki.certificates.validity import shard_of
from pki.impediments.causes import GRACES
from pki.issuance import pipeline
from pki.issuance.pipeline import Prepared
from pki.model import Enrolment, IssuedCertificate, RevocationReason, Serial, serial_of
from pki.record import certificates, enrolments, key_locks
from pki.recovery import orphans
from pki.revocation import blocked_keys, requests
from pki.signing.inprocess import InProcessSigner
from pki.withdrawal.reconcile import Touched, settle
from tests.factories import depart, seed_organisation, seed_practitioner
from tests.pki.conftest import Enrolled, Established, Issue, enrol, new_key, request_for
from tests.statements import heard

PEM = "-----BEGIN CERTIFICATE-----"
LATER = RESERVATION_LIFE + timedelta(seconds=1)


def rows(engine: Engine, query: str, **values: Any) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text(query), values))


def pem_of(der: bytes) -> str:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()


def openssl(*arguments: str) -> str:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_openssl_accepts_the_chain_and_the_purpose(
    authority: Established, issue: Issue, tmp_path: Path, now: datetime
) -> None:
    for name, der in (
        ("root", authority.root.der),
        ("ca", authority.issuing.der),
        ("leaf", issue(thorough=True).der),
    ):
        (tmp_path / f"{name}.pem").write_text(pem_of(der))
    openssl(
        "verify", "-x509_strict", "-attime", str(int(now.timestamp())), "-purpose", "smimesign",
        "-CAfile", str(tmp_path / "root.pem"), "-untrusted", str(tmp_path / "ca.pem"),
        str(tmp_path / "leaf.pem"),
    )  # fmt: skip
    email = openssl("x509", "-in", str(tmp_path / "leaf.pem"), "-noout", "-email")
    assert email.strip() == "person-1@one.example"


def test_a_request_made_by_openssl_is_served_and_gives_nothing_but_its_key(
    issue: Issue, tmp_path: Path
) -> None:
    request = tmp_path / "request.pem"
    openssl(
        "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-nodes",
        "-keyout", str(tmp_path / "key.pem"), "-out", str(request), "-subj", "/CN=Somebody Else",
        "-addext", "extendedKeyUsage=OCSPSigning", "-addext", "basicConstraints=critical,CA:TRUE",
        "-addext", "subjectAltName=email:minister@gov.example",
    )  # fmt: skip
    issued = x509.load_der_x509_certificate(issue(csr=request.read_bytes(), thorough=True).der)
    assert "Somebody" not in issued.subject.rfc4514_string()
    assert not issued.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = issued.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.ExtendedKeyUsageOID.EMAIL_PROTECTION]
    names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.RFC822Name("person-1@one.example")]


def test_a_certificate_stays_inside_its_issuer_and_is_backdated_by_minutes(
    authority: Established, issue: Issue, now: datetime
) -> None:
    issued = issue()
    assert authority.issuing.not_before <= issued.not_before <= now - timedelta(minutes=4)
    assert now + timedelta(days=820) < issued.not_after <= authority.issuing.not_after


def identify_again(engine: Engine, at: datetime) -> None:
    """As if every identity had been checked on that day."""
    day = {"day": at.date().isoformat()}
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE enrolment SET identity_check ="
                " jsonb_set(identity_check, '{checked_on}', to_jsonb(CAST(:day AS text)))"
            ),
            day,
        )


def test_near_the_end_of_the_issuer_the_certificate_ends_with_it(
    authority: Established, issue: Issue, engine: Engine
) -> None:
    late = authority.issuing.not_after - timedelta(days=10)
    identify_again(engine, late)
    authority.signer.clock = lambda: late
    assert issue(at=late).not_after == authority.issuing.not_after


def test_after_the_end_of_the_issuer_nothing_is_issued(
    authority: Established, issue: Issue, engine: Engine
) -> None:
    identify_again(engine, authority.issuing.not_after)
    with pytest.raises(Refusal) as refused:
        issue(at=authority.issuing.not_after)
    assert refused.value.code == "authority-expired"


def test_an_organisation_mailbox_is_certified_for_the_establishment(
    engine: Engine, issue: Issue, now: datetime
) -> None:
    address = seed_organisation(engine)
    person = seed_practitioner(engine, 2, finess="750990012")
    answering = enrol(engine, now, type(person)(person.national_id, address))
    issued = issue(who=answering, thorough=True)
    assert issued.profile == "organisation-smime"
    assert (issued.mailbox, issued.practitioner) == (address, person.national_id)
    assert "CLINIQUE DES LILAS" in issued.subject
    assert "MARTIN" not in issued.subject
    assert "organizationIdentifier=FI:FR-750990012" in issued.subject


def test_the_subject_is_told_in_words(issue: Issue) -> None:
    assert issue().subject == "serialNumber=810099000019,CN=Camille MARTIN,GN=Camille,SN=MARTIN,C=FR"


def test_reservation_and_certificate_each_leave_their_audit_line(engine: Engine, issue: Issue) -> None:
    issued = issue()
    lines = rows(engine, "SELECT event FROM audit_pending WHERE subject = :s ORDER BY id", s=issued.serial)
    assert [line.event for line in lines] == ["certificate.reserved", "certificate.issued"]


def test_the_signed_bytes_are_the_linted_bytes(engine: Engine, issue: Issue) -> None:
    issued = issue()
    ((tbs,),) = rows(engine, "SELECT tbs FROM reservation WHERE serial = :s", s=issued.serial)
    assert x509.load_der_x509_certificate(issued.der).tbs_certificate_bytes == tbs


def test_nobody_else_can_make_what_issue_takes() -> None:
    with pytest.raises(TypeError):
        Prepared(None, None, None, object())  # type: ignore[arg-type]


@given(st.integers(min_value=1, max_value=(1 << 159) - 1), st.integers(min_value=1, max_value=1024))
def test_every_serial_has_one_form_and_one_shard(number: int, shards: int) -> None:
    serial = serial_of(number)
    assert len(serial) == 40
    assert int(serial, 16) == number
    spelt = ":".join(f"{number:040X}"[at : at + 2] for at in range(0, 40, 2))
    assert serials_wing.parse_serial(spelt) == serials_wing.parse_serial(hex(number)) == serial
    assert 0 <= shard_of(serial, shards) == number % shards < shards


@pytest.mark.parametrize("written", ["", "0", "xyz", "-1", "8" + "0" * 39, "f" * 41, "1 2", "0x"])
def test_what_is_no_serial_is_refused(written: str) -> None:
    with pytest.raises(Refusal) as refused:
        serials_wing.parse_serial(written)
    assert refused.value.code == "malformed-serial"


@pytest.mark.parametrize("written", ["0", "0" * 40, "8" + "0" * 39])
def test_a_serial_of_the_right_length_is_told_what_else_is_wrong_with_it(written: str) -> None:
    with pytest.raises(Refusal, match="above zero and below"):
        serials_wing.parse_serial(written)


def test_random_serials_are_wide_and_spread_over_the_shards() -> None:
    serials = [serial_of(x509.random_serial_number()) for _ in range(4000)]
    assert len(set(serials)) == 4000
    assert min(int(serial, 16).bit_length() for serial in serials) > 120
    counts = [0] * 16
    for serial in serials:
        counts[shard_of(serial, 16)] += 1
    # Chi-squared of 15 degrees: above 60 once in several million.
    assert sum((count - 250) ** 2 / 250 for count in counts) < 60


# What stops in between: each step not done, and done but reported as failed.


class Stumbling:
    """A signer that fails once, before or after it has signed."""

    def __init__(self, signer: InProcessSigner, *, signs: bool) -> None:
        self.signer, self.signs, self.failed = signer, signs, False

    def sign_certificate(self, serial: Serial) -> bytes:
        if not self.failed:
            self.failed = True
            if self.signs:
                self.signer.sign_certificate(serial)
            raise Refusal(Kind.UNAVAILABLE, "signer-unavailable", "gone")
        return self.signer.sign_certificate(serial)


class Killed(Exception):  # noqa: N818 - what happened, not an error of ours
    pass


@contextmanager
def failing_statement(engine: Engine, write: str) -> Iterator[None]:
    """The first statement with this write fails, as if the server were lost before it."""
    armed = [True]

    def strike(statement: str) -> None:
        if armed[0] and write in statement:
            armed[0] = False
            raise Killed(write)

    with heard(engine, strike):
        yield
    assert not armed[0]


@contextmanager
def lost_commit(engine: Engine, nth: int) -> Iterator[None]:
    """The nth commit happens, and is reported as failed."""
    seen = [0]

    def strike(connection: Any) -> None:
        seen[0] += 1
        if seen[0] == nth:
            connection.connection.driver_connection.commit()
            raise Killed("commit")

    event.listen(engine, "commit", strike)
    try:
        yield
    finally:
        event.remove(engine, "commit", strike)


def counts(engine: Engine) -> tuple[int, int, int]:
    """Reservations, certificates and revocations of enrolments."""
    ((reserved, stored, revoked),) = rows(
        engine,
        "SELECT count(*), count(c.serial), count(v.serial) FROM reservation r"
        " LEFT JOIN certificate c USING (serial) LEFT JOIN revocation v USING (serial)"
        " WHERE r.enrolment_id IS NOT NULL",
    )
    return reserved, stored, revoked


@pytest.mark.parametrize("signs", [False, True], ids=["before-signing", "after-signing"])
def test_a_lost_signer_costs_nothing_when_the_same_request_is_sent_again(
    engine: Engine, authority: Established, issue: Issue, *, signs: bool
) -> None:
    stumbling = Stumbling(authority.signer, signs=signs)
    csr = request_for(new_key())
    with pytest.raises(Refusal) as refused:
        issue(csr=csr, signer=stumbling)
    assert refused.value.code == "signer-unavailable"
    assert counts(engine) == (1, 0, 0)
    issued = issue(csr=csr, signer=stumbling)
    assert counts(engine) == (1, 1, 0)
    assert authority.signer.journal(issued.serial) == issued.der


@pytest.mark.parametrize(
    ("write", "left"),
    [
        ("INSERT INTO reservation", (0, 0, 0)),
        ("INSERT INTO audit_pending", (0, 0, 0)),
        ("INSERT INTO certificate", (1, 0, 0)),
    ],
)
def test_a_write_that_fails_leaves_nothing_half_done_and_the_same_request_succeeds(
    engine: Engine, issue: Issue, write: str, left: tuple[int, int, int]
) -> None:
    csr = request_for(new_key())
    with failing_statement(engine, write), pytest.raises(Killed):
        issue(csr=csr)
    assert counts(engine) == left
    assert issue(csr=csr)
    assert counts(engine) == (1, 1, 0)


def test_a_reservation_committed_but_reported_as_failed_is_taken_up_again(
    engine: Engine, issue: Issue
) -> None:
    csr = request_for(new_key())
    with lost_commit(engine, 1), pytest.raises(Killed):
        issue(csr=csr)
    assert counts(engine) == (1, 0, 0)
    issue(csr=csr)
    assert counts(engine) == (1, 1, 0)


def test_a_certificate_stored_but_reported_as_failed_is_named_to_whoever_asks_again(
    engine: Engine, authority: Established, issue: Issue
) -> None:
    # The first commit is the reservation's; the signer asks without a transaction.
    csr = request_for(new_key())
    with lost_commit(engine, 2), pytest.raises(Killed):
        issue(csr=csr)
    assert counts(engine) == (1, 1, 0)
    with pytest.raises(Refusal) as refused:
        issue(csr=csr)
    assert refused.value.code == "key-already-certified"
    ((serial,),) = rows(engine, "SELECT serial FROM certificate WHERE mailbox IS NOT NULL")
    assert refused.value.details["serial"] == serial
    assert authority.signer.journal(serial)


def test_what_was_signed_and_never_stored_is_found_stored_and_revoked(
    engine: Engine, authority: Established, issue: Issue, now: datetime
) -> None:
    with pytest.raises(Refusal):
        issue(signer=Stumbling(authority.signer, signs=True))
    assert orphans.recover(engine, authority.signer, now) == []
    (serial,) = orphans.recover(engine, authority.signer, now + LATER)
    assert counts(engine) == (1, 1, 1)
    ((der, action, entry),) = rows(
        engine, "SELECT der, action, entry FROM certificate JOIN revocation USING (serial) WHERE serial = :s",
        s=serial,
    )  # fmt: skip
    assert (der, action) == (authority.signer.journal(serial), "revoke")
    assert entry
    assert orphans.recover(engine, authority.signer, now + LATER) == []


def test_recovery_is_not_stopped_by_one_that_cannot_be_stored_and_looks_back_a_week(
    engine: Engine, authority: Established, issue: Issue, now: datetime
) -> None:
    for _ in range(2):
        with pytest.raises(Refusal):
            issue(signer=Stumbling(authority.signer, signs=True))
    ((damaged,), (sound,)) = rows(
        engine, "SELECT serial FROM reservation WHERE enrolment_id IS NOT NULL ORDER BY reserved_at, serial"
    )

    class Damaged:
        def journal(self, serial: Serial) -> bytes | None:
            return authority.signer.journal(Serial(sound if serial == damaged else serial))

    assert orphans.recover(engine, Damaged(), now + timedelta(days=8)) == []
    with pytest.raises(ExceptionGroup, match="1 signed reservations"):
        orphans.recover(engine, Damaged(), now + LATER)
    assert rows(engine, "SELECT serial FROM revocation") == [(sound,)]


def test_what_was_reserved_and_never_signed_stays_burnt(
    engine: Engine, authority: Established, issue: Issue, now: datetime
) -> None:
    csr = request_for(new_key())
    with pytest.raises(Refusal):
        issue(csr=csr, signer=Stumbling(authority.signer, signs=False))
    assert orphans.recover(engine, authority.signer, now + LATER) == []
    assert counts(engine) == (1, 0, 0)
    authority.signer.clock = lambda: now + LATER
    with pytest.raises(Refusal) as refused:
        issue(csr=csr, at=now + LATER)
    assert refused.value.code == "key-already-certified"


def test_an_issuance_slower_than_recovery_is_told_so(
    engine: Engine, authority: Established, issue: Issue, now: datetime
) -> None:
    class Slow:
        def sign_certificate(self, serial: Serial) -> bytes:
            signed = authority.signer.sign_certificate(serial)
            assert orphans.recover(engine, authority.signer, now + LATER) == [serial]
            return signed

    with pytest.raises(Refusal) as refused:
        issue(signer=Slow())
    assert refused.value.code == "issuance-abandoned"
    assert counts(engine) == (1, 1, 1)


def test_recovery_leaves_alone_what_a_slow_issuance_stored_after_all(
    engine: Engine, authority: Established, issue: Issue, now: datetime
) -> None:
    csr = request_for(new_key())
    with pytest.raises(Refusal):
        issue(csr=csr, signer=Stumbling(authority.signer, signs=True))

    class Meanwhile:
        def journal(self, serial: Serial) -> bytes | None:
            issue(csr=csr)
            return authority.signer.journal(serial)

    assert orphans.recover(engine, Meanwhile(), now + LATER) == []
    assert counts(engine) == (1, 1, 0)


def test_what_breaks_a_rule_is_neither_reserved_nor_signed(
    engine: Engine, authority: Established, now: datetime
) -> None:
    from pki.certificates.profiles import OCSP_SIGNER, ServiceNames

    with transaction(engine) as connection, pytest.raises(Refusal) as refused:
        pipeline.prepare(
            connection, now=now, actor=Actor("test"), authority=authority.issuing.id, profile=OCSP_SIGNER,
            key=blocked_keys.check(connection, new_key().public_key()),
            names=ServiceNames(("x.example",)),
            base_url=authority.base_url,
        )  # fmt: skip
    assert (refused.value.kind, refused.value.code) == (Kind.UNACCEPTABLE, "lint-failed")
    found = {finding["lint"] for finding in refused.value.details["findings"]}
    assert found == {"subject-attributes", "extension-set"}
    assert rows(engine, "SELECT serial FROM reservation WHERE profile = 'ocsp-signer'") == []


def test_who_leaves_the_register_while_the_signer_works_gets_no_certificate(
    engine: Engine, authority: Established, issue: Issue, enrolled: Enrolled, now: datetime
) -> None:
    class Slow:
        def sign_certificate(self, serial: Serial) -> bytes:
            depart(engine, enrolled.seeded.national_id, now)
            return authority.signer.sign_certificate(serial)

    with pytest.raises(Refusal) as refused:
        issue(signer=Slow())
    assert refused.value.code == "holder-not-in-registry"
    assert counts(engine) == (1, 1, 1)


def test_an_enrolment_that_ends_while_the_signer_works_gives_no_certificate(
    engine: Engine, authority: Established, issue: Issue, enrolled: Enrolled, now: datetime
) -> None:
    """Gone from the register and back again: the person stands, what two registrars vouched for does not."""

    class Slow:
        def sign_certificate(self, serial: Serial) -> bytes:
            depart(engine, enrolled.seeded.national_id, now)
            with transaction(engine) as connection:
                settle(connection, Touched(frozenset({enrolled.seeded.national_id})), graces=GRACES, now=now)
            with engine.begin() as connection:
                connection.execute(text("UPDATE practitioner SET departed_at = NULL"))
            return authority.signer.sign_certificate(serial)

    with pytest.raises(Refusal) as refused:
        issue(signer=Slow())
    assert refused.value.code == "enrolment-ended"
    assert counts(engine) == (1, 1, 1)


def test_a_signer_that_signs_something_else_is_not_believed(
    engine: Engine, issue: Issue, now: datetime
) -> None:
    other = issue(who=enrol(engine, now, seed_practitioner(engine, 2)))

    class Wrong:
        def sign_certificate(self, serial: Serial) -> bytes:
            assert serial
            return other.der

    with pytest.raises(pipeline.SignerMisbehaved):
        issue(signer=Wrong())
    assert counts(engine) == (2, 1, 0)


def at_once(*acts: Callable[[], object]) -> list[object]:
    """What each gave or raised, all begun at the same moment."""
    results: list[object] = [None] * len(acts)
    barrier = Barrier(len(acts))

    def run(place: int) -> None:
        barrier.wait()
        try:
            results[place] = acts[place]()
        except Refusal as refusal:
            results[place] = refusal.code

    threads = [Thread(target=run, args=(place,)) for place in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_eight_identical_requests_at_once_make_one_certificate(engine: Engine, issue: Issue) -> None:
    csr = request_for(new_key())
    results = at_once(*[lambda: issue(csr=csr)] * 8)
    issued = {result.serial for result in results if isinstance(result, IssuedCertificate)}
    assert len(issued) == 1
    assert {result for result in results if isinstance(result, str)} <= {"key-already-certified"}
    assert counts(engine) == (1, 1, 0)


def test_who_waited_for_an_enrolment_is_given_it_as_it_has_become(engine: Engine, enrolled: Enrolled) -> None:
    """The person, a key and the row, each held by somebody else in turn; what is given is never older."""
    name = key_locks.lock_name(b"key")
    holds: list[Callable[[Connection], object]] = [
        lambda link: lock_person(link, enrolled.seeded.national_id),
        lambda link: key_locks.lock_keys(link, [b"key"]),
        lambda link: link.execute(text("SELECT FROM enrolment FOR UPDATE")),
    ]
    for hold in holds:
        found: list[Enrolment | None] = []

        def wait(found: list[Enrolment | None] = found) -> None:
            with transaction(engine) as connection:
                held = enrolments.lock_enrolment(connection, enrolled.id, names=[name])
                found.append(None if held is None else held[0])

        with engine.connect() as first:
            hold(first)
            waiting = Thread(target=wait)
            waiting.start()
            wait_for_a_lock(engine)
            change = "UPDATE enrolment SET identity_check = jsonb_build_object('seen', now())"
            seen = first.execute(text(f"{change} RETURNING identity_check ->> 'seen'")).scalar_one()
            first.commit()
        waiting.join()
        assert found[0] is not None
        assert found[0].identity_check["seen"] == seen


def wait_for_a_lock(engine: Engine) -> None:
    query = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    deadline = time.monotonic() + 10
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as link:
        while link.execute(query).scalar_one() == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_no_certificate_is_stored_without_its_reservation(engine: Engine, issue: Issue) -> None:
    stray = replace(issue(), serial=serial_of(7 << 120))
    with pytest.raises(IntegrityError), transaction(engine) as connection:
        certificates.add_certificate(connection, stray)


def live(engine: Engine) -> int:
    reserved, stored, revoked = counts(engine)
    assert reserved == stored
    return stored - revoked


def test_one_enrolment_has_one_certificate_at_a_time(engine: Engine, issue: Issue, now: datetime) -> None:
    first = issue()
    with pytest.raises(Refusal) as refused:
        issue(at=first.not_after - timedelta(days=60, seconds=1))
    assert (refused.value.kind, refused.value.code) == (Kind.CONFLICT, "already-certified")
    assert refused.value.details["serial"] == first.serial
    assert live(engine) == 1
    # Another enrolment is another matter.
    assert issue(who=enrol(engine, now, seed_practitioner(engine, 2)))


def test_a_certificate_is_renewed_once_in_its_last_sixty_days(
    authority: Established, engine: Engine, issue: Issue
) -> None:
    renewal = issue().not_after - timedelta(days=60)
    authority.signer.clock = lambda: renewal
    issue(at=renewal)
    with pytest.raises(Refusal) as refused:
        issue(at=renewal)
    assert refused.value.code == "already-certified"
    assert live(engine) == 2


@pytest.mark.parametrize(
    ("reason", "left"), [(RevocationReason.CERTIFICATE_HOLD, 0), (RevocationReason.KEY_COMPROMISE, 1)]
)
def test_what_is_revoked_makes_room_and_what_is_on_hold_does_not(
    engine: Engine, issue: Issue, now: datetime, reason: RevocationReason, left: int
) -> None:
    serial = issue().serial
    with transaction(engine) as connection:
        requests.revoke(connection, now=now, actor=Actor("test"), serial=serial, reason=reason)
    assert sum(isinstance(one, IssuedCertificate) for one in at_once(issue)) == left


def test_of_requests_on_many_keys_at_once_one_certificate_lives(engine: Engine, issue: Issue) -> None:
    keys = [new_key() for _ in range(6)]
    results = at_once(*[partial(issue, key) for key in keys])
    assert sum(isinstance(result, IssuedCertificate) for result in results) == 1
    assert results.count("already-certified") == 5
    assert live(engine) == 1


def test_two_keys_reserved_side_by_side_leave_one_living_certificate(
    authority: Established, engine: Engine, issue: Issue
) -> None:
    handed: list[IssuedCertificate] = []

    class Overtaken:
        def sign_certificate(self, serial: Serial) -> bytes:
            handed.append(issue())
            return authority.signer.sign_certificate(serial)

    with pytest.raises(Refusal) as refused:
        issue(signer=Overtaken())
    assert (refused.value.code, refused.value.details["serial"]) == ("already-certified", handed[0].serial)
    assert live(engine) == 1


def test_one_key_asked_for_by_two_people_at_once_serves_one(
    engine: Engine, issue: Issue, now: datetime
) -> None:
    other = enrol(engine, now, seed_practitioner(engine, 2))
    csr = request_for(new_key())
    results = at_once(lambda: issue(csr=csr), lambda: issue(csr=csr, who=other))
    assert sorted(isinstance(result, IssuedCertificate) for result in results) == [False, True]
    assert "key-already-certified" in results


def test_an_unknown_authority_issues_nothing(engine: Engine, now: datetime) -> None:
    from directory.base.audit import Actor
    from pki.certificates.profiles import OCSP_SIGNER, ResponderNames

    with transaction(engine) as connection, pytest.raises(Refusal) as refused:
        pipeline.prepare(
            connection, now=now, actor=Actor("test"), authority="persons-1", profile=OCSP_SIGNER,
            key=blocked_keys.check(connection, new_key().public_key()),
            names=ResponderNames("OCSP"), base_url="http://trust.example",
        )  # fmt: skip
    assert refused.value.code == "unknown-authority"
