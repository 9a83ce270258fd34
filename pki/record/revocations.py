"""The rows of revocations, and certificates with their last one, found under lock."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, Select, func, select, text

from pki.model import IssuedCertificate, Revocation, RevocationAction, RevocationReason, Serial
from pki.record.tables import any_of, certificate, enrolment, reservation

# What counts as the last event is said once, in the view (migration 0041). It is asked by serials, or for
# each row in a subquery of its own (`LATERAL … LIMIT 1`). Joined, it works out the last event of all serials.
_LAST_ACTIONS = text("""
    SELECT serial, id, action, actor, reason, revoked_at, recorded_at FROM revocation_state
    WHERE serial = ANY(:serials)
""")
# A release ends the holds of all: it is given only when none of them is another's
# (pki/revocation/release.py).
_HOLDERS = text("""
    SELECT h.serial, h.actor FROM revocation h WHERE h.serial = ANY(CAST(:serials AS text[]))
    AND h.action = 'hold' AND NOT EXISTS (
        SELECT FROM revocation r WHERE r.serial = h.serial AND r.action = 'release' AND r.id > h.id)
""")
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
    live = [IssuedCertificate(*row) for row in connection.execute(query)]
    last = last_actions(connection, [issued.serial for issued in live])
    return [
        issued
        for issued in live
        if last.get(issued.serial, RevocationAction.RELEASE) is RevocationAction.RELEASE
    ]


def last_actions(connection: Connection, serials: Sequence[Serial]) -> dict[Serial, RevocationAction]:
    """What was last done to each of these certificates; those never taken back are absent."""
    return {serial: event.action for serial, event in last_events(connection, serials).items()}


def revocable(connection: Connection, serial: Serial) -> Revocable | None:
    """The certificate with that serial, its reservation locked, so that two who revoke it queue."""
    revocables = _revocable(connection, _LOCKED_REVOCABLE.where(certificate.c.serial == serial))
    return revocables[0] if revocables else None


def revocable_of(connection: Connection, serials: Sequence[Serial]) -> list[Revocable]:
    """All of these certificates, whatever became of them; locked in the order of serials."""
    return (
        _revocable(connection, _LOCKED_REVOCABLE.where(certificate.c.serial == any_of(serials)))
        if serials
        else []
    )


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
        certificate.c.serial == any_of(living),
        certificate.c.practitioner.is_not(None),
        certificate.c.mailbox.is_not(None),
        certificate.c.not_after > now,
    )
    return [
        candidate
        for candidate in _revocable(connection, query)
        if candidate.last is not RevocationAction.REVOKE
    ]


def enrolled_by(connection: Connection, serials: Sequence[Serial]) -> dict[Serial, tuple[str, ...]]:
    """The authority whose enrolment each of these certificates rests on; those of the service are absent."""
    query = (
        select(reservation.c.serial, enrolment.c.authority)
        .join(enrolment, enrolment.c.id == reservation.c.enrolment_id)
        .where(reservation.c.serial == any_of(serials))
    )
    return {Serial(serial): (authority_id,) for serial, authority_id in connection.execute(query)}


def add_revocations(
    connection: Connection, made: Iterable[tuple[Revocable, Revocation, bytes | None]]
) -> None:
    """Append events with their CRL entries (None for a release)."""
    rows = [
        {
            "serial": event.serial,
            "authority_id": target.certificate.authority_id,
            "shard": target.certificate.shard,
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
        for target, event, entry in made
    ]
    if rows:
        connection.execute(_ADD_REVOCATIONS, {"rows": orjson.dumps(rows).decode()})


def _revocable(connection: Connection, query: Select[Any]) -> list[Revocable]:
    rows = connection.execute(query).all()
    # A statement of its own after the locks are held: whoever held one may have revoked meanwhile.
    last = last_events(connection, [row.serial for row in rows])
    revocables = []
    for *known, enrolled_by, enrolment_id, establishment in rows:
        issued = IssuedCertificate(*known)
        event = last.get(issued.serial)
        action, actor = (event.action, event.actor) if event else (None, "")
        revocables.append(Revocable(issued, action, enrolled_by, enrolment_id, establishment, actor, event))
    return revocables


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
    actors_of: dict[Serial, set[str]] = {}
    for serial, actor in connection.execute(_HOLDERS, {"serials": list(serials)}):
        actors_of.setdefault(Serial(serial), set()).add(actor)
    return {serial: frozenset(actors) for serial, actors in actors_of.items()}
