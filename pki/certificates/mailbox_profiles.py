"""Which profile and which CA serve a kind of mailbox, and for which purposes of a key. Pure."""

from collections.abc import Mapping
from types import MappingProxyType

from directory.base.errors import Kind, Refusal
from directory.model import MailboxKind
from pki.certificates.profiles import APPLICATION, ORGANISATION, PRACTITIONER, PROFILES, Profile
from pki.model import JOINED, MailKeys, Purpose

PROFILE_OF_MAILBOX: Mapping[MailboxKind, Profile] = MappingProxyType(
    {
        MailboxKind.PERSON: PRACTITIONER,
        MailboxKind.ORGANISATION: ORGANISATION,
        MailboxKind.APPLICATION: APPLICATION,
    }
)
# Which role of CA issues for it (pki.record.authorities.issuing_authority).
ISSUER_OF_MAILBOX: Mapping[MailboxKind, str] = MappingProxyType(
    {
        MailboxKind.PERSON: "persons",
        MailboxKind.ORGANISATION: "organisations",
        MailboxKind.APPLICATION: "organisations",
    }
)


def purposes_asked(keys: MailKeys, purpose: Purpose | None) -> frozenset[Purpose]:
    """What the key of a request is to serve; a purpose is named where keys are separate, and only there.

    Refuses `purpose-missing`, and `purpose-not-separate`: whoever asks for signatures alone must not be given
    what others encrypt to.
    """
    if keys is MailKeys.JOINED:
        if purpose is not None:
            text = "One certificate serves signature and encryption here: ask without a purpose."
            raise Refusal(Kind.UNACCEPTABLE, "purpose-not-separate", text)
        return JOINED
    if purpose is None:
        text = "Signature and encryption have a certificate each here: say which one this key is for."
        raise Refusal(Kind.UNACCEPTABLE, "purpose-missing", text)
    return frozenset({purpose})


def mail_profile(kind: MailboxKind, purposes: frozenset[Purpose]) -> Profile:
    """The profile of a mailbox of this kind for a key that serves these."""
    joined = PROFILE_OF_MAILBOX[kind]
    return next(
        profile
        for profile in PROFILES.values()
        if profile.family == joined.name and profile.serves == purposes
    )
