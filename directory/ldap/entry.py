"""What an LDAP entry says about a mailbox, an establishment, a CA or a CRL, and under which name it stands.

Pure. Whether something shows at all is `directory.rules`; certificates and CRLs are bytes handed in. The
entry's version (`sceauVersion`) belongs to the act of writing and is added by `plan`.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b

from directory.feed.changes import Entity, place_of_crl
from directory.ldap.names import Name, join, split
from directory.model import Mailbox, MailboxFacts, Organisation, Practitioner
from directory.rules import FRANCE, is_open, search_form, visible

Key = tuple[Entity, str]
Attributes = Mapping[str, tuple[bytes, ...]]

MAILBOXES, ORGANISATIONS, PKI = "ou=mailboxes", "ou=organizations", "ou=pki"
CERTIFICATE = "userCertificate;binary"
# A value as people type it stands under a language tag of private use (RFC 3866, RFC 5646 2.2.7). A filter on
# the attribute finds it; a client that shows the attribute by its name shows the true value alone.
FOLDED = ";lang-x-folded"
FOLDED_TOO = ("cn", "sn", "givenName", "o")
# The class of the entries that everything else hangs from.
TREE = "sceauTree"
GENERALIZED_TIME = "%Y%m%d%H%M%SZ"
# The national namespaces of persons (IDNPS) and structures (IDNST), in the ISO 21091 form of an identifier.
PERSON_IDENTIFIER = "1.2.250.1.71.4.2.1:IDNPS:{}:Active"
STRUCTURE_IDENTIFIER = "1.2.250.1.71.4.2.2:IDNST:{}:Active"

_RPPS = "8"
_POSTAL_LINE = re.compile(r"([0-9AB]{5})\s+(.+)")


@dataclass(frozen=True)
class Entry:
    """One entry: its name as written, and the values of each attribute as bytes."""

    dn: str
    attributes: Attributes

    @property
    def name(self) -> Name:
        """The name in the form that compares equal whatever the spelling."""
        return split(self.dn)


@dataclass(frozen=True)
class AuthorityEntry:
    """A CA to publish: its id and its certificate in DER."""

    id: str
    certificate: bytes


@dataclass(frozen=True)
class CrlEntry:
    """The CRL in force of one shard of a CA and the newest delta to it, in DER."""

    authority_id: str
    shard: int
    crl: bytes
    delta: bytes | None = None


def dn_of(key: Key, suffix: str) -> str:
    """The name of the entry for a key of the change feed; ValueError for what has none (practitioners)."""
    entity, word = key
    match entity:
        case Entity.MAILBOX:
            return join("mail", word, MAILBOXES, suffix)
        case Entity.ORGANISATION:
            return join("uid", word, ORGANISATIONS, suffix)
        case Entity.AUTHORITY:
            return join("cn", word, PKI, suffix)
        case Entity.CRL:
            # As it stands in the tree: an entry that is none of ours has no number there.
            authority, _, shard = word.partition("/")
            return join("cn", shard, dn_of((Entity.AUTHORITY, authority), suffix))
        case Entity.PRACTITIONER:
            raise ValueError("a practitioner has no entry of his own; his mailboxes have")


def key_of(name: Name, suffix: str) -> Key | None:
    """The key whose entry stands under `name`; None for base entries and for what is not ours."""
    base = split(suffix)
    match name[: len(name) - len(base)]:
        case (("mail", address), ("ou", "mailboxes")):
            return Entity.MAILBOX, address
        case (("uid", finess), ("ou", "organizations")):
            return Entity.ORGANISATION, finess.upper()
        case (("cn", authority), ("ou", "pki")):
            return Entity.AUTHORITY, authority
        case (("cn", shard), ("cn", authority), ("ou", "pki")):
            return Entity.CRL, f"{authority}/{shard}"
    return None


def base_entries(suffix: str, registers: Mapping[str, datetime | None] | None = None) -> tuple[Entry, ...]:
    """What everything else hangs from, parents first; the topmost says which registers the tree rests on."""
    attribute, value = split(suffix)[0]
    classes = {"o": "organization", "ou": "organizationalUnit", "c": "country", "dc": "domain"}
    made = (f"{register} {at:{GENERALIZED_TIME}}" for register, at in (registers or {}).items() if at)
    top = {
        "objectClass": _texts(classes.get(attribute, "locality"), TREE),
        attribute: _texts(value),
        "sceauRegister": _texts(*made),
    }
    unit = {"objectClass": _texts("organizationalUnit", TREE)}
    return (
        Entry(suffix, {name: values for name, values in top.items() if values}),
        *(Entry(f"{ou},{suffix}", unit | {"ou": _texts(ou[3:])}) for ou in (MAILBOXES, ORGANISATIONS, PKI)),
    )


def publisher_name(suffix: str) -> str:
    """The name under which the publisher writes; our configurations map its certificate or account to it."""
    return f"cn=publisher,{suffix}"


def digest(attributes: Attributes) -> bytes:
    """A hash of all an entry says, whatever the order of its attributes and values."""
    parts = (
        b"%d:%s%d:%s" % (len(name), name.lower().encode(), len(value), value)
        for name in sorted(attributes, key=str.lower)
        for value in sorted(attributes[name])
    )
    return blake2b(b"".join(parts), digest_size=16).digest()


def mailbox_entry(
    facts: MailboxFacts, certificates: Sequence[bytes], suffix: str, at: datetime
) -> Entry | None:
    """The entry of a mailbox with its live certificates; None when it may not be found at `at`.

    Certificates stand in the order given, which a server need not keep (X.501: values are a set).
    """
    mailbox = facts.mailbox
    if mailbox is None or not visible(facts, at):
        return None
    if mailbox.kind.held and facts.holder is not None:
        told = _of_person(mailbox, facts.holder)
    else:
        told = _of_structure(mailbox, facts.place)
    told |= {
        "objectClass": _texts("inetOrgPerson", "sceauMailbox"),
        "mail": (mailbox.address.encode("ascii"),),
        "sceauMailboxKind": _texts(mailbox.kind.value),
        "sceauService": _texts(mailbox.service),
        CERTIFICATE: tuple(dict.fromkeys(certificates)),
    }
    return _entry((Entity.MAILBOX, mailbox.address), suffix, told | _folded_of(told))


def organisation_entry(organisation: Organisation, suffix: str, at: datetime) -> Entry | None:
    """The entry of an establishment; None when it is closed or gone on that day."""
    if not is_open(organisation, at.astimezone(FRANCE).date()):
        return None
    told = _place(organisation) | {
        "objectClass": _texts("organization", "sceauOrganisation"),
        "o": _texts(organisation.name),
        "displayName": _texts(organisation.long_name or organisation.name),
        "businessCategory": _texts(organisation.category_code, organisation.category_label),
    }
    return _entry((Entity.ORGANISATION, organisation.finess), suffix, told | _folded_of(told))


def authority_entry(authority: AuthorityEntry, suffix: str) -> Entry:
    """The entry where clients fetch a CA's certificate."""
    told = {
        "objectClass": _texts("applicationProcess", "pkiCA", "sceauPublished"),
        "cn": _texts(authority.id),
        "cACertificate;binary": (authority.certificate,),
    }
    return _entry((Entity.AUTHORITY, authority.id), suffix, told)


