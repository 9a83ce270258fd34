"""A strike-off by error is annulled by two: enrolments come back, each certificate has a successor."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from sqlalchemy import Connection, Engine, text

from directory.base.audit import Actor, Event, record
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.model import MeasureKind
from pki.issuance import restitution
from pki.model import IssuedCertificate, RevocationReason, Serial
from pki.record import enrolments
from pki.record.certificates import find_certificate
from pki.revocation import blocked_keys, requests
from pki.withdrawal import measures
from pki.withdrawal.measures import MeasureState
from tests.factories import depart, seed_practitioner
from tests.pki.conftest import BASE_URL, Enrolled, Established, Issue, enrol, new_key, registrar, request_for
from tests.pki.passing import pass_time
from tests.stories.pki.test_measures_with_dates import (
    HOUR,
    MINUTE,
    act,
    code_of,
    events,
    take,
    verdict,
    worker,
)

Meanwhile = tuple[Callable[[Engine, Enrolled, IssuedCertificate], None], str]
STRIKE_OFF = {"kind": MeasureKind.STRUCK_OFF}
DAY = timedelta(days=1)


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def replace(engine: Engine, authority: Established) -> Callable[[], int]:
    """What the job does."""

    def job() -> int:
        return restitution.replace_all(
            engine, authority.signer, now=lambda _: datetime.now(UTC), base_url=BASE_URL
        )

    authority.signer.clock = lambda: datetime.now(UTC)
    return job


def annul(engine: Engine, who: Enrolled, measure: measures.Measure) -> measures.Measure:
    """By two persons."""
    asked = act(engine, measures.annul, who.first, measure, reason="a namesake")
    return act(engine, measures.annul, who.second, measure, confirms=asked.annulment_asked)


def seen(engine: Engine, who: Enrolled) -> measures.Measure:
    with transaction(engine) as connection:
        found = measures.measures_seen(
            connection, token=who.first, national_id=who.seeded.national_id, now=datetime.now(UTC)
        )
    return found[0]


def states(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT state FROM enrolment ORDER BY requested_at")).scalars())


def certificate(engine: Engine, serial: str) -> IssuedCertificate:
    with engine.connect() as connection:
        found = find_certificate(connection, Serial(serial))
    assert found is not None
    return found


def run(engine: Engine, sql: str, **values: object) -> None:
    with engine.begin() as connection:
        connection.execute(text(sql), values)


def test_two_persons_give_everything_back(
    engine: Engine, enrolled: Enrolled, issue: Issue, replace: Callable[[], int]
) -> None:
    revoked = issue()
    taken = take(engine, enrolled.first, enrolled, **STRIKE_OFF)
    assert (events(engine, revoked), states(engine)) == (["revoke"], ["ended"])
    asked = act(engine, measures.annul, enrolled.first, taken, reason="a namesake")
    assert (asked.state, asked.annulment_asked is not None) == (MeasureState.IN_FORCE, True)
    assert code_of(lambda: act(engine, measures.annul, enrolled.first, taken)) == "self-approval"
    assert (replace(), states(engine)) == (0, ["ended"]), "one person gives nothing back"
    # A colleague who means to ask does not agree: what he agrees to he names.
    with pytest.raises(Refusal) as refused:
        act(engine, measures.annul, enrolled.second, taken)
    assert (refused.value.code, refused.value.details["asked_by"]) == (
        "already-asked", enrolled.first.actor.name,
    )  # fmt: skip
    other = {"confirms": taken.recorded_at}
    assert code_of(lambda: act(engine, measures.annul, enrolled.second, taken, **other)) == "already-asked"
    assert (replace(), states(engine)) == (0, ["ended"])
    annulled = act(engine, measures.annul, enrolled.second, taken, confirms=asked.annulment_asked)
    assert annulled.state is MeasureState.ANNULLED
    (revision,) = annulled.revisions
    assert (revision.reason, revision.asked_by, revision.confirmed_by) == (
        "a namesake", enrolled.first.actor.name, enrolled.second.actor.name,
    )  # fmt: skip
    assert states(engine) == ["approved"], "without a new enrolment"
    assert replace() == 1
    (given,) = seen(engine, enrolled).replacements
    assert (given.serial, given.refused) == (revoked.serial, None)
    assert given.replaced_by is not None
    successor = certificate(engine, given.replaced_by)
    assert (successor.spki_sha256, successor.mailbox, successor.profile) == (
        revoked.spki_sha256, revoked.mailbox, revoked.profile,
    )  # fmt: skip
    assert (
        x509.load_der_x509_certificate(successor.der).subject
        == x509.load_der_x509_certificate(revoked.der).subject
    )
    assert events(engine, revoked) == ["revoke"], "revoked is final"
    found = verdict(engine, enrolled)
    assert [one.serial for one in found.certificates] == [successor.serial]
    assert (found.answer.value, replace()) == ("allowed", 0)
    assert code_of(lambda: act(engine, measures.annul, enrolled.first, taken)) == "measure-annulled"
    with engine.connect() as connection:
        query = text("SELECT event FROM audit_pending ORDER BY id")
        heard = list(connection.execute(query).scalars())
    assert heard[heard.index("measure.taken") :] == [
        "measure.taken", "certificate.revoked", "enrolment.ended", "measure.annulment-asked",
        "measure.annulled", "enrolment.restored", "certificate.reserved", "certificate.issued",
        "certificate.replaced",
    ]  # fmt: skip


def test_an_error_that_was_lifted_first_is_annulled_all_the_same(
    engine: Engine, enrolled: Enrolled, issue: Issue, replace: Callable[[], int]
) -> None:
    issue()
    taken = take(engine, enrolled.first, enrolled, **STRIKE_OFF)
    for token in (enrolled.first, enrolled.second):
        act(engine, measures.lift, token, taken)
    assert states(engine) == ["ended"]
    annulled = annul(engine, enrolled, taken)
    assert (annulled.state, states(engine), replace()) == (MeasureState.ANNULLED, ["approved"], 1)


@pytest.mark.behind_the_log
def test_what_was_ended_before_or_by_another_stays_ended(
    engine: Engine, enrolled: Enrolled, issue: Issue, replace: Callable[[], int], now: datetime
) -> None:
    lost = issue()
    with transaction(engine) as connection:
        requests.revoke_as(
            connection, now=datetime.now(UTC), token=enrolled.first, serial=lost.serial,
            reason=RevocationReason.SUPERSEDED,
        )  # fmt: skip
    other = enrol(engine, now, seed_practitioner(engine, 2))
    run(engine, "UPDATE enrolment SET state = 'ended', ended_at = :at WHERE id = :id",
        at=now - DAY, id=enrolled.id)  # fmt: skip
    taken = take(engine, enrolled.first, enrolled, **STRIKE_OFF)
    annul(engine, enrolled, taken)
    assert (replace(), seen(engine, enrolled).replacements) == (0, ())
    with engine.connect() as connection:
        query = text("SELECT id FROM enrolment WHERE state = 'approved'")
        assert connection.execute(query).scalars().all() == [other.id]


def test_what_a_registrar_ended_while_it_stood_stays_ended(
    engine: Engine, enrolled: Enrolled, issue: Issue, replace: Callable[[], int]
) -> None:
    """Between the day of a strike-off recorded ahead and the job that follows it, another ended it."""
    issue()
    taken = take(engine, enrolled.first, enrolled, begins=datetime.now(UTC) + MINUTE, **STRIKE_OFF)
    pass_time(engine, HOUR)
    with transaction(engine) as connection:
        at = datetime.now(UTC)
        enrolments.end(connection, enrolled.id, at)
        record(connection, now=at, actor=enrolled.first.actor, event=Event.ENROLMENT_ENDED,
               subject=str(enrolled.id), detail={})  # fmt: skip
    worker(engine)
    annul(engine, enrolled, taken)
    assert (states(engine), replace(), seen(engine, enrolled).replacements) == (["ended"], 0, ())


def test_what_the_log_has_numbered_comes_back_as_well(
    engine: Engine, enrolled: Enrolled, issue: Issue, replace: Callable[[], int]
) -> None:
    issue()
    taken = take(engine, enrolled.first, enrolled, **STRIKE_OFF)
    run(engine, "INSERT INTO audit_entry (index, at, actor, event, subject, detail, leaf_hash)"
        " SELECT id, at, actor, event, subject, detail, sha256(id::text::bytea)"
        " FROM audit_pending")  # fmt: skip
    run(engine, "DELETE FROM audit_pending")
    annul(engine, enrolled, taken)
    assert (states(engine), replace()) == (["approved"], 1)


def test_nothing_comes_back_while_another_strike_off_stands_and_all_when_both_were_errors(
    engine: Engine, now: datetime, issue: Issue, replace: Callable[[], int]
) -> None:
    who = enrol(engine, now, seed_practitioner(engine, 40, professions=(("10", "C"), ("21", "C"))))
    revoked = issue(who=who)
    pharmacists = registrar(engine, "cnop-1", "CNOP"), registrar(engine, "cnop-2", "CNOP")
    taken = take(engine, who.first, who, **STRIKE_OFF)
    second = take(engine, pharmacists[0], who, **STRIKE_OFF)
    annul(engine, who, taken)
    assert (replace(), states(engine)[-1:]) == (0, ["ended"])
    asked = act(engine, measures.annul, pharmacists[0], second)
    act(engine, measures.annul, pharmacists[1], second, confirms=asked.annulment_asked)
    assert (replace(), verdict(engine, who).answer.value, events(engine, revoked)) == (
        1,
        "allowed",
        ["revoke"],
    )


def test_a_suspension_that_stands_puts_the_certificate_off(
    engine: Engine, enrolled: Enrolled, issue: Issue, replace: Callable[[], int]
) -> None:
    revoked = issue()
    suspended = take(engine, enrolled.first, enrolled)
    taken = take(engine, enrolled.second, enrolled, **STRIKE_OFF)
    assert events(engine, revoked) == ["hold", "revoke"]
    annul(engine, enrolled, taken)
    assert (states(engine), replace(), replace()) == (["approved"], 0, 0)
    assert verdict(engine, enrolled).reasons == ("holder-suspended", "certificate-revoked")
    for token in (enrolled.first, enrolled.second):
        act(engine, measures.lift, token, suspended)
    assert (replace(), verdict(engine, enrolled).answer.value) == (1, "allowed")


def test_a_suspension_annulled_releases_what_it_held(
    engine: Engine, enrolled: Enrolled, issue: Issue, replace: Callable[[], int]
) -> None:
    held = issue()
    taken = take(engine, enrolled.first, enrolled, until=datetime.now(UTC) + DAY)
    annul(engine, enrolled, taken)
    assert (events(engine, held), replace()) == (["hold", "release"], 0)
    assert verdict(engine, enrolled).reasons == ()
    assert (verdict(engine, enrolled).valid_until - datetime.now(UTC)) < DAY


def test_a_strike_off_annulled_before_its_day_took_nothing(
    engine: Engine, enrolled: Enrolled, issue: Issue, replace: Callable[[], int]
) -> None:
    kept = issue()
    taken = take(engine, enrolled.first, enrolled, begins=datetime.now(UTC) + DAY, **STRIKE_OFF)
    annul(engine, enrolled, taken)
    worker(engine)
    assert (events(engine, kept), states(engine), replace()) == ([], ["approved"], 0)


def block(engine: Engine, _: Enrolled, revoked: IssuedCertificate) -> None:
    with transaction(engine) as connection:
        blocked_keys.block(
            connection, now=datetime.now(UTC), actor=Actor("test"), spki_sha256=revoked.spki_sha256,
            cause="reported-compromised",
        )  # fmt: skip


def leave(engine: Engine, who: Enrolled, _: IssuedCertificate) -> None:
    depart(engine, who.seeded.national_id, datetime.now(UTC))
    worker(engine)


@pytest.mark.parametrize(
    "meanwhile", [(block, "key-blocked"), (leave, "enrolment-ended")], ids=["lost key", "departure"]
)
def test_a_reason_that_came_meanwhile_is_told_and_stands(
    engine: Engine, enrolled: Enrolled, issue: Issue, replace: Callable[[], int], meanwhile: Meanwhile
) -> None:
    between, refused = meanwhile
    revoked = issue()
    taken = take(engine, enrolled.first, enrolled, **STRIKE_OFF)
    annul(engine, enrolled, taken)
    between(engine, enrolled, revoked)
    assert (replace(), replace()) == (0, 0)
    (told,) = seen(engine, enrolled).replacements
    assert (told.replaced_by, told.refused) == (None, refused)


def test_whoever_did_not_wait_has_one_certificate_and_not_two(
    engine: Engine, enrolled: Enrolled, issue: Issue, replace: Callable[[], int]
) -> None:
    issue()
    taken = take(engine, enrolled.first, enrolled, **STRIKE_OFF)
    annul(engine, enrolled, taken)
    own = issue(new_key(), at=datetime.now(UTC))
    assert replace() == 0
    (told,) = seen(engine, enrolled).replacements
    assert (told.refused, [one.serial for one in verdict(engine, enrolled).certificates]) == (
        "already-certified", [own.serial],
    )  # fmt: skip


def test_the_same_key_is_certified_for_no_other_reason(
    engine: Engine, enrolled: Enrolled, issue: Issue, replace: Callable[[], int]
) -> None:
    key = new_key()
    issue(key)
    taken = take(engine, enrolled.first, enrolled, **STRIKE_OFF)
    annul(engine, enrolled, taken)
    with pytest.raises(Refusal) as refused:
        issue(csr=request_for(key), at=datetime.now(UTC))
    assert refused.value.code == "key-already-certified", "by the job, and by nobody's own request"
    assert replace() == 1


class Away:
    """A signer that does not answer, as often as it is told to."""

    def __init__(self, signer: object, times: int) -> None:
        self._signer, self._times = signer, times

    def sign_certificate(self, serial: Serial) -> bytes:
        self._times -= 1
        if self._times >= 0:
            raise Refusal(Kind.UNAVAILABLE, "signer-unavailable", "It is away.")
        return bytes(self._signer.sign_certificate(serial))  # type: ignore[attr-defined]


def test_a_signer_that_was_away_signs_what_was_reserved(
    engine: Engine, enrolled: Enrolled, issue: Issue, authority: Established, replace: Callable[[], int]
) -> None:
    issue()
    annul(engine, enrolled, take(engine, enrolled.first, enrolled, **STRIKE_OFF))
    authority.signer.clock = lambda: datetime.now(UTC)
    away = Away(authority.signer, 1)

    def job() -> int:
        def now(_: Connection) -> datetime:
            return datetime.now(UTC)

        return restitution.replace_all(engine, away, now=now, base_url=BASE_URL)  # type: ignore[arg-type]

    with pytest.raises(Refusal):
        job()
    assert (job(), replace()) == (1, 0)
    with engine.connect() as connection:
        query = text("SELECT count(*) FROM reservation WHERE enrolment_id IS NOT NULL")
        assert connection.execute(query).scalar_one() == 2, "the one reserved was taken up"
