"""What an issuance is judged by, read at once under the locks of its person and key.

Each part is asked with words of its own place, and judged there (`pki/issuance/rekey.py`, `impediments`,
`pki/revocation/blocked_keys.py`); one question for all of them spares a certificate most of its way to the
database and back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from directory import store as directory_store
from directory.base.errors import Kind, Refusal
from directory.model import MailboxFacts, Practitioner
from pki.certificates.profiles import served_by
from pki.certificates.public_keys import PublicKey
from pki.model import Enrolment, IssuedCertificate, Purpose
from pki.record import key_use
from pki.record.key_use import Against, KeyUse
from pki.registration import eligibility
from pki.revocation import blocked_keys

_RESERVING = blocked_keys.STOPPED.beside(key_use.KEY_USE, directory_store.PRESENT_FACTS)
_STORING = key_use.AGAINST.beside(directory_store.PRESENT_FACTS)


@dataclass(frozen=True)
class Reserving:
    """The person, the mailbox and the use of the key that a reservation is asked for."""

    person: Practitioner
    facts: MailboxFacts
    use: KeyUse
    key: PublicKey
    stopped: Sequence[Any]

    def checked(self) -> blocked_keys.Checked:
        """Refuses as `blocked_keys.check` does."""
        return blocked_keys.judged(self.key, self.stopped)


def reserving(
    connection: Connection, of: Enrolment, key: PublicKey, purposes: frozenset[Purpose], now: datetime
) -> Reserving:
    """All that says whether this key may be reserved for these; the enrolment and the key's number are held.

    Refuses `unknown-practitioner`, `malformed-address`.
    """
    asked = blocked_keys.asking_of(key)
    asked |= key_use.asking_beside(
        asked["spki"], of, purposes, beyond=now + eligibility.RENEWAL_OPENS, now=now
    )
    (row,) = _RESERVING.rows(connection, asked | directory_store.asking_of(of.mailbox))
    stopped, use = row[:3], row[3 : 3 + key_use.KEY_USE_WIDTH]
    facts = directory_store.facts_told(of.mailbox, row[3 + key_use.KEY_USE_WIDTH :])
    person = subject(connection, of.practitioner, facts)
    return Reserving(person, facts, key_use.key_use_told(use), key, stopped)


def storing(
    connection: Connection, of: Enrolment, issued: IssuedCertificate, now: datetime
) -> tuple[Practitioner, MailboxFacts, Against]:
    """All that says whether a signed certificate may be handed out; its enrolment and its key are held.

    Refuses `unknown-practitioner`, `malformed-address`.
    """
    asked = key_use.asking_beside(
        issued.spki_sha256, of, served_by(issued.profile), beyond=now + eligibility.RENEWAL_OPENS, now=now,
        but=issued.serial,
    )  # fmt: skip
    (row,) = _STORING.rows(connection, asked | directory_store.asking_of(of.mailbox))
    facts = directory_store.facts_told(of.mailbox, row[3:])
    return subject(connection, of.practitioner, facts), facts, key_use.against_told(row[:3])


def subject_of(connection: Connection, national_id: str, mailbox: str) -> tuple[Practitioner, MailboxFacts]:
    """The person and the mailbox of an enrolment, as the record has them now.

    Refuses `unknown-practitioner`, `malformed-address`.
    """
    facts = directory_store.mailbox_facts(connection, [mailbox])[mailbox]
    return subject(connection, national_id, facts), facts


def subject(connection: Connection, national_id: str, facts: MailboxFacts) -> Practitioner:
    """The person of an enrolment for the mailbox of these facts, with the refusals of `subject_of`."""
    person = facts.holder
    if person is None or person.national_id != national_id:
        # An establishment's mailbox has no holder, or it is asked for one that is another's.
        person = directory_store.practitioners(connection, [national_id]).get(national_id)
    if person is None:
        text = f"The national register has no {national_id}."
        raise Refusal(Kind.NOT_FOUND, "unknown-practitioner", text)
    if not facts.well_formed:
        raise Refusal(Kind.MALFORMED, "malformed-address", f"{facts.address} is not a mail address.")
    return person
