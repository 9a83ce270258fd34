"""Why trust is withdrawn from somebody who had it, with which reason, and after which grace. Pure.

The causes are data; `causes` reads them off the present rows, `decide` says what follows for one certificate.
Who is touched, and the acts themselves, are in `pki/withdrawal/reconcile.py`. What stands against a mailbox
at once, grace or not, is the verdict's business (`directory/rules.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from types import MappingProxyType

from directory.model import MailboxFacts, MailboxKind, Practitioner
from directory.rules import FRANCE, is_open, is_practising
from pki.certificates.mailbox_profiles import PROFILE_OF_MAILBOX
from pki.certificates.profiles import PROFILES
from pki.model import RevocationAction, RevocationReason


class WithdrawalCause(Enum):
    """Why, the most telling first: of several causes the first gives the certificate's reason."""

    STRUCK_OFF = "struck-off"
    DEPARTED = "departed"
    MAILBOX_MOVED = "mailbox-moved"
    MAILBOX_CLOSED = "mailbox-closed"
    ORGANISATION_CLOSED = "organisation-closed"
    RENUMBERED = "renumbered"
    END_OF_PRACTICE = "end-of-practice"
    DOMAIN_WITHDRAWN = "domain-withdrawn"
    SUSPENDED = "suspended"


@dataclass(frozen=True)
class Rule:
    """The reason a cause gives (RFC 5280 5.3.1), its usual grace, and a sentence for the log."""

    reason: RevocationReason
    grace: timedelta
    sentence: str


AT_ONCE = timedelta()
RULES: Mapping[WithdrawalCause, Rule] = MappingProxyType(
    {
        WithdrawalCause.STRUCK_OFF: Rule(
            RevocationReason.PRIVILEGE_WITHDRAWN, AT_ONCE, "struck off by an Ordre or agency"
        ),
        WithdrawalCause.DEPARTED: Rule(
            RevocationReason.CESSATION_OF_OPERATION, AT_ONCE, "no longer in the national register"
        ),
        WithdrawalCause.MAILBOX_MOVED: Rule(
            RevocationReason.AFFILIATION_CHANGED, AT_ONCE, "the mailbox belongs to somebody else"
        ),
        WithdrawalCause.MAILBOX_CLOSED: Rule(
            RevocationReason.CESSATION_OF_OPERATION, AT_ONCE, "the mailbox is closed"
        ),
        WithdrawalCause.ORGANISATION_CLOSED: Rule(
            RevocationReason.CESSATION_OF_OPERATION, AT_ONCE, "the establishment is closed"
        ),
        WithdrawalCause.RENUMBERED: Rule(
            RevocationReason.SUPERSEDED, timedelta(days=30), "registered under another national number"
        ),
        WithdrawalCause.END_OF_PRACTICE: Rule(
            RevocationReason.CESSATION_OF_OPERATION, timedelta(days=7), "no open practice in the register"
        ),
        # Of an operator's own certificates: the host may be moved to another name meanwhile.
        WithdrawalCause.DOMAIN_WITHDRAWN: Rule(
            RevocationReason.CESSATION_OF_OPERATION,
            timedelta(days=1),
            "the domain is no longer this operator's on the trusted list",
        ),
        # A hold harms nobody for long: it is lifted with the suspension, so that it needs no grace.
        WithdrawalCause.SUSPENDED: Rule(
            RevocationReason.CERTIFICATE_HOLD, AT_ONCE, "suspended by an Ordre or agency"
        ),
    }
)  # fmt: skip
GRACES: Mapping[WithdrawalCause, timedelta] = MappingProxyType(
    {cause: rule.grace for cause, rule in RULES.items()}
)


@dataclass(frozen=True)
class Bond:
    """What a certificate or an enrolment ties together: a person, a mailbox, and what that mailbox was then.

    `establishment` is the FINESS number it names, None when it names none; `kind` None when unknown.
    """

    practitioner: str
    mailbox: str
    establishment: str | None = None
    kind: MailboxKind | None = None


@dataclass(frozen=True)
class Present:
    """What the record says now of both ends of a bond; `successor` is the person under a newer number."""

    person: Practitioner | None
    facts: MailboxFacts
    successor: Practitioner | None = None


