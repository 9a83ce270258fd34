"""What registrars and jobs may ask of the PKI: enrol, approve, issue, revoke, recover.

Each use case acts in the caller's transaction, audit line included; only the two that need the signer
(`issue_for_enrolment`, `recover`) open their own, because nothing may be open while it works.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, Engine

from directory import store as directory_store
from directory import withdrawal_limits
from directory.access import Role, Token
from directory.base.audit import Actor, Event, Line, record
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.base.instant import dated, not_before, present
from directory.model import Mailbox, MailboxFacts, Practitioner
from directory.search import sites_of
from pki import circumstances, doubts, impediments, vouched_names
from pki.certificates import mailbox_profiles
from pki.certificates.profiles import RESERVATION_LIFE
from pki.certificates.public_keys import PublicKey
from pki.certification_request import public_key_of_request
from pki.issuance import prepare as issuance
from pki.issuance import rekey as renewals
from pki.issuance.prepare import Prepared, SignerMisbehaved
from pki.issuance.quotas import Quotas, charge, told
from pki.lint import pkix
from pki.lint.key import weaknesses
from pki.model import (
    JOINED,
    Enrolment,
    EnrolmentState,
    IssuedCertificate,
    Purpose,
    Reservation,
    Revocation,
    RevocationReason,
    Serial,
    serial_of,
)
from pki.record import authorities, enrolments, reservations, revocations
from pki.record import certificates as store
from pki.record.revocations import Revocable
from pki.registration import eligibility as rules
from pki.revocation import blocked_keys
from pki.revocation import key_compromise as sweep
from pki.revocation import revoke as revoking
from pki.revocation.authorisation import check_comment, check_may_revoke
from pki.revocation.revoke import TakingBack
from pki.signing.signer import Signer

# The job runs every two minutes: a week is a worker down over a long holiday, and bounds what it reads.
RECOVERY_REACH = timedelta(days=7)
_SERIAL = re.compile(r"(0x)?[0-9a-fA-F]{1,40}")
_QUOTAS = Quotas()
_RECOVERY = Actor("job:recovery")


def parse_serial(text: str) -> Serial:
    """A serial as people write it (upper case, colons, `0x`) in its one form; refuses `malformed-serial`."""
    written = text.strip().replace(":", "")
    if not _SERIAL.fullmatch(written):
        raise Refusal(Kind.MALFORMED, "malformed-serial", "A serial number has 1 to 40 hexadecimal digits.")
    try:
        return serial_of(int(written, 16))
    except ValueError as error:
        text = "A serial number is above zero and below 2^159: no certificate has this one."
        raise Refusal(Kind.MALFORMED, "malformed-serial", text) from error


def request_enrolment(
    connection: Connection,
    *,
    now: datetime,
    token: Token,
    practitioner: str,
    mailbox: str,
    identity_check: Mapping[str, Any],
) -> Enrolment:
    """Ask for a person to be enrolled for a mailbox: their own, or an establishment's that they answer for.

    Refuses `not-a-registrar`, `bad-identity-check`, `unknown-practitioner`, `unknown-mailbox`,
    `malformed-address`, `wrong-authority`, `not-the-holder`, `mailbox-kind-not-served`, `already-enrolled`,
    and every reason of the verdict that stands against the person or the mailbox.
    """
    rules.check_registrar(token)
    checked = rules.check_identity(identity_check, now)
    now = dated(connection, directory_store.lock_person(connection, practitioner), now)
    person, facts = circumstances.subject_of(connection, practitioner, mailbox)
    rules.check_enrolment(token.authority, person, facts, now)
    vouched_names.check_publishable(person, facts)
    asked = Enrolment(
        id=uuid4(), practitioner=practitioner, mailbox=_mailbox(facts).address, authority=token.authority,
        identity_check=checked, state=EnrolmentState.REQUESTED, requested_by=token.id, requested_at=now,
        names=vouched_names.recorded(vouched_names.names_of(person, facts)),
    )  # fmt: skip
    practises_there = _practises_at(connection, person, _mailbox(facts).establishment)
    detail = {**_told(asked), "identity_check": checked["method"], "practises_there": practises_there}
    line = Line(now, token.actor, Event.ENROLMENT_REQUESTED, str(asked.id), detail)
    # The one before seldom stands: looked at when it is in the way.
    if not enrolments.add_enrolment(connection, asked, line, beside_approved=False) and not (
        _has_room(connection, asked, token, now)
        and enrolments.add_enrolment(connection, asked, line, beside_approved=True)
    ):
        text = "An enrolment of this person for this mailbox is under way or approved."
        raise Refusal(Kind.CONFLICT, "already-enrolled", text)
    return asked


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
    if not renewals.is_identified(before, now):
        return "the identity was checked too long ago"
    if vouched_names.is_void(before, asked):
        return "it vouched for other names"
    return "a hold put since was never settled" if doubts.stands(connection, before) else ""


def _end(connection: Connection, found: Enrolment, token: Token, now: datetime, *, comment: str) -> Enrolment:
    now = not_before(now, found.approved_at, found.requested_at)
    ended = enrolments.end(connection, found.id, now)
    record(
        connection, now=now, actor=token.actor, event=Event.ENROLMENT_ENDED, subject=str(found.id),
        detail={**_told(found), "comment": comment},
    )  # fmt: skip
    return ended


def approve_enrolment(
    connection: Connection, *, now: datetime, token: Token, enrolment_id: UUID
) -> Enrolment:
    """The second pair of eyes; the person and the mailbox must still stand, under the names recorded.

    The enrolment approved before it ends. Refuses `unknown-enrolment`, `wrong-authority`, `self-approval`,
    `already-approved`, `enrolment-ended`, `enrolment-void`. Who approves several holds all who live
    before (`enrolments.lock_beside`).
    """
    locked = enrolments.enrolment_and_standing(connection, enrolment_id)
    if locked is None:
        raise rules.unknown_enrolment(enrolment_id)
    found, standing, held_at = locked
    now = not_before(dated(connection, held_at, now), found.requested_at)
    rules.check_approval(token, found)
    person, facts = circumstances.subject_of(connection, found.practitioner, found.mailbox)
    rules.check_enrolment(found.authority, person, facts, now)
    vouched_names.check_unchanged(found, person, facts)
    for before in standing:
        # Its place is taken: two persons have said so by now.
        _end(connection, before, token, now, comment=f"replaced by {found.id}")
    line = Line(now, token.actor, Event.ENROLMENT_APPROVED, str(found.id), _told(found))
    return enrolments.approve(connection, found, token.id, line)


def withdraw_enrolment(
    connection: Connection, *, now: datetime, token: Token, enrolment_id: UUID, comment: str
) -> Enrolment:
    """End a request that awaits approval, by any registrar of its authority: who asked may have erred.

    What was approved before stands as it stood: this takes trust from nobody. It makes room for another of
    the same person and mailbox. Refuses `unknown-enrolment`, `not-a-registrar`, `wrong-authority`,
    `already-approved`, `enrolment-ended`, `comment-too-long`.
    """
    check_comment(comment)
    found, now = held_enrolment(connection, enrolment_id, now=now)
    rules.check_own(token, found.authority, rules.unknown_enrolment(enrolment_id))
    rules.check_requested(found)
    return _end(connection, found, token, now, comment=comment)


def enrolment_seen(connection: Connection, *, token: Token, enrolment_id: UUID) -> Enrolment:
    """One enrolment, for a registrar of its authority or an auditor.

    Refuses `unknown-enrolment`, `not-a-registrar`, `wrong-authority`.
    """
    found = _enrolment(enrolments.load_enrolment(connection, enrolment_id), enrolment_id)
    if token.role is not Role.AUDITOR:
        rules.check_own(token, found.authority, rules.unknown_enrolment(enrolment_id))
    return found


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
        rules.check_registrar(token)
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


def issue_for_enrolment(
    engine: Engine,
    signer: Signer,
    *,
    now: datetime,
    token: Token,
    enrolment_id: UUID,
    csr: bytes,
    base_url: str,
    purposes: frozenset[Purpose] = JOINED,
    thorough: bool = True,
    opinion: pkix.SecondOpinion = pkix.findings,
    quotas: Quotas = _QUOTAS,
    keep: Callable[[Connection, IssuedCertificate], None] | None = None,
) -> IssuedCertificate:
    """Certify the key of a request for an approved enrolment and what it serves. In transactions of its own.

    Whoever gets no answer may ask again with the same request: within five minutes the same reservation is
    taken up, and a certificate is made at most once. Refuses `bad-csr`, `csr-too-large`,
    `bad-proof-of-possession`, `weak-key`, `key-already-certified` (with `serial` when it was for this
    enrolment), `already-certified` (with the `serial` that lasts), `not-approved`, `enrolment-ended`,
    `signer-unavailable`, `lint-unavailable`, `key-blocked`, `key-period-over`, `identity-too-old`,
    `quota-reached`, `enrolment-void`, and what stands against the person or the mailbox. `keep` is called in
    the transaction that stores the certificate.
    """
    # 1. The request gives a key that its sender holds, and nothing else.
    key = public_key_of_request(csr)
    if found := weaknesses(key):
        text = f"This key must not be certified: {', '.join(found)}."
        raise Refusal(Kind.UNACCEPTABLE, "weak-key", text, findings=found)
    # 2. Reserved and linted, then committed.
    with told(engine, token, now), transaction(engine) as connection:
        prepared = _reserve(
            connection, now=now, token=token, enrolment_id=enrolment_id, key=key, base_url=base_url,
            purposes=purposes, thorough=thorough, opinion=opinion,
        )  # fmt: skip
        charge(connection, quotas, token, now=now)
    # 3. Signed, with nothing open.
    signed = issuance.sign(signer, prepared)
    # 4. Stored; revoked in the same breath when the person left meanwhile.
    with transaction(engine) as connection:
        issued, refusal = store_or_take_back(connection, prepared, signed, enrolment_id, now)
        if refusal is None and keep is not None:
            keep(connection, issued)
    if refusal is not None:
        raise refusal
    return issued


def _reserve(
    connection: Connection,
    *,
    now: datetime,
    token: Token,
    enrolment_id: UUID,
    key: PublicKey,
    base_url: str,
    purposes: frozenset[Purpose],
    thorough: bool,
    opinion: pkix.SecondOpinion,
) -> Prepared:
    # Two requests for one person queue here, so the second sees what the first reserved.
    number = blocked_keys.number_lock(blocked_keys.number_of(key))
    enrolment, now = held_enrolment(connection, enrolment_id, number, now=now)
    rules.check_issuance(token, enrolment)
    renewals.check_identified(enrolment, now)
    found = circumstances.reserving(connection, enrolment, key, purposes, now)
    person, facts = found.person, found.facts
    rules.check_enrolment(enrolment.authority, person, facts, now)
    names = vouched_names.check_unchanged(enrolment, person, facts)
    impediments.check_given(enrolment, person, facts, now=now)
    kind = _mailbox(facts).kind
    profile = mailbox_profiles.mail_profile(kind, purposes)
    checked = found.checked()
    pending = renewals.check_key(connection, enrolment, found.use, profile, now)
    if pending is not None:
        return issuance.resume(connection, pending, token.actor)
    return issuance.prepare(
        connection, now=now, actor=token.actor,
        authority=authorities.issuing_authority(connection, mailbox_profiles.ISSUER_OF_MAILBOX[kind], now),
        profile=profile, public_key=key,
        names=names, base_url=base_url, mailbox=enrolment.mailbox,
        practitioner=person.national_id, enrolment_id=enrolment.id, thorough=thorough,
        opinion=opinion, checked=checked, dated=True,
    )  # fmt: skip


def store_or_take_back(
    connection: Connection, prepared: Prepared, signed: bytes, enrolment_id: UUID, now: datetime
) -> tuple[IssuedCertificate, Refusal | None]:
    """What is signed must be stored; whether it is handed out is asked again, under the person's lock."""
    lock = blocked_keys.lock_name(prepared.reservation.spki_sha256)
    enrolment, now = held_enrolment(connection, enrolment_id, lock, now=now)
    issued = issuance.store_signed(connection, prepared, signed, now, dated=True)
    try:
        rules.check_approved(enrolment)
        person, facts, found = circumstances.storing(connection, enrolment, issued, now)
        rules.check_enrolment(enrolment.authority, person, facts, now)
        # What was said of the key or of the one before while it was being certified counts.
        impediments.check_given(enrolment, person, facts, blocked=found.blocked, held=found.held, now=now)
        # Two keys may have been reserved side by side, while neither had its certificate.
        if found.lasting is not None:
            raise renewals.already_certified(found.lasting)
    except Refusal as refusal:
        comment = f"no longer allowed when it was signed: {refusal.code}"
        taking = TakingBack(
            Revocable(issued, None, enrolment.authority), RevocationReason.CESSATION_OF_OPERATION, comment
        )
        revoking.take_back(connection, [taking], now=now, actor=prepared.actor)
        return issued, refusal
    return issued, None


