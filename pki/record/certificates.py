"""The rows of authorities, reservations, certificates, enrolments and revocations. Decides nothing.

Locks are taken in one order everywhere: the person, the key, then enrolment, then reservation, so that
a departure, a revocation and an issuance can only queue.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import (
    ARRAY,
    Connection,
    LargeBinary,
    Select,
    Text,
    Uuid,
    and_,
    bindparam,
    cast,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    text,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, insert

from directory.base.audit import BESIDE, Line, beside, queue
from directory.base.errors import Kind, Refusal
from directory.base.locks import lock_key
from directory.base.prepared_statement import Statement
from directory.store import person_lock_sql
from pki.certificates.profiles import serving
from pki.doubts import UNSETTLED
from pki.model import (
    Authority,
    AuthorityState,
    CrlForm,
    Enrolment,
    EnrolmentState,
    IssuedCertificate,
    Purpose,
    Reservation,
    Revocation,
    RevocationAction,
    RevocationReason,
    Serial,
)
from pki.record.tables import (
    NAMES_OF_ENROLMENT,
    authority,
    certificate,
    crl_shard,
    enrolment,
    key_holder,
    operator_certificate,
    reservation,
    revocation,
    standing_hold,
)

_AUTHORITY = (
    authority.c.id, authority.c.kind, authority.c.issuer_id, authority.c.subject, authority.c.key_name,
    authority.c.shards, authority.c.der, authority.c.not_before, authority.c.not_after, authority.c.role,
    authority.c.generation, authority.c.state, authority.c.offline, authority.c.crl_form,
)  # fmt: skip
_AUTHORITY_FIELDS = tuple(column.name for column in _AUTHORITY)
_RESERVATION = tuple(column for column in reservation.c if column.name not in ("lints", "requested_by"))
_ENROLMENT_COLUMNS = tuple(column for column in enrolment.c if column.name != "sys_from")
_ENROLMENT = (
    *_ENROLMENT_COLUMNS,
    literal_column(NAMES_OF_ENROLMENT.format(id="enrolment.id"), JSONB).label("names"),
)
_ENROLMENT_FIELDS = (*(column.name for column in _ENROLMENT_COLUMNS), "names")
_LAST_ACTIONS = text("""
    SELECT DISTINCT ON (serial) serial, id, action, actor, reason, revoked_at, recorded_at FROM revocation
    WHERE serial = ANY(:serials) ORDER BY serial, id DESC
""")
# A release ends the holds of all: it is given only when none of them is another's (pki/releasing.py).
_HOLDERS = text("""
    SELECT h.serial, h.actor FROM revocation h WHERE h.serial = ANY(CAST(:serials AS text[]))
    AND h.action = 'hold' AND NOT EXISTS (
        SELECT FROM revocation r WHERE r.serial = h.serial AND r.action = 'release' AND r.id > h.id)
""")
# On hold as well: whoever doubts a CA does not want it to go on. Begun from the few certificates of CAs.
_NOT_REVOKED = text("""
    authority.sha256 NOT IN (SELECT c.sha256 FROM certificate c CROSS JOIN LATERAL (
        SELECT action FROM revocation r WHERE r.serial = c.serial ORDER BY r.id DESC LIMIT 1
    ) AS last WHERE c.profile = 'issuing-ca' AND last.action <> 'release')
""")
# Each way to a certificate by its own index.
_TOUCHED = text("""
    SELECT c.serial FROM unnest(CAST(:people AS text[])) AS asked (id)
    JOIN certificate c ON c.practitioner = asked.id
    UNION SELECT c.serial FROM unnest(CAST(:mailboxes AS text[])) AS asked (address)
    JOIN certificate c ON c.mailbox = asked.address
    UNION SELECT c.serial FROM unnest(CAST(:serials AS text[])) AS asked (serial)
    JOIN certificate c ON c.serial = asked.serial
