"""The rows of revocations of many: what a selection finds, the items written down, how far each has come."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, RowMapping, func, insert, select, text, update

from directory.tables import api_token
from pki.model import RevocationReason, Serial
from pki.record.tables import bulk_revocation, bulk_revocation_approval

# Certificates of the service itself (CAs, responders, list signers, its own TLS) are never selected. A list
# that swept up the OCSP signer would silence the answer to itself. They are revoked one by one.
_SELECTED = text("""
    SELECT c.serial, c.subject, c.profile, c.issued_at FROM certificate c
    WHERE c.not_after >= :now AND (c.mailbox IS NOT NULL OR starts_with(c.profile, 'operator-'))
    AND (CAST(:serials AS text[]) IS NULL OR c.serial = ANY(:serials))
    AND (CAST(:authority AS text) IS NULL OR c.authority_id = :authority)
    AND (CAST(:profile AS text) IS NULL OR c.profile = :profile)
    AND (CAST(:issued_from AS timestamptz) IS NULL OR c.issued_at >= :issued_from)
    AND (CAST(:issued_until AS timestamptz) IS NULL OR c.issued_at < :issued_until)
    AND (CAST(:keys AS bytea[]) IS NULL OR c.spki_sha256 = ANY(:keys))
    AND (CAST(:establishment AS text[]) IS NULL OR sceau_establishment_of(c.subject) = ANY(:establishment)
        OR c.mailbox IN (
            SELECT m.address FROM mailbox m WHERE m.finess = ANY(:establishment) AND m.finess <> ''
            UNION SELECT m.address FROM mailbox m
            WHERE m.structure_id = ANY(:establishment) AND m.structure_type = '3'))
    AND (CAST(:operator AS bigint) IS NULL OR split_part(c.mailbox, '@', 2) IN (
        SELECT d.name FROM trusted_domain d WHERE d.operator_id = :operator)
        OR c.serial IN (SELECT o.serial FROM operator_certificate o WHERE o.operator_id = :operator))
    AND NOT EXISTS (SELECT FROM revocation r WHERE r.serial = c.serial AND r.action = 'revoke')
    ORDER BY c.serial
""")
_ADD_ITEMS = text("""
    INSERT INTO bulk_revocation_item (bulk_id, place, serial)
    SELECT :bulk, place, serial FROM unnest(CAST(:serials AS text[])) WITH ORDINALITY AS item (serial, place)
""")
_NEXT = text("""
    SELECT serial FROM bulk_revocation_item WHERE bulk_id = :bulk AND place > :reached
    ORDER BY place LIMIT :limit
""")
_RUNNING = text("""
    SELECT id FROM bulk_revocation WHERE state = 'running' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