def revoke(
    connection: Connection,
    *,
    now: datetime,
    actor: Actor,
    serial: Serial,
    reason: RevocationReason,
    comment: str = "",
) -> Revocation:
    """Revoke for good, or hold when the reason is certificateHold; in OCSP from the commit on.

    Refuses `unknown-certificate`, `already-revoked`, `already-on-hold`, `certificate-expired`,
    `comment-too-long`.
    """
    found = _revocable(connection, serial, reason)
    return _revoke_one(connection, found, now=now, actor=actor, reason=reason, comment=comment)


def revoke_as(
    connection: Connection,
    *,
    now: datetime,
    token: Token,
    serial: Serial,
    reason: RevocationReason,
    comment: str = "",
) -> Revocation:
    """As `revoke`, for whoever holds this token.

    A registrar revokes for people of his authority: those it registers now, or enrolled for this certificate.
    Refuses `not-a-registrar`, `wrong-authority` and `reserved-to-owner` besides: a certificate of the service
    itself, and saying that the CA's own key is lost, are for administrators. One act within the limits of the
    token, whatever falls with it: refuses `withdrawal-limit-reached` too.
    """
    found = _revocable(connection, serial, reason)
    check_may_revoke(connection, token, found, reason)
    done = _revoke_one(connection, found, now=now, actor=token.actor, reason=reason, comment=comment)
    withdrawal_limits.charge(connection, token, now=now)
    return done


