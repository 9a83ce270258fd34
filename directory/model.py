"""The directory's values: who a mailbox belongs to, and all that its standing rests on.

Frozen, without SQL or network. Certificates appear in none of them.
"""

from dataclasses import dataclass, field
from datetime import date, datetime
from enum import Enum


class MailboxKind(Enum):
    """TRE_R257: of a person, an organisation or service, an application, a practice."""

    PERSON = "PER"
    ORGANISATION = "ORG"
    APPLICATION = "APP"
    CABINET = "CAB"

    @property
    def held(self) -> bool:
        """Whether a person holds it; if not, it is an establishment's, and somebody answers for it."""
        return self in (MailboxKind.PERSON, MailboxKind.CABINET)


class MailboxStanding(Enum):
    """What keeps a mailbox from being trusted, as far as the directory knows; in the verdict's order."""

    MALFORMED_ADDRESS = "malformed-address"
    DOMAIN_NOT_TRUSTED = "domain-not-trusted"
    DOMAIN_SUSPENDED = "domain-suspended"
    OPERATOR_SUSPENDED = "operator-suspended"
    MAILBOX_UNKNOWN = "mailbox-unknown"
    MAILBOX_CLOSED = "mailbox-closed"
    HOLDER_NOT_IN_REGISTRY = "holder-not-in-registry"
    HOLDER_NOT_PRACTISING = "holder-not-practising"
    HOLDER_SUSPENDED = "holder-suspended"
    HOLDER_STRUCK_OFF = "holder-struck-off"
    ORGANISATION_UNKNOWN = "organisation-unknown"
    ORGANISATION_CLOSED = "organisation-closed"
    NO_ANSWERABLE_PROFESSIONAL = "no-answerable-professional"


class MeasureKind(Enum):
    """What an authority may impose on a person, beside what the register says."""

    SUSPENDED = "suspended"
    STRUCK_OFF = "struck-off"


@dataclass(frozen=True)
class Practice:
    """One activity of a person (situation d'exercice), as the RPPS gives it."""

    profession_code: str
    category: str
    mode: str = ""
    sector: str = ""
    structure_id: str = ""
    finess: str = ""
    structure_name: str = ""
    street: str = ""
    postal_code: str = ""
    town: str = ""
    department: str = ""
    registered_by: str = ""


@dataclass(frozen=True)
class Practitioner:
    """A person of the national register; `departed_at` is set when the register no longer holds him.

    `other_names` (family, given) are those he practises under beside the one shown; verdicts do not ask for
    them. `changes_at` is the next instant at which a measure against him begins or ends, as recorded now.
    `withheld` are the fields that may not be published, each with what is in it (`privacy.py`).
    """

    national_id: str
    title: str
    family_name: str
    given_name: str
    professions: tuple[tuple[str, str], ...] = ()
    skills: tuple[str, ...] = ()
    practices: tuple[Practice, ...] = ()
    suspended: bool = False
    struck_off: bool = False
    departed_at: datetime | None = None
    other_names: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    changes_at: datetime | None = field(default=None, compare=False)
    withheld: tuple[tuple[str, str], ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Organisation:
    """An establishment of FINESS."""

    finess: str
    name: str
    long_name: str = ""
    category_code: str = ""
    category_label: str = ""
    street: str = ""
    postal_line: str = ""
    department: str = ""
    closed_on: date | None = None
    departed_at: datetime | None = None
    withheld: tuple[tuple[str, str], ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Mailbox:
    """A mailbox of the national list, or one that an enrolment brought."""

    address: str
    kind: MailboxKind
    holder: str | None
    structure_type: str
    structure_id: str
    structure_name: str
    service: str
    listed: bool
    departed_at: datetime | None = None
    withheld: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    @property
    def finess(self) -> str:
        """The FINESS number of the structure, '' when it is named otherwise (TRE_G07 type 1 is FINESS)."""
        return self.structure_id if self.structure_type == "1" else ""

    @property
    def siret(self) -> str:
        """The SIRET of the structure, '' when it is named otherwise (TRE_G07 type 3 is SIRET)."""
        return self.structure_id if self.structure_type == "3" else ""

    @property
    def establishment(self) -> str:
        """The number by which FINESS may know the structure, '' when it has none such."""
        return self.finess or self.siret


@dataclass(frozen=True)
class Trust:
    """One operator's right to one domain; the same domain may be held by several operators at once."""

    operator_dn: str
    operator_name: str
    domain_suspended: bool = False
    operator_suspended: bool = False


@dataclass(frozen=True)
class MailboxFacts:
    """All that the directory knows about one address at one instant; `mailbox` is None when not registered.

    `organisation` is the establishment with the mailbox's own number. Where FINESS knows that number as a
    legal entity's or a SIRET, it is one of the places under it. It is an open one, if there is one.
    `answerable` are the professionals named for an organisation's mailbox, with their own standing.
    """

    address: str
    well_formed: bool
    trusts: tuple[Trust, ...] = ()
    mailbox: Mailbox | None = None
    holder: Practitioner | None = None
    organisation: Organisation | None = None
    answerable: tuple[Practitioner, ...] = ()
    version: str = field(default="", compare=False)

    @property
    def place(self) -> Organisation | None:
        """The establishment with the mailbox's own number; None where it is a legal entity's or a SIRET."""
        if self.mailbox is None or self.organisation is None:
            return None
        return self.organisation if self.organisation.finess == self.mailbox.finess else None
