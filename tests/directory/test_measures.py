"""Suspending and striking off: by the competent authority only, once, ended without a trace lost."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from directory.base.audit import Actor
from directory.base.comments import LONGEST_REASON
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.measures import lift_measure, take_measure
from directory.model import MeasureKind
from directory.store import practitioners
from tests.factories import depart, rpps, seed_practitioner

HOUR = timedelta(hours=1)


def take(engine: Engine, now: datetime, actor: Actor, **given: Any) -> int:
    asked = {
        "national_id": rpps(1), "kind": MeasureKind.SUSPENDED, "authority": "CNOM", "reason": "decision 12",
    } | given  # fmt: skip
    with transaction(engine) as connection:
        return take_measure(connection, now=now, actor=actor, **asked)


def lift(engine: Engine, now: datetime, actor: Actor, measure_id: int, **given: Any) -> None:
    asked = {"authority": "CNOM"} | given
    with transaction(engine) as connection:
        lift_measure(connection, now=now, actor=actor, measure_id=measure_id, **asked)


def test_a_person_is_suspended_until_it_is_lifted(engine: Engine, now: datetime, actor: Actor) -> None:
    seed_practitioner(engine)
    measure = take(engine, now, actor)
    with transaction(engine) as connection:
        assert practitioners(connection, [rpps(1)])[rpps(1)].suspended
    lift(engine, now + HOUR, actor, measure)
    with transaction(engine) as connection:
        person = practitioners(connection, [rpps(1)])[rpps(1)]
    assert (person.suspended, person.struck_off) == (False, False)


def test_one_measure_does_not_stand_for_the_other(engine: Engine, now: datetime, actor: Actor) -> None:
    seed_practitioner(engine)
    struck_off = take(engine, now, actor, kind=MeasureKind.STRUCK_OFF)
    take(engine, now, actor)
    lift(engine, now + HOUR, actor, struck_off)
    with transaction(engine) as connection:
        person = practitioners(connection, [rpps(1)])[rpps(1)]
    assert (person.suspended, person.struck_off) == (True, False)


def test_a_measure_wakes_the_holders_mailboxes_urgently(engine: Engine, now: datetime, actor: Actor) -> None:
    mailbox = seed_practitioner(engine).mailbox
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM change"))
    take(engine, now, actor)
    with engine.connect() as connection:
        changes = connection.execute(text("SELECT entity, key, urgent FROM change")).all()
    assert {tuple(row) for row in changes} == {("practitioner", rpps(1), True), ("mailbox", mailbox, True)}


@pytest.mark.parametrize(("days", "stands"), [(7, False), (-7, True)], ids=["next week", "last week"])
def test_a_measure_recorded_for_later_does_not_stand_before_its_day(
    engine: Engine, actor: Actor, days: int, stands: object
) -> None:
    seed_practitioner(engine)
    today = datetime.now(UTC)
    take(engine, today, actor)
    with engine.begin() as connection:
        connection.execute(text("UPDATE measure SET starts_at = :day"), {"day": today + timedelta(days=days)})
    with transaction(engine) as connection:
        assert practitioners(connection, [rpps(1)])[rpps(1)].suspended is stands


REFUSED: dict[str, tuple[dict[str, Any], Kind, str]] = {
    "nobody": ({"national_id": rpps(2)}, Kind.NOT_FOUND, "unknown-practitioner"),
    "another Ordre": ({"authority": "CNOP"}, Kind.FORBIDDEN, "wrong-authority"),
    "no authority": ({"authority": ""}, Kind.FORBIDDEN, "wrong-authority"),
    "no reason": ({"reason": "  "}, Kind.MALFORMED, "reason-missing"),
    "a book": ({"reason": "x" * (LONGEST_REASON + 1)}, Kind.MALFORMED, "reason-too-long"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_measure_is_refused_when_its_grounds_are(
    engine: Engine, now: datetime, actor: Actor, case: tuple[dict[str, Any], Kind, str]
) -> None:
    asked, kind, code = case
    seed_practitioner(engine)
    with pytest.raises(Refusal) as refused:
        take(engine, now, actor, **asked)
    assert (refused.value.kind, refused.value.code) == (kind, code)


def test_each_authority_of_a_person_of_two_professions_may_act(
    engine: Engine, now: datetime, actor: Actor
) -> None:
    seed_practitioner(engine, professions=(("10", "C"), ("91", "C")))
    take(engine, now, actor, authority="CNOM")
    take(engine, now, actor, authority="ARS")
    with pytest.raises(Refusal) as refused:
        take(engine, now, actor, authority="CNOM")
    assert refused.value.code == "measure-in-force"


def test_someone_who_left_the_register_can_still_be_struck_off(
    engine: Engine, now: datetime, actor: Actor
) -> None:
    seed_practitioner(engine)
    depart(engine, rpps(1), now)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM profession"))
    take(engine, now, actor, kind=MeasureKind.STRUCK_OFF)
    with transaction(engine) as connection:
        assert practitioners(connection, [rpps(1)])[rpps(1)].struck_off


def test_only_a_measure_in_force_is_lifted_and_only_by_who_took_it(
    engine: Engine, now: datetime, actor: Actor
) -> None:
    seed_practitioner(engine)
    measure = take(engine, now, actor)
    codes = []
    for number, given in ((measure, {"authority": "CNOP"}), (measure + 1, {}), (measure, {}), (measure, {})):
        try:
            lift(engine, now + HOUR, actor, number, **given)
        except Refusal as refusal:
            codes.append(refusal.code)
    assert codes == ["unknown-measure", "unknown-measure", "measure-not-in-force"]


def test_a_measure_lifted_in_the_instant_it_was_taken_has_still_been(
    engine: Engine, now: datetime, actor: Actor
) -> None:
    seed_practitioner(engine)
    lift(engine, now, actor, take(engine, now, actor))
    with engine.connect() as connection:
        row = connection.execute(text("SELECT starts_at, ends_at, reason FROM measure")).one()
        before = connection.execute(text("SELECT reason, ends_at FROM measure_history")).one()
    assert row.ends_at > row.starts_at == now
    assert (row.reason, before.reason, before.ends_at) == ("decision 12", "decision 12", None)


def test_the_log_tells_of_both_acts_and_keeps_their_reasons_to_itself(
    engine: Engine, now: datetime, actor: Actor
) -> None:
    seed_practitioner(engine)
    lift(engine, now + HOUR, actor, take(engine, now, actor))
    with engine.connect() as connection:
        lines = connection.execute(
            text("SELECT event, subject, detail::text FROM audit_pending ORDER BY id")
        ).all()
    assert [(line.event, line.subject) for line in lines] == [
        ("measure.taken", rpps(1)), ("measure.lifted", rpps(1)),
    ]  # fmt: skip
    assert "decision 12" not in str(lines)
    assert "appeal" not in str(lines)
