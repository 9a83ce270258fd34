"""What an Ordre or an agency may do to a person's standing: suspend, strike off, for a time, and take back.

A measure stands beside the national register and overtakes it: the register may take days to say the same.
It is against the person: taken under one number, it stands under the one that replaced it.
Who may call, and for which authority, is checked by the entry point's token; who is competent, here.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, text, update

from directory import periods, store
from directory.base.audit import Actor, Event, record
from directory.base.comments import check_reason
from directory.base.errors import Kind, Refusal
from directory.base.instant import after, not_before, present
from directory.model import MeasureKind
from directory.periods import Moment, Period
from directory.rules import registering_authorities
from directory.tables import measure

# An end that is yet to come was written down before it comes.
_LAST_WRITTEN = text(
    "SELECT max(greatest(recorded_at, CASE WHEN ends_at <= :now THEN ends_at END)) FROM measure"
    " WHERE national_id = ANY(CAST(:numbers AS text[]))"
)


def take_measure(
    connection: Connection,
    *,
    now: datetime,
    actor: Actor,
    national_id: str,
    kind: MeasureKind,
    authority: str,
    reason: str,
    begins: Moment | None = None,
    until: Moment | None = None,
) -> int:
    """Suspend or strike off a person from `now` on, or from `begins`; gives the measure's number.

    A suspension lasts until it is lifted, or `until`. Refuses `unknown-practitioner`, `wrong-authority`,
    `measure-in-force`, `strike-off-has-no-end` and what `check_reason` and `periods.period` refuse.
    """
    check_reason(reason)
    if kind is MeasureKind.STRUCK_OFF and until is not None:
        raise _has_no_end()
    # Two measures of one person are taken one after the other, so that the second sees the first.
    store.lock_person(connection, national_id)
    numbers = store.numbers_of(connection, [national_id])
    _need_competence(connection, national_id, numbers, authority)
    now = present(connection, now)
    period = periods.period(begins, until, now)
    _need_something_added(connection, numbers, kind, authority, period)
    asked = {"numbers": list(numbers), "now": now}
    written = not_before(now, connection.execute(_LAST_WRITTEN, asked).scalar_one())
    row = {
        "national_id": national_id,
        "kind": kind.value,
        "authority": authority,
        "reason": reason,
        "starts_at": period.starts_at,
        "ends_at": period.ends_at,
        "recorded_by": actor.name,
        # In force from now on, whatever clock dated the one before; written down behind it all the same.
        "recorded_at": written,
    }
    measure_id: int = connection.execute(insert(measure).values(row).returning(measure.c.id)).scalar_one()
    # The reason may tell of a person's health or conduct: it stays in the record, out of a published log.
    detail: dict[str, Any] = {"measure": measure_id, "kind": kind.value, "authority": authority}
    detail |= {"from": period.starts_at.isoformat()} if begins is not None else {}
    detail |= _until(period.ends_at) if until is not None else {}
    record(
        connection, now=written, actor=actor, event=Event.MEASURE_TAKEN, subject=national_id, detail=detail
    )
    return measure_id


def unknown_measure(measure_id: int) -> Refusal:
    """The refusal of what is no measure, or another body's."""
    return Refusal(Kind.NOT_FOUND, "unknown-measure", f"There is no measure {measure_id}.")


def lift_measure(
    connection: Connection,
    *,
    now: datetime,
    actor: Actor,
    measure_id: int,
    authority: str,
    event: Event = Event.MEASURE_LIFTED,
) -> None:
    """End a measure from `now` on; only the authority that took it may. Why it was taken stays with it.

    One that has not begun never begins. Refuses `unknown-measure`, `measure-not-in-force`.
    """
    row = _held(connection, measure_id, authority)
    now = not_before(present(connection, now), row.recorded_at)
    _need_not_over(row, now)
    if row.starts_at > now:
        # What never was in force keeps an empty period.
        _end_at(connection, row, row.starts_at, now=now, actor=actor, event=event)
    else:
        # Taken and lifted in one instant, it still was.
        ends_at = after(now, row.starts_at)
        _end_at(connection, row, ends_at, now=ends_at, actor=actor, event=event)


def prolong_measure(
    connection: Connection,
    *,
    now: datetime,
    actor: Actor,
    measure_id: int,
    authority: str,
    until: Moment | None,
) -> datetime | None:
    """Have a suspension end later, or (None) when it is lifted; gives its new end.

    Refuses `unknown-measure`, `measure-not-in-force`, `not-longer` and what `periods.end` refuses.
    """
    row = _held(connection, measure_id, authority)
    now = not_before(present(connection, now), row.recorded_at)
    _need_not_over(row, now)
    ends_at = None if until is None else periods.end(until, _period(row), now)
    if row.ends_at is None or (ends_at is not None and ends_at <= row.ends_at):
        text_ = "It lasts as long already: ask for its shortening to have it end earlier."
        raise Refusal(Kind.CONFLICT, "not-longer", text_)
    _end_at(connection, row, ends_at, now=now, actor=actor, event=Event.MEASURE_PROLONGED)
    return ends_at