def recover(engine: Engine, signer: Signer, now: datetime) -> list[Serial]:
    """Find what was signed and never stored (a crash in between): store it and revoke it; gives the serials.

    Looks back over `RECOVERY_REACH`. What was reserved longer ago than the signer still signs and is not in
    its journal stays burnt. Safe to repeat and to run beside issuance. One that cannot be adopted holds up no
    other: what went wrong is raised at the end, as a group.
    """
    with transaction(engine, read_only=True) as connection:
        waiting = reservations.unstored(connection, now - RECOVERY_REACH, now - RESERVATION_LIFE)
    recovered, wrong = [], []
    for reserved in waiting:
        signed = signer.journal(reserved.serial)
        if signed is None:
            continue
        try:
            with transaction(engine) as connection:
                if _adopt(connection, reserved, signed, now):
                    recovered.append(reserved.serial)
        except SignerMisbehaved as error:
            wrong.append(error)
    if wrong:
        raise ExceptionGroup(f"{len(wrong)} signed reservations cannot be stored", wrong)
    return recovered


def _adopt(connection: Connection, reserved: Reservation, signed: bytes, now: datetime) -> bool:
    reservations.load_reservation(connection, reserved.serial, lock=True)
    if store.find_certificate(connection, reserved.serial) is not None:
        # A slow issuance stored it after all, and has handed it out.
        return False
    prepared = issuance.resume(connection, reserved, _RECOVERY)
    issuance.verify_signed(signed, reserved, prepared.authority)
    issued = issuance.store_signed(connection, prepared, signed, now)
    comment = "signed, but never handed out"
    taking = TakingBack(Revocable(issued, None, None), RevocationReason.SUPERSEDED, comment)
    revoking.take_back(connection, [taking], now=now, actor=_RECOVERY)
    return True


