"""Approved enrolments that certify nothing more, since the record names otherwise: listed, and counted.

What makes one void is in `pki/registration/vouched_names.py`, where issuance asks as well. Whom to look at is
told by the feed (`pki/withdrawal/reconcile.py`); how many one correction may void alone, by
`directory/withdrawal_limits.py`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from directory import store as directory_store
from directory.attention import Concern, Matter, keep
from directory.base.audit import Actor
from directory.feed.changes import Entity
from pki.impediments import standing as impediments
from pki.impediments.causes import Bond, Present
from pki.record.tables import NAMES_OF_ENROLMENT
from pki.registration import vouched_names

# Those that ended as well: their matters close. Each way to an enrolment by its own index.
_VOUCHED = text(f"""
    SELECT e.id, e.practitioner, e.mailbox, e.authority, e.state = 'approved' AS approved,
           CASE WHEN e.state = 'approved' THEN {NAMES_OF_ENROLMENT.format(id="e.id")} END AS names
    FROM enrolment e WHERE e.id IN (
        SELECT x.id FROM unnest(CAST(:people AS text[])) AS asked (id)
        JOIN enrolment x ON x.practitioner = asked.id
        UNION SELECT x.id FROM unnest(CAST(:mailboxes AS text[])) AS asked (address)
        JOIN enrolment x ON x.mailbox = asked.address)
    ORDER BY e.id
""")  # noqa: S608 - an expression of our own


@dataclass(frozen=True)
class Vouched:
    """An enrolment and what was recorded with it: `names` is None where nobody did, or once it has ended."""

    id: UUID
    practitioner: str
    mailbox: str
    authority: str
    approved: bool
    names: Mapping[str, Any] | None

    @property
    def bond(self) -> Bond:
        """Whom and what it ties together; what the mailbox was then says nothing of names."""
        return Bond(self.practitioner, self.mailbox)


def list_matters(
    connection: Connection,
    *,
    people: Collection[str],
    mailboxes: Collection[str],
    known: Mapping[Bond, Present],
    now: datetime,
    actor: Actor,
) -> None:
    """See that of the enrolments touched those that are void are matters, and no others.

    `known` is what the record says of both ends. Of one approved behind that look a change of its own tells.
    """
    if not people and not mailboxes:
        return
    present = {Bond(bond.practitioner, bond.mailbox): told for bond, told in known.items()}
    found = [
        one for one in _vouched(connection, people, mailboxes) if not one.approved or one.bond in present
    ]
    matters = [
        Matter(
            str(one.id), [one.authority],
            {"practitioner": one.practitioner, "mailbox": one.mailbox, "differs": fields},
        )
        for one in found
        if one.approved and (fields := _differing(one, present[one.bond]))
    ]  # fmt: skip
    among = [str(one.id) for one in found]
    keep(connection, Concern.ENROLMENT_VOID, matters, among=among, now=now, actor=actor)


def void_of(connection: Connection, entity: Entity, key: str) -> frozenset[UUID]:
    """The approved enrolments that are void now, of those that name what this row of the record says."""
    people = [key] if entity is Entity.PRACTITIONER else []
    mailboxes = [key] if entity is Entity.MAILBOX else []
    if entity is Entity.ORGANISATION:
        mailboxes = list(directory_store.addresses_at(connection, [key])[key])
    approved = [one for one in _vouched(connection, people, mailboxes) if one.approved]
    present = impediments.present_of(connection, [one.bond for one in approved])
    return frozenset(one.id for one in approved if _differing(one, present[one.bond]))


def _vouched(connection: Connection, people: Collection[str], mailboxes: Collection[str]) -> list[Vouched]:
    asked = {"people": list(people), "mailboxes": list(mailboxes)}
    return [Vouched(**row) for row in connection.execute(_VOUCHED, asked).mappings()]


def _differing(one: Vouched, present: Present) -> list[str]:
    """The fields named otherwise; of a person or mailbox the record does not hold, none: it ends anyway."""
    if present.person is None or present.facts.mailbox is None:
        return []
    return vouched_names.differing_now(one.names, present.person, present.facts)
