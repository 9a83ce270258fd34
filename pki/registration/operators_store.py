"""The rows behind operators' certificates: their rights to domains, what was made for them. SQL only."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, bindparam, select, text
from sqlalchemy.dialects.postgresql import insert

from pki.certificates.profiles import OF_OPERATORS
from pki.model import IssuedCertificate, RevocationAction, Serial
from pki.record.tables import certificate, operator_certificate

_OPERATOR = text("SELECT id, name, suspended_at IS NOT NULL AS suspended FROM operator WHERE id = :id")
_RIGHTS = text("""
    SELECT d.name, (d.suspended_at IS NOT NULL) AS suspended FROM trusted_domain d
    WHERE d.operator_id = :id AND d.departed_at IS NULL ORDER BY d.name
""")
# Each name that a host has or lies below, the host itself first.
_ABOVE = """
    SELECT h.host, array_to_string((string_to_array(h.host, '.'))[n:], '.') AS name
    FROM unnest({hosts}) AS h (host)
    CROSS JOIN generate_series(1, cardinality(string_to_array(h.host, '.'))) AS n
"""
_TRUSTED_ABOVE = text(f"""
    SELECT DISTINCT d.name FROM ({_ABOVE.format(hosts="CAST(:hosts AS text[])")}) AS above
    JOIN trusted_domain d ON d.name = above.name AND d.departed_at IS NULL ORDER BY d.name
""")  # noqa: S608 - constants of this module
# A host whose longest trusted domain is another operator's by now.
_PASSED_ON = f"""
    EXISTS (SELECT FROM (
        SELECT DISTINCT ON (above.host) above.name FROM ({_ABOVE.format(hosts="o.hosts")}) AS above
        WHERE EXISTS (SELECT FROM trusted_domain d WHERE d.name = above.name AND d.departed_at IS NULL)
        ORDER BY above.host, length(above.name) DESC
    ) AS longest WHERE NOT EXISTS (
        SELECT FROM trusted_domain d
        WHERE d.name = longest.name AND d.operator_id = o.operator_id AND d.departed_at IS NULL))
"""  # noqa: S608 - same
# What lives, however much was ever made. A client's certificate rests on any domain at all.
_UNFOUNDED = text(f"""
    SELECT c.serial, o.operator_id, o.domains, p.name AS operator,
           (p.suspended_at IS NOT NULL
            OR o.domains <> '{{}}' AND bool_or(d.suspended_at IS NOT NULL)) AS suspended,
           (CASE WHEN o.domains = '{{}}' THEN count(d.name) = 0
                 ELSE count(d.name) < cardinality(o.domains) OR {_PASSED_ON} END) AS withdrawn
    FROM certificate c JOIN operator_certificate o USING (serial) JOIN operator p ON p.id = o.operator_id
    LEFT JOIN trusted_domain d ON d.operator_id = o.operator_id AND d.departed_at IS NULL
         AND (o.domains = '{{}}' OR d.name = ANY(o.domains))
    WHERE c.profile = ANY(:profiles) AND c.not_after > :now
      AND (CAST(:serials AS text[]) IS NULL OR c.serial = ANY(CAST(:serials AS text[])))
      AND NOT EXISTS (SELECT FROM revocation r WHERE r.serial = c.serial AND r.action = 'revoke')
    GROUP BY c.serial, o.serial, p.id
""")  # noqa: S608 - same
# A hold of its own is the operator's to replace; another's doubt is not. Neither the operator's own
# revocation ends that, nor a job's. Another person's does, who revokes or restates the reason.
_DOUBTED = text("""
    SELECT o.serial FROM operator_certificate o JOIN certificate c USING (serial)
    WHERE o.operator_id = :id AND c.profile = ANY(:profiles) AND c.not_after > :now
      AND (o.hosts = '{}' OR o.hosts && CAST(:hosts AS text[]))
      AND EXISTS (
        SELECT FROM revocation h WHERE h.serial = o.serial AND h.action = 'hold'
        AND h.actor <> 'key:' || h.serial AND h.actor NOT IN (
            SELECT 'token:' || t.id FROM api_token t WHERE t.operator_id = o.operator_id)
        AND NOT EXISTS (
            SELECT FROM revocation r WHERE r.serial = h.serial AND r.id > h.id
            AND (r.action = 'release' OR r.action = 'revoke' AND (
                left(h.actor, 4) = 'job:' OR left(r.actor, 4) NOT IN ('job:', 'key:')
                AND r.actor NOT IN (
                    SELECT 'token:' || t.id FROM api_token t WHERE t.operator_id = o.operator_id)))))
    LIMIT 1
