"""Time that passes for measures while nobody waits: what is dated moves back, and no trigger hears of it."""

from datetime import timedelta

from sqlalchemy import Engine, text

_PASS = (
    "UPDATE measure SET starts_at = starts_at - :by, ends_at = ends_at - :by",
    "UPDATE measure SET recorded_at = recorded_at - :by",
    "UPDATE measure_phase SET told_at = told_at - :by, due_at = due_at - :by WHERE due_at < 'infinity'",
    "UPDATE measure_phase SET told_at = told_at - :by WHERE due_at = 'infinity'",
)


def pass_time(engine: Engine, by: timedelta) -> None:
    """See that all measures were recorded, begin and end earlier by so much."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in _PASS:
            connection.execute(text(statement), {"by": by})
