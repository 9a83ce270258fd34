"""A measure is against a person: it stands under the number that replaces his, and is lifted under either."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine

from directory.access import Token
from directory.base.db import transaction
from directory.base.errors import Refusal
from directory.model import MeasureKind
from directory.store import lock_person
from pki.impediments.causes import GRACES
from pki.verdict.answer import verdicts
from pki.withdrawal.measures import Measure, MeasureState, lift, measures_seen, take
from pki.withdrawal.reconcile import Follower
from tests.factories import Seeded, depart, rpps, seed_practitioner
from tests.pki.conftest import Enrolled, Issue, enrol, registrar
from tests.pki.impediments.test_nothing_is_given_back_while_a_reason_stands import waits_for_a_lock
from tests.pki.verdict.test_exchange import clock
from tests.pki.withdrawal.test_consequences import events, follow, replaced, rows, run

OLD, NEW = rpps(1), rpps(8)
MINUTE = timedelta(minutes=1)
STRUCK_OFF, SUSPENDED = MeasureKind.STRUCK_OFF, MeasureKind.SUSPENDED


def renumber(engine: Engine, now: datetime) -> None:
    """What the night does: the old number goes, the new one takes its place and its mailboxes."""
    replaced(engine, OLD, NEW, now)
    depart(engine, OLD, now)
    run(engine, "DELETE FROM profession WHERE national_id = :old", old=OLD)
    run(engine, "UPDATE mailbox SET holder = :new WHERE holder = :old", new=NEW, old=OLD)


def against(engine: Engine, address: str, now: datetime, at: datetime | None = None) -> Sequence[str]:
    with transaction(engine, read_only=True) as connection:
        asked = verdicts(connection, [address], sender=None, at=at, now=now, lifetime=MINUTE)
    return asked[0].reasons


def act(engine: Engine, who: Enrolled, number: str, kind: MeasureKind, now: datetime) -> Measure:
    with transaction(engine) as connection:
        return take(
            connection, now=now, token=who.first, national_id=number, kind=kind, reason="decision",
            graces=GRACES,
        )  # fmt: skip


def give_back(engine: Engine, who: Enrolled, number: str, now: datetime) -> None:
    """Two registrars lift what the list of this number shows."""
    with transaction(engine) as connection:
        (seen,) = measures_seen(connection, token=who.first, national_id=number, now=now)
    for token in (who.first, who.second):
        with transaction(engine) as connection:
            done = lift(connection, now=now, token=token, measure_id=seen.id, reason="appeal", graces=GRACES)
    assert done.state is MeasureState.LIFTED


@pytest.fixture
def other(engine: Engine) -> str:
    """The mailbox that the new number has of its own, before the old one goes."""
    return seed_practitioner(engine, 8).mailbox


@pytest.mark.parametrize("kind", MeasureKind)
def test_what_stands_under_the_old_number_stands_under_the_new_one_from_the_link_on(
    engine: Engine, enrolled: Enrolled, other: str, now: datetime, kind: MeasureKind
) -> None:
    reason = f"holder-{kind.value}"
    act(engine, enrolled, OLD, kind, now)
    before = clock(engine)
    assert reason not in against(engine, other, now)
    renumber(engine, now)
    linked = clock(engine)
    for address in (other, enrolled.seeded.mailbox):
        assert reason in against(engine, address, now)
    run(engine, "DELETE FROM succession")
    after = clock(engine)
    assert reason not in against(engine, other, now)
    then = [reason in against(engine, other, after + MINUTE, at) for at in (before, linked, after)]
    assert then == [False, True, False]


@pytest.mark.parametrize("numbers", [(OLD, OLD), (OLD, NEW), (NEW, OLD), (NEW, NEW)])
def test_it_is_taken_and_lifted_under_either_number_and_certificates_of_both_follow(
    engine: Engine, issue: Issue, other: str, now: datetime, numbers: tuple[str, str]
) -> None:
    taken_under, lifted_under = numbers
    before = issue()
    renumber(engine, now)
    who = enrol(engine, now, Seeded(NEW, other))
    serials, addresses = (before.serial, issue(who=who).serial), (before.mailbox or "", other)
    act(engine, who, taken_under, SUSPENDED, now)
    assert all("holder-suspended" in against(engine, address, now) for address in addresses)
    held = ("hold", "certificateHold")
    assert [events(engine, serial) for serial in serials] == [[held], [held]]
    give_back(engine, who, lifted_under, now)
    assert [against(engine, address, now + MINUTE) for address in addresses] == [(), ()]
    released = ("release", "certificateHold")
    assert [events(engine, serial) for serial in serials] == [[held, released], [held, released]]


def test_a_strike_off_taken_before_the_link_revokes_what_the_new_number_has(
    engine: Engine, issue: Issue, enrolled: Enrolled, other: str, now: datetime
) -> None:
    serial = issue(who=enrol(engine, now, Seeded(NEW, other))).serial
    act(engine, enrolled, OLD, STRUCK_OFF, now)
    follower = Follower(engine, GRACES)
    follow(follower, now)
    assert events(engine, serial) == []
    run(engine, "DELETE FROM change")
    renumber(engine, now)
    told = "SELECT DISTINCT entity, key FROM change WHERE urgent AND key IN (:new, :other) ORDER BY 1"
    # LDAP takes down the mailbox it had nothing against until now.
    assert rows(engine, told, new=NEW, other=other) == [("mailbox", other), ("practitioner", NEW)]
    follow(follower, now)
    assert events(engine, serial) == [("revoke", "privilegeWithdrawn")]


def test_a_measure_under_the_old_number_is_told_of_the_mailboxes_of_the_new_one(
    engine: Engine, enrolled: Enrolled, other: str, now: datetime
) -> None:
    renumber(engine, now)
    mailboxes = [("mailbox", address) for address in sorted((enrolled.seeded.mailbox, other))]
    told = "SELECT DISTINCT entity, key FROM change WHERE urgent AND entity = 'mailbox' ORDER BY 2"
    for happens in (
        lambda: act(engine, enrolled, OLD, SUSPENDED, now),
        lambda: give_back(engine, enrolled, OLD, now),
    ):
        run(engine, "DELETE FROM change")
        happens()
        assert rows(engine, told) == mailboxes


def test_the_authority_of_the_new_number_is_competent_for_the_old_one_and_no_other(
    engine: Engine, enrolled: Enrolled, other: str, now: datetime
) -> None:
    renumber(engine, now)
    stranger = registrar(engine, "stranger", "CNOP")
    with pytest.raises(Refusal) as refused, transaction(engine) as connection:
        take(connection, now=now, token=stranger, national_id=OLD, kind=STRUCK_OFF, reason="x", graces=GRACES)
    assert (refused.value.code, refused.value.details["authorities"]) == ("wrong-authority", ["CNOM"])
    assert against(engine, other, now) == ("no-certificate",)
    act(engine, enrolled, OLD, SUSPENDED, now)
    with pytest.raises(Refusal) as refused:
        act(engine, enrolled, NEW, SUSPENDED, now)
    assert refused.value.code == "measure-in-force"


@pytest.mark.usefixtures("enrolled", "other")
def test_both_numbers_wait_for_one_lock(engine: Engine, now: datetime) -> None:
    renumber(engine, now)
    held = "SELECT DISTINCT classid, objid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1"
    with engine.begin() as connection:
        lock_person(connection, OLD)
        once = rows(engine, held)
        lock_person(connection, NEW)
        assert rows(engine, held) == once


@pytest.mark.usefixtures("other")
def test_who_leaves_under_the_new_number_keeps_nothing_of_the_old_one(
    engine: Engine, issue: Issue, now: datetime
) -> None:
    serial, follower = issue().serial, Follower(engine, GRACES)
    renumber(engine, now)
    follow(follower, now)
    assert events(engine, serial) == []
    depart(engine, NEW, now)
    follow(follower, now)
    assert events(engine, serial) == [("revoke", "cessationOfOperation")]


def test_who_lifts_a_measure_waits_for_nobody_linked_meanwhile(
    engine: Engine, issue: Issue, enrolled: Enrolled, other: str, now: datetime
) -> None:
    """Whoever has the new number may wait for this very measure: each would wait for the other for ever."""
    assert other
    serial = issue().serial
    seen = act(engine, enrolled, OLD, SUSPENDED, now)

    def agreed(who: Token) -> Measure:
        with transaction(engine) as connection:
            return lift(connection, now=now, token=who, measure_id=seen.id, reason="appeal", graces=GRACES)

    agreed(enrolled.first)
    with engine.connect() as before, engine.connect() as after, ThreadPoolExecutor(1) as threads:
        lock_person(before, OLD)
        lifted = threads.submit(agreed, enrolled.second)
        waits_for_a_lock(engine)
        # Its lock was named by the number as it was when it began to wait.
        renumber(engine, now)
        lock_person(after, NEW)
        before.rollback()
        try:
            assert lifted.result(timeout=60).state is MeasureState.LIFTED
        finally:
            after.rollback()
    assert [event for event, _ in events(engine, serial)] == ["hold"]
    follow(Follower(engine, GRACES), now)
    assert [event for event, _ in events(engine, serial)] == ["hold", "release"]
