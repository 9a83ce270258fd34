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
    vouched = [
        enrolment
        for enrolment in _vouched(connection, people, mailboxes)
        if not enrolment.approved or enrolment.bond in present
    ]
    matters = [
        Matter(
            str(enrolment.id), [enrolment.authority],
            {"practitioner": enrolment.practitioner, "mailbox": enrolment.mailbox, "differs": fields},
        )
        for enrolment in vouched
        if enrolment.approved and (fields := _differing(enrolment, present[enrolment.bond]))
    ]  # fmt: skip
    among = [str(enrolment.id) for enrolment in vouched]
    keep(connection, Concern.ENROLMENT_VOID, matters, among=among, now=now, actor=actor)


def void_of(connection: Connection, entity: Entity, key: str) -> frozenset[UUID]:
    """The approved enrolments that are void now, of those that name what this row of the record says."""
    people = [key] if entity is Entity.PRACTITIONER else []
    mailboxes = [key] if entity is Entity.MAILBOX else []
    if entity is Entity.ORGANISATION:
        mailboxes = list(directory_store.addresses_at(connection, [key])[key])
    approved = [enrolment for enrolment in _vouched(connection, people, mailboxes) if enrolment.approved]
    present = impediments.present_of(connection, [enrolment.bond for enrolment in approved])
    return frozenset(enrolment.id for enrolment in approved if _differing(enrolment, present[enrolment.bond]))


def _vouched(connection: Connection, people: Collection[str], mailboxes: Collection[str]) -> list[Vouched]:
    asked = {"people": list(people), "mailboxes": list(mailboxes)}
    return [Vouched(**row) for row in connection.execute(_VOUCHED, asked).mappings()]


def _differing(enrolment: Vouched, present: Present) -> list[str]:
    """The fields named otherwise; of a person or mailbox the record does not hold, none: it ends anyway."""
    if present.person is None or present.facts.mailbox is None:
        return []
    return vouched_names.differing_now(enrolment.names, present.person, present.facts)