""")
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
_REVOCABLE = (
    select(
        certificate,
        enrolment.c.authority.label("enrolled_by"),
        reservation.c.enrolment_id,
        func.sceau_establishment_of(certificate.c.subject).label("establishment"),
    )
    .join(reservation, reservation.c.serial == certificate.c.serial)
    .outerjoin(enrolment, enrolment.c.id == reservation.c.enrolment_id)
    .order_by(certificate.c.serial)
)
_LOCKED_REVOCABLE = _REVOCABLE.with_for_update(of=reservation)

# Made once: a statement of the road to a certificate that is put together at each call costs as much again as
# its answer.
_AUTHORITY_OF_ID: Select[Any] = select(*_AUTHORITY).where(authority.c.id == bindparam("id"))
_ACTIVE_OF_ROLE = Statement(
    select(*_AUTHORITY)
    .where(
        authority.c.role == bindparam("role"),
        authority.c.state == AuthorityState.ACTIVE.value,
        _NOT_REVOKED,
    )
    .order_by(authority.c.generation.desc())
)
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
# `pki/withdrawal/store.py` locks them: who locks one and then another would deadlock with it. Sorted: every
# person is held before.
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
_RESERVATION_OF_SERIAL: Select[Any] = select(*_RESERVATION).where(reservation.c.serial == bindparam("serial"))
_LOCKED_RESERVATION = _RESERVATION_OF_SERIAL.with_for_update()
# Said as the partial index says it, or all reservations would be read.
_LAST_OF_KEY = (
    select(*_RESERVATION)
    .where(reservation.c.spki_sha256 == bindparam("spki"), reservation.c.enrolment_id.is_not(None))
    .order_by(reservation.c.reserved_at.desc(), reservation.c.serial)
    .limit(1)
    .subquery()
)
_TO_SIGN = Statement(
    select(
        *_RESERVATION,
        exists().where(certificate.c.serial == reservation.c.serial).label("stored"),
        *(column.label(f"ca_{column.name}") for column in _AUTHORITY),
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
_CERTIFICATE_OF_SERIAL = select(certificate).where(certificate.c.serial == bindparam("serial"))
# Under the lock of its reservation, which every other who would store it waits for.
_ADD_CERTIFICATE = Statement(f"""
    WITH reserved AS MATERIALIZED (SELECT FROM reservation WHERE serial = :serial FOR UPDATE), done AS (
        INSERT INTO certificate (serial, authority_id, profile, shard, mailbox, practitioner, subject,
                                 spki_sha256, der, sha256, not_before, not_after, issued_at)
        SELECT :serial, :authority_id, :profile, :shard, :mailbox, :practitioner, :subject, :spki_sha256,
               :der, :sha256, :not_before, :not_after, :issued_at
        FROM (SELECT count(*) FROM reserved) AS locked
        ON CONFLICT (serial) DO NOTHING RETURNING serial
    ), {BESIDE} SELECT serial FROM done