def crl_entry(crl: CrlEntry, suffix: str) -> Entry:
    """The entry where clients fetch the CRL of one shard, below its CA."""
    told = {
        "objectClass": _texts("cRLDistributionPoint", "sceauPublished"),
        "cn": _texts(str(crl.shard)),
        "certificateRevocationList;binary": (crl.crl,),
        "deltaRevocationList;binary": () if crl.delta is None else (crl.delta,),
    }
    return _entry((Entity.CRL, place_of_crl(crl.authority_id, crl.shard)), suffix, told)


def _of_person(mailbox: Mailbox, holder: Practitioner) -> dict[str, tuple[bytes, ...]]:
    name = f"{holder.given_name} {holder.family_name}"
    practices = holder.practices
    departments = _texts(*(practice.department for practice in practices))
    return {
        "cn": _texts(name),
        "sn": _texts(holder.family_name),
        "givenName": _texts(holder.given_name),
        "displayName": _texts(f"{holder.title} {name}"),
        "title": _texts(holder.title),
        # Searched by people as they know it: with the digit of its type, or the eleven digits of RPPS alone.
        "uid": _texts(holder.national_id, holder.national_id.removeprefix(_RPPS)),
        "o": _texts(mailbox.structure_name, *(practice.structure_name for practice in practices)),
        "street": _texts(*(practice.street for practice in practices)),
        "postalCode": _texts(*(practice.postal_code for practice in practices)),
        "l": _texts(*(practice.town for practice in practices)),
        "st": departments,
        "sceauDepartment": departments,
        "hcIdentifier": _texts(PERSON_IDENTIFIER.format(holder.national_id)),
        "hcProfession": _texts(*(code for code, _ in holder.professions)),
        "hcSpecialisation": _texts(*holder.skills),
    }


