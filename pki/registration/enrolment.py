"""Enrolment by two persons: asked for by one registrar, approved by another, withdrawn, seen.

Acts in the caller's transaction, audit line included.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection

from directory import store as directory_store
from directory.access import Role, Token
from directory.base.audit import Event, Line, record
from directory.base.comments import check_comment
from directory.base.errors import Kind, Refusal
from directory.base.instant import dated, not_before
from directory.model import Mailbox, MailboxFacts, Practitioner
from directory.search import sites_of
from pki.acts.act import ActKind
from pki.model import Enrolment, EnrolmentState
from pki.powers.state import Powers
from pki.record import doubts, enrolment_acts, enrolments
from pki.registration import eligibility, handed_in, vouched_names
from pki.registration.handed_in import HandedIn
from pki.registration.subject import subject_of


def request_enrolment(
    connection: Connection,
    *,
    now: datetime,
    token: Token,
    practitioner: str,
    mailbox: str,
    identity_check: Mapping[str, Any],
    enrolment_id: UUID | None = None,
    signed: bytes | None = None,
    powers: Powers | None = None,
) -> Enrolment:
    """Ask for a person to be enrolled for a mailbox: their own, or an establishment's that they answer for.

    Where the installation has anchors, `signed` is the act of who asks, over the enrolment that was drawn up
    under this id. Refuses `not-a-registrar`, `bad-identity-check`, `unknown-practitioner`,
    `unknown-mailbox`, `malformed-address`, `wrong-authority`, `not-the-holder`, `mailbox-kind-not-served`,
    `already-enrolled`, and every reason of the verdict that stands against the person or the mailbox. Refuses
    what is wrong with the act (`handed_in.judged`).
    """
    eligibility.check_registrar(token)
    held_at = directory_store.lock_person(connection, practitioner)
    now = dated(connection, held_at, now)
    asked, practises_there = _drawn_up(
        connection, now, token, practitioner=practitioner, mailbox=mailbox, identity_check=identity_check,
        enrolment_id=enrolment_id or uuid4(),
    )  # fmt: skip
    act = handed_in.judged(connection, powers, signed, ActKind.ENROLMENT_REQUEST, asked, token=token, now=now)
    if enrolment_id is not None and enrolments.load_enrolment(connection, enrolment_id) is not None:
        raise _already_enrolled()
    detail = {
        **_told(asked), "identity_check": asked.identity_check["method"], "practises_there": practises_there,
        **_signed(act),
    }  # fmt: skip
    line = Line(now, token.actor, Event.ENROLMENT_REQUESTED, str(asked.id), detail)
    # The one before seldom stands: looked at when it is in the way.
    if not enrolments.add_enrolment(connection, asked, line, beside_approved=False) and not (
        _has_room(connection, asked, token, now)
        and enrolments.add_enrolment(connection, asked, line, beside_approved=True)
    ):
        raise _already_enrolled()
    if act is not None:
        enrolment_acts.add(connection, act.act)
    return asked


def draw_up(
    connection: Connection,
    *,
    now: datetime,
    token: Token,
    practitioner: str,
    mailbox: str,
    identity_check: Mapping[str, Any],
    enrolment_id: UUID | None = None,
) -> Enrolment:
    """What would be asked for, so that it can be signed; nothing is stored.

    Refuses as `request_enrolment` does, but for what stands in its way when it is asked for.
    """
    eligibility.check_registrar(token)
    asked, _ = _drawn_up(
        connection, now, token, practitioner=practitioner, mailbox=mailbox, identity_check=identity_check,
        enrolment_id=enrolment_id or uuid4(),
    )  # fmt: skip
    return asked


def _drawn_up(
    connection: Connection,
    now: datetime,
    token: Token,
    *,
    practitioner: str,
    mailbox: str,
    identity_check: Mapping[str, Any],
    enrolment_id: UUID,
) -> tuple[Enrolment, bool]:
    """The enrolment as it would be asked for, and whether the person practises at that mailbox's place."""
    checked = eligibility.check_identity(identity_check, now)
    person, facts = subject_of(connection, practitioner, mailbox)
    eligibility.check_enrolment(token.authority, person, facts, now)
    vouched_names.check_publishable(person, facts)
    asked = Enrolment(
        id=enrolment_id, practitioner=practitioner, mailbox=mailbox_of(facts).address,
        authority=token.authority, identity_check=checked, state=EnrolmentState.REQUESTED,
        requested_by=token.id, requested_at=now,
        names=vouched_names.recorded(vouched_names.names_of(person, facts)),
    )  # fmt: skip
    return asked, _practises_at(connection, person, mailbox_of(facts).establishment)


