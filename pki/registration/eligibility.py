"""Who may enrol, approve and have certified, and how a person was identified. Pure.

No SQL and no clock: an instant is an argument. What a certificate may contain is data in
`pki/certificates/profiles.py`.
"""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from directory.access import Role, Token
from directory.base.errors import Kind, Refusal
from directory.model import MailboxFacts, MailboxKind, MailboxStanding, Practitioner
from directory.rules import FRANCE, SHOWN_DESPITE, is_practising, registering_authorities, standing
from pki.certificates.mailbox_profiles import PROFILE_OF_MAILBOX
from pki.certificates.names import plain
from pki.model import Enrolment, EnrolmentState

IDENTITY_METHODS = frozenset({"in-person", "video", "existing-card"})
LONGEST_DOCUMENT = 200
# S/MIME BR 4.2.1: a verified identity may be built upon for 825 days.
IDENTITY_HOLDS = timedelta(days=825)

# From then on a successor may be made, so that nobody is ever without; before, a second one is nobody's need.
RENEWAL_OPENS = timedelta(days=60)


def check_identity(given: Mapping[str, Any], now: datetime) -> dict[str, str]:
    """How the registrar knew the person: `method`, `document`, `checked_on`; refuses `bad-identity-check`."""
    if set(given) != {"method", "document", "checked_on"}:
        raise _bad_identity("An identity check has a method, a document and the day it was made.")
    method, document, day = given["method"], given["document"], given["checked_on"]
    if method not in IDENTITY_METHODS:
        raise _bad_identity(f"The method is one of {', '.join(sorted(IDENTITY_METHODS))}.")
    if not isinstance(document, str) or not plain(document) or len(document) > LONGEST_DOCUMENT:
        raise _bad_identity(f"The document is named in 1 to {LONGEST_DOCUMENT} characters.")
    made = _day(day)
    today = now.astimezone(FRANCE).date()
    if not today - IDENTITY_HOLDS <= made <= today:
        raise _bad_identity("The identity was checked within the last 825 days, not in the future.")
    return {"method": method, "document": plain(document), "checked_on": made.isoformat()}


def identified_on(enrolment: Enrolment) -> date:
    """The day on which a registrar last checked who this person is."""
    return date.fromisoformat(enrolment.identity_check["checked_on"])


def _day(given: object) -> date:
    if isinstance(given, date) and not isinstance(given, datetime):
        return given
    try:
        return date.fromisoformat(str(given))
    except ValueError as error:
        raise _bad_identity("The day of the check is written YYYY-MM-DD.") from error


def _bad_identity(text: str) -> Refusal:
    return Refusal(Kind.MALFORMED, "bad-identity-check", text)


def check_registrar(token: Token) -> None:
    """Refuse `not-a-registrar`."""
    if token.role is not Role.REGISTRAR:
        raise Refusal(Kind.FORBIDDEN, "not-a-registrar", "Only a registrar may do this.")


def check_own(token: Token, authority: str, unknown: Refusal) -> None:
    """Refuse `not-a-registrar`, and `unknown` to another body: what it may not see is not there for it.

    With two refusals, numbers tried one by one would tell how much another body does, and when.
    """
    check_registrar(token)
    if token.authority != authority:
        raise unknown


def unknown_enrolment(enrolment_id: UUID) -> Refusal:
    """The refusal of what is no enrolment, or another body's."""
    return Refusal(Kind.NOT_FOUND, "unknown-enrolment", f"There is no enrolment {enrolment_id}.")


def wrong_authority(authority: str) -> Refusal:
    """The refusal to act for people of another body; '' for who acts for none."""
    text = f"{authority or 'This token'} does not register this person."
    return Refusal(Kind.FORBIDDEN, "wrong-authority", text)


def check_enrolment(authority: str, person: Practitioner, facts: MailboxFacts, now: datetime) -> None:
    """Refuse an enrolment by this body that may not be, or may no longer be.

    A person enrols with a body that registers one of their professions, while nothing stands against them or
    the mailbox. It is for a mailbox of their own, or to answer for one of an establishment. Asked again at
    every step: people change profession, and what an Ordre vouched for ends with its roll.
    """
    if authority not in registering_authorities(person):
        # Someone gone from the register has no profession left: say that, not "wrong authority".
        check_present(person)
        raise wrong_authority(authority)
    check_standing(person, facts, now)