def _mailbox(facts: MailboxFacts) -> Mailbox:
    if facts.mailbox is None:
        raise Refusal(Kind.NOT_FOUND, "unknown-mailbox", f"There is no mailbox {facts.address}.")
    return facts.mailbox


def held_enrolment(
    connection: Connection, enrolment_id: UUID, *names: str, now: datetime
) -> tuple[Enrolment, datetime]:
    """The enrolment, with its person and the locks of these names held, and the instant of that.

    Refuses `unknown-enrolment`.
    """
    held = enrolments.hold_enrolment(connection, enrolment_id, names=names)
    if held is None:
        raise rules.unknown_enrolment(enrolment_id)
    found, held_at = held
    return found, dated(connection, held_at, now)


def _enrolment(found: Enrolment | None, enrolment_id: UUID) -> Enrolment:
    if found is None:
        raise rules.unknown_enrolment(enrolment_id)
    return found


def _revocable(connection: Connection, serial: Serial, reason: RevocationReason | None = None) -> Revocable:
    if reason is RevocationReason.KEY_COMPROMISE:
        sweep.lock_families(connection, [serial])
    found = revocations.revocable(connection, serial)
    if found is None:
        raise Refusal(Kind.NOT_FOUND, "unknown-certificate", f"There is no certificate {serial}.")
    return found


def _revoke_one(
    connection: Connection,
    found: Revocable,
    *,
    now: datetime,
    actor: Actor,
    reason: RevocationReason,
    comment: str,
) -> Revocation:
    check_comment(comment)
    if found.certificate.not_after < present(connection, now):
        text = "This certificate has expired: there is nothing left to revoke."
        raise Refusal(Kind.CONFLICT, "certificate-expired", text)
    # Others of the same key may have fallen with it.
    return revoking.take_back(connection, [TakingBack(found, reason, comment)], now=now, actor=actor)[0]


def _told(enrolment: Enrolment) -> dict[str, str]:
    return {
        "practitioner": enrolment.practitioner,
        "mailbox": enrolment.mailbox,
        "authority": enrolment.authority,
    } | ({} if enrolment.names is None else {"names_sha256": vouched_names.digest(enrolment.names)})
