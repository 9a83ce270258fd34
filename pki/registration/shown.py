"""What a person is shown of an enrolment, and signs; and whether what was signed says so. Pure.

The acts themselves are for `pki/acts`, who holds which power for `pki/powers`.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from pki.acts.act import Act, ActKind, seen_digest
from pki.acts.draft import Draft
from pki.model import Enrolment
from pki.powers.needs import Role
from pki.powers.state import NoForceError, Powers


def subject_named(enrolment_id: UUID) -> str:
    """The enrolment as an act names it."""
    return f"enrolment:{enrolment_id}"


def shown(enrolment: Enrolment) -> dict[str, Any]:
    """All that its certificates rest on: texts and lists, so that it has one canonical form."""
    return {
        "enrolment": str(enrolment.id),
        "practitioner": enrolment.practitioner,
        "mailbox": enrolment.mailbox,
        "authority": enrolment.authority,
        "identity_check": dict(enrolment.identity_check),
        "names": dict(enrolment.names or {}),
    }


def to_sign(enrolment: Enrolment, kind: ActKind, installation: str) -> Draft:
    """What a person is to sign for this enrolment, with all that she is shown."""
    return Draft(kind, installation, (subject_named(enrolment.id),), shown(enrolment))


def signer_of(
    powers: Powers, enrolment: Enrolment, kind: ActKind, signed: bytes, at: datetime
) -> tuple[str, Act]:
    """Who signed this for the enrolment, and the act; NoForceError unless she may, and saw what it says.

    `at` is when it was handed in: an act ends the day that it was signed, what it gave goes on.
    """
    person, act = powers.signer_of(signed, at)
    if act.kind is not kind:
        raise NoForceError("another-kind", f"This was signed for {act.kind.value}, not for {kind.value}.")
    if act.subjects != (subject_named(enrolment.id),):
        raise NoForceError("another-subject", "This act was signed for something else than this enrolment.")
    if act.seen != _digest(enrolment):
        raise NoForceError("shown-otherwise", "Its signer was shown something else than the enrolment says.")
    if not powers.holds(person, Role.REGISTRAR, enrolment.authority):
        text = f"{person} is no registrar of {enrolment.authority}."
        raise NoForceError("no-registrar", text)
    return person, act


def _digest(enrolment: Enrolment) -> str:
    try:
        return seen_digest(shown(enrolment))
    except ValueError as error:
        raise NoForceError("shown-otherwise", str(error)) from error