def shortened_end(row: Row[Any], until: Moment, now: datetime) -> datetime:
    """The end that a measure is to have instead of its later one.

    Refuses `measure-not-in-force`, `strike-off-has-no-end`, `not-shorter` and what `periods.end` refuses.
    """
    _need_not_over(row, now)
    if row.kind == MeasureKind.STRUCK_OFF.value:
        raise _has_no_end()
    ends_at = periods.end(until, _period(row), now)
    if row.ends_at is not None and ends_at >= row.ends_at:
        text_ = "It ends as early already: prolong it to have it end later."
        raise Refusal(Kind.CONFLICT, "not-shorter", text_)
    return ends_at


def shorten_measure(
    connection: Connection,
    *,
    now: datetime,
    actor: Actor,
    measure_id: int,
    authority: str,
    until: datetime,
) -> None:
    """Have a suspension end earlier. Refuses `unknown-measure` and what `shortened_end` refuses."""
    row = _held(connection, measure_id, authority)
    now = not_before(present(connection, now), row.recorded_at)
    ends_at = shortened_end(row, until, now)
    _end_at(connection, row, ends_at, now=now, actor=actor, event=Event.MEASURE_SHORTENED)


def _held(connection: Connection, measure_id: int, authority: str) -> Row[Any]:
    query = select(measure).where(measure.c.id == measure_id).with_for_update()
    row = connection.execute(query).one_or_none()
    # Another body's is not there for it: numbers tried one by one would tell how many it takes.
    if row is None or row.authority != authority:
        raise unknown_measure(measure_id)
    return row


def _need_not_over(row: Row[Any], now: datetime) -> None:
    if row.ends_at is not None and row.ends_at <= max(now, row.starts_at):
        raise Refusal(Kind.CONFLICT, "measure-not-in-force", f"Measure {row.id} has ended already.")


def _end_at(
    connection: Connection,
    row: Row[Any],
    ends_at: datetime | None,
    *,
    now: datetime,
    actor: Actor,
    event: Event,
) -> None:
    connection.execute(update(measure).where(measure.c.id == row.id).values(ends_at=ends_at))
    detail = {"measure": row.id, "kind": row.kind, "authority": row.authority}
    if event in {Event.MEASURE_PROLONGED, Event.MEASURE_SHORTENED}:
        detail |= _until(ends_at)
    record(connection, now=now, actor=actor, event=event, subject=row.national_id, detail=detail)


def _period(row: Row[Any]) -> Period:
    return Period(row.starts_at, row.ends_at)


def _until(ends_at: datetime | None) -> dict[str, str | None]:
    return {"until": None if ends_at is None else ends_at.isoformat()}


def _has_no_end() -> Refusal:
    text_ = "A strike-off lasts until it is lifted or annulled: a suspension may have an end."
    return Refusal(Kind.UNACCEPTABLE, "strike-off-has-no-end", text_)


def _need_competence(
    connection: Connection, national_id: str, numbers: Collection[str], authority: str
) -> None:
    people = store.practitioners(connection, sorted(numbers))
    if national_id not in people:
        raise Refusal(Kind.NOT_FOUND, "unknown-practitioner", f"Nobody is registered under {national_id}.")
    # A number that was replaced has no professions any more: its successor's say who may act under either.
    competent = frozenset().union(*map(registering_authorities, people.values()))
    # Who left the register has no professions there any more, yet may come back: any authority may act.
    if competent and authority not in competent:
        names = sorted(competent)
        sentence = f"{authority or 'Nobody'} does not hold the roll of this person; {', '.join(names)} does."
        raise Refusal(Kind.FORBIDDEN, "wrong-authority", sentence, authorities=names)


def _need_something_added(
    connection: Connection, numbers: Collection[str], kind: MeasureKind, authority: str, asked: Period
) -> None:
    """Refuse `measure-in-force` where one of the same kind and authority lasts as long; others overlap."""
    same = (
        select(measure)
        .where(
            measure.c.national_id.in_(numbers), measure.c.kind == kind.value,
            measure.c.authority == authority,
        )
        .order_by(measure.c.id)
    )  # fmt: skip
    for known in connection.execute(same):
        if periods.covers(_period(known), asked):
            sentence = f"{authority} has this measure in force for that time already."
            raise Refusal(Kind.CONFLICT, "measure-in-force", sentence, measure=known.id)
