"""The rows of what persons signed for enrolments: added once each, and never changed."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from directory.base.prepared_statement import Statement
from pki.model import Enrolment, EnrolmentAct, EnrolmentState
from pki.record.tables import enrolment

_FIELDS = tuple(column.name for column in enrolment.c if column.name != "sys_from")
_ADD = Statement("""
    INSERT INTO enrolment_act (enrolment_id, kind, person, credential, signed, at)
    VALUES (:enrolment_id, :kind, :person, :credential, :signed, :at)
    ON CONFLICT DO NOTHING RETURNING kind
""")
_OF_ENROLMENT = Statement("""
    SELECT enrolment_id, kind, person, credential, signed, at FROM enrolment_act
    WHERE enrolment_id = :enrolment_id ORDER BY kind
""")
# Beside each enrolment, as the acts were signed for what it says. One that kept no names has no acts: the
# history (`NAMES_OF_ENROLMENT`) is not asked.
_EVIDENCE = Statement(f"""
    SELECT {", ".join(f"e.{name}" for name in _FIELDS)},
           (SELECT n.names FROM enrolment_names n WHERE n.enrolment_id = e.id),
           (SELECT array_agg(ARRAY[a.kind, a.person, a.credential, a.signed] ORDER BY a.kind)
            FROM enrolment_act a WHERE a.enrolment_id = e.id),
           (SELECT array_agg(a.at ORDER BY a.kind) FROM enrolment_act a WHERE a.enrolment_id = e.id)
    FROM enrolment e WHERE e.id = ANY(CAST(:ids AS uuid[]))
""")  # noqa: S608 - names of columns of our own


@dataclass(frozen=True)
class Evidence:
    """An enrolment as the record has it, and what persons signed for it."""

    enrolment: Enrolment
    acts: tuple[EnrolmentAct, ...]


def add(connection: Connection, act: EnrolmentAct) -> bool:
    """Store an act; False when the enrolment has one of this kind, which stays."""
    return _ADD.row(connection, {**vars(act), "signed": act.signed.decode("ascii")}) is not None


def acts_of(connection: Connection, enrolment_id: UUID) -> dict[str, EnrolmentAct]:
    """What persons signed for this enrolment, by its kind."""
    rows = _OF_ENROLMENT.rows(connection, {"enrolment_id": enrolment_id})
    return {
        kind: EnrolmentAct(of, kind, person, credential, text.encode(), at)
        for of, kind, person, credential, text, at in rows
    }


def evidence(connection: Connection, enrolment_ids: Collection[UUID]) -> dict[UUID, Evidence]:
    """These enrolments with their acts, by one statement; those that are none are absent."""
    return {row[0]: _evidence(row) for row in _EVIDENCE.rows(connection, {"ids": list(enrolment_ids)})}


def _evidence(row: tuple[Any, ...]) -> Evidence:
    *columns, acts, instants = row
    known = dict(zip((*_FIELDS, "names"), columns, strict=True))
    signed = (
        EnrolmentAct(known["id"], kind, person, credential, text.encode(), at)
        for (kind, person, credential, text), at in zip(acts or (), instants or (), strict=True)
    )
    return Evidence(Enrolment(**{**known, "state": EnrolmentState(known["state"])}), tuple(signed))