def _already_enrolled() -> Refusal:
    text = "An enrolment of this person for this mailbox is under way or approved."
    return Refusal(Kind.CONFLICT, "already-enrolled", text)


def _practises_at(connection: Connection, person: Practitioner, establishment: str) -> bool:
    """Whether one of his practices is at a place under this number (FINESS or SIRET); no for ''."""
    places = frozenset(sites_of(connection, establishment)) if establishment else ()
    return any(practice.finess in places for practice in person.practices)


def _has_room(connection: Connection, asked: Enrolment, token: Token, now: datetime) -> bool:
    """Whether those before carry no certificate any more; a request among them ends.

    An approved one stands until two persons have put another in its place.
    """
    for before in enrolments.standing_enrolments(connection, asked.mailbox, asked.practitioner):
        why = _why_outdated(connection, before, asked, now)
        if not why:
            return False
        if before.state is EnrolmentState.REQUESTED:
            _end(connection, before, token, now, comment=why)
    return True


def _why_outdated(connection: Connection, before: Enrolment, asked: Enrolment, now: datetime) -> str:
    """Why an enrolment carries no certificate any more; '' while it does.

    Its identity check is too old, it vouches for other names than the record shows, or a hold put since was
    never settled.
    """
    if not eligibility.is_identified(before, now):
        return "the identity was checked too long ago"
    if vouched_names.is_void(before, asked):
        return "it vouched for other names"
    return "a hold put since was never settled" if doubts.stands(connection, before) else ""


def _end(
    connection: Connection, enrolment: Enrolment, token: Token, now: datetime, *, comment: str
) -> Enrolment:
    now = not_before(now, enrolment.approved_at, enrolment.requested_at)
    ended = enrolments.end(connection, enrolment.id, now)
    record(
        connection, now=now, actor=token.actor, event=Event.ENROLMENT_ENDED, subject=str(enrolment.id),
        detail={**_told(enrolment), "comment": comment},
    )  # fmt: skip
    return ended


def approve_enrolment(
    connection: Connection,
    *,
    now: datetime,
    token: Token,
    enrolment_id: UUID,
    signed: bytes | None = None,
    powers: Powers | None = None,
) -> Enrolment:
    """The second pair of eyes; the person and the mailbox must still stand, under the names recorded.

    Where the installation has anchors, `signed` is the act of who approves. The enrolment approved before it
    ends. Refuses `unknown-enrolment`, `wrong-authority`, `self-approval`, `already-approved`,
    `enrolment-ended`, `enrolment-void`, and what is wrong with the act (`handed_in.judged`). Who approves
    several holds all who live before (`enrolments.lock_beside`).
    """
    locked = enrolments.enrolment_and_standing(connection, enrolment_id)
    if locked is None:
        raise eligibility.unknown_enrolment(enrolment_id)
    enrolment, standing, held_at = locked
    now = not_before(dated(connection, held_at, now), enrolment.requested_at)
    eligibility.check_approval(token, enrolment)
    person, facts = subject_of(connection, enrolment.practitioner, enrolment.mailbox)
    eligibility.check_enrolment(enrolment.authority, person, facts, now)
    vouched_names.check_unchanged(enrolment, person, facts)
    act = handed_in.judged(
        connection, powers, signed, ActKind.ENROLMENT_APPROVE, enrolment, token=token, now=now
    )
    for before in standing:
        # Its place is taken: two persons have said so by now.
        _end(connection, before, token, now, comment=f"replaced by {enrolment.id}")
    if act is not None:
        enrolment_acts.add(connection, act.act)
    detail = {**_told(enrolment), **_signed(act)}
    line = Line(now, token.actor, Event.ENROLMENT_APPROVED, str(enrolment.id), detail)
    return enrolments.approve(connection, enrolment, token.id, line)


