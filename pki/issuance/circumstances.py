"""What an issuance is judged by: locked in one order, then read at once, on either side of the signature.

Each part is asked with words of its own place, and judged there (`pki/issuance/rekey.py`, `impediments`,
`pki/revocation/blocked_keys.py`). One question for all of them spares a certificate most of its way to the
database and back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from directory import store as directory_store
from directory.model import MailboxFacts, Practitioner
from pki.certificates import mailbox_profiles
from pki.certificates.profiles import Profile, served_by
from pki.certificates.public_keys import PublicKey
from pki.model import Authority, Enrolment, IssuedCertificate, Purpose
from pki.record import authorities, key_locks, key_use
from pki.record.key_use import Against, KeyUse
from pki.registration import eligibility
from pki.registration import enrolment as enrolling
from pki.registration.subject import subject
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
    purposes: frozenset[Purpose]
    stopped: Sequence[Any]

    def checked(self) -> blocked_keys.Checked:
        """Refuses as `blocked_keys.check` does."""
        return blocked_keys.judged(self.key, self.stopped)

    def profile(self) -> Profile:
        """What a certificate of this mailbox for these purposes holds; refuses `unknown-mailbox`."""
        return mailbox_profiles.mail_profile(enrolling.mailbox_of(self.facts).kind, self.purposes)

    def issuer(self, connection: Connection, now: datetime) -> Authority:
        """The CA of this kind of mailbox; refuses as `authorities.issuing_authority`."""
        role = mailbox_profiles.ISSUER_OF_MAILBOX[enrolling.mailbox_of(self.facts).kind]
        return authorities.issuing_authority(connection, role, now)


def lock(
    connection: Connection, enrolment_id: UUID, key: PublicKey, now: datetime
) -> tuple[Enrolment, datetime]:
    """The enrolment, with its person and the number of this key locked, and the instant of that.

    Two requests for one person queue here, so the second sees what the first reserved. Refuses
    `unknown-enrolment`.
    """
    number = key_locks.number_lock(key_locks.number_of(key))
    return enrolling.held_enrolment(connection, enrolment_id, number, now=now)


def lock_again(
    connection: Connection, enrolment_id: UUID, spki_sha256: bytes, now: datetime
) -> tuple[Enrolment, datetime]:
    """As `lock`, once the key is signed: its form is locked, as by whoever reports it."""
    return enrolling.held_enrolment(connection, enrolment_id, key_locks.lock_name(spki_sha256), now=now)


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
    return Reserving(person, facts, key_use.key_use_told(use), key, purposes, stopped)


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
