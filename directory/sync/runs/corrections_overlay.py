"""What is said here over what a file says: local corrections go with the rows before these reach the record.

Called once in the transaction that applies a file, before its acts. No reader, of the present or of the past,
ever meets the register's value in between. Each correction learns what the register says now, so that lifting
it gives that back. A correction that the register has come to agree with ends.
"""

from datetime import datetime

from sqlalchemy import Connection, text

from directory.base.audit import Actor, Event, record_all
from directory.base.locks import lock_until_commit
from directory.corrections import lock_of
from directory.feed.changes import Entity
from directory.precedence import CORRECTABLE

_ASKED = text("""
    SELECT DISTINCT c.key FROM correction c JOIN planned p ON p.key = c.key
    WHERE c.entity = :entity AND c.ending IS NULL AND p.act IN ('create', 'change')
""")
# By key, which the view can look up: it would sort a whole country otherwise. A closing day is only brought
# forward by a correction: one that FINESS puts as early agrees.
_FOLLOW = text("""
    UPDATE correction c
    SET register_value = said.value,
        ending = CASE WHEN said.agrees THEN 'agreed' END,
        ended_by = CASE WHEN said.agrees THEN CAST(:actor AS text) END,
        ended_at = CASE WHEN said.agrees THEN CAST(:now AS timestamptz) END
    FROM (
        SELECT l.id, s.value, s.value = l.value
               OR l.field = 'closed_on' AND s.value <> '' AND s.value < l.value AS agrees
        FROM told t JOIN correction l ON l.entity = :entity AND l.key = t.key AND l.ending IS NULL,
        LATERAL (SELECT coalesce(to_jsonb(t) ->> l.field, '') AS value) AS s
        WHERE t.key = ANY(CAST(:keys AS text[])) AND l.field = ANY(CAST(:fields AS text[]))
    ) AS said
    WHERE c.id = said.id
    RETURNING c.id, c.key, c.field, c.ending
""")


def overlay(connection: Connection, entity: Entity, *, now: datetime, actor: Actor) -> dict[str, int]:
    """Make the temporary table `corrected` (key, each field that is corrected here), beside the view `told`.

    Holds back whoever corrects the same rows until the commit. Gives how many corrections went along
    ("corrected") and how many the register has come to agree with ("agreed").
    """
    lock_until_commit(connection, lock_of(entity))
    keys = list(connection.execute(_ASKED, {"entity": entity.value}).scalars())
    agreed = _follow(connection, entity, keys, now=now, actor=actor) if keys else 0
    fields = (f"max(value) FILTER (WHERE field = '{field}') AS {field}" for field in CORRECTABLE[entity])
    connection.execute(
        text(
            f"CREATE TEMP TABLE corrected AS SELECT key, {', '.join(fields)} FROM correction"  # noqa: S608 - our own constants
            f" WHERE entity = '{entity.value}' AND ending IS NULL GROUP BY key"
        )
    )
    connection.execute(text("ANALYZE corrected"))
    return {"corrected": len(keys), "agreed": agreed}


def _follow(connection: Connection, entity: Entity, keys: list[str], *, now: datetime, actor: Actor) -> int:
    told = [field for field, by_register in CORRECTABLE[entity].items() if by_register]
    asked = {"entity": entity.value, "keys": keys, "fields": told, "actor": actor.name, "now": now}
    ended = [row for row in connection.execute(_FOLLOW, asked) if row.ending is not None]
    lines = [
        (row.key, {"correction": row.id, "entity": entity.value, "field": row.field, "ending": row.ending})
        for row in ended
    ]
    record_all(connection, now=now, actor=actor, event=Event.CORRECTION_ENDED, lines=lines)
    return len(ended)
