"""What a person should look at: matters that no rule can settle, listed until they are gone.

A finder of matters of a kind calls `keep` with all of them, as often as it likes. New ones are opened, known
ones kept up, vanished ones closed. What a matter is, is for the finder; nothing here decides.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

import orjson
from sqlalchemy import Connection, literal, select, text

from directory.base.audit import Actor
from directory.tables import attention


class Concern(Enum):
    """What kind of matter it is; the subject of each is named here."""

    # A mailbox of an establishment for which somebody answered, and nobody does any more.
    NO_ANSWERABLE_PROFESSIONAL = "no-answerable-professional"
    # A mailbox that two holders claim in the last file.
    MAILBOX_CLAIMED_TWICE = "mailbox-claimed-twice"
    # A certificate that will be revoked when its grace ends.
    WITHDRAWAL_PENDING = "withdrawal-pending"
    # A person whose number vanished without a successor, and who had been certified under it.
    NUMBER_RETIRED = "number-retired"
    # A certificate on another key of somebody who lost one.
    KEY_OF_HOLDER_COMPROMISED = "key-of-holder-compromised"
    # An approved enrolment that certifies nothing more: the record names otherwise than two persons saw.
    ENROLMENT_VOID = "enrolment-void"
    # A person, place, mailbox or certificate with what may not be published: the field is held back.
    PRIVATE_DATA_HELD_BACK = "private-data-held-back"
    # A token or a body that has used half of what it may take trust from within an hour.
    WITHDRAWALS_HALF_USED = "withdrawals-half-used"
    # A CA of the plain form whose one CRL lists half of what its readers are promised to be spared, or more.
    PLAIN_CRL_LARGE = "plain-crl-large"
    # No CA of its own certifies servers, which a CA for mail may not from some day on.
    SERVERS_AUTHORITY_MISSING = "servers-authority-missing"


@dataclass(frozen=True)
class Matter:
    """One thing to look at; `authorities` are the bodies whose registrars may see it, beside auditors."""

    subject: str
    authorities: Sequence[str] = ()
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Noted:
    """A matter as listed; open while `resolved_at` is None."""

    id: int
    kind: str
    subject: str
    authorities: tuple[str, ...]
    since: datetime
    detail: Mapping[str, Any]
    resolved_at: datetime | None
    resolved_by: str | None


_OPEN = text("""
    INSERT INTO attention (kind, subject, authorities, since, detail)
    SELECT :kind, m.subject, m.authorities, :now, m.detail
    FROM jsonb_to_recordset(CAST(:matters AS jsonb)) AS m (subject text, authorities text[], detail jsonb)
    ON CONFLICT (kind, subject) WHERE resolved_at IS NULL
    DO UPDATE SET authorities = excluded.authorities, detail = excluded.detail
    WHERE (attention.authorities, attention.detail)
        IS DISTINCT FROM (excluded.authorities, excluded.detail)
""")
_CLOSE = text("""
    UPDATE attention SET resolved_at = :now, resolved_by = :actor
    WHERE kind = :kind AND resolved_at IS NULL AND subject <> ALL(CAST(:kept AS text[]))
    AND (CAST(:among AS text[]) IS NULL OR subject = ANY(CAST(:among AS text[])))
""")


def keep(
    connection: Connection,
    concern: Concern,
    matters: Collection[Matter],
    *,
    among: Collection[str] | None,
    now: datetime,
    actor: Actor,
) -> None:
    """See that of the subjects `among` (None: of all) exactly these matters of that kind are open."""
    if matters:
        told = [
            {
                "subject": matter.subject,
                "authorities": sorted(matter.authorities),
                "detail": dict(matter.detail),
            }
            for matter in matters
        ]
        given = {"kind": concern.value, "now": now, "matters": orjson.dumps(told).decode()}
        connection.execute(_OPEN, given)
    if among is None or among:
        asked = {
            "kind": concern.value,
            "now": now,
            "actor": actor.name,
            "kept": [matter.subject for matter in matters],
            "among": None if among is None else list(among),
        }
        connection.execute(_CLOSE, asked)


def matters_noted(
    connection: Connection,
    *,
    authority: str | None,
    kind: str | None,
    closed: bool,
    after: int | None,
    limit: int,
) -> list[Noted]:
    """The first `limit` matters that come after number `after`, oldest first.

    `authority` None sees all; `closed` gives those that are gone besides.
    """
    query = select(attention).order_by(attention.c.id).limit(limit)
    if authority is not None:
        query = query.where(literal(authority) == attention.c.authorities.any_())
    if kind is not None:
        query = query.where(attention.c.kind == kind)
    if not closed:
        query = query.where(attention.c.resolved_at.is_(None))
    if after is not None:
        query = query.where(attention.c.id > after)
    return [
        Noted(**{**row, "authorities": tuple(row["authorities"])})
        for row in connection.execute(query).mappings()
    ]