def check_standing(person: Practitioner, facts: MailboxFacts, now: datetime) -> None:
    """Refuse while something stands against the person or the mailbox; codes are those of the verdict."""
    mailbox = facts.mailbox
    if mailbox is None:
        text = f"There is no mailbox {facts.address}."
        raise Refusal(Kind.NOT_FOUND, "unknown-mailbox", text)
    if mailbox.kind not in PROFILE_OF_MAILBOX:
        text = f"Mailboxes of kind {mailbox.kind.value} get no certificate yet."
        raise Refusal(Kind.UNACCEPTABLE, "mailbox-kind-not-served", text)
    check_present(person)
    if mailbox.kind is MailboxKind.PERSON and mailbox.holder != person.national_id:
        text = f"{facts.address} is not a mailbox of this person."
        raise Refusal(Kind.UNACCEPTABLE, "not-the-holder", text)
    # Nobody answers for an establishment before the first enrolment: that is what it is for.
    against = [reason for reason in standing(facts, now) if reason not in SHOWN_DESPITE]
    if against:
        text = f"{facts.address} may not be enrolled: {', '.join(reason.value for reason in against)}."
        raise Refusal(Kind.UNACCEPTABLE, against[0].value, text, reasons=[r.value for r in against])


def check_present(person: Practitioner) -> None:
    """Refuse whoever left the register, does not practise, or is suspended or struck off."""
    reasons = {
        MailboxStanding.HOLDER_NOT_IN_REGISTRY: person.departed_at is not None,
        MailboxStanding.HOLDER_NOT_PRACTISING: not is_practising(person),
        MailboxStanding.HOLDER_SUSPENDED: person.suspended,
        MailboxStanding.HOLDER_STRUCK_OFF: person.struck_off,
    }
    for reason, applies in reasons.items():
        if applies:
            text = f"This person may not be enrolled: {reason.value}."
            raise Refusal(Kind.UNACCEPTABLE, reason.value, text)


def check_approval(token: Token, enrolment: Enrolment) -> None:
    """Refuse what four eyes forbid: another body, one's own request, a second approval, one that ended."""
    check_own(token, enrolment.authority, unknown_enrolment(enrolment.id))
    if enrolment.requested_by == token.id:
        text = "Another registrar of the same authority approves, not the one who asked."
        raise Refusal(Kind.FORBIDDEN, "self-approval", text)
    check_requested(enrolment)


def check_requested(enrolment: Enrolment) -> None:
    """Refuse what no longer awaits anybody: it is approved, or it ended."""
    if enrolment.state is EnrolmentState.APPROVED:
        raise Refusal(Kind.CONFLICT, "already-approved", "This enrolment is approved already.")
    if enrolment.state is EnrolmentState.ENDED:
        raise Refusal(Kind.CONFLICT, "enrolment-ended", "This enrolment has ended: ask for a new one.")


def check_issuance(token: Token, enrolment: Enrolment) -> None:
    """Refuse a certificate to anyone but a registrar of the same body, on an approved enrolment."""
    check_own(token, enrolment.authority, unknown_enrolment(enrolment.id))
    check_approved(enrolment)


def check_approved(enrolment: Enrolment) -> None:
    """Refuse what a second registrar has not approved, or what has ended since."""
    if enrolment.state is EnrolmentState.ENDED:
        raise Refusal(Kind.CONFLICT, "enrolment-ended", "This enrolment has ended: ask for a new one.")
    if enrolment.state is not EnrolmentState.APPROVED:
        text = "A second registrar must approve this enrolment first."
        raise Refusal(Kind.CONFLICT, "not-approved", text)


def check_identified(enrolment: Enrolment, now: datetime) -> None:
    """Refuse `identity-too-old` when the person was identified more than 825 days ago: enrol anew."""
    if not is_identified(enrolment, now):
        text = "The identity was checked more than 825 days ago: a new enrolment is needed."
        raise Refusal(Kind.CONFLICT, "identity-too-old", text)


def is_identified(enrolment: Enrolment, now: datetime) -> bool:
    """Whether the person was identified within 825 days."""
    return now.astimezone(FRANCE).date() <= identified_on(enrolment) + IDENTITY_HOLDS