def _of_structure(mailbox: Mailbox, organisation: Organisation | None) -> dict[str, tuple[bytes, ...]]:
    name = mailbox.structure_name or (organisation.name if organisation else mailbox.structure_id)
    told = _number_of(mailbox) if organisation is None else _place(organisation)
    called = _texts(f"{name} {mailbox.service}")
    return told | {"cn": called, "displayName": called, "sn": _texts(name), "o": _texts(name)}


def _number_of(mailbox: Mailbox) -> dict[str, tuple[bytes, ...]]:
    """The number a mailbox is registered under, a legal entity's or a SIRET: FINESS names no place for it."""
    number = mailbox.establishment
    identifier = STRUCTURE_IDENTIFIER.format(f"{mailbox.structure_type}{number}")
    return {"uid": _texts(number), "hcIdentifier": _texts(identifier)} if number else {}


def _place(organisation: Organisation) -> dict[str, tuple[bytes, ...]]:
    line = _POSTAL_LINE.fullmatch(organisation.postal_line.strip())
    postal_code, town = line.groups() if line else ("", organisation.postal_line)
    department = _texts(organisation.department)
    return {
        "uid": _texts(organisation.finess),
        "hcIdentifier": _texts(STRUCTURE_IDENTIFIER.format(f"1{organisation.finess}")),
        "hcRegisteredName": _texts(organisation.name, organisation.long_name),
        "street": _texts(organisation.street),
        "postalCode": _texts(postal_code),
        "l": _texts(town),
        "st": department,
        "sceauDepartment": department,
    }


def _folded_of(told: Attributes) -> dict[str, tuple[bytes, ...]]:
    """The folded form of each value that LDAP does not hold for equal to it: it ignores case alone."""
    folded = {}
    for name in FOLDED_TOO:
        values = [value.decode() for value in told.get(name, ())]
        forms = {search_form(value).lower() for value in values}
        if new := forms.difference(_folded(value) for value in values):
            folded[name + FOLDED] = _texts(*new)
    return folded


def _entry(key: Key, suffix: str, told: Mapping[str, tuple[bytes, ...]]) -> Entry:
    """An attribute without a value does not exist in LDAP."""
    return Entry(dn_of(key, suffix), {attribute: values for attribute, values in told.items() if values})


def _texts(*values: str) -> tuple[bytes, ...]:
    """The values that say something, each once, in a fixed order.

    LDAP refuses empty values, and two that differ in case or spacing only: it holds them for equal.
    """
    clean = {cleaned for value in values if value and (cleaned := _cleaned(value))}
    if len(clean) > 1:
        told = {_folded(value): value.encode() for value in sorted(clean, reverse=True)}
        return tuple(sorted(told.values()))
    return tuple(value.encode() for value in clean)


def _cleaned(value: str) -> str:
    """Control and invisible characters become spaces, runs of spaces one."""
    # Nearly every value is clean already; to see that takes a hundredth of going through its characters.
    if not value.isprintable():
        value = "".join(" " if unicodedata.category(c)[0] == "C" else c for c in value)
    return " ".join(value.split())


def _folded(value: str) -> str:
    if value.isascii():
        return value.lower()
    return unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", value).casefold())