""")  # noqa: S608
_FINAL = exists().where(
    revocation.c.serial == certificate.c.serial, revocation.c.action == RevocationAction.REVOKE.value
)
_LASTING = (
    select(certificate.c.serial)
    .join(reservation, reservation.c.serial == certificate.c.serial)
    # The mailbox says nothing more than the enrolment, but has an index.
    .where(
        certificate.c.mailbox == bindparam("mailbox"),
        reservation.c.enrolment_id == bindparam("enrolment"),
        certificate.c.not_after > bindparam("beyond"),
        certificate.c.serial.is_distinct_from(bindparam("but", type_=Text)),
        certificate.c.profile == func.any(bindparam("profiles", type_=ARRAY(Text))),
        ~_FINAL,
    )
    .limit(1)
)
# Whoever doubts the one before does not see a successor made beside it, nor in its place.
_DOUBTED, _ENROLLED = certificate.alias("c"), enrolment.alias("e")
_HELD = (
    select(_DOUBTED.c.serial)
    .join(_ENROLLED, _ENROLLED.c.id == bindparam("enrolment"))
    .where(
        _DOUBTED.c.mailbox == bindparam("mailbox"),
        _DOUBTED.c.practitioner == bindparam("practitioner"),
        _DOUBTED.c.serial.is_distinct_from(bindparam("but", type_=Text)),
        or_(
            and_(
                _DOUBTED.c.not_after > bindparam("now"),
                exists().where(standing_hold.c.serial == _DOUBTED.c.serial),
            ),
            text(UNSETTLED),
        ),
    )
    .limit(1)
)
KEY_USE = Statement(
    select(
        exists().where(operator_certificate.c.spki_sha256 == bindparam("spki")),
        _LASTING.scalar_subquery(),
        _HELD.scalar_subquery(),
        _LAST_OF_KEY,
    ).select_from(select(literal(1)).subquery().outerjoin(_LAST_OF_KEY, true()))
)
AGAINST = Statement(
    select(
        func.sceau_key_blocked(bindparam("spki", type_=LargeBinary)),
        _LASTING.scalar_subquery(),
        _HELD.scalar_subquery(),
    )
)
# What it says of a key, and then its last reservation.
KEY_USE_WIDTH = 3 + len(_RESERVATION)

# One statement, whatever their number: the triggers that tell the feed run once for it.
_ADD_REVOCATIONS = text("""
    INSERT INTO revocation
        (serial, authority_id, shard, action, reason, comment, actor, revoked_at, not_after, entry, restates,
         recorded_at)
    SELECT serial, authority_id, shard, action, reason, comment, actor, revoked_at, not_after,
           decode(entry, 'hex'), restates, recorded_at
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS made (
        serial text, authority_id text, shard smallint, action text, reason text, comment text, actor text,
        revoked_at timestamptz, not_after timestamptz, entry text, restates bigint, recorded_at timestamptz)
    ORDER BY serial
