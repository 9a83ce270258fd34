"""The rows of enrolments, each found or locked with its person."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import (
    ARRAY,
    Connection,
    Select,
    Uuid,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB

from directory.base.audit import BESIDE, Line, beside
from directory.base.locks import lock_key
from directory.base.prepared_statement import Statement
from directory.store import person_lock_sql
from pki.model import Enrolment, EnrolmentState
from pki.record.tables import NAMES_OF_ENROLMENT, enrolment

_ENROLMENT_COLUMNS = tuple(column for column in enrolment.c if column.name != "sys_from")
_ENROLMENT = (
    *_ENROLMENT_COLUMNS,
    literal_column(NAMES_OF_ENROLMENT.format(id="enrolment.id"), JSONB).label("names"),
)
_ENROLMENT_FIELDS = (*(column.name for column in _ENROLMENT_COLUMNS), "names")
# From the few of one place to their enrolments, each step by its own index: an OR of the two ways would read
# every enrolment. `<> ''` and `<> 'ended'` are what the partial indexes ask.
_OF_ESTABLISHMENT = """
    enrolment.id IN (
        SELECT e.id FROM mailbox m JOIN enrolment e ON e.mailbox = m.address {living}
        WHERE m.finess = ANY (:establishment) AND m.finess <> ''
        UNION SELECT e.id FROM mailbox m JOIN enrolment e ON e.mailbox = m.address {living}
        WHERE m.structure_id = ANY (:establishment) AND m.structure_type = '3'
        UNION SELECT e.id FROM practice p JOIN enrolment e ON e.practitioner = p.national_id
        WHERE p.finess = ANY (:establishment) AND p.finess <> '')
"""
_LIVING_OF_ESTABLISHMENT = text(_OF_ESTABLISHMENT.format(living="AND e.state <> 'ended'"))
# Ended ones are asked for by auditors, now and then: no index is kept for them.
_ALL_OF_ESTABLISHMENT = text(_OF_ESTABLISHMENT.format(living=""))
_ENROLMENT_OF_ID: Select[Any] = select(*_ENROLMENT).where(enrolment.c.id == bindparam("id"))
# In this order, as on every road: the person, then the keys, then the enrolment. Its row is locked when the
# others are held, and given as it is then: PostgreSQL follows a locked row to its newest version.
_HELD_ENROLMENT = Statement(f"""
    WITH held AS MATERIALIZED (
        SELECT pg_advisory_xact_lock({person_lock_sql("e.practitioner")}),
               (SELECT count(pg_advisory_xact_lock(key)) FROM unnest(CAST(:keys AS bigint[])) AS key)
        FROM enrolment e WHERE e.id = :id),
    found AS MATERIALIZED (
        SELECT {", ".join(column.name for column in _ENROLMENT_COLUMNS)},
               {NAMES_OF_ENROLMENT.format(id="e.id")} AS names
        FROM held CROSS JOIN enrolment e WHERE e.id = :id FOR UPDATE OF e)
    SELECT found.*, clock_timestamp() FROM found
""")  # noqa: S608 - an expression and names of our own
# With those of the same person and mailbox that have not ended, in the order of ids, as
# `pki/withdrawal/store.py` locks them. A caller who locks one and then another would deadlock with it.
# Sorted: every person is held before.
_LOCK_BESIDE = Statement(f"""
    WITH held AS MATERIALIZED (
        SELECT e.id, e.mailbox, e.practitioner, pg_advisory_xact_lock({person_lock_sql("e.practitioner")})
        FROM enrolment e WHERE e.id = ANY(CAST(:ids AS uuid[])))
    SELECT e.id FROM enrolment e WHERE e.id IN (
        SELECT id FROM held
        UNION SELECT x.id FROM held h
        JOIN enrolment x ON x.mailbox = h.mailbox AND x.practitioner = h.practitioner AND x.state <> 'ended')
    ORDER BY e.id FOR UPDATE OF e
