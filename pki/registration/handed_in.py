"""What a person signed, handed in with a request or an approval: judged at once, so that who brings it hears
why not, and kept for the signer.

The signer judges it again, by itself (`pki/signing/evidence.py`).
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from directory.access import Token, check_person
from directory.base.errors import Kind, Refusal
from pki.acts.act import ActKind
from pki.model import Enrolment, EnrolmentAct
from pki.powers.freeze import need_thawed
from pki.powers.state import NoForceError, Powers
from pki.record import enrolment_acts
from pki.registration.shown import signer_of


@dataclass(frozen=True)
class HandedIn:
    """The act, and its digest as the log tells it."""

    act: EnrolmentAct
    digest: str


def need_anchors(powers: Powers | None) -> Powers:
    """The powers; refuses `no-anchors` where nothing leads to any."""
    if powers is None:
        text = "This installation has no anchors: two tokens suffice, and no act is judged."
        raise Refusal(Kind.CONFLICT, "no-anchors", text)
    return powers


def judged(
    connection: Connection,
    powers: Powers | None,
    signed: bytes | None,
    kind: ActKind,
    enrolment: Enrolment,
    *,
    token: Token,
    now: datetime,
) -> HandedIn | None:
    """The act, which suffices; None where the installation has no anchors, and none was given.

    Refuses `no-anchors`, `act-missing`, `act-unfit`, `frozen`, `another-person`, `self-approval`.
    """
    if powers is None and signed is None:
        return None
    powers = need_anchors(powers)
    need_thawed(powers)
    if signed is None:
        text = f"This installation has anchors: {kind.value} is signed by the person (`act`)."
        raise Refusal(Kind.UNACCEPTABLE, "act-missing", text)
    try:
        person, act = signer_of(powers, enrolment, kind, signed, now)
    except NoForceError as error:
        raise Refusal(Kind.UNACCEPTABLE, "act-unfit", str(error), why=error.code) from error
    check_person(connection, token, person)
    if kind is ActKind.ENROLMENT_APPROVE:
        _check_another(connection, powers, enrolment, person)
    kept = EnrolmentAct(enrolment.id, kind.value, person, act.credential, signed, now)
    return HandedIn(kept, act.digest.hex())


def _check_another(connection: Connection, powers: Powers, enrolment: Enrolment, approving: str) -> None:
    """Whether the request was signed too, has its force still, and was signed by another person."""
    request = enrolment_acts.acts_of(connection, enrolment.id).get(ActKind.ENROLMENT_REQUEST.value)
    if request is None:
        text = "Nobody signed the request: withdraw it, and ask anew with an act."
        raise Refusal(Kind.UNACCEPTABLE, "act-missing", text)
    try:
        asking, _ = signer_of(powers, enrolment, ActKind.ENROLMENT_REQUEST, request.signed, request.at)
    except NoForceError as error:
        text = f"The request has no force any more: {error}"
        raise Refusal(Kind.UNACCEPTABLE, "act-unfit", text, why=error.code) from error
    if asking == approving:
        text = "One person signed the request and the approval: two credentials of hers are one person."
        raise Refusal(Kind.FORBIDDEN, "self-approval", text)