""")


@dataclass(frozen=True)
class LastEvent:
    """The last thing done to a certificate, and the number of its row.

    `recorded_at` is when it was written down, None for at the date that counts.
    """

    id: int
    action: RevocationAction
    actor: str
    reason: RevocationReason
    revoked_at: datetime
    recorded_at: datetime | None = None

    @property
    def written_at(self) -> datetime:
        """The instant after which whatever follows is written down."""
        return self.recorded_at or self.revoked_at


@dataclass(frozen=True)
class Revocable:
    """A certificate and its last event, found under lock; `authority` is its enrolment's, if it has one.

    `acted` is the actor of the last event, `establishment` the FINESS number in the subject, if there is one.
    """

    certificate: IssuedCertificate
    last: RevocationAction | None
    authority: str | None
    enrolment_id: UUID | None = None
    establishment: str | None = None
    acted: str = ""
    event: LastEvent | None = None


@dataclass(frozen=True)
class ToSign:
    """A reservation, whether its certificate is stored, and the CA that is to sign it."""

    reservation: Reservation
    stored: bool
    authority: Authority


@dataclass(frozen=True)
class KeyUse:
    """Whether an operator reserved a certificate for a key, and the last reservation of an enrolment.

    `lasting` is a certificate of the enrolment it is asked for now, whatever its key; `held` one of the same
    person and mailbox that is on hold, or whose hold was never settled (`pki/doubts.py`).
    """

    by_operator: bool
    lasting: Serial | None
    held: Serial | None
    last: Reservation | None


@dataclass(frozen=True)
class Against:
    """Why the key of a certificate is blocked; which other lasts, and which is on hold, as `KeyUse` says."""

    blocked: str | None
    lasting: Serial | None
    held: Serial | None


def load_authority(connection: Connection, authority_id: str) -> Authority | None:
    """The CA of that name, or None."""
    row = connection.execute(_AUTHORITY_OF_ID, {"id": authority_id}).one_or_none()
    return None if row is None else _authority(row)


def issuing_authority(connection: Connection, role: str, now: datetime) -> Authority:
    """The CA that issues for this role: of those active, valid and not revoked the newest generation.

    Refuses `unknown-authority` when none is active, `authority-expired` when none of those is valid.
    """
    active = [_authority(row) for row in _ACTIVE_OF_ROLE.rows(connection, {"role": role})]
    if not active:
        raise Refusal(Kind.NOT_FOUND, "unknown-authority", f"No authority issues for {role}.")
    for found in active:
        if found.not_before <= now < found.not_after:
            return found
    raise Refusal(
        Kind.UNAVAILABLE, "authority-expired", f"The authority {active[0].id} is not valid at this time."
    )


def authorities(connection: Connection) -> list[Authority]:
    """Every CA, roots first, then by age."""
    query: Select[Any] = select(*_AUTHORITY)
    query = query.order_by(authority.c.kind.desc(), authority.c.created_at, authority.c.id)
    return [_authority(row) for row in connection.execute(query)]


def chain_of(connection: Connection, authority_id: str) -> list[bytes]:
    """The certificates (DER) of that CA and of those above it, the root last."""
    known = {one.id: one for one in authorities(connection)}
    chain, at = [], known.get(authority_id)
    while at is not None:
        chain.append(at.der)
        at = known.get(at.issuer_id or "")
    return chain


def live_of_profile(
    connection: Connection, profile: str, authority_id: str, now: datetime
) -> list[IssuedCertificate]:
    """The certificates of this profile by this CA that are in force and neither revoked nor on hold."""
    query = select(certificate).where(
        certificate.c.profile == profile,
        certificate.c.authority_id == authority_id,
        certificate.c.not_before <= now,
        certificate.c.not_after > now,
    )
    found = [IssuedCertificate(*row) for row in connection.execute(query)]
    last = last_actions(connection, [one.serial for one in found])
    return [
        one for one in found if last.get(one.serial, RevocationAction.RELEASE) is RevocationAction.RELEASE
    ]


def add_authority(connection: Connection, made: Authority, now: datetime) -> None:
    """Store a CA and the counters of its shards, all at zero."""
    words = {"state": made.state.value, "crl_form": made.crl_form.value}
    row = {**vars(made), **words, "sha256": sha256(made.der).digest(), "created_at": now}
    connection.execute(insert(authority).values(row))
    shards = [{"authority_id": made.id, "shard": shard} for shard in range(made.shards)]
    connection.execute(insert(crl_shard), shards)


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
    query = select(*_RESERVATION).where(reservation.c.serial == _any_of(serials))
    return {Serial(row.serial): Reservation(*row) for row in connection.execute(query)}


def to_sign(connection: Connection, serials: Sequence[Serial]) -> dict[Serial, ToSign]:
    """What a signer judges of these serials, by one statement; those that were never reserved are absent."""
    mine = len(_RESERVATION)
    return {
        Serial(row[0]): ToSign(Reservation(*row[:mine]), row[mine], _authority(row[mine + 1 :]))
        for row in _TO_SIGN.rows(connection, {"serials": list(serials)})
    }


def stored_among(connection: Connection, serials: Sequence[Serial]) -> set[Serial]:
    """Those of these serials that have a certificate."""
    query = select(certificate.c.serial).where(certificate.c.serial == _any_of(serials))
    return {Serial(serial) for serial in connection.execute(query).scalars()}


def key_use(
    connection: Connection,
    spki_sha256: bytes,
    of: Enrolment,
    purposes: frozenset[Purpose],
    *,
    beyond: datetime,
    now: datetime,
) -> KeyUse:
    """Who has reserved a certificate for this key, whatever became of it.

    `lasting` is one of this enrolment for one of these purposes that holds beyond then, be it on hold.
    """
    (row,) = KEY_USE.rows(connection, asking_beside(spki_sha256, of, purposes, beyond=beyond, now=now))
    return key_use_told(row)


def key_use_told(row: Sequence[Any]) -> KeyUse:
    """As `key_use` gives it, from the row of `KEY_USE` (`KEY_USE_WIDTH` columns)."""
    by_operator, lasting, held, *last = row
    found = None if last[0] is None else Reservation(*last)
    return KeyUse(by_operator, _serial(lasting), _serial(held), found)


def unstored(connection: Connection, since: datetime, before: datetime) -> list[Reservation]:
    """Reservations of that time that have no certificate: burnt, or signed and lost on the way."""
    stored = exists().where(certificate.c.serial == reservation.c.serial)
    made = reservation.c.reserved_at >= since, reservation.c.reserved_at < before
    query = select(*_RESERVATION).where(*made, ~stored)
    return [Reservation(*row) for row in connection.execute(query.order_by(reservation.c.reserved_at))]


def add_certificate(connection: Connection, issued: IssuedCertificate, line: Line | None = None) -> bool:
    """Store a certificate under its reservation, with its line; False when there is one under its serial.

    Of two who store it the second waits for the first.
    """
    asked = {**vars(issued), **beside(line)}
    return _ADD_CERTIFICATE.row(connection, asked) is not None


def find_certificate(connection: Connection, serial: Serial) -> IssuedCertificate | None:
    """The certificate of that serial, or None."""
    row = connection.execute(_CERTIFICATE_OF_SERIAL, {"serial": serial}).one_or_none()
    return None if row is None else IssuedCertificate(*row)


def against_told(row: Sequence[Any]) -> Against:
    """What the row of `AGAINST` says."""
    cause, lasting, held = row
    return Against(cause, _serial(lasting), _serial(held))


def asking_beside(
    spki_sha256: bytes,
    of: Enrolment,
    purposes: frozenset[Purpose],
    *,
    beyond: datetime,
    now: datetime,
    but: Serial | None = None,
) -> dict[str, Any]:
    """What `KEY_USE` and `AGAINST` are asked with; `but` is a certificate that does not count."""
    return {
        "spki": spki_sha256, "mailbox": of.mailbox, "practitioner": of.practitioner, "enrolment": of.id,
        "beyond": beyond, "now": now, "but": but, "profiles": list(serving(purposes)),
    }  # fmt: skip


def _serial(found: str | None) -> Serial | None:
    return None if found is None else Serial(found)


def last_actions(connection: Connection, serials: Sequence[Serial]) -> dict[Serial, RevocationAction]:
    """What was last done to each of these certificates; those never taken back are absent."""
    return {serial: event.action for serial, event in last_events(connection, serials).items()}


def revocable(connection: Connection, serial: Serial) -> Revocable | None:
    """The certificate with that serial, its reservation locked, so that two who revoke it queue."""
    found = _revocable(connection, _LOCKED_REVOCABLE.where(certificate.c.serial == serial))
    return found[0] if found else None


def revocable_of(connection: Connection, serials: Sequence[Serial]) -> list[Revocable]:
    """All of these certificates, whatever became of them; locked in the order of serials."""
    return (
        _revocable(connection, _LOCKED_REVOCABLE.where(certificate.c.serial == _any_of(serials)))
        if serials
        else []
    )


def touched_certificates(
    connection: Connection, *, people: Collection[str], mailboxes: Collection[str], serials: Collection[str]
) -> list[Serial]:
    """What was ever certified for these people, these mailboxes, or under these serials."""
    asked = {"people": list(people), "mailboxes": list(mailboxes), "serials": list(serials)}
    return [Serial(serial) for serial in connection.execute(_TOUCHED, asked).scalars()]


def revocable_among(
    connection: Connection, serials: Sequence[Serial], now: datetime, *, lock: bool
) -> list[Revocable]:
    """Of these, what was made for a person and is neither expired nor revoked for good.

    With `lock` nobody else revokes them until the commit.
    """
    # What is final needs no lock. Asked apart: joined, a planner that thinks nothing is revoked yet, as when
    # a night of departures begins, reads all revocations for each certificate.
    acted = last_actions(connection, serials)
    living = [serial for serial in serials if acted.get(serial) is not RevocationAction.REVOKE]
    if not living:
        return []
    query = (_LOCKED_REVOCABLE if lock else _REVOCABLE).where(
        certificate.c.serial == _any_of(living),
        certificate.c.practitioner.is_not(None),
        certificate.c.mailbox.is_not(None),
        certificate.c.not_after > now,
    )
    return [found for found in _revocable(connection, query) if found.last is not RevocationAction.REVOKE]


def enrolled_by(connection: Connection, serials: Sequence[Serial]) -> dict[Serial, tuple[str, ...]]:
    """The authority whose enrolment each of these certificates rests on; those of the service are absent."""
    query = (
        select(reservation.c.serial, enrolment.c.authority)
        .join(enrolment, enrolment.c.id == reservation.c.enrolment_id)
        .where(reservation.c.serial == _any_of(serials))
    )
    return {Serial(serial): (authority_id,) for serial, authority_id in connection.execute(query)}


def add_revocations(
    connection: Connection, made: Iterable[tuple[Revocable, Revocation, bytes | None]]
) -> None:
    """Append events with their CRL entries (None for a release)."""
    rows = [
        {
            "serial": event.serial,
            "authority_id": found.certificate.authority_id,
            "shard": found.certificate.shard,
            "action": event.action.value,
            "reason": event.reason.value,
            "comment": event.comment,
            "actor": event.actor,
            "revoked_at": event.revoked_at,
            "not_after": event.not_after,
            "entry": None if entry is None else entry.hex(),
            "restates": event.restates,
            "recorded_at": event.recorded_at,
        }
        for found, event, entry in made
    ]
    if rows:
        connection.execute(_ADD_REVOCATIONS, {"rows": orjson.dumps(rows).decode()})


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


def hold_enrolment(
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
    known = {one.id: one for one in (_enrolment(row[:-1]) for row in rows)}
    found = known.pop(enrolment_id, None)
    if found is None:
        return None
    standing = [one for one in known.values() if one.state is not EnrolmentState.ENDED]
    return found, standing, rows[-1][-1]


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


def approve(connection: Connection, found: Enrolment, token_id: int, line: Line) -> Enrolment:
    """Set an enrolment, locked by the caller, to approved at the instant of its line."""
    asked = {"id": found.id, "by": token_id, "at": line.at, **beside(line)}
    ((_,),) = _APPROVE.rows(connection, asked)
    return replace(found, state=EnrolmentState.APPROVED, approved_by=token_id, approved_at=line.at)


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


def _any_of(values: Sequence[str]) -> Any:
    """One array parameter, however many values: a list of parameters ends at 65,535."""
    return func.any(cast(list(values), ARRAY(Text)))


def _revocable(connection: Connection, query: Select[Any]) -> list[Revocable]:
    rows = connection.execute(query).all()
    # A statement of its own after the locks are held: whoever held one may have revoked meanwhile.
    last = last_events(connection, [row.serial for row in rows])
    found = []
    for *known, enrolled_by, enrolment_id, establishment in rows:
        issued = IssuedCertificate(*known)
        event = last.get(issued.serial)
        action, actor = (event.action, event.actor) if event else (None, "")
        found.append(Revocable(issued, action, enrolled_by, enrolment_id, establishment, actor, event))
    return found


def last_events(connection: Connection, serials: Sequence[Serial]) -> dict[Serial, LastEvent]:
    """The last event of each of these certificates; those never taken back are absent."""
    rows = connection.execute(_LAST_ACTIONS, {"serials": list(serials)})
    return {
        Serial(serial): LastEvent(
            number, RevocationAction(action), actor, RevocationReason(reason), *instants
        )
        for serial, number, action, actor, reason, *instants in rows
    }


def holders(connection: Connection, serials: Sequence[Serial]) -> dict[Serial, frozenset[str]]:
    """Who put the holds that stand on each of these certificates, by the names of the log."""
    found: dict[Serial, set[str]] = {}
    for serial, actor in connection.execute(_HOLDERS, {"serials": list(serials)}):
        found.setdefault(Serial(serial), set()).add(actor)
    return {serial: frozenset(actors) for serial, actors in found.items()}


def _authority(row: Sequence[Any]) -> Authority:
    return _authority_of(tuple(row))


@lru_cache(maxsize=64)
def _authority_of(row: tuple[Any, ...]) -> Authority:
    """There are few, and each certificate asks for one twice."""
    known = dict(zip(_AUTHORITY_FIELDS, row, strict=True))
    words = {"state": AuthorityState(known["state"]), "crl_form": CrlForm(known["crl_form"])}
    return Authority(**{**known, **words})


def _enrolment(row: Sequence[Any]) -> Enrolment:
    known = dict(zip(_ENROLMENT_FIELDS, row, strict=True))
    return Enrolment(**{**known, "state": EnrolmentState(known["state"])})
