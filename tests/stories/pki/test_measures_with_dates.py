"""A measure with dates: verdict, certificates and OCSP follow to the second, whoever is late.

The database's clock is the one that counts: these tests live now, and let time pass by moving what is dated.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import Any

import psycopg
import pytest
from cryptography.x509.ocsp import OCSPCertStatus as Status
from sqlalchemy import Engine, text

from api.status.wsgi import StatusApplication
from directory import measures_due
from directory.access import Token
from directory.base.db import libpq, transaction
from directory.base.errors import Refusal
from directory.feed.changes import START
from directory.feed.readers import read_urgent
from directory.model import MeasureKind
from directory.withdrawal_limits import standings_seen
from pki.impediments.causes import GRACES
from pki.model import IssuedCertificate
from pki.verdict.answer import verdicts
from pki.verdict.model import Verdict
from pki.withdrawal import measures
from pki.withdrawal.measures import Measure, MeasureState
from pki.withdrawal.reconcile import Follower
from tests.factories import seed_organisation, seed_practitioner
from tests.pki.conftest import Enrolled, Issue, enrol, registrar
from tests.pki.ocsp.test_ocsp_answers_by_its_table import about, presign, said
from tests.pki.passing import pass_time
from tests.status_ca import PASSPHRASE, StatusCa

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
LIFETIME = timedelta(minutes=15)


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def issued(issue: Issue) -> IssuedCertificate:
    return issue()


def take(engine: Engine, token: Token, who: Enrolled, **given: Any) -> Measure:
    asked = {"kind": MeasureKind.SUSPENDED, "reason": "decision 12"} | given
    with transaction(engine) as connection:
        return measures.take(
            connection, now=datetime.now(UTC), token=token, national_id=who.seeded.national_id,
            graces=GRACES, **asked,
        )  # fmt: skip


def act(
    engine: Engine, does: Callable[..., Measure], token: Token, measure: Measure, **given: Any
) -> Measure:
    given = {"reason": "because"} | given
    if does is not measures.prolong:
        given["graces"] = GRACES
    with transaction(engine) as connection:
        return does(connection, now=datetime.now(UTC), token=token, measure_id=measure.id, **given)


def renumber(engine: Engine, old: str, new: str) -> None:
    """See that the second number took the place of the first."""
    with engine.begin() as connection:
        run_id = connection.execute(
            text(
                "INSERT INTO register_run (register, file_name, file_sha256, generated_at, started_at, state)"
                " VALUES ('rpps', 'x', sha256(''), now(), now(), 'planned') RETURNING id"
            )
        ).scalar_one()
        query = (
            "INSERT INTO succession (national_id, successor, run_id, linked_at) VALUES (:o, :n, :r, now())"
        )
        connection.execute(text(query), {"o": old, "n": new, "r": run_id})


def code_of(does: Callable[[], object]) -> str:
    with pytest.raises(Refusal) as refused:
        does()
    return refused.value.code


def seen(engine: Engine, who: Enrolled) -> list[Measure]:
    with transaction(engine) as connection:
        return measures.measures_seen(
            connection, token=who.first, national_id=who.seeded.national_id, now=datetime.now(UTC)
        )


def verdict(engine: Engine, who: Enrolled, at: datetime | None = None) -> Verdict:
    with transaction(engine, read_only=True) as connection:
        (found,) = verdicts(
            connection, [who.seeded.mailbox], sender=None, at=at, now=datetime.now(UTC), lifetime=LIFETIME
        )
    return found


def worker(engine: Engine) -> None:
    """What the worker does when it is woken or started: tell what is due, follow what is told."""
    with transaction(engine) as connection:
        measures_due.tell(connection, datetime.now(UTC))
    Follower(engine, GRACES).step(datetime.now(UTC))


def events(engine: Engine, issued: IssuedCertificate) -> list[str]:
    with engine.connect() as connection:
        query = text("SELECT action FROM revocation WHERE serial = :serial ORDER BY id")
        return list(connection.execute(query, {"serial": issued.serial}).scalars())


def told(engine: Engine) -> list[tuple[str, str]]:
    with engine.connect() as connection:
        query = text("SELECT event, actor FROM audit_pending WHERE event LIKE 'measure.%' ORDER BY id")
        return [(row.event, row.actor) for row in connection.execute(query)]


def test_a_suspension_recorded_ahead_begins_and_ends_by_itself(
    engine: Engine, enrolled: Enrolled, issued: IssuedCertificate
) -> None:
    begins = datetime.now(UTC).replace(microsecond=0) + HOUR
    taken = take(engine, enrolled.first, enrolled, begins=begins, until=begins + HOUR)
    assert (taken.state, taken.starts_at, taken.ends_at) == (MeasureState.TO_COME, begins, begins + HOUR)
    worker(engine)
    before = verdict(engine, enrolled)
    assert (before.answer.value, events(engine, issued)) == ("allowed", [])
    pass_time(engine, HOUR + MINUTE)
    # The verdict needs no worker.
    assert verdict(engine, enrolled).reasons == ("holder-suspended",)
    worker(engine)
    assert verdict(engine, enrolled).reasons == ("holder-suspended", "certificate-on-hold")
    assert [one.state for one in seen(engine, enrolled)] == [MeasureState.IN_FORCE]
    pass_time(engine, HOUR)
    assert verdict(engine, enrolled).reasons == ("certificate-on-hold",)
    worker(engine)
    assert verdict(engine, enrolled).reasons == ()
    assert events(engine, issued) == ["hold", "release"]
    assert [one.state for one in seen(engine, enrolled)] == [MeasureState.ENDED]
    worker(engine)
    actors = [("measure.began", "job:measures-due"), ("measure.ended", "job:measures-due")]
    assert told(engine)[1:] == actors, "each once"


def test_no_verdict_may_be_kept_beyond_the_instant_at_which_it_changes(
    engine: Engine, enrolled: Enrolled, issued: IssuedCertificate
) -> None:
    begins = datetime.now(UTC).replace(microsecond=0) + MINUTE
    assert verdict(engine, enrolled).valid_until > begins + MINUTE
    take(engine, enrolled.first, enrolled, begins=begins, until=begins + MINUTE)
    assert verdict(engine, enrolled).valid_until == begins
    pass_time(engine, MINUTE + MINUTE / 2)
    worker(engine)
    refused = verdict(engine, enrolled)
    assert (refused.answer.value, refused.valid_until) == ("refused", begins - MINUTE / 2)
    assert events(engine, issued) == ["hold"]


def test_a_verdict_rests_on_whoever_answers_for_an_establishment_too(engine: Engine, now: datetime) -> None:
    person = seed_practitioner(engine, 7, finess="750990012")
    address = seed_organisation(engine)
    who = enrol(engine, now, type(person)(person.national_id, address))
    begins = datetime.now(UTC).replace(microsecond=0) + MINUTE
    take(engine, who.first, who, begins=begins)
    assert verdict(engine, who).valid_until == begins
    pass_time(engine, 2 * MINUTE)
    assert "no-answerable-professional" in verdict(engine, who).reasons


def test_a_worker_that_was_away_for_all_of_it_takes_it_up_and_gives_nothing_twice(
    engine: Engine, enrolled: Enrolled, issued: IssuedCertificate
) -> None:
    begins = datetime.now(UTC) + MINUTE
    take(engine, enrolled.first, enrolled, begins=begins, until=begins + HOUR)
    pass_time(engine, DAY)
    worker(engine)
    assert (events(engine, issued), verdict(engine, enrolled).reasons) == ([], ())
    assert told(engine)[1:] == [("measure.ended", "job:measures-due")]


def test_a_clock_that_jumped_there_and_back_leaves_nothing_untold(
    engine: Engine, enrolled: Enrolled, issued: IssuedCertificate
) -> None:
    now = datetime.now(UTC)
    taken = take(engine, enrolled.first, enrolled, begins=now + HOUR, until=now + 3 * HOUR)

    def told_at(at: datetime) -> tuple[int, str]:
        with transaction(engine) as connection:
            count = measures_due.tell(connection, at)
            query = text("SELECT phase FROM measure_phase WHERE measure_id = :id")
            return count, connection.execute(query, {"id": taken.id}).scalar_one()

    assert told_at(now + 2 * HOUR) == (1, "in-force")
    assert told_at(now + 2 * HOUR + MINUTE) == (0, "in-force")
    assert told_at(now + MINUTE) == (1, "to-come"), "by the clock put back it has not begun"
    assert told_at(now + 2 * HOUR) == (1, "in-force"), "and it begins when its hour comes"
    assert told_at(now + DAY) == (1, "over")
    assert told_at(now + 2 * HOUR) == (1, "in-force"), "a suspension that a wrong clock ended stands again"
    assert told_at(now + 3 * HOUR) == (1, "over")
    assert events(engine, issued) == []


def test_it_is_told_urgently_under_every_number_of_the_person(engine: Engine, enrolled: Enrolled) -> None:
    other = seed_practitioner(engine, 9)
    renumber(engine, enrolled.seeded.national_id, other.national_id)
    begins = datetime.now(UTC) + MINUTE
    take(engine, enrolled.first, enrolled, begins=begins)
    pass_time(engine, HOUR)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM change"))
    with transaction(engine) as connection:
        assert measures_due.tell(connection, datetime.now(UTC)) == 1
    with transaction(engine) as connection:
        keys = {(one.entity.value, one.key) for one in read_urgent(connection, START)}
    people = {enrolled.seeded, other}
    assert keys == {("practitioner", one.national_id) for one in people} | {
        ("mailbox", one.mailbox) for one in people
    }


def test_two_workers_at_once_tell_it_once(engine: Engine, enrolled: Enrolled) -> None:
    take(engine, enrolled.first, enrolled, begins=datetime.now(UTC) + MINUTE)
    pass_time(engine, HOUR)
    counts: list[int] = []
    start = Flag()

    def tell() -> None:
        start.wait()
        with transaction(engine) as connection:
            counts.append(measures_due.tell(connection, datetime.now(UTC)))

    threads = [Thread(target=tell) for _ in range(2)]
    for thread in threads:
        thread.start()
    start.set()
    for thread in threads:
        thread.join()
    assert sorted(counts) == [0, 1]


def test_the_next_instant_is_known_ahead(engine: Engine, enrolled: Enrolled) -> None:
    now = datetime.now(UTC)

    def wait(at: datetime) -> float | None:
        with transaction(engine) as connection:
            return measures_due.next_within(connection, at)

    take(engine, enrolled.first, enrolled, kind=MeasureKind.STRUCK_OFF)
    assert wait(now) is None, "what lasts until it is lifted is never due"
    begins = now.replace(microsecond=0) + MINUTE
    take(engine, enrolled.first, enrolled, begins=begins)
    assert wait(begins - timedelta(seconds=2)) == 2.0
    assert wait(begins + HOUR) == 0.0


def test_one_prolongs_and_two_shorten(engine: Engine, enrolled: Enrolled, issued: IssuedCertificate) -> None:
    first, second = enrolled.first, enrolled.second
    now = datetime.now(UTC).replace(microsecond=0)
    taken = take(engine, first, enrolled, until=now + HOUR)
    longer = act(engine, measures.prolong, second, taken, until=now + 3 * HOUR)
    assert (longer.state, longer.ends_at) == (MeasureState.IN_FORCE, now + 3 * HOUR)
    asked = act(engine, measures.shorten, first, taken, until=now + 2 * HOUR, reason="appeal")
    assert (asked.ends_at, asked.shortening_asked) == (now + 3 * HOUR, now + 2 * HOUR)
    assert (
        code_of(lambda: act(engine, measures.shorten, first, taken, until=now + 2 * HOUR)) == "self-approval"
    )
    # Whoever asked may ask otherwise; nobody else puts his request in its place, or agrees unawares.
    other = act(engine, measures.shorten, first, taken, until=now + HOUR, reason="sooner")
    assert (other.ends_at, other.shortening_asked) == (now + 3 * HOUR, now + HOUR)
    for given in (
        {"until": now + HOUR}, {"until": now + 2 * HOUR}, {"until": now + HOUR, "confirms": now + 2 * HOUR},
        {"until": now + 2 * HOUR, "confirms": now + HOUR}, {"until": now + HOUR, "confirms": now},
    ):  # fmt: skip
        with pytest.raises(Refusal) as refused:
            act(engine, measures.shorten, second, taken, **given)
        assert refused.value.code == "already-asked"
        assert refused.value.details["asked_by"] == first.actor.name
        assert seen(engine, enrolled)[0].shortening_asked == now + HOUR
    agreed = {"until": now + HOUR, "confirms": now + HOUR}
    assert code_of(lambda: act(engine, measures.shorten, first, taken, **agreed)) == "self-approval"
    done = act(engine, measures.shorten, second, taken, **agreed)
    assert (done.ends_at, done.shortening_asked, done.state) == (now + HOUR, None, MeasureState.IN_FORCE)
    assert [
        (one.act.value, one.ends_at, one.reason, one.asked_by, one.confirmed_by) for one in done.revisions
    ] == [
        ("prolonged", now + 3 * HOUR, "because", second.actor.name, None),
        ("shortened", now + HOUR, "sooner", first.actor.name, second.actor.name),
    ]
    # Once more, by the same two: what was agreed to before agrees to nothing now.
    sooner = {"until": now + MINUTE, "confirms": now + MINUTE}
    assert code_of(lambda: act(engine, measures.shorten, second, taken, **sooner)) == "nothing-asked"
    assert act(engine, measures.shorten, first, taken, until=now + MINUTE).shortening_asked == now + MINUTE
    assert act(engine, measures.shorten, second, taken, **sooner).ends_at == now + MINUTE
    assert events(engine, issued) == ["hold"]
    pass_time(engine, 2 * MINUTE)
    worker(engine)
    assert (events(engine, issued), verdict(engine, enrolled).reasons) == (["hold", "release"], ())


def test_what_is_no_prolongation_or_no_shortening_is_refused(engine: Engine, enrolled: Enrolled) -> None:
    first, second = enrolled.first, enrolled.second
    now = datetime.now(UTC).replace(microsecond=0)
    taken = take(engine, first, enrolled, begins=now + HOUR, until=now + 2 * HOUR)
    prolong, shorten = measures.prolong, measures.shorten
    other = registrar(engine, "cnop", "CNOP")
    assert code_of(lambda: act(engine, prolong, other, taken, until=None)) == "unknown-measure"
    assert code_of(lambda: act(engine, shorten, other, taken, until=now + HOUR + MINUTE)) == "unknown-measure"
    assert code_of(lambda: act(engine, prolong, first, taken, until=now + 2 * HOUR)) == "not-longer"
    assert code_of(lambda: act(engine, prolong, first, taken, until=None, reason=" ")) == "reason-missing"
    assert code_of(lambda: act(engine, shorten, first, taken, until=now + 2 * HOUR)) == "not-shorter"
    assert code_of(lambda: act(engine, shorten, first, taken, until=now + HOUR)) == "ends-too-early"
    forever = act(engine, prolong, first, taken, until=None)
    assert forever.ends_at is None
    assert code_of(lambda: act(engine, prolong, first, taken, until=now + DAY)) == "not-longer"
    assert act(engine, shorten, first, taken, until=now + 3 * HOUR).shortening_asked == now + 3 * HOUR
    act(engine, shorten, second, taken, until=now + 3 * HOUR, confirms=now + 3 * HOUR)
    pass_time(engine, 4 * HOUR)
    assert code_of(lambda: act(engine, prolong, first, taken, until=None)) == "measure-not-in-force"
    assert code_of(lambda: act(engine, shorten, first, taken, until=now + DAY)) == "measure-not-in-force"
    assert code_of(lambda: act(engine, measures.lift, first, taken)) == "measure-not-in-force"
    struck_off = take(engine, first, enrolled, kind=MeasureKind.STRUCK_OFF)
    assert (
        code_of(lambda: act(engine, shorten, first, struck_off, until=now + DAY)) == "strike-off-has-no-end"
    )
    assert (
        code_of(lambda: take(engine, first, enrolled, kind=MeasureKind.STRUCK_OFF, until=now + DAY))
        == "strike-off-has-no-end"
    )


def test_a_prolongation_counts_within_the_limits(engine: Engine, enrolled: Enrolled) -> None:
    now = datetime.now(UTC)
    taken = take(engine, enrolled.first, enrolled, begins=now + HOUR, until=now + 2 * HOUR)
    act(engine, measures.prolong, enrolled.first, taken, until=now + 3 * HOUR)
    with transaction(engine) as connection:
        used = {one.scope: one.used for one in standings_seen(connection, token=enrolled.first, now=now)}
    assert used == {enrolled.first.actor.name: 2, "authority:CNOM": 2}


def test_overlapping_measures_end_each_by_itself(
    engine: Engine, enrolled: Enrolled, issued: IssuedCertificate
) -> None:
    now = datetime.now(UTC)
    take(engine, enrolled.first, enrolled, until=now + HOUR)
    covered = {"begins": now + MINUTE, "until": now + HOUR}
    assert code_of(lambda: take(engine, enrolled.first, enrolled, **covered)) == "measure-in-force"
    take(engine, enrolled.first, enrolled, begins=now + MINUTE, until=now + 2 * HOUR)
    pass_time(engine, HOUR + MINUTE)
    worker(engine)
    assert verdict(engine, enrolled).reasons == ("holder-suspended", "certificate-on-hold")
    assert events(engine, issued) == ["hold"], "the first has ended, the second stands"
    pass_time(engine, HOUR)
    worker(engine)
    assert (events(engine, issued), verdict(engine, enrolled).reasons) == (["hold", "release"], ())


def test_a_strike_off_during_a_suspension_is_not_undone_by_its_end(
    engine: Engine, enrolled: Enrolled, issued: IssuedCertificate
) -> None:
    now = datetime.now(UTC)
    take(engine, enrolled.first, enrolled, until=now + 2 * HOUR)
    take(engine, enrolled.first, enrolled, kind=MeasureKind.STRUCK_OFF, begins=now + HOUR)
    assert events(engine, issued) == ["hold"]
    pass_time(engine, HOUR + MINUTE)
    worker(engine)
    assert verdict(engine, enrolled).reasons == (
        "holder-suspended", "holder-struck-off", "certificate-revoked",
    )  # fmt: skip
    pass_time(engine, HOUR)
    worker(engine)
    assert verdict(engine, enrolled).reasons == ("holder-struck-off", "certificate-revoked")
    assert events(engine, issued) == ["hold", "revoke"]


def test_a_measure_lifted_before_its_day_never_begins(
    engine: Engine, enrolled: Enrolled, issued: IssuedCertificate
) -> None:
    now = datetime.now(UTC)
    taken = take(engine, enrolled.first, enrolled, begins=now + HOUR)
    act(engine, measures.lift, enrolled.first, taken)
    assert code_of(lambda: act(engine, measures.lift, enrolled.first, taken)) == "self-approval"
    lifted = act(engine, measures.lift, enrolled.second, taken)
    assert (lifted.state, lifted.ends_at) == (MeasureState.LIFTED, lifted.starts_at)
    assert code_of(lambda: act(engine, measures.lift, enrolled.first, taken)) == "measure-not-in-force"
    assert verdict(engine, enrolled).valid_until > now + LIFETIME - MINUTE
    pass_time(engine, HOUR + MINUTE)
    worker(engine)
    assert (events(engine, issued), verdict(engine, enrolled).reasons) == ([], ())


def test_the_past_stays_as_it_was_known(engine: Engine, enrolled: Enrolled) -> None:
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for table in ("practitioner", "profession", "practice", "mailbox", "trusted_domain", "operator"):
            connection.execute(text(f"UPDATE {table} SET sys_from = sys_from - interval '1 day'"))
    begins = datetime.now(UTC) + timedelta(milliseconds=300)
    taken = take(engine, enrolled.first, enrolled, begins=begins, until=begins + HOUR)
    # Under load the taking itself may last longer than that.
    recorded = min(datetime.now(UTC), begins - timedelta(milliseconds=1))
    while datetime.now(UTC) <= begins:
        Flag().wait(0.02)
    in_force = datetime.now(UTC)
    assert "holder-suspended" in verdict(engine, enrolled, at=in_force).reasons
    assert "holder-suspended" not in verdict(engine, enrolled, at=recorded).reasons
    asked = act(engine, measures.annul, enrolled.first, taken)
    act(engine, measures.annul, enrolled.second, taken, confirms=asked.annulment_asked)
    assert "holder-suspended" in verdict(engine, enrolled, at=in_force).reasons, "as it was known"
    assert "holder-suspended" not in verdict(engine, enrolled).reasons
    assert verdict(engine, enrolled, at=in_force).valid_until > in_force + LIFETIME / 2


@pytest.fixture
def ca(engine: Engine) -> StatusCa:
    return StatusCa(engine, datetime.now(UTC)).establish()


@pytest.fixture
def application(ca: StatusCa, tmp_path: Path) -> StatusApplication:
    ca.add_responder(tmp_path)
    return StatusApplication(
        ca.engine, keys_folder=tmp_path, passphrase=PASSPHRASE, hours=8, clock=lambda: datetime.now(UTC)
    )


def of_person(ca: StatusCa, national_id: str) -> Any:
    """A certificate of this CA that names a person."""
    made = ca.issue()
    with ca.engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        query = text("UPDATE certificate SET practitioner = :id WHERE serial = :serial")
        connection.execute(query, {"id": national_id, "serial": made.serial})
    return made


def record_measure(engine: Engine, national_id: str, begins: datetime, until: datetime | None = None) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO measure (national_id, kind, authority, reason, starts_at, ends_at, recorded_by,"
                " recorded_at) VALUES (:id, 'suspended', 'CNOM', 'x', :begins, :until, 'test', now())"
            ),
            {"id": national_id, "begins": begins, "until": until},
        )


def test_ocsp_holds_from_the_instant_on_though_no_worker_runs(
    engine: Engine, ca: StatusCa, application: StatusApplication
) -> None:
    person = seed_practitioner(engine).national_id
    made = of_person(ca, person)
    begins = ca.now.replace(microsecond=0) + 2 * HOUR
    before = said(application, about(ca, made))
    assert (before.certificate_status, before.next_update_utc > begins) == (Status.GOOD, True)
    record_measure(engine, person, begins, begins + HOUR)
    cut = said(application, about(ca, made))
    assert (cut.certificate_status, cut.next_update_utc) == (Status.GOOD, begins)
    pass_time(engine, 2 * HOUR + MINUTE)
    held = said(application, about(ca, made))
    assert (held.certificate_status, held.revocation_time_utc) == (Status.REVOKED, begins - 2 * HOUR - MINUTE)
    assert held.next_update_utc == begins + HOUR - 2 * HOUR - MINUTE
    with_nonce = said(application, about(ca, made, nonce=b"n" * 32))
    assert with_nonce.certificate_status is Status.REVOKED
    pass_time(engine, HOUR)
    assert said(application, about(ca, made)).certificate_status is Status.GOOD


def test_an_answer_signed_ahead_is_withdrawn_when_a_date_is_set_and_never_outlives_it(
    engine: Engine, ca: StatusCa, application: StatusApplication, tmp_path: Path
) -> None:
    person = seed_practitioner(engine).national_id
    made = of_person(ca, person)
    presign(ca, tmp_path)
    begins = ca.now.replace(microsecond=0) + HOUR
    record_measure(engine, person, begins)
    with engine.connect() as connection:
        query = text("SELECT count(*) FROM ocsp_answer WHERE serial = :serial AND der IS NULL")
        assert connection.execute(query, {"serial": made.serial}).scalar_one() == 2
    assert presign(ca, tmp_path) == 2
    assert presign(ca, tmp_path) == 0, "what is cut short is not signed at each look"
    with engine.connect() as connection:
        query = text("SELECT DISTINCT next_update FROM ocsp_answer WHERE serial = :serial")
        assert connection.execute(query, {"serial": made.serial}).scalars().all() == [begins]
    assert said(application, about(ca, made)).next_update_utc == begins


def test_memory_is_told_of_a_date_that_is_set(engine: Engine, ca: StatusCa) -> None:
    person = seed_practitioner(engine).national_id
    made = of_person(ca, person)
    with psycopg.connect(libpq(engine.url), autocommit=True) as connection:
        connection.execute("LISTEN sceau_revocation")
        record_measure(engine, person, ca.now + HOUR)
        heard = [note.payload for note in connection.notifies(timeout=10, stop_after=1)]
    assert heard == [made.serial]