""")


@dataclass(frozen=True)
class Selection:
    """Which certificates: those that meet every criterion given; at least one must be.

    `keys` are SHA-256 digests of SubjectPublicKeyInfo in hexadecimal, `operator` the number of an operator.
    `establishment` is a FINESS number or SIRET as people write it, or a legal entity's. `issued_until` is the
    first instant that is too late.
    """

    serials: tuple[Serial, ...] = ()
    authority: str | None = None
    profile: str | None = None
    establishment: str | None = None
    operator: int | None = None
    issued_from: datetime | None = None
    issued_until: datetime | None = None
    keys: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any(vars(self).values())

    def told(self) -> dict[str, Any]:
        """The criteria given, for the log: of long lists, how many."""
        given = {name: value for name, value in asdict(self).items() if value}
        for name in ("serials", "keys"):
            if name in given:
                given[name] = len(given[name])
        return given


@dataclass(frozen=True)
class Selected:
    """One certificate a selection found."""

    serial: Serial
    subject: str
    profile: str
    issued_at: datetime


@dataclass(frozen=True)
class Bulk:
    """A revocation of many as it stands; `digest` is SHA-256 over its serials, each on a line."""

    id: int
    selection: dict[str, Any]
    reason: RevocationReason
    comment: str
    per_second: int
    total: int
    digest: bytes
    needed: int
    approvals: int
    asked_by: int
    asked_at: datetime
    state: str
    reached: int
    revoked: int
    skipped: int
    started_at: datetime | None
    finished_at: datetime | None


# What a token said that was revoked since counts no more.
_APPROVALS = (
    select(func.count())
    .select_from(
        bulk_revocation_approval.join(api_token, api_token.c.id == bulk_revocation_approval.c.token_id)
    )
    .where(bulk_revocation_approval.c.bulk_id == bulk_revocation.c.id, api_token.c.revoked_at.is_(None))
    .correlate(bulk_revocation)
    .scalar_subquery()
    .label("approvals")
)
_BULKS = select(bulk_revocation, _APPROVALS)


def selected(
    connection: Connection, selection: Selection, places: Sequence[str], now: datetime
) -> list[Selected]:
    """What the selection finds that is neither expired nor revoked for good, in the order of serials.

    `places` is each number that its establishment or its places are known by (FINESS, SIRET).
    """
    asked: dict[str, Any] = {
        **vars(selection),
        "serials": list(selection.serials) or None,
        "establishment": list(places) or None,
        "keys": [bytes.fromhex(key) for key in selection.keys] or None,
        "now": now,
    }
    return [Selected(Serial(serial), *rest) for serial, *rest in connection.execute(_SELECTED, asked)]


def add(connection: Connection, made: dict[str, Any], serials: Sequence[Serial]) -> int:
    """Write down a revocation of many with its items; gives its number."""
    row = {**made, "selection": orjson.loads(orjson.dumps(made["selection"]))}
    query = insert(bulk_revocation).values(row).returning(bulk_revocation.c.id)
    number = int(connection.execute(query).scalar_one())
    connection.execute(_ADD_ITEMS, {"bulk": number, "serials": list(serials)})
    return number


def load(connection: Connection, number: int, *, lock: bool = False) -> Bulk | None:
    """The one of that number; `lock` makes who would change it wait."""
    if lock:
        held = select(bulk_revocation.c.id).where(bulk_revocation.c.id == number).with_for_update()
        connection.execute(held)
    row = connection.execute(_BULKS.where(bulk_revocation.c.id == number)).mappings().one_or_none()
    return None if row is None else _bulk(row)


def newest(connection: Connection, before: int | None, limit: int) -> list[Bulk]:
    """The last `limit` with numbers below `before`, the newest first."""
    query = _BULKS.order_by(bulk_revocation.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(bulk_revocation.c.id < before)
    return [_bulk(row) for row in connection.execute(query).mappings()]


def approve(connection: Connection, number: int, token_id: int, comment: str, now: datetime) -> None:
    """Add one person's word."""
    row = {"bulk_id": number, "token_id": token_id, "comment": comment, "approved_at": now}
    connection.execute(insert(bulk_revocation_approval).values(row))


def approved_by(connection: Connection, number: int, token_id: int) -> bool:
    """Whether this token gave its word already."""
    query = select(bulk_revocation_approval.c.token_id).where(
        bulk_revocation_approval.c.bulk_id == number, bulk_revocation_approval.c.token_id == token_id
    )
    return connection.execute(query).one_or_none() is not None


def change(connection: Connection, number: int, **values: Any) -> None:
    """Set columns of one, locked by the caller."""
    connection.execute(update(bulk_revocation).where(bulk_revocation.c.id == number).values(values))


def take_running(connection: Connection) -> Bulk | None:
    """The oldest that runs and nobody works on, locked; None when there is none."""
    number = connection.execute(_RUNNING).scalar_one_or_none()
    return None if number is None else load(connection, number)


def next_items(connection: Connection, bulk: Bulk, limit: int) -> list[Serial]:
    """The serials that come after what was reached."""
    asked = {"bulk": bulk.id, "reached": bulk.reached, "limit": limit}
    return [Serial(serial) for serial in connection.execute(_NEXT, asked).scalars()]


def _bulk(row: RowMapping) -> Bulk:
    return Bulk(**{**row, "reason": RevocationReason(row["reason"])})
