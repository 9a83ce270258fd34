"""When a key that was certified may be certified again, and when it has served long enough.

The person stands and was identified within 825 days (`check_enrolment` and `check_identified`,
`pki/registration/eligibility.py`): no new enrolment is needed. The certificate before lives on beside its
successor until it ends, or is superseded by whoever asks for that.
"""

from datetime import datetime

from sqlalchemy import Connection

from directory.base.errors import Kind, Refusal
from pki.certificates.profiles import RESERVATION_LIFE, Profile, served_by
from pki.impediments import standing as impediments
from pki.issuance import pipeline
from pki.model import Enrolment, Reservation, Serial
from pki.record import certificates, reservations, revocations
from pki.record.key_use import KeyUse
from pki.registration import eligibility


def check_key(
    connection: Connection, enrolment: Enrolment, use: KeyUse, profile: Profile, now: datetime
) -> Reservation | None:
    """The reservation under way for a key of this use and enrolment, None when a new one may be made.

    Refuses `key-period-over`, and `already-certified` (with the `serial` that lasts) when the enrolment has a
    certificate for that, whatever its key. Refuses `reason-stands` while one of the same person and mailbox
    is on hold. Refuses `key-already-certified`, with `serial` when it was for this enrolment: while that
    certificate is not in its last 60 days, and for another purpose. It does so for good once that certificate
    was taken back or never came to be, or once an operator has the key.
    """
    if use.by_operator:
        raise pipeline.key_already_certified()
    pending = None if use.last is None else _under_way(connection, enrolment, use.last, profile, now)
    if use.lasting is not None:
        raise already_certified(use.lasting)
    impediments.check(impediments.standing((), held=use.held))
    return pending


def already_certified(serial: Serial) -> Refusal:
    """One enrolment has one certificate at a time for each purpose: this one."""
    text = (
        "This enrolment has a certificate for that: revoke it first, or renew it in its last"
        f" {eligibility.RENEWAL_OPENS.days} days."
    )
    return Refusal(Kind.CONFLICT, "already-certified", text, serial=serial)


def _under_way(
    connection: Connection, enrolment: Enrolment, before: Reservation, profile: Profile, now: datetime
) -> Reservation | None:
    """The last reservation of this key if it is under way; None when the key may be certified again."""
    if before.enrolment_id != enrolment.id:
        raise pipeline.key_already_certified()
    # Of a pair each is on a key of its own, and no key passes from joined use to a single one.
    if served_by(before.profile) != profile.serves:
        raise pipeline.key_already_certified(serial=before.serial)
    stored = certificates.find_certificate(connection, before.serial)
    if stored is None:
        if before.reserved_at < now - RESERVATION_LIFE:
            raise pipeline.key_already_certified(serial=before.serial)
        return before
    if stored.not_after > now + eligibility.RENEWAL_OPENS or revocations.last_actions(
        connection, [before.serial]
    ):
        raise pipeline.key_already_certified(serial=before.serial)
    check_key_period(connection, before.serial, before.spki_sha256, profile, now)
    return None


def check_key_period(
    connection: Connection, serial: Serial, spki: bytes, profile: Profile, now: datetime
) -> None:
    """Refuse `key-period-over` to a key that has served, under `serial` last, as long as one may."""
    since = reservations.key_held_since(connection, spki)
    if since is None or profile.key_period is None or now > since + profile.key_period:
        text = "This key has served as long as one may: make a new one."
        raise Refusal(Kind.UNACCEPTABLE, "key-period-over", text, serial=serial)
