"""The names that two persons vouched for: recorded with the request, compared at approval, so certified.

A correction or a register may change a name at any time. The names recorded with the enrolment never change
(`enrolment_names` is append-only), and where the record says otherwise by now, the enrolment is void.
"""

import unicodedata
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

import orjson

from directory.base.errors import Kind, Refusal
from directory.model import MailboxFacts, MailboxKind, Practitioner
from pki.certificates.names import plain
from pki.certificates.profiles import ApplicationNames, OrganisationNames, PersonNames
from pki.model import Enrolment

VouchedNames = PersonNames | OrganisationNames | ApplicationNames
_MADE_FOR: Mapping[MailboxKind, type[VouchedNames]] = {
    MailboxKind.PERSON: PersonNames,
    MailboxKind.ORGANISATION: OrganisationNames,
    MailboxKind.APPLICATION: ApplicationNames,
}


def check_publishable(person: Practitioner, facts: MailboxFacts) -> None:
    """Refuse `name-withheld` where a name that a certificate would bear is one that may not be published."""
    mailbox, place = facts.mailbox, facts.place
    if mailbox is None:
        return
    if mailbox.kind.held:
        fields = {field for field, _ in person.withheld} & {"family_name", "given_name"}
    else:
        fields = {field for field, _ in mailbox.withheld} & {"structure_name", "service"}
        fields |= {field for field, _ in place.withheld} & {"name"} if place else set()
    if fields:
        text = f"The record has what must not be published ({', '.join(sorted(fields))}): correct it first."
        raise Refusal(Kind.UNACCEPTABLE, "name-withheld", text, fields=sorted(fields))


def names_of(person: Practitioner, facts: MailboxFacts) -> VouchedNames:
    """Whom a certificate of this mailbox names now; the establishment as FINESS calls it, if it knows it.

    Of a legal entity and of a SIRET FINESS tells no name: they are called as the national list calls them.
    """
    mailbox = facts.mailbox
    if mailbox is None:
        raise Refusal(Kind.NOT_FOUND, "unknown-mailbox", f"There is no mailbox {facts.address}.")
    if mailbox.kind is MailboxKind.PERSON:
        professions = tuple(dict.fromkeys(code for code, _ in person.professions))
        return PersonNames(
            person.given_name, person.family_name, person.national_id, professions, mailbox.address
        )
    name = facts.place.name if facts.place else mailbox.structure_name or mailbox.structure_id
    if mailbox.kind is MailboxKind.APPLICATION:
        return ApplicationNames(name, mailbox.finess, mailbox.address, siret=mailbox.siret)
    return OrganisationNames(name, mailbox.finess, mailbox.address, mailbox.service, mailbox.siret)


def recorded(names: VouchedNames) -> dict[str, Any]:
    """The names as the record keeps them: spelt as a certificate holds them, under the kind of mailbox."""
    (kind,) = (kind for kind, made in _MADE_FOR.items() if type(names) is made)
    return {"kind": kind.value, **_spelt(vars(names))}


def digest(kept: Mapping[str, Any]) -> str:
    """What the log tells of them, in hexadecimal: SHA-256 over their JSON with sorted keys."""
    return sha256(orjson.dumps(dict(kept), option=orjson.OPT_SORT_KEYS)).hexdigest()


def check_unchanged(enrolment: Enrolment, person: Practitioner, facts: MailboxFacts) -> VouchedNames:
    """The names to certify, as two persons saw them; refuses `enrolment-void` when the record says otherwise.

    Case and accents count. How a letter is composed (NFC) and white space do not: a certificate never told
    them.
    """
    check_publishable(person, facts)
    differs = differing_now(enrolment.names, person, facts)
    if enrolment.names is None:
        raise _void("nobody recorded what was seen when it was asked for", differs)
    if differs:
        raise _void(f"the record says otherwise by now ({', '.join(differs)})", differs)
    return kept_names(enrolment.names)


def kept_names(recorded: Mapping[str, Any]) -> VouchedNames:
    """The names that were recorded so; ValueError, KeyError or TypeError for what this never recorded."""
    kept = dict(recorded)
    made: Callable[..., VouchedNames] = _MADE_FOR[MailboxKind(kept.pop("kind"))]
    return made(**{key: tuple(value) if isinstance(value, list) else value for key, value in kept.items()})


def differing_now(kept: Mapping[str, Any] | None, person: Practitioner, facts: MailboxFacts) -> list[str]:
    """The fields that the record names otherwise by now; `names` where nobody recorded any."""
    return ["names"] if kept is None else differing(kept, recorded(names_of(person, facts)))


def is_void(enrolment: Enrolment, asked: Enrolment) -> bool:
    """Whether another enrolment of the same person and mailbox, asked for now, names otherwise."""
    return enrolment.names is None or bool(differing(enrolment.names, asked.names or {}))


def differing(kept: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """The fields that are not what was recorded, in the order of their names."""
    if kept == present:
        return []
    before, now = _spelt(kept), _spelt(present)
    # A field that came later (`siret`) is not in what was recorded before.
    return sorted(key for key in before.keys() | now.keys() if before.get(key, "") != now.get(key, ""))


def _spelt(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: plain(value)
        if isinstance(value, str)
        else [unicodedata.normalize("NFC", word) for word in value]
        for key, value in values.items()
    }


def _void(why: str, differs: list[str]) -> Refusal:
    text = f"This enrolment is void: {why}. A new enrolment is needed."
    return Refusal(Kind.CONFLICT, "enrolment-void", text, differs=differs)