def withdraw_enrolment(
    connection: Connection, *, now: datetime, token: Token, enrolment_id: UUID, comment: str
) -> Enrolment:
    """End a request that awaits approval, by any registrar of its authority: who asked may have erred.

    What was approved before stands as it stood: this takes trust from nobody. It makes room for another of
    the same person and mailbox. Refuses `unknown-enrolment`, `not-a-registrar`, `wrong-authority`,
    `already-approved`, `enrolment-ended`, `comment-too-long`.
    """
    check_comment(comment)
    enrolment, now = held_enrolment(connection, enrolment_id, now=now)
    eligibility.check_own(token, enrolment.authority, eligibility.unknown_enrolment(enrolment_id))
    eligibility.check_requested(enrolment)
    return _end(connection, enrolment, token, now, comment=comment)


def enrolment_seen(connection: Connection, *, token: Token, enrolment_id: UUID) -> Enrolment:
    """One enrolment, for a registrar of its authority or an auditor.

    Refuses `unknown-enrolment`, `not-a-registrar`, `wrong-authority`.
    """
    enrolment = _enrolment(enrolments.load_enrolment(connection, enrolment_id), enrolment_id)
    if token.role is not Role.AUDITOR:
        eligibility.check_own(token, enrolment.authority, eligibility.unknown_enrolment(enrolment_id))
    return enrolment


def enrolments_seen(
    connection: Connection,
    *,
    token: Token,
    state: EnrolmentState | None,
    after: UUID | None,
    limit: int,
    establishment: str | None = None,
) -> list[Enrolment]:
    """Enrolments in the order they were asked for: those of a registrar's authority, to an auditor all.

    `establishment` leaves those for its mailboxes and for the people who practise there; by the number of a
    legal entity, those of all its places. `after` is the last one of the page before.
    Refuses `not-a-registrar`, `bad-cursor`.
    """
    authority = None
    if token.role is not Role.AUDITOR:
        eligibility.check_registrar(token)
        authority = token.authority
    last = None if after is None else enrolments.load_enrolment(connection, after)
    if after is not None and last is None:
        raise Refusal(Kind.MALFORMED, "bad-cursor", "This cursor was not given by a search.")
    numbers = None
    if establishment is not None:
        numbers = [establishment, *sites_of(connection, establishment)]
    return enrolments.enrolments(
        connection, authority=authority, state=state, establishment=numbers, after=last, limit=limit
    )


def mailbox_of(facts: MailboxFacts) -> Mailbox:
    """The mailbox of these facts; refuses `unknown-mailbox`."""
    if facts.mailbox is None:
        raise Refusal(Kind.NOT_FOUND, "unknown-mailbox", f"There is no mailbox {facts.address}.")
    return facts.mailbox


def held_enrolment(
    connection: Connection, enrolment_id: UUID, *names: str, now: datetime
) -> tuple[Enrolment, datetime]:
    """The enrolment, with its person and the locks of these names held, and the instant of that.

    Refuses `unknown-enrolment`.
    """
    held = enrolments.lock_enrolment(connection, enrolment_id, names=names)
    if held is None:
        raise eligibility.unknown_enrolment(enrolment_id)
    enrolment, held_at = held
    return enrolment, dated(connection, held_at, now)


def _enrolment(enrolment: Enrolment | None, enrolment_id: UUID) -> Enrolment:
    if enrolment is None:
        raise eligibility.unknown_enrolment(enrolment_id)
    return enrolment


def _signed(act: HandedIn | None) -> dict[str, str]:
    """What the log tells of the act: its digest, by which a copy of it is known."""
    return {} if act is None else {"act": act.digest}


def _told(enrolment: Enrolment) -> dict[str, str]:
    return {
        "practitioner": enrolment.practitioner,
        "mailbox": enrolment.mailbox,
        "authority": enrolment.authority,
    } | ({} if enrolment.names is None else {"names_sha256": vouched_names.digest(enrolment.names)})