""")  # noqa: S608 - an expression of our own
_STANDING = Statement(
    select(*_ENROLMENT)
    .where(
        enrolment.c.mailbox == bindparam("mailbox"),
        enrolment.c.practitioner == bindparam("practitioner"),
        enrolment.c.state != EnrolmentState.ENDED.value,
    )
    .order_by(enrolment.c.id)
    .with_for_update()
)
# An approval locks all of its person and mailbox, ended ones too: one may be given back while the lock is
# waited for. Each row is given as it is once it is locked. No other can be asked for while this one is.
# Whoever locks ended rows holds their person: that keeps who approves several of them from a deadlock.
# The ids are an array, or the planner would read every enrolment.
_FOUND_WITH_STANDING = Statement(f"""
    WITH held AS MATERIALIZED (
        SELECT e.id, e.mailbox, e.practitioner, pg_advisory_xact_lock({person_lock_sql("e.practitioner")})
        FROM enrolment e WHERE e.id = :id),
    found AS MATERIALIZED (
        SELECT {", ".join(f"e.{column.name}" for column in _ENROLMENT_COLUMNS)},
               {NAMES_OF_ENROLMENT.format(id="e.id")} AS names
        FROM enrolment e WHERE e.id = ANY(ARRAY(
            SELECT id FROM held
            UNION SELECT x.id FROM held JOIN enrolment x
            ON x.mailbox = held.mailbox AND x.practitioner = held.practitioner))
        ORDER BY e.id FOR UPDATE OF e)
    SELECT found.*, clock_timestamp() FROM found
""")  # noqa: S608 - an expression and names of our own
_ADD_ENROLMENT = Statement(f"""
    WITH done AS (
        INSERT INTO enrolment (id, practitioner, mailbox, authority, identity_check, state, requested_by,
                               requested_at)
        SELECT :id, :practitioner, :mailbox, :authority, CAST(:identity_check AS jsonb), :state,
               :requested_by, :requested_at
        WHERE CAST(:beside AS boolean) OR NOT EXISTS (
            SELECT FROM enrolment WHERE mailbox = :mailbox AND practitioner = :practitioner
            AND state = 'approved')
        ON CONFLICT (mailbox, practitioner) WHERE state = 'requested' DO NOTHING RETURNING id
    ), named AS (
        INSERT INTO enrolment_names (enrolment_id, names) SELECT id, CAST(:names AS jsonb) FROM done
    ), {BESIDE} SELECT id FROM done
""")  # noqa: S608 - of our own, as below
_APPROVE = Statement(f"""
    WITH done AS (
        UPDATE enrolment SET state = 'approved', approved_by = :by, approved_at = :at WHERE id = :id
        RETURNING id
    ), {BESIDE} SELECT id FROM done
