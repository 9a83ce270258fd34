"""The rows behind batches, as sets: what was asked, its reservations, its certificates. SQL only.

A thousand certificates are a handful of statements; the triggers that tell the feed run once for each.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, select, text
from sqlalchemy.dialects.postgresql import insert

from pki.certificates.profiles import served_by
from pki.model import (
    Enrolment,
    EnrolmentState,
    IssuedCertificate,
    Purpose,
    Reservation,
    RevocationAction,
    Serial,
)
from pki.record.doubts import UNSETTLED
from pki.record.tables import NAMES_OF_ENROLMENT, batch, batch_item, certificate

_ENROLMENTS = text(f"""
    SELECT id, practitioner, mailbox, authority, identity_check, state, requested_by, requested_at,
           approved_by, approved_at, ended_at,
           {NAMES_OF_ENROLMENT.format(id="enrolment.id")} AS names
    FROM enrolment WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id
""")  # noqa: S608 - of our own
_LOCKED_ENROLMENTS = text(f"{_ENROLMENTS.text} FOR UPDATE")
_TAKEN_KEYS = text("""
    SELECT spki_sha256, enrolment_id FROM key_holder WHERE spki_sha256 = ANY(CAST(:keys AS bytea[]))
    UNION ALL SELECT spki_sha256, NULL FROM operator_certificate
    WHERE spki_sha256 = ANY(CAST(:keys AS bytea[]))
""")
# By mailbox, which has an index, as `pki/record/key_use.py` does.
_LASTING = text("""
    SELECT e.id, c.serial, c.profile FROM enrolment e JOIN certificate c ON c.mailbox = e.mailbox
    JOIN reservation r ON r.serial = c.serial AND r.enrolment_id = e.id
    WHERE e.id = ANY(CAST(:ids AS uuid[])) AND c.not_after > :beyond AND c.serial <> ALL(CAST(:but AS text[]))
    AND NOT EXISTS (SELECT FROM revocation v WHERE v.serial = c.serial AND v.action = 'revoke')
""")
_HELD = text(f"""
    SELECT e.id, min(c.serial) AS serial FROM enrolment e
    JOIN certificate c ON c.mailbox = e.mailbox AND c.practitioner = e.practitioner
    WHERE e.id = ANY(CAST(:ids AS uuid[])) AND (
        c.not_after > :now AND EXISTS (SELECT FROM standing_hold s WHERE s.serial = c.serial) OR {UNSETTLED})
    GROUP BY e.id
""")  # noqa: S608 - a constant of another module
_HOLD_KEYS = text("""
    INSERT INTO key_holder (spki_sha256, enrolment_id, since)
    SELECT decode(spki_sha256, 'hex'), enrolment_id, reserved_at FROM jsonb_to_recordset(CAST(:rows AS jsonb))
        AS made (spki_sha256 text, enrolment_id uuid, reserved_at timestamptz)
    ORDER BY spki_sha256 ON CONFLICT DO NOTHING
""")
_ADD_RESERVATIONS = text("""
    INSERT INTO reservation (serial, authority_id, profile, shard, mailbox, practitioner, enrolment_id,
                             spki_sha256, tbs, tbs_sha256, lints, requested_by, reserved_at)
    SELECT serial, authority_id, profile, shard, mailbox, practitioner, enrolment_id,
           decode(spki_sha256, 'hex'), decode(tbs, 'hex'), decode(tbs_sha256, 'hex'), lints, :requested_by,
           reserved_at
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS made (
        serial text, authority_id text, profile text, shard smallint, mailbox text, practitioner text,
        enrolment_id uuid, spki_sha256 text, tbs text, tbs_sha256 text, lints jsonb, reserved_at timestamptz)
    WHERE EXISTS (SELECT FROM key_holder k
                  WHERE k.spki_sha256 = decode(made.spki_sha256, 'hex')
                  AND k.enrolment_id = made.enrolment_id)
    RETURNING serial
