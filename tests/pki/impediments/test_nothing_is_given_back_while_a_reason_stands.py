"""Holds, measures, blocked keys and departures in every order: while one stands, nothing is given back.

The worker stands still in these tests: what must hold may not depend on it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import permutations
from threading import Thread
from time import monotonic, sleep
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text

from directory import access
from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.errors import Refusal
from directory.model import MeasureKind
from pki.impediments.causes import GRACES
from pki.issuance import batch, for_enrolment
from pki.model import IssuedCertificate, RevocationAction, RevocationReason, Serial
from pki.record import revocations
from pki.registration import enrolment
from pki.revocation import blocked_keys, proof_of_possession, requests, rules, suspension
from pki.revocation import release as releasing
from pki.signing.inprocess import InProcessSigner
from pki.withdrawal import measures
from pki.withdrawal import operators as withdrawal_operators
from pki.withdrawal.reconcile import Touched, settle
from tests.factories import depart, seed_practitioner
from tests.pki.conftest import (
    BASE_URL,
    Enrolled,
    Established,
    Issue,
    Key,
    enrol,
    identity,
    new_key,
    registrar,
    request_for,
)
from tests.pki.issuance.test_operators_certify_their_own_domains import Certify, certify, token_of

__all__ = ["certify"]

HOLD = RevocationReason.CERTIFICATE_HOLD
WEEK = timedelta(days=7)
# Of two bodies, so that each may take a measure of its own: a doctor who is a pharmacist as well.
BOTH = (("10", "C"), ("21", "C"))


@dataclass(frozen=True)
class Scene:
    """One certificate, whom it names, and everybody who may take it away or give it back."""

    engine: Engine
    now: datetime
    issued: IssuedCertificate
    enrolled: Enrolled
    others: tuple[access.Token, access.Token]

    def hold(self, connection: Connection, token: access.Token | None = None) -> None:
        requests.revoke_as(
            connection,
            now=self.now,
            token=token or self.enrolled.first,
            serial=self.issued.serial,
            reason=HOLD,
        )

    def suspend(self, connection: Connection, token: access.Token) -> None:
        measures.take(
            connection, now=self.now, token=token, national_id=self.enrolled.seeded.national_id,
            kind=MeasureKind.SUSPENDED, reason="decision", graces=GRACES,
        )  # fmt: skip

    def lift(self, connection: Connection, *tokens: access.Token) -> None:
        number = connection.execute(
            text("SELECT id FROM measure WHERE authority = :who AND ends_at IS NULL"),
            {"who": tokens[0].authority},
        ).scalar_one()
        for token in tokens:
            measures.lift(
                connection, now=self.now, token=token, measure_id=number, reason="appeal", graces=GRACES
            )

    def block(self, connection: Connection) -> None:
        blocked_keys.block(
            connection, now=self.now, actor=Actor("test"), spki_sha256=self.issued.spki_sha256,
            cause="another-person",
        )  # fmt: skip

    def leave(self, connection: Connection) -> None:
        connection.execute(
            text("UPDATE practitioner SET departed_at = :at WHERE national_id = :id"),
            {"at": self.now, "id": self.enrolled.seeded.national_id},
        )

    def release(self, connection: Connection, token: access.Token | None = None) -> releasing.Release:
        return releasing.release_as(
            connection, now=self.now, token=token or self.enrolled.first, serial=self.issued.serial
        )

    def last(self, connection: Connection) -> RevocationAction | None:
        return revocations.last_actions(connection, [self.issued.serial]).get(self.issued.serial)


@pytest.fixture
def scene(engine: Engine, issue: Issue, now: datetime) -> Scene:
    enrolled = enrol(engine, now, seed_practitioner(engine, 40, professions=BOTH))
    others = registrar(engine, "cnop-1", "CNOP"), registrar(engine, "cnop-2", "CNOP")
    return Scene(engine, now, issue(who=enrolled), enrolled, others)


@pytest.fixture
def tried(engine: Engine) -> Iterator[Connection]:
    """A connection on which everything is tried and nothing kept."""
    with engine.connect() as connection:
        yield connection
        connection.rollback()


TAKING: dict[str, Callable[[Scene, Connection], object]] = {
    "hold": Scene.hold,
    "measure": lambda scene, connection: scene.suspend(connection, scene.enrolled.first),
    "second measure": lambda scene, connection: scene.suspend(connection, scene.others[0]),
    "block key": Scene.block,
    "departure": Scene.leave,
}
GIVING: dict[str, Callable[[Scene, Connection], object]] = {
    "hold": Scene.release,
    "measure": lambda scene, connection: scene.lift(connection, scene.enrolled.first, scene.enrolled.second),
    "second measure": lambda scene, connection: scene.lift(connection, *scene.others),
}


def attempt(connection: Connection, act: Callable[[], object]) -> str:
    """The code it is refused with, and then nothing of it is left; '' when it is done."""
    try:
        with connection.begin_nested():
            act()
    except Refusal as refusal:
        return refusal.code
    return ""


@pytest.mark.parametrize("first", TAKING)
def test_no_order_gives_anything_back_while_one_reason_stands(
    scene: Scene, tried: Connection, first: str
) -> None:
    """After each act and each end of one, the last event is a release only once no reason is left."""
    take_on(scene, tried, (first,), frozenset(), most=3)


@pytest.mark.long
def test_all_five_reasons_in_any_order_hold_together(scene: Scene, tried: Connection) -> None:
    for taken in permutations(TAKING):
        undone = tried.begin_nested()
        walk(scene, tried, taken, tuple(GIVING))
        undone.rollback()


def take_on(
    scene: Scene, connection: Connection, taken: tuple[str, ...], stands: frozenset[str], most: int
) -> None:
    """The last of these, then every order of giving back, then each of the others, up to `most`."""
    undone = connection.begin_nested()
    stands = take(scene, connection, taken, stands)
    # A key that is blocked or a departure take nothing by themselves here: the worker stands still.
    was_good = scene.last(connection) is None
    give_back(scene, connection, taken, (), stands, was_good=was_good)
    for name in TAKING:
        if len(taken) < most and name not in taken:
            take_on(scene, connection, (*taken, name), stands, most)
    undone.rollback()


def give_back(
    scene: Scene, connection: Connection, taken: tuple[str, ...], given: tuple[str, ...],
    stands: frozenset[str], *, was_good: bool,
) -> None:  # fmt: skip
    """Each that is not given back yet, and after it every order of the others."""
    for name in taken:
        if name in GIVING and name not in given:
            undone = connection.begin_nested()
            left = give(scene, connection, taken, (*given, name), stands, was_good=was_good)
            give_back(scene, connection, taken, (*given, name), left, was_good=was_good)
            undone.rollback()


def walk(scene: Scene, connection: Connection, taken: tuple[str, ...], given: tuple[str, ...]) -> None:
    stands: frozenset[str] = frozenset()
    for size in range(len(taken)):
        stands = take(scene, connection, taken[: size + 1], stands)
    was_good = scene.last(connection) is None
    for size in range(len(given)):
        stands = give(scene, connection, taken, given[: size + 1], stands, was_good=was_good)


def take(
    scene: Scene, connection: Connection, taken: tuple[str, ...], stands: frozenset[str]
) -> frozenset[str]:
    """The last of these; gives what stands then."""
    # Who left loses the certificate with the next look at him: then nothing more can be taken.
    refused = attempt(connection, partial(TAKING[taken[-1]], scene, connection))
    assert scene.last(connection) is not RevocationAction.RELEASE, taken
    return stands if refused else stands | {taken[-1]}


def give(
    scene: Scene, connection: Connection, taken: tuple[str, ...], given: tuple[str, ...],
    stands: frozenset[str], *, was_good: bool,
) -> frozenset[str]:  # fmt: skip
    """The last of these; gives what stands then."""
    if not attempt(connection, partial(GIVING[given[-1]], scene, connection)):
        stands -= {given[-1]}
    last = scene.last(connection)
    if stands:
        assert last in {RevocationAction.HOLD, RevocationAction.REVOKE} or was_good, (taken, given)
    else:
        assert last is RevocationAction.RELEASE, (taken, given)
    return stands


def test_held_by_one_suspended_by_another_the_first_releases_nothing(scene: Scene) -> None:
    with transaction(scene.engine) as connection:
        scene.hold(connection)
    with transaction(scene.engine) as connection:
        scene.suspend(connection, scene.others[0])
    with pytest.raises(Refusal) as refused, transaction(scene.engine) as connection:
        scene.release(connection)
    assert (refused.value.code, refused.value.details["reasons"]) == ("reason-stands", ["suspended"])
    with transaction(scene.engine) as connection:
        scene.lift(connection, *scene.others)
        # The doubt of the first is left, and is the first one's to end.
        assert scene.last(connection) is RevocationAction.HOLD
        scene.release(connection)
        assert scene.last(connection) is RevocationAction.RELEASE


def test_a_doubt_put_while_a_measure_holds_outlives_the_measure(scene: Scene) -> None:
    with transaction(scene.engine) as connection:
        scene.suspend(connection, scene.others[0])
        scene.hold(connection)
        first = revocations.last_events(connection, [scene.issued.serial])[scene.issued.serial]
        # Beside the other, with its date: what was signed in between is in doubt as before.
        assert (first.actor, first.revoked_at) == (scene.enrolled.first.actor.name, scene.now)
        scene.lift(connection, *scene.others)
        assert scene.last(connection) is RevocationAction.HOLD


def test_a_second_hold_has_fourteen_days_of_its_own(scene: Scene) -> None:
    with transaction(scene.engine) as connection:
        scene.suspend(connection, scene.others[0])
    late = scene.now + timedelta(days=20)
    with transaction(scene.engine) as connection:
        requests.revoke_as(
            connection, now=late, token=scene.enrolled.first, serial=scene.issued.serial, reason=HOLD
        )
        assert suspension.end_holds(connection, late + suspension.LASTS - timedelta(seconds=1)) == []
        assert len(suspension.end_holds(connection, late + suspension.LASTS)) == 1


def test_a_hold_is_put_once_by_each(scene: Scene) -> None:
    with transaction(scene.engine) as connection:
        scene.hold(connection)
        scene.hold(connection, scene.enrolled.second)
        for token in (scene.enrolled.first, scene.enrolled.second):
            with pytest.raises(Refusal, match="on hold already"):
                scene.hold(connection, token)


def test_a_measure_that_is_being_taken_is_waited_for(scene: Scene) -> None:
    """Under the person's lock, in the release's own transaction."""
    with transaction(scene.engine) as connection:
        scene.hold(connection)
    codes: list[str] = []

    def release() -> None:
        with scene.engine.begin() as connection:
            codes.append(attempt(connection, lambda: scene.release(connection)))

    with transaction(scene.engine) as connection:
        scene.suspend(connection, scene.others[0])
        thread = Thread(target=release)
        thread.start()
        waits_for_a_lock(scene.engine)
    thread.join()
    assert codes == ["reason-stands"]


def test_the_job_releases_nothing_of_somebody_whom_a_measure_is_being_taken_against(scene: Scene) -> None:
    """The look that found nothing any more is repeated when nobody can take a measure."""
    with transaction(scene.engine) as connection:
        scene.suspend(connection, scene.others[0])
    with scene.engine.begin() as connection:
        # As if the worker alone had to follow the lifting.
        connection.execute(text("UPDATE measure SET ends_at = starts_at + interval '1 microsecond'"))
    touched = Touched(people=frozenset({scene.enrolled.seeded.national_id}))

    def follow() -> None:
        with transaction(scene.engine) as connection:
            settle(connection, touched, graces=GRACES, now=scene.now)

    with transaction(scene.engine) as connection:
        scene.suspend(connection, scene.enrolled.first)
        thread = Thread(target=follow)
        thread.start()
        waits_for_a_lock(scene.engine)
    thread.join()
    with scene.engine.connect() as connection:
        assert scene.last(connection) is RevocationAction.HOLD


def test_lifting_gives_back_no_certificate_on_a_blocked_key(scene: Scene) -> None:
    with transaction(scene.engine) as connection:
        scene.suspend(connection, scene.others[0])
        scene.block(connection)
        scene.lift(connection, *scene.others)
        assert scene.last(connection) is RevocationAction.HOLD


def test_somebody_who_stopped_practising_is_given_nothing_back_in_his_days_of_grace(scene: Scene) -> None:
    with transaction(scene.engine) as connection:
        scene.hold(connection)
        connection.execute(
            text("DELETE FROM practice WHERE national_id = :id"), {"id": scene.enrolled.seeded.national_id}
        )
        assert attempt(connection, lambda: scene.release(connection)) == "reason-stands"


def waits_for_a_lock(engine: Engine) -> None:
    """Until somebody stands in line for an advisory lock."""
    ends = monotonic() + 30
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.execute(text(waiting)).scalar_one():
            assert monotonic() < ends, "nobody waits for the person"
            sleep(0.01)


def renewable(scene: Scene) -> datetime:
    """An instant in the last days of the certificate, when a successor may be made."""
    return scene.issued.not_after - timedelta(days=10)


@pytest.mark.parametrize("road", ["alone", "batch"])
def test_no_successor_is_made_beside_a_certificate_on_hold(
    scene: Scene, authority: Established, road: str
) -> None:
    """A doubt about the one before is not walked around in its last 60 days."""
    with transaction(scene.engine) as connection:
        scene.hold(connection)
    late = renewable(scene)
    authority.signer.clock = lambda: late
    assert ask(scene, authority.signer, late, road) == "reason-stands"
    with transaction(scene.engine) as connection:
        releasing.release_as(connection, now=late, token=scene.enrolled.first, serial=scene.issued.serial)
    assert ask(scene, authority.signer, late, road) == ""


@pytest.mark.parametrize("road", ["alone", "batch"])
def test_what_is_held_while_its_successor_is_signed_takes_that_along(
    scene: Scene, authority: Established, road: str
) -> None:
    class Slow(InProcessSigner):
        def __init__(self) -> None:
            pass

        def sign_certificate(self, serial: Serial) -> bytes:
            return self.sign_certificates([serial])[0]  # type: ignore[return-value]

        def sign_certificates(self, serials: Sequence[Serial]) -> list[bytes | Refusal]:
            with transaction(scene.engine) as connection:
                scene.hold(connection)
            return authority.signer.sign_certificates(serials)

    late = renewable(scene)
    authority.signer.clock = lambda: late
    assert ask(scene, Slow(), late, road) == "reason-stands"
    living = text(
        "SELECT count(*) FROM certificate c WHERE c.mailbox = :mailbox AND NOT EXISTS ("
        " SELECT FROM revocation r WHERE r.serial = c.serial)"
    )
    with scene.engine.connect() as connection:
        assert connection.execute(living, {"mailbox": scene.issued.mailbox}).scalar_one() == 0


@pytest.mark.parametrize("road", ["alone", "batch"])
def test_nothing_is_issued_or_renewed_while_one_of_two_reasons_stands(
    engine: Engine, issue: Issue, authority: Established, now: datetime, road: str
) -> None:
    others = registrar(engine, "cnop-1", "CNOP"), registrar(engine, "cnop-2", "CNOP")
    for number, taken in enumerate(permutations(TAKING, 2), start=50):
        key = new_key()
        enrolled = enrol(engine, now, seed_practitioner(engine, number, professions=BOTH))
        scene = Scene(engine, now, issue(key, who=enrolled), enrolled, others)
        for name in taken:
            with engine.begin() as connection:
                attempt(connection, partial(TAKING[name], scene, connection))
        late = renewable(scene)
        authority.signer.clock = lambda late=late: late  # type: ignore[misc]
        assert ask(scene, authority.signer, late, road, key) != "", taken
        if "block key" not in taken:
            assert ask(scene, authority.signer, late, road) != "", taken
        authority.signer.clock = lambda: now


def ask(scene: Scene, signer: InProcessSigner, at: datetime, road: str, key: Key | None = None) -> str:
    """The code that a successor is refused with, '' when it is made."""
    who, csr = scene.enrolled, request_for(key or new_key())
    if road == "batch":
        _, (item,) = batch.issue_all(
            scene.engine,
            signer,
            now=at,
            token=who.first,
            asked=[batch.BatchItem(who.id, csr)],
            base_url=BASE_URL,
        )
        return "" if item.refusal is None else str(item.refusal["code"])
    try:
        for_enrolment.issue_for_enrolment(
            scene.engine, signer, now=at, token=who.first, enrolment_id=who.id, csr=csr, base_url=BASE_URL,
            thorough=False,
        )  # fmt: skip
    except Refusal as refusal:
        return refusal.code
    return ""


@pytest.fixture
def doubter(engine: Engine, now: datetime) -> access.Token:
    with transaction(engine) as connection:
        made, _ = access.create_token(
            connection, now=now, actor=Actor("test"), name="owner", role=access.Role.ADMIN, lifetime=WEEK
        )
    return made


def test_an_operator_makes_no_other_beside_a_server_that_somebody_else_doubts(
    certify: Certify, engine: Engine, now: datetime, doubter: access.Token
) -> None:
    made = certify("mx.one.example")

    def hold(token: access.Token, serial: Serial) -> None:
        with transaction(engine) as connection:
            requests.revoke_as(connection, now=now, token=token, serial=serial, reason=HOLD)

    hold(doubter, made.serial)
    with pytest.raises(Refusal, match="certificate-on-hold"):
        certify("mx.one.example", "imap.one.example")
    # Another server is another matter, and one's own doubt is one's own.
    hold(token_of(engine, now, name="colleague"), certify("imap.one.example").serial)
    assert certify("imap.one.example")


def test_an_operator_suspended_meanwhile_is_given_nothing_back(
    certify: Certify, engine: Engine, now: datetime
) -> None:
    own, made = token_of(engine, now, name="colleague"), certify("mx.one.example")
    with transaction(engine) as connection:
        requests.revoke_as(connection, now=now, token=own, serial=made.serial, reason=HOLD)
        connection.execute(text("UPDATE operator SET suspended_at = :now"), {"now": now})
    with pytest.raises(Refusal) as refused, transaction(engine) as connection:
        releasing.release_as(connection, now=now, token=own, serial=made.serial)
    assert refused.value.code == "reason-stands"


def test_the_end_of_an_operators_suspension_gives_back_no_blocked_key(
    certify: Certify, engine: Engine, now: datetime
) -> None:
    made = certify("mx.one.example")
    with transaction(engine) as connection:
        connection.execute(text("UPDATE operator SET suspended_at = :now"), {"now": now})
        assert withdrawal_operators.settle(connection, graces=GRACES, now=now).held == 1
        blocked_keys.block(
            connection, now=now, actor=Actor("test"), spki_sha256=made.spki_sha256, cause="another-person"
        )
        connection.execute(text("UPDATE operator SET suspended_at = NULL"))
        assert withdrawal_operators.settle(connection, graces=GRACES, now=now).released == 0


def test_what_an_administrator_held_takes_two_to_release(scene: Scene, doubter: access.Token) -> None:
    with transaction(scene.engine) as connection:
        scene.hold(connection, doubter)
    asks, agrees = scene.enrolled.first, scene.enrolled.second
    with transaction(scene.engine) as connection:
        asked = scene.release(connection, asks)
        assert (asked.action, asked.release_asked_at) == (RevocationAction.HOLD, scene.now)
        assert attempt(connection, lambda: scene.release(connection, asks)) == "self-approval"
        assert scene.last(connection) is RevocationAction.HOLD
        assert scene.release(connection, agrees).release_asked_at is None
        assert scene.last(connection) is RevocationAction.RELEASE


def test_whoever_put_a_hold_ends_it_alone(scene: Scene, doubter: access.Token) -> None:
    with transaction(scene.engine) as connection:
        scene.hold(connection, doubter)
        scene.release(connection, doubter)
        assert scene.last(connection) is RevocationAction.RELEASE


def test_one_of_two_who_hold_does_not_end_the_other_s(scene: Scene, doubter: access.Token) -> None:
    with transaction(scene.engine) as connection:
        scene.hold(connection, doubter)
        scene.hold(connection)
        assert scene.release(connection).action is RevocationAction.HOLD
        assert scene.release(connection, doubter).action is RevocationAction.RELEASE


def test_a_release_asked_for_serves_no_later_hold_and_no_later_week(
    scene: Scene, doubter: access.Token
) -> None:
    first, second = scene.enrolled.first, scene.enrolled.second
    with transaction(scene.engine) as connection:
        scene.hold(connection, doubter)
        scene.release(connection, first)
        scene.release(connection, doubter)
        scene.hold(connection, doubter)
        # Asked of the hold before: of this one the second person is the first to ask.
        assert scene.release(connection, second).action is RevocationAction.HOLD
        late = scene.now + WEEK
        asked = releasing.release_as(connection, now=late, token=first, serial=scene.issued.serial)
        assert (asked.action, asked.release_asked_at) == (RevocationAction.HOLD, late)


def test_who_left_between_asking_and_agreeing_is_given_nothing_back(
    scene: Scene, doubter: access.Token
) -> None:
    with transaction(scene.engine) as connection:
        scene.hold(connection, doubter)
        scene.release(connection, scene.enrolled.first)
    depart(scene.engine, scene.enrolled.seeded.national_id, scene.now)
    with transaction(scene.engine) as connection:
        second = scene.enrolled.second
        assert attempt(connection, lambda: scene.release(connection, second)) == "reason-stands"


def test_the_hold_that_a_measure_put_is_no_person_s(scene: Scene) -> None:
    with transaction(scene.engine) as connection:
        scene.suspend(connection, scene.others[0])
        assert revocations.holders(connection, [scene.issued.serial]) == {
            scene.issued.serial: frozenset({rules.ACTOR.name})
        }
        assert attempt(connection, lambda: scene.release(connection)) == "held-by-measure"


def revoked(scene: Scene, token: access.Token, reason: RevocationReason) -> None:
    with transaction(scene.engine) as connection:
        requests.revoke_as(connection, now=scene.now, token=token, serial=scene.issued.serial, reason=reason)


@pytest.mark.parametrize("road", ["alone", "batch"])
@pytest.mark.parametrize("ended", ["revoked by a colleague", "fourteen days"])
def test_a_hold_is_not_walked_around_by_revoking_and_issuing_anew(
    scene: Scene, authority: Established, doubter: access.Token, road: str, ended: str
) -> None:
    later = scene.now + suspension.LASTS + timedelta(hours=1)
    authority.signer.clock = lambda: later
    with transaction(scene.engine) as connection:
        requests.revoke_as(
            connection, now=scene.now + timedelta(minutes=1), token=doubter, serial=scene.issued.serial,
            reason=HOLD,
        )  # fmt: skip
    if ended == "fourteen days":
        with transaction(scene.engine) as connection:
            assert len(suspension.end_holds(connection, later)) == 1
    else:
        revoked(scene, scene.enrolled.first, RevocationReason.SUPERSEDED)
    assert ask(scene, authority.signer, later, road) == "reason-stands"
    # Two persons vouch anew.
    asked = enrolled_anew(scene, later)
    again = replace(scene, enrolled=replace(scene.enrolled, id=asked))
    assert ask(again, authority.signer, later, road) == ""


def enrolled_anew(scene: Scene, at: datetime) -> UUID:
    who = scene.enrolled
    with transaction(scene.engine) as connection:
        asked = enrolment.request_enrolment(
            connection, now=at, token=who.first, practitioner=who.seeded.national_id,
            mailbox=who.seeded.mailbox, identity_check=identity(at),
        )  # fmt: skip
    with transaction(scene.engine) as connection:
        enrolment.approve_enrolment(connection, now=at, token=who.second, enrolment_id=asked.id)
    return asked.id


@pytest.mark.parametrize("road", ["alone", "batch"])
def test_whoever_put_a_hold_settles_it_by_a_revocation_or_a_better_reason(
    scene: Scene, authority: Established, doubter: access.Token, road: str
) -> None:
    with transaction(scene.engine) as connection:
        scene.hold(connection, doubter)
    revoked(scene, scene.enrolled.first, RevocationReason.SUPERSEDED)
    assert ask(scene, authority.signer, scene.now, road) == "reason-stands"
    with transaction(scene.engine) as connection:
        proof_of_possession.restate_as(
            connection, now=scene.now, token=doubter, serial=scene.issued.serial,
            reason=RevocationReason.CESSATION_OF_OPERATION, comment="only a lost card",
        )  # fmt: skip
    assert ask(scene, authority.signer, scene.now, road) == ""


def test_an_operator_ends_nobodys_doubt_by_revoking_its_server(
    certify: Certify, engine: Engine, now: datetime, doubter: access.Token
) -> None:
    made, own = certify("mx.one.example"), token_of(engine, now, name="colleague")
    with transaction(engine) as connection:
        requests.revoke_as(connection, now=now, token=doubter, serial=made.serial, reason=HOLD)
    with transaction(engine) as connection:
        requests.revoke_as(
            connection, now=now, token=own, serial=made.serial, reason=RevocationReason.SUPERSEDED
        )
    with pytest.raises(Refusal, match="certificate-on-hold"):
        certify("mx.one.example")
    with transaction(engine) as connection:
        proof_of_possession.restate_as(
            connection, now=now, token=doubter, serial=made.serial,
            reason=RevocationReason.CESSATION_OF_OPERATION, comment="the host was moved",
        )  # fmt: skip
    assert certify("mx.one.example")
