"""The rows that a ceremony adds: CAs, what certifies them, CRLs signed elsewhere. Decides nothing."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from sqlalchemy import Connection, exists, select, text, update
from sqlalchemy.dialects.postgresql import insert

from directory.base.errors import Kind, Refusal
from pki.crl import store as crl_store
from pki.model import AuthorityState, IssuedCertificate, Reservation, RevocationAction, Serial
from pki.record import certificates, reservations
from pki.record.tables import authority, certificate, crl, cross_certificate, reservation, revocation

_LISTED = text("""
    SELECT max(entries) FROM (
        SELECT sum(last.entries) AS entries FROM authority a JOIN crl_shard s ON s.authority_id = a.id
        CROSS JOIN LATERAL (
            SELECT c.entries FROM crl c
            WHERE c.authority_id = s.authority_id AND c.shard = s.shard AND c.der IS NOT NULL
              AND c.base IS NULL
            ORDER BY c.number DESC LIMIT 1) AS last
        WHERE a.role = :role GROUP BY a.id) AS listed
""")
_LAST = text("SELECT serial, action FROM revocation_state WHERE serial = ANY(:serials)")


@dataclass(frozen=True)
class Cross:
    """A root certified by another, as it is published."""

    id: str
    serial: Serial
    subject_id: str
    issuer_id: str
    der: bytes
    not_before: datetime
    not_after: datetime


def crosses(connection: Connection) -> list[Cross]:
    """Every certificate between roots, in the order of their names."""
    columns = [column for column in cross_certificate.c if column.name != "created_at"]
    rows = connection.execute(select(*columns).order_by(cross_certificate.c.id))
    return [Cross(*row) for row in rows]


def add_cross(connection: Connection, made: Cross, now: datetime) -> None:
    """Store one; its certificate must be stored already."""
    connection.execute(insert(cross_certificate).values({**vars(made), "created_at": now}))


def add_certificate(connection: Connection, issued: IssuedCertificate, tbs: bytes, actor: str) -> None:
    """Store a CA's certificate with its serial like any other, so that it can be revoked like any other."""
    reserved = Reservation(
        serial=issued.serial, authority_id=issued.authority_id, profile=issued.profile, shard=issued.shard,
        mailbox=None, practitioner=None, enrolment_id=None, spki_sha256=issued.spki_sha256, tbs=tbs,
        tbs_sha256=sha256(tbs).digest(), reserved_at=issued.issued_at,
    )  # fmt: skip
    reservations.add_reservation(connection, reserved, [], actor)
    certificates.add_certificate(connection, issued)


def is_serial_used(connection: Connection, serial: Serial) -> bool:
    """Whether any CA of ours has used this serial number."""
    query = select(exists().where(reservation.c.serial == serial))
    return bool(connection.execute(query).scalar_one())


def set_state(connection: Connection, authority_id: str, state: AuthorityState) -> None:
    """Let a CA issue, or not."""
    connection.execute(update(authority).where(authority.c.id == authority_id).values(state=state.value))


def taken_back(connection: Connection, authority_id: str) -> set[Serial]:
    """The serials of this CA that are revoked or on hold."""
    query = select(revocation.c.serial).where(revocation.c.authority_id == authority_id).distinct()
    serials = list(connection.execute(query).scalars())
    last = connection.execute(_LAST, {"serials": serials})
    return {Serial(serial) for serial, action in last if action != RevocationAction.RELEASE.value}


def expired_before(connection: Connection, serials: Sequence[Serial], then: datetime) -> set[Serial]:
    """Those of these certificates that had ended by then."""
    query = select(certificate.c.serial).where(
        certificate.c.serial.in_(serials), certificate.c.not_after < then
    )
    return {Serial(serial) for serial in connection.execute(query).scalars()}


def known(connection: Connection, serials: Sequence[Serial]) -> set[Serial]:
    """Those of these serials that are in the record."""
    query = select(certificate.c.serial).where(certificate.c.serial.in_(serials))
    return {Serial(serial) for serial in connection.execute(query).scalars()}


def has_certified(connection: Connection, profiles: Collection[str]) -> bool:
    """Whether any CA of ours has issued under one of these."""
    query = select(exists().where(certificate.c.profile.in_(sorted(profiles))))
    return bool(connection.execute(query).scalar_one())


def listed_by_role(connection: Connection, role: str) -> int:
    """How many entries the complete CRLs of the CA with most of this role have, its shards together."""
    return int(connection.execute(_LISTED, {"role": role}).scalar() or 0)


def add_list(
    connection: Connection,
    authority_id: str,
    number: int,
    *,
    this_update: datetime,
    next_update: datetime,
    entries: int,
    tbs: bytes,
    der: bytes,
) -> None:
    """Store a CRL that was signed elsewhere under its own number, which its CA's counter then passes."""
    if crl_store.take_number(connection, authority_id, 0, number - 1) != number:
        text = f"A number above {number} has been given to a CRL of {authority_id}."
        raise Refusal(Kind.UNACCEPTABLE, "crl-number", text)
    row = {
        "authority_id": authority_id, "shard": 0, "number": number, "this_update": this_update,
        "next_update": next_update, "entries": entries, "tbs": tbs, "tbs_sha256": sha256(tbs).digest(),
        "watermark": crl_store.mark_events_listed(connection, authority_id, 0, number),
    }  # fmt: skip
    connection.execute(insert(crl).values(row))
    signed = update(crl).where(crl.c.authority_id == authority_id, crl.c.shard == 0, crl.c.number == number)
    # A second statement, so that the feed and the web hear of it as of any other CRL.
    connection.execute(signed.values(der=der, sha256=sha256(der).digest()))


def list_ends(connection: Connection, authority_id: str) -> datetime | None:
    """When the newest CRL of this CA's first shard ends; None while there is none."""
    query = (
        select(crl.c.next_update)
        .where(crl.c.authority_id == authority_id, crl.c.shard == 0, crl.c.der.is_not(None))
        .order_by(crl.c.number.desc())
        .limit(1)
    )
    return connection.execute(query).scalar_one_or_none()
