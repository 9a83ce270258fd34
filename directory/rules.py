"""The directory's decisions, each in one place: what stands against a mailbox, does it show, who registers.

Pure: no SQL, no clock; an instant is an argument.
"""

import re
import unicodedata
from collections.abc import Mapping
from datetime import date, datetime
from types import MappingProxyType
from zoneinfo import ZoneInfo

from directory import privacy
from directory.model import MailboxFacts, MailboxStanding, Organisation, Practitioner

# The seven Ordres and the professions they hold the roll of (TRE_G15 -> TRE_R60). Every other profession has
# no Ordre: the regional health agencies register it, and their registrars enrol it.
ORDRE_OF_PROFESSION: Mapping[str, str] = MappingProxyType(
    {"10": "CNOM", "21": "CNOP", "40": "ONCD", "50": "CNOSF", "60": "ONI", "70": "CNOMK", "80": "CNOPP"}
)
WITHOUT_ORDRE = "ARS"
FRANCE = ZoneInfo("Europe/Paris")

# Letters that no decomposition takes apart, yet a keyboard without them does.
_LIGATURES = str.maketrans(
    {"Œ": "OE", "œ": "OE", "Æ": "AE", "æ": "AE", "ß": "SS", "ẞ": "SS", "Ø": "O", "ø": "O", "Đ": "D", "đ": "D",
     "Ł": "L", "ł": "L", "\N{LATIN SMALL LETTER DOTLESS I}": "I"}
)  # fmt: skip
_MARK = re.compile("[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")
_NOT_A_LETTER = re.compile(r"[^A-Z0-9]+")


def registering_authority(profession_code: str) -> str:
    """The body whose registrars enrol this profession: an Ordre, or the health agencies without one."""
    return ORDRE_OF_PROFESSION.get(profession_code, WITHOUT_ORDRE)


def registering_authorities(person: Practitioner) -> frozenset[str]:
    """The bodies that may act for this person: one for each profession he holds."""
    return frozenset(registering_authority(code) for code, _ in person.professions)


def search_form(text: str) -> str:
    """A name as it is searched: upper case, accents folded, hyphens and apostrophes to single spaces.

    The database folds what it holds in the same way (`sceau_fold`, migration 0009).
    """
    if not text.isascii():
        text = _MARK.sub("", unicodedata.normalize("NFKD", text).translate(_LIGATURES))
    return _NOT_A_LETTER.sub(" ", text.upper()).strip()


def is_practising(person: Practitioner) -> bool:
    """Whether the register shows at least one open activity."""
    return bool(person.practices)


def is_open(organisation: Organisation, day: date) -> bool:
    """Whether the establishment is in FINESS and not closed on that day (a French calendar day)."""
    return organisation.departed_at is None and (
        organisation.closed_on is None or organisation.closed_on > day
    )


def standing(facts: MailboxFacts, at: datetime) -> tuple[MailboxStanding, ...]:
    """Everything that stands against this mailbox at `at`, in the order of the verdict's checks; () if none.

    The checks of docs/explanation/verdict.md, one by one, none hiding the next.
    """
    if not facts.well_formed:
        return (MailboxStanding.MALFORMED_ADDRESS,)
    standings = list(_of_domain(facts))
    if facts.mailbox is None:
        return (*standings, MailboxStanding.MAILBOX_UNKNOWN)
    if facts.mailbox.departed_at is not None:
        standings.append(MailboxStanding.MAILBOX_CLOSED)
    if facts.mailbox.kind.held:
        standings += _of_holder(facts.holder)
    else:
        standings += _of_organisation(facts, at)
    return tuple(standings)


def _of_domain(facts: MailboxFacts) -> list[MailboxStanding]:
    """A domain held by several operators is trusted while one right to it stands unsuspended."""
    if not facts.trusts:
        return [MailboxStanding.DOMAIN_NOT_TRUSTED]
    if any(not (trust.domain_suspended or trust.operator_suspended) for trust in facts.trusts):
        return []
    standings = []
    if any(trust.domain_suspended for trust in facts.trusts):
        standings.append(MailboxStanding.DOMAIN_SUSPENDED)
    if any(trust.operator_suspended for trust in facts.trusts):
        standings.append(MailboxStanding.OPERATOR_SUSPENDED)
    return standings


def _of_holder(holder: Practitioner | None) -> list[MailboxStanding]:
    if holder is None or holder.departed_at is not None:
        standings = [MailboxStanding.HOLDER_NOT_IN_REGISTRY]
    elif not is_practising(holder):
        standings = [MailboxStanding.HOLDER_NOT_PRACTISING]
    else:
        standings = []
    if holder is not None and holder.suspended:
        standings.append(MailboxStanding.HOLDER_SUSPENDED)
    if holder is not None and holder.struck_off:
        standings.append(MailboxStanding.HOLDER_STRUCK_OFF)
    return standings


def _of_organisation(facts: MailboxFacts, at: datetime) -> list[MailboxStanding]:
    standings = []
    if facts.organisation is None:
        standings.append(MailboxStanding.ORGANISATION_UNKNOWN)
    elif not is_open(facts.organisation, at.astimezone(FRANCE).date()):
        standings.append(MailboxStanding.ORGANISATION_CLOSED)
    if not any(not _of_holder(person) for person in facts.answerable):
        standings.append(MailboxStanding.NO_ANSWERABLE_PROFESSIONAL)
    return standings


# An organisation may be found before it has named who answers for it; it may not be trusted before.
SHOWN_DESPITE = frozenset({MailboxStanding.NO_ANSWERABLE_PROFESSIONAL})


def visible(facts: MailboxFacts, at: datetime) -> bool:
    """Whether this mailbox may be found in LDAP, REST, exports and pages; red-listed ones only checked."""
    mailbox = facts.mailbox
    if mailbox is None or not mailbox.listed or not set(standing(facts, at)) <= SHOWN_DESPITE:
        return False
    return privacy.is_shown(mailbox) and (facts.holder is None or privacy.is_shown(facts.holder))
