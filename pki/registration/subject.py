"""Whom an enrolment is for: the person and the mailbox, as the record has them now.

Whether they may be enrolled is decided in `pki/registration/eligibility.py`.
"""

from sqlalchemy import Connection

from directory import store as directory_store
from directory.base.errors import Kind, Refusal
from directory.model import MailboxFacts, Practitioner


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