@dataclass(frozen=True)
class Decision:
    """What follows for one certificate: revoked for `revoke`, or held, released, left; and what falls due."""

    revoke: WithdrawalCause | None = None
    hold: bool = False
    release: bool = False
    pending: tuple[WithdrawalCause, ...] = ()


def kind_of_profile(profile: str) -> MailboxKind | None:
    """The kind of mailbox that certificates of this profile are made for; None for those of the service."""
    family = PROFILES[profile].family if profile in PROFILES else profile
    return next((kind for kind, known in PROFILE_OF_MAILBOX.items() if known.name == family), None)


def causes(bond: Bond, present: Present, at: datetime) -> tuple[WithdrawalCause, ...]:
    """Every cause that holds against this bond, the most telling first; () when it stands."""
    replaced = present.successor is not None and _gone(present.person)
    # Who goes on under a new number is judged by what stands there: measures followed him, the rest is new.
    person = present.successor if replaced else present.person
    gone = _gone(person)
    applies = {
        WithdrawalCause.STRUCK_OFF: person is not None and person.struck_off,
        WithdrawalCause.DEPARTED: gone,
        WithdrawalCause.MAILBOX_MOVED: _moved(bond, present),
        WithdrawalCause.MAILBOX_CLOSED: present.facts.mailbox is None
        or present.facts.mailbox.departed_at is not None,
        WithdrawalCause.ORGANISATION_CLOSED: _organisation_closed(present.facts, at),
        WithdrawalCause.RENUMBERED: replaced,
        WithdrawalCause.END_OF_PRACTICE: person is not None and not gone and not is_practising(person),
        # Mailboxes of a domain withdrawn are refused by the verdict, and closed by the register.
        WithdrawalCause.DOMAIN_WITHDRAWN: False,
        WithdrawalCause.SUSPENDED: person is not None and person.suspended,
    }
    return tuple(cause for cause in WithdrawalCause if applies[cause])


def _gone(person: Practitioner | None) -> bool:
    return person is None or person.departed_at is not None


def _moved(bond: Bond, present: Present) -> bool:
    """Whether the mailbox passed to another holder or establishment, or from one kind to the other."""
    mailbox = present.facts.mailbox
    if mailbox is None:
        return False
    if bond.kind is not None and bond.kind.held != mailbox.kind.held:
        return True
    if mailbox.kind.held:
        # The same person under a new number holds it still.
        successor = present.successor.national_id if present.successor else bond.practitioner
        return mailbox.holder not in {bond.practitioner, successor}
    return bond.establishment is not None and bond.establishment != mailbox.establishment


def _organisation_closed(facts: MailboxFacts, at: datetime) -> bool:
    if facts.mailbox is None or facts.mailbox.kind.held:
        return False
    return facts.organisation is None or not is_open(facts.organisation, at.astimezone(FRANCE).date())


def decide(
    withdrawal_causes: Sequence[WithdrawalCause],
    *,
    graces: Mapping[WithdrawalCause, timedelta],
    due: Mapping[WithdrawalCause, datetime],
    last: RevocationAction | None,
    ours: bool,
    impeded: bool,
    now: datetime,
) -> Decision:
    """What follows from these causes for a certificate not revoked for good.

    `due` is when causes noted before fall due, `last` the last event of the certificate. `ours` is whether
    that was a hold put here: another's hold stays, whatever becomes of the suspension. `impeded` is whether
    anything stands against giving it back (`pki/impediments/standing.py`).
    """
    final = [cause for cause in withdrawal_causes if cause is not WithdrawalCause.SUSPENDED]
    for cause in final:
        if graces[cause] <= AT_ONCE or (cause in due and due[cause] <= now):
            return Decision(revoke=cause)
    held = last is RevocationAction.HOLD
    suspended = WithdrawalCause.SUSPENDED in withdrawal_causes
    return Decision(
        hold=suspended and not held,
        release=held and ours and not impeded,
        pending=tuple(final),
    )


def ends_enrolment(
    withdrawal_causes: Sequence[WithdrawalCause], graces: Mapping[WithdrawalCause, timedelta]
) -> WithdrawalCause | None:
    """The cause that ends an enrolment now; one with a grace ends it with its certificate."""
    return next(
        (
            cause
            for cause in withdrawal_causes
            if cause is not WithdrawalCause.SUSPENDED and graces[cause] <= AT_ONCE
        ),
        None,
    )
