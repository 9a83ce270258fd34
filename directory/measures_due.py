"""Measures that begin or end by the clock: told to the feed when they do, as if just written.

Nothing depends on a job that runs at night, nor on one that ran in time. A measure's state follows from its
dates, and the feed's word of it is kept beside. Every difference is told, after a stop and after a clock that
was put forward or back as well. The followers of the feed see to certificates and LDAP.
"""

from datetime import datetime

from sqlalchemy import Connection, text

from directory.base.audit import Actor, Event, record

ACTOR = Actor("job:measures-due")
_IN_FORCE, _OVER = "in-force", "over"
# Under every number of the person: a measure follows him to the one that took the place of his.
_TELL = text("""
    WITH looked AS MATERIALIZED (
        SELECT p.measure_id, m.national_id, m.kind, m.authority, m.starts_at, m.ends_at, p.phase AS told,
               sceau_phase(m.starts_at, m.ends_at, :now) AS phase
        FROM measure_phase p JOIN measure m ON m.id = p.measure_id
        WHERE p.due_at <= :now AND p.due_at < 'infinity' OR p.told_at > :now
        ORDER BY p.measure_id FOR UPDATE OF p
    ), kept AS (
        UPDATE measure_phase p SET phase = l.phase, told_at = :now,
               due_at = sceau_phase_ends(l.phase, l.starts_at, l.ends_at)
        FROM looked l WHERE l.measure_id = p.measure_id
    ), whose AS (
        SELECT national_id AS number FROM looked WHERE phase <> told
        UNION SELECT u.successor FROM looked l JOIN succession u USING (national_id)
        WHERE l.phase <> l.told AND u.successor IS NOT NULL
    ), tell AS (
        INSERT INTO change (entity, key, urgent)
        SELECT 'practitioner', number, true FROM whose
        UNION ALL SELECT 'mailbox', m.address, true FROM whose w JOIN mailbox m ON m.holder = w.number
    )
    SELECT measure_id, national_id, kind, authority, told, phase FROM looked WHERE phase <> told
    ORDER BY measure_id
""")
_NEXT = text("""
    SELECT CAST(extract(epoch FROM min(due_at) - CAST(:now AS timestamptz)) AS float8)
    FROM measure_phase WHERE due_at < 'infinity'
""")


def tell(connection: Connection, now: datetime) -> int:
    """Tell the feed of every measure that is another at `now` than was told of it; how many there were.

    `now` is the database's clock, which readers of the feed go by as well.
    """
    changed = connection.execute(_TELL, {"now": now}).all()
    for measure in changed:
        event = {_IN_FORCE: Event.MEASURE_BEGAN, _OVER: Event.MEASURE_ENDED}.get(measure.phase)
        # A clock put back un-begins a measure: nobody's act. What came and went unseen is told by its end.
        if event is not None:
            detail = {
                "measure": measure.measure_id,
                "kind": measure.kind,
                "authority": measure.authority,
            }
            record(connection, now=now, actor=ACTOR, event=event, subject=measure.national_id, detail=detail)
    return len(changed)


def next_within(connection: Connection, now: datetime) -> float | None:
    """Seconds until the next measure begins or ends, 0 where one is due; None where nothing is to come."""
    seconds: float | None = connection.execute(_NEXT, {"now": now}).scalar_one()
    return None if seconds is None else max(0.0, seconds)
