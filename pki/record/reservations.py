"""The rows of reservations: serial and bytes, committed before any signature."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import ARRAY, Connection, Select, Text, bindparam, cast, exists, func, select
from sqlalchemy.dialects.postgresql import insert

from directory.base.audit import BESIDE, Line, beside, queue
from directory.base.prepared_statement import Statement
from pki.model import Authority, Reservation, Serial
from pki.record.authorities import AUTHORITY_COLUMNS, authority_in
from pki.record.tables import any_of, authority, certificate, key_holder, reservation

RESERVATION_COLUMNS = tuple(
    column for column in reservation.c if column.name not in ("lints", "requested_by")
)
_RESERVATION_OF_SERIAL: Select[Any] = select(*RESERVATION_COLUMNS).where(
    reservation.c.serial == bindparam("serial")
)
_LOCKED_RESERVATION = _RESERVATION_OF_SERIAL.with_for_update()
_TO_SIGN = Statement(
    select(
        *RESERVATION_COLUMNS,
        exists().where(certificate.c.serial == reservation.c.serial).label("stored"),
        *(column.label(f"ca_{column.name}") for column in AUTHORITY_COLUMNS),
    )
    .join(authority, authority.c.id == reservation.c.authority_id)
    # In a subquery the planner cannot count them: it would plan each question anew, which takes as long.
    .where(
        reservation.c.serial
        == func.any(cast(select(bindparam("serials", type_=ARRAY(Text))).scalar_subquery(), ARRAY(Text)))
    )
)
_ADD_RESERVATION = insert(reservation)
# With the key, which whoever came first keeps. Nobody else reserves for the same enrolment meanwhile: the
# person is locked, so that a holder this statement cannot see yet is another enrolment.
_ADD_RESERVATION_OF_KEY = Statement(f"""
    WITH held AS (
        INSERT INTO key_holder (spki_sha256, enrolment_id, since)
        VALUES (:spki_sha256, :enrolment_id, :reserved_at) ON CONFLICT DO NOTHING RETURNING enrolment_id
    ), holder AS (
        SELECT enrolment_id FROM held
        UNION ALL SELECT enrolment_id FROM key_holder WHERE spki_sha256 = :spki_sha256
    ), done AS (
        INSERT INTO reservation (serial, authority_id, profile, shard, mailbox, practitioner, enrolment_id,
                                 spki_sha256, tbs, tbs_sha256, lints, requested_by, reserved_at)
        SELECT :serial, :authority_id, :profile, :shard, :mailbox, :practitioner, :enrolment_id, :spki_sha256,
               :tbs, :tbs_sha256, CAST(:lints AS jsonb), :requested_by, :reserved_at
        WHERE CAST(:enrolment_id AS uuid) IN (SELECT enrolment_id FROM holder)
        RETURNING serial
    ), {BESIDE} SELECT serial FROM done
""")  # noqa: S608


@dataclass(frozen=True)
class ToSign:
    """A reservation, whether its certificate is stored, and the CA that is to sign it."""

    reservation: Reservation
    stored: bool
    authority: Authority


def add_reservation(
    connection: Connection,
    reserved: Reservation,
    lints: Sequence[Mapping[str, str]],
    requested_by: str,
    line: Line | None = None,
) -> bool:
    """Store a reservation with its line; False when its key serves another enrolment, which then keeps it."""
    told = [dict(lint) for lint in lints]
    row = {**vars(reserved), "requested_by": requested_by}
    if reserved.enrolment_id is None:
        connection.execute(_ADD_RESERVATION, {**row, "lints": told})
        if line is not None:
            queue(connection, line)
        return True
    asked = {**row, "lints": orjson.dumps(told).decode(), **beside(line)}
    return _ADD_RESERVATION_OF_KEY.row(connection, asked) is not None


def key_held_since(connection: Connection, spki_sha256: bytes) -> datetime | None:
    """When an enrolment first reserved a certificate for this key, or None."""
    query = select(key_holder.c.since).where(key_holder.c.spki_sha256 == spki_sha256)
    return connection.execute(query).scalar_one_or_none()


def load_reservation(connection: Connection, serial: Serial, *, lock: bool = False) -> Reservation | None:
    """The reservation of that serial; `lock` makes every other who would store its certificate wait."""
    query = _LOCKED_RESERVATION if lock else _RESERVATION_OF_SERIAL
    row = connection.execute(query, {"serial": serial}).one_or_none()
    return None if row is None else Reservation(*row)


def load_reservations(connection: Connection, serials: Sequence[Serial]) -> dict[Serial, Reservation]:
    """The reservations of these serials; those that are none are absent."""
    query = select(*RESERVATION_COLUMNS).where(reservation.c.serial == any_of(serials))
    return {Serial(row.serial): Reservation(*row) for row in connection.execute(query)}


def to_sign(connection: Connection, serials: Sequence[Serial]) -> dict[Serial, ToSign]:
    """What a signer judges of these serials, by one statement; those that were never reserved are absent."""
    mine = len(RESERVATION_COLUMNS)
    return {
        Serial(row[0]): ToSign(Reservation(*row[:mine]), row[mine], authority_in(row[mine + 1 :]))
        for row in _TO_SIGN.rows(connection, {"serials": list(serials)})
    }


def unstored(connection: Connection, since: datetime, before: datetime) -> list[Reservation]:
    """Reservations of that time that have no certificate: burnt, or signed and lost on the way."""
    stored = exists().where(certificate.c.serial == reservation.c.serial)
    made = reservation.c.reserved_at >= since, reservation.c.reserved_at < before
    query = select(*RESERVATION_COLUMNS).where(*made, ~stored)
    return [Reservation(*row) for row in connection.execute(query.order_by(reservation.c.reserved_at))]