""")
_MADE = text("""
    SELECT o.serial, o.hosts, s.action
    FROM operator_certificate o JOIN certificate c USING (serial)
    LEFT JOIN LATERAL (SELECT v.action FROM revocation_state v WHERE v.serial = o.serial LIMIT 1) AS s ON true
    WHERE o.operator_id = :id AND (CAST(:after AS text) IS NULL OR o.serial > :after)
    ORDER BY o.serial LIMIT :limit
""")
_OF_KEY = select(operator_certificate).where(operator_certificate.c.spki_sha256 == bindparam("spki"))


@dataclass(frozen=True)
class Operator:
    """An operator of the trusted list, with the domains that are its own today: name to whether suspended."""

    id: int
    name: str
    suspended: bool
    domains: dict[str, bool]


@dataclass(frozen=True)
class OperatorReservation:
    """For whom a serial was reserved: the operator, the hosts, and the trusted domains they lie in."""

    serial: Serial
    operator_id: int
    hosts: tuple[str, ...]
    domains: tuple[str, ...]
    spki_sha256: bytes


@dataclass(frozen=True)
class OperatorStanding:
    """What stands against a living certificate of an operator: a domain withdrawn, or suspended."""

    serial: Serial
    operator: str
    domains: tuple[str, ...]
    suspended: bool
    withdrawn: bool


@dataclass(frozen=True)
class Made:
    """A certificate of an operator with its hosts, and its last event (None: never taken back)."""

    certificate: IssuedCertificate
    hosts: tuple[str, ...]
    last: RevocationAction | None


def load(connection: Connection, operator_id: int) -> Operator | None:
    """The operator of that number and its domains, or None."""
    row = connection.execute(_OPERATOR, {"id": operator_id}).one_or_none()
    if row is None:
        return None
    rights = connection.execute(_RIGHTS, {"id": operator_id})
    return Operator(row.id, row.name, row.suspended, {row.name: row.suspended for row in rights})


def trusted_above(connection: Connection, hosts: Sequence[str]) -> list[str]:
    """The trusted domains, of whichever operator, that one of these hosts is or lies below."""
    return list(connection.execute(_TRUSTED_ABOVE, {"hosts": list(hosts)}).scalars())


def add(connection: Connection, made: OperatorReservation) -> bool:
    """Note for whom a serial was reserved; False when an operator has reserved this key before."""
    row = {**vars(made), "hosts": list(made.hosts), "domains": list(made.domains)}
    query = (
        insert(operator_certificate)
        .values(row)
        .on_conflict_do_nothing(index_elements=[operator_certificate.c.spki_sha256])
        .returning(operator_certificate.c.serial)
    )
    return connection.execute(query).one_or_none() is not None


def of_key(connection: Connection, spki_sha256: bytes) -> OperatorReservation | None:
    """What an operator reserved for this key, or None."""
    row = connection.execute(_OF_KEY, {"spki": spki_sha256}).one_or_none()
    if row is None:
        return None
    return OperatorReservation(
        Serial(row.serial), row.operator_id, tuple(row.hosts), tuple(row.domains), row.spki_sha256
    )


def doubted(
    connection: Connection, operator_id: int, profiles: Sequence[str], hosts: Collection[str], now: datetime
) -> Serial | None:
    """A certificate of this operator for the same, under any of these, that somebody else put on hold."""
    asked = {"id": operator_id, "profiles": list(profiles), "hosts": list(hosts), "now": now}
    serial = connection.execute(_DOUBTED, asked).scalar_one_or_none()
    return None if serial is None else Serial(serial)


def made_for(connection: Connection, operator_id: int, after: Serial | None, limit: int) -> list[Made]:
    """The certificates of an operator in the order of their serials, `limit` of them behind `after`."""
    rows = connection.execute(_MADE, {"id": operator_id, "after": after, "limit": limit}).all()
    certificates = _certificates(connection, [row.serial for row in rows])
    return [
        Made(certificates[row.serial], tuple(row.hosts), RevocationAction(row.action) if row.action else None)
        for row in rows
    ]


def standing(
    connection: Connection, now: datetime, serials: Sequence[Serial] | None = None
) -> list[OperatorStanding]:
    """Every living certificate of an operator, or those of these serials, with what stands against it."""
    asked = {"now": now, "serials": serials, "profiles": sorted(OF_OPERATORS)}
    rows = connection.execute(_UNFOUNDED, asked)
    return [
        OperatorStanding(
            Serial(row.serial), row.operator, tuple(row.domains), bool(row.suspended), row.withdrawn
        )
        for row in rows
    ]


def _certificates(connection: Connection, serials: Collection[str]) -> dict[str, IssuedCertificate]:
    query = select(certificate).where(certificate.c.serial.in_(_listed(serials)))
    return {row.serial: IssuedCertificate(*row) for row in connection.execute(query)}


def _listed(serials: Collection[str]) -> Sequence[str]:
    return list(serials)
