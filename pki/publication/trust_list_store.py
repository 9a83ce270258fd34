"""The rows of the trust list: what it is made of, its versions, the notes that it may have changed.

Decides nothing: what a list says is `trust_list`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, RowMapping, delete, func, insert, select, text

from directory.base.locks import lock_until_commit
from pki.record.tables import trust_list, trust_list_due

_LOCK = "trust-list"
# Suspended is a right whose domain or operator is; what left the national list is in no list.
_DOMAINS = text("""
    SELECT d.name, o.certificate_dn, d.description, d.updated_at, d.sys_from,
           least(d.suspended_at, o.suspended_at) AS suspended_at
    FROM trusted_domain d JOIN operator o ON o.id = d.operator_id
    WHERE d.departed_at IS NULL ORDER BY d.name COLLATE "C", o.certificate_dn COLLATE "C"
""")
_OPERATORS = text("""
    SELECT o.certificate_dn, o.name, o.suspended_at, o.sys_from FROM operator o
    WHERE EXISTS (SELECT FROM trusted_domain d WHERE d.operator_id = o.id AND d.departed_at IS NULL)
    ORDER BY o.certificate_dn COLLATE "C"
""")
_AUTHORITIES = text("""
    SELECT id, role, generation, state, issuer_id, subject, not_before, not_after, der FROM authority
    ORDER BY role = 'root' DESC, role COLLATE "C", generation, id COLLATE "C"
""")
_CROSS = text("""
    SELECT id, subject_id, issuer_id, not_before, not_after, der FROM cross_certificate
    ORDER BY id COLLATE "C"
""")


@dataclass(frozen=True)
class Version:
    """One version as it was signed; both signatures lack their payload (RFC 7515 appendix F)."""

    version: int
    content_sha256: bytes
    made_at: datetime
    next_update: datetime
    payload: bytes
    signature: str
    xml: bytes
    xml_signature: str


@dataclass(frozen=True)
class Waiting:
    """The notes that wait, and whether one of them must not."""

    ids: tuple[int, ...]
    urgent: bool


def domains(connection: Connection) -> Sequence[Row[Any]]:
    """Every right to a domain, by name and operator."""
    return connection.execute(_DOMAINS).all()


def operators(connection: Connection) -> Sequence[Row[Any]]:
    """Every operator with a right to a domain."""
    return connection.execute(_OPERATORS).all()


def authorities(connection: Connection) -> Sequence[RowMapping]:
    """Every CA of every generation, roots first."""
    return connection.execute(_AUTHORITIES).mappings().all()


def cross_certificates(connection: Connection) -> Sequence[RowMapping]:
    """What CAs certified of one another."""
    return connection.execute(_CROSS).mappings().all()


def certificates(connection: Connection) -> list[bytes]:
    """The certificates of all CAs and those between them, in DER."""
    return [row["der"] for row in (*authorities(connection), *cross_certificates(connection))]


def youngest(connection: Connection) -> datetime | None:
    """When the last CA, or certificate between CAs, was made; None while there is no CA."""
    query = (
        "SELECT max(created_at) FROM (SELECT created_at FROM authority"
        " UNION ALL SELECT created_at FROM cross_certificate) AS made"
    )
    made: datetime | None = connection.execute(text(query)).scalar_one()
    return made


def waiting(connection: Connection) -> Waiting:
    """The notes this snapshot shows; those of transactions still open come with a later one."""
    rows = connection.execute(select(trust_list_due)).all()
    return Waiting(tuple(row.id for row in rows), any(row.urgent for row in rows))


def forget(connection: Connection, done: Waiting) -> None:
    """Remove the notes that were dealt with, and no other."""
    connection.execute(delete(trust_list_due).where(trust_list_due.c.id.in_(done.ids)))


def alone_until_commit(connection: Connection) -> None:
    """Let nobody else add a version until this transaction ends."""
    lock_until_commit(connection, _LOCK)


def latest_number(connection: Connection) -> int:
    """The number of the newest version; 0 when there is none."""
    return int(connection.execute(select(func.coalesce(func.max(trust_list.c.version), 0))).scalar_one())


def find(connection: Connection, version: int) -> Version | None:
    """The version of that number, or None."""
    row = connection.execute(select(trust_list).where(trust_list.c.version == version)).one_or_none()
    return None if row is None else Version(*row)


def latest(connection: Connection) -> Version | None:
    """The newest version, or None."""
    return find(connection, latest_number(connection))


def add(connection: Connection, made: Version) -> None:
    """Store a version."""
    connection.execute(insert(trust_list).values(vars(made)))