""")
_LOCK_RESERVATIONS = text(
    "SELECT serial FROM reservation WHERE serial = ANY(:serials) ORDER BY serial FOR UPDATE"
)
_ADD_CERTIFICATES = text("""
    INSERT INTO certificate (serial, authority_id, profile, shard, mailbox, practitioner, subject,
                             spki_sha256, der, sha256, not_before, not_after, issued_at)
    SELECT serial, authority_id, profile, shard, mailbox, practitioner, subject, decode(spki_sha256, 'hex'),
           decode(der, 'hex'), decode(sha256, 'hex'), not_before, not_after, issued_at
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS made (
        serial text, authority_id text, profile text, shard smallint, mailbox text, practitioner text,
        subject text, spki_sha256 text, der text, sha256 text, not_before timestamptz, not_after timestamptz,
        issued_at timestamptz)
""")
_ADD_ITEMS = text("""
    INSERT INTO batch_item (batch_id, place, enrolment_id)
    SELECT :batch_id, place - 1, id FROM unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS asked (id, place)
""")
_COME_TO = text("""
    UPDATE batch_item b SET serial = made.serial, refusal = made.refusal
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS made (place smallint, serial text, refusal jsonb)
    WHERE b.batch_id = :batch_id AND b.place = made.place
""")
_ITEMS = text("""
    SELECT i.place, i.enrolment_id, i.serial, i.refusal, s.action, r.reserved_at
    FROM batch_item i LEFT JOIN reservation r ON r.serial = i.serial
    LEFT JOIN LATERAL (SELECT v.action FROM revocation_state v WHERE v.serial = i.serial LIMIT 1) AS s ON true
    WHERE i.batch_id = :batch_id ORDER BY i.place
