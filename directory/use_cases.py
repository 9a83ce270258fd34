"""What an Ordre or an agency may do to a person's standing: suspend, strike off, and take either back.

A measure stands beside the national register and overtakes it: the register may take days to say the same.
It is against the person: taken under one number, it stands under the one that replaced it.
Who may call, and for which authority, is checked by the entry point's token; who is competent, here.
"""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, insert, select, text, update

from directory import store
from directory.base.audit import Actor, Event, record
from directory.base.errors import Kind, Refusal
from directory.base.instant import after, not_before, present
from directory.model import MeasureKind
from directory.rules import check_reason, registering_authorities
from directory.tables import measure

_LAST_WRITTEN = text(
    "SELECT max(greatest(recorded_at, ends_at)) FROM measure"
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
) -> int:
    """Suspend or strike off a person from `now` on, until lifted; gives the measure's number.

    Refuses `unknown-practitioner`, `wrong-authority`, `measure-in-force` and what `check_reason` refuses.
    """
    check_reason(reason)
    # Two measures of one person are taken one after the other, so that the second sees the first.
    store.lock_person(connection, national_id)
    numbers = store.numbers_of(connection, [national_id])
    _need_competence(connection, national_id, numbers, authority)
    _need_none_in_force(connection, numbers, kind, authority)
    now = present(connection, now)
    written = not_before(now, connection.execute(_LAST_WRITTEN, {"numbers": list(numbers)}).scalar_one())
    row = {
        "national_id": national_id,
        "kind": kind.value,
        "authority": authority,
        "reason": reason,
        "starts_at": now,
        "recorded_by": actor.name,
        # In force from now on, whatever clock dated the one before; written down behind it all the same.
        "recorded_at": written,
    }
    measure_id: int = connection.execute(insert(measure).values(row).returning(measure.c.id)).scalar_one()
    # The reason may tell of a person's health or conduct: it stays in the record, out of a published log.
    detail = {"measure": measure_id, "kind": kind.value, "authority": authority}
    record(
        connection, now=written, actor=actor, event=Event.MEASURE_TAKEN, subject=national_id, detail=detail
    )
    return measure_id


def unknown_measure(measure_id: int) -> Refusal:
    """The refusal of what is no measure, or another body's."""
    return Refusal(Kind.NOT_FOUND, "unknown-measure", f"There is no measure {measure_id}.")


def lift_measure(
    connection: Connection, *, now: datetime, actor: Actor, measure_id: int, authority: str
) -> None:
    """End a measure from `now` on; only the authority that took it may. Why it was taken stays with it.

    Refuses `unknown-measure`, `measure-not-in-force`.
    """
    found = connection.execute(
        select(measure).where(measure.c.id == measure_id).with_for_update()
    ).one_or_none()
    # Another body's is not there for it: numbers tried one by one would tell how many it takes.
    if found is None or found.authority != authority:
        raise unknown_measure(measure_id)
    if found.ends_at is not None:
        raise Refusal(Kind.CONFLICT, "measure-not-in-force", f"Measure {measure_id} has ended already.")
    # Taken and lifted in one instant, it still was: the record keeps no empty periods.
    ends_at = not_before(after(present(connection, now), found.starts_at), found.recorded_at)
    connection.execute(update(measure).where(measure.c.id == measure_id).values(ends_at=ends_at))
    detail = {"measure": measure_id, "kind": found.kind, "authority": authority}
    record(
        connection,
        now=ends_at,
        actor=actor,
        event=Event.MEASURE_LIFTED,
        subject=found.national_id,
        detail=detail,
    )


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


def _need_none_in_force(
    connection: Connection, numbers: Collection[str], kind: MeasureKind, authority: str
) -> None:
    same = select(measure.c.id).where(
        measure.c.national_id.in_(numbers),
        measure.c.kind == kind.value,
        measure.c.authority == authority,
        measure.c.ends_at.is_(None),
    )
    in_force = connection.execute(same).scalars().first()
    if in_force is not None:
        sentence = f"{authority} has this measure in force already."
        raise Refusal(Kind.CONFLICT, "measure-in-force", sentence, measure=in_force)