""")  # noqa: S608


def add_enrolment(connection: Connection, asked: Enrolment, line: Line, *, beside_approved: bool) -> bool:
    """Store a request with its line; False when one awaits approval for the same person and mailbox.

    Without `beside_approved` also where one is approved. The caller holds the person's lock.
    """
    row = {
        **vars(asked),
        "state": asked.state.value,
        "identity_check": orjson.dumps(dict(asked.identity_check)).decode(),
        "names": orjson.dumps(dict(asked.names or {})).decode(),
        "beside": beside_approved,
        **beside(line),
    }
    return _ADD_ENROLMENT.row(connection, row) is not None


def load_enrolment(connection: Connection, enrolment_id: UUID) -> Enrolment | None:
    """The enrolment of that id, or None."""
    row = connection.execute(_ENROLMENT_OF_ID, {"id": enrolment_id}).one_or_none()
    return None if row is None else _enrolment(row)


def lock_enrolment(
    connection: Connection, enrolment_id: UUID, *, names: Iterable[str] = ()
) -> tuple[Enrolment, datetime] | None:
    """The enrolment of that id as it is once its person, the locks of these names and its row are held.

    With what the database's clock said then. None when there is none, and then nothing is held.
    """
    asked = {"id": enrolment_id, "keys": sorted(lock_key(name) for name in names)}
    row = _HELD_ENROLMENT.row(connection, asked)
    return None if row is None else (_enrolment(row[:-1]), row[-1])


def lock_beside(connection: Connection, enrolment_ids: Collection[UUID]) -> None:
    """Lock these enrolments and those that stand beside them, of one person and mailbox; in the order of ids.

    The people are held before. Of several people the caller holds them, in the order of all who lock several.
    """
    _LOCK_BESIDE.rows(connection, {"ids": list(enrolment_ids)})


def enrolment_and_standing(
    connection: Connection, enrolment_id: UUID
) -> tuple[Enrolment, list[Enrolment], datetime] | None:
    """The enrolment of that id, and those of its person and mailbox that have not ended, under their locks.

    The person is held too. With what the database's clock said then; None when there is none.
    """
    rows = _FOUND_WITH_STANDING.rows(connection, {"id": enrolment_id})
    known = {entry.id: entry for entry in (_enrolment(row[:-1]) for row in rows)}
    locked = known.pop(enrolment_id, None)
    if locked is None:
        return None
    standing = [sibling for sibling in known.values() if sibling.state is not EnrolmentState.ENDED]
    return locked, standing, rows[-1][-1]


def enrolments(
    connection: Connection,
    *,
    authority: str | None,
    state: EnrolmentState | None,
    establishment: Sequence[str] | None,
    after: Enrolment | None,
    limit: int,
) -> list[Enrolment]:
    """The first `limit` that come after `after`, oldest request first; None for any of that.

    `establishment` is each number that it or its places are known by (FINESS, SIRET).
    """
    query: Select[Any] = select(*_ENROLMENT).order_by(enrolment.c.requested_at, enrolment.c.id).limit(limit)
    if authority is not None:
        query = query.where(enrolment.c.authority == authority)
    if state is not None:
        query = query.where(enrolment.c.state == state.value)
    if establishment is not None:
        living = state is not None and state is not EnrolmentState.ENDED
        of_it = _LIVING_OF_ESTABLISHMENT if living else _ALL_OF_ESTABLISHMENT
        query = query.where(of_it).params(establishment=list(establishment))
    if after is not None:
        query = query.where(tuple_(enrolment.c.requested_at, enrolment.c.id) > (after.requested_at, after.id))
    return [_enrolment(row) for row in connection.execute(query)]


def standing_enrolments(connection: Connection, mailbox: str, practitioner: str) -> list[Enrolment]:
    """Those of this person and mailbox that have not ended, locked: one asked for, one approved at most."""
    asked = {"mailbox": mailbox, "practitioner": practitioner}
    return [_enrolment(row) for row in _STANDING.rows(connection, asked)]


def end(connection: Connection, enrolment_id: UUID, now: datetime) -> Enrolment:
    """Set an enrolment, locked by the caller, to ended."""
    query = (
        update(enrolment)
        .where(enrolment.c.id == enrolment_id)
        .values(state=EnrolmentState.ENDED.value, ended_at=now)
        .returning(*_ENROLMENT)
    )
    return _enrolment(connection.execute(query).one())


def approve(connection: Connection, locked: Enrolment, token_id: int, line: Line) -> Enrolment:
    """Set an enrolment, locked by the caller, to approved at the instant of its line."""
    asked = {"id": locked.id, "by": token_id, "at": line.at, **beside(line)}
    ((_,),) = _APPROVE.rows(connection, asked)
    return replace(locked, state=EnrolmentState.APPROVED, approved_by=token_id, approved_at=line.at)


def end_all(connection: Connection, enrolment_ids: Collection[UUID], now: datetime) -> list[Enrolment]:
    """Set those of these enrolments that live to ended; gives those ended."""
    query = (
        update(enrolment)
        .where(
            enrolment.c.id == func.any(cast(list(enrolment_ids), ARRAY(Uuid))),
            enrolment.c.state != EnrolmentState.ENDED.value,
        )
        .values(state=EnrolmentState.ENDED.value, ended_at=now)
        .returning(*_ENROLMENT)
    )
    return [_enrolment(row) for row in connection.execute(query)]


def _enrolment(row: Sequence[Any]) -> Enrolment:
    known = dict(zip(_ENROLMENT_FIELDS, row, strict=True))
    return Enrolment(**{**known, "state": EnrolmentState(known["state"])})