""")


@dataclass(frozen=True)
class Batch:
    """What was asked for at once, by whom, for the people of which authority."""

    id: UUID
    authority: str
    requested_by: int
    requested_at: datetime
    digest: bytes


@dataclass(frozen=True)
class Item:
    """One of a batch and what it came to: a serial, with its certificate once it is stored, or a refusal.

    `refusal` has `kind`, `code`, `text`; `last` is the last event of the certificate.
    """

    place: int
    enrolment_id: UUID
    serial: Serial | None
    refusal: Mapping[str, Any] | None
    reserved_at: datetime | None
    certificate: IssuedCertificate | None
    last: RevocationAction | None


def begin(connection: Connection, asked: Batch, enrolment_ids: Sequence[UUID]) -> tuple[Batch, bool]:
    """Store a batch with its items; the one there was, and False, when the same was asked for before."""
    query = (
        insert(batch).values(vars(asked)).on_conflict_do_nothing(index_elements=["authority", "digest"])
    ).returning(batch.c.id)
    if connection.execute(query).one_or_none() is None:
        known = select(batch).where(batch.c.authority == asked.authority, batch.c.digest == asked.digest)
        return Batch(*connection.execute(known).one()), False
    connection.execute(_ADD_ITEMS, {"batch_id": asked.id, "ids": list(enrolment_ids)})
    return asked, True


def load(connection: Connection, batch_id: UUID) -> Batch | None:
    """The batch of that id, or None."""
    row = connection.execute(select(batch).where(batch.c.id == batch_id)).one_or_none()
    return None if row is None else Batch(*row)


def items(connection: Connection, batch_id: UUID) -> list[Item]:
    """All items of a batch in the order asked, with their certificates."""
    rows = connection.execute(_ITEMS, {"batch_id": batch_id}).all()
    wanted = select(certificate).join(batch_item, batch_item.c.serial == certificate.c.serial)
    certificates = {
        row.serial: IssuedCertificate(*row)
        for row in connection.execute(wanted.where(batch_item.c.batch_id == batch_id))
    }
    return [
        Item(
            row.place, row.enrolment_id, row.serial, row.refusal, row.reserved_at,
            certificates.get(row.serial), RevocationAction(row.action) if row.action else None,
        )
        for row in rows
    ]  # fmt: skip


def save_results(
    connection: Connection, batch_id: UUID, results: Mapping[int, Serial | Mapping[str, Any]]
) -> None:
    """Note for these places the serial that was reserved, or the refusal."""
    rows = [
        {"place": place, "serial": result, "refusal": None}
        if isinstance(result, str)
        else {"place": place, "serial": None, "refusal": dict(result)}
        for place, result in results.items()
    ]
    if rows:
        connection.execute(_COME_TO, {"batch_id": batch_id, "rows": orjson.dumps(rows).decode()})


def enrolments(
    connection: Connection, enrolment_ids: Collection[UUID], *, lock: bool = False
) -> dict[UUID, Enrolment]:
    """These enrolments; `lock` makes whoever ends or certifies one of them wait."""
    query = _LOCKED_ENROLMENTS if lock else _ENROLMENTS
    rows = connection.execute(query, {"ids": list(enrolment_ids)}).mappings()
    return {row["id"]: Enrolment(**{**row, "state": EnrolmentState(row["state"])}) for row in rows}


def taken_keys(connection: Connection, keys: Collection[bytes]) -> dict[bytes, UUID | None]:
    """Of these keys (SHA-256 of their SPKI), those that an enrolment has, or an operator (None)."""
    rows = connection.execute(_TAKEN_KEYS, {"keys": list(keys)})
    return {bytes(row.spki_sha256): row.enrolment_id for row in rows}


def blocked_among(connection: Connection, keys: Collection[bytes]) -> set[bytes]:
    """Those of these keys (SHA-256 of their SPKI) that are blocked."""
    query = text(
        "SELECT spki FROM unnest(CAST(:keys AS bytea[])) AS asked (spki)"
        " WHERE sceau_key_blocked(spki) IS NOT NULL"
    )
    return {bytes(spki) for spki in connection.execute(query, {"keys": list(keys)}).scalars()}


def lasting(
    connection: Connection, enrolment_ids: Collection[UUID], beyond: datetime, *, but: Collection[Serial] = ()
) -> dict[tuple[UUID, Purpose], Serial]:
    """For these enrolments and each purpose a certificate, other than `but`, that holds beyond then."""
    asked = {"ids": list(enrolment_ids), "beyond": beyond, "but": list(but)}
    return {
        (row.id, purpose): Serial(row.serial)
        for row in connection.execute(_LASTING, asked)
        for purpose in served_by(row.profile)
    }


def held(connection: Connection, enrolment_ids: Collection[UUID], now: datetime) -> dict[UUID, Serial]:
    """For these enrolments a certificate of the same person and mailbox that is on hold."""
    rows = connection.execute(_HELD, {"ids": list(enrolment_ids), "now": now})
    return {row.id: Serial(row.serial) for row in rows}


def add_reservations(
    connection: Connection,
    drafts: Sequence[tuple[Reservation, Sequence[Mapping[str, str]]]],
    requested_by: str,
) -> set[Serial]:
    """Store reservations; gives those stored: of a key that an enrolment has, the first one stands."""
    rows = [_plain(vars(reserved)) | {"lints": [dict(lint) for lint in lints]} for reserved, lints in drafts]
    if not rows:
        return set()
    connection.execute(_HOLD_KEYS, {"rows": orjson.dumps(rows).decode()})
    values = {"rows": orjson.dumps(rows).decode(), "requested_by": requested_by}
    return {Serial(serial) for serial in connection.execute(_ADD_RESERVATIONS, values).scalars()}


def lock_reservations(connection: Connection, serials: Collection[Serial]) -> None:
    """Make every other who would store these certificates wait."""
    connection.execute(_LOCK_RESERVATIONS, {"serials": list(serials)})


def add_certificates(connection: Connection, issued: Sequence[IssuedCertificate]) -> None:
    """Store certificates under their reservations."""
    rows = [_plain(vars(issued_certificate)) for issued_certificate in issued]
    if rows:
        connection.execute(_ADD_CERTIFICATES, {"rows": orjson.dumps(rows).decode()})


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in row.items()}
