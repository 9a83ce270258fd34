"""The verdict: may these two exchange health data, why not, with which certificate, and how long that holds.

Pure. What stands against a mailbox is `directory.rules.standing`; what is decided on is loaded by `answer`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from directory import rules
from directory.model import MailboxFacts, MailboxStanding
from pki.model import BEFORE_OUR_RECORDS, Purpose
from pki.verdict.model import Answer, CertificateFacts, CertificateReason, Side, Verdict

SENDER = "sender-"
# An address we were never told of may exist in another directory: that is not knowing, which is not a no.
NOT_KNOWING = frozenset(
    {MailboxStanding.MAILBOX_UNKNOWN.value, SENDER + MailboxStanding.MAILBOX_UNKNOWN.value}
)


@dataclass(frozen=True)
class Party:
    """One side of an exchange, as known at an instant: the mailbox, who answers for it, its certificates."""

    facts: MailboxFacts
    certificates: tuple[CertificateFacts, ...] = ()


@dataclass(frozen=True)
class Occasion:
    """What all verdicts of one question share; `recorded` is whether the record knows anything of `as_of`."""

    now: datetime
    as_of: datetime
    lifetime: timedelta
    sources: Mapping[str, datetime | None]
    recorded: bool = True


def side_of(party: Party, at: datetime) -> Side:
    """What a verdict rests on, of all that is known of this side at `at`."""
    return Side(
        tuple(standing.value for standing in rules.standing(party.facts, at)),
        party.facts.mailbox is not None,
        party.certificates,
        min(_changes_of(party), default=None),
    )


def decide(address: str, recipient: Side, sender: Side | None, occasion: Occasion) -> Verdict:
    """The verdict on sending to `recipient` (from `sender`, when one is named).

    The recipient must have one to encrypt with, the sender one to sign with. Those to encrypt with are handed
    out, and with `allowed` only: beside a refusal, one would be an invitation to use it.
    """
    to, by = Purpose.ENCRYPTION, Purpose.SIGNATURE
    # Before our records nothing is known, so that nothing else can be said, not even "no certificate".
    reasons = [BEFORE_OUR_RECORDS]
    given = usable(recipient.certificates, to, occasion.as_of)
    if occasion.recorded:
        reasons = list(_reasons(recipient, to, given, occasion.as_of))
    resting_on, changes = list(given), [recipient.changes_at]
    if sender is not None and occasion.recorded:
        reasons += [SENDER + reason for reason in reasons_against(sender, by, occasion.as_of)]
        resting_on += usable(sender.certificates, by, occasion.as_of)
        changes.append(sender.changes_at)
    answer = _answer(reasons)
    return Verdict(
        address,
        answer,
        tuple(reasons),
        decided_at=occasion.now,
        as_of=occasion.as_of,
        valid_until=_valid_until(occasion, resting_on if answer is Answer.ALLOWED else (), changes),
        sources=occasion.sources,
        certificates=given if answer is Answer.ALLOWED else (),
    )


def reasons_against(side: Side, purpose: Purpose, at: datetime) -> tuple[str, ...]:
    """Every reason that stands against this side at `at`, in the order of the checks; () when none does.

    A certificate for the other purpose is none here, whatever became of it.
    """
    return _reasons(side, purpose, usable(side.certificates, purpose, at), at)


def _reasons(
    side: Side, purpose: Purpose, given: Sequence[CertificateFacts], at: datetime
) -> tuple[str, ...]:
    if given or not side.is_known:
        return side.standing
    serving = [certificate for certificate in side.certificates if purpose in certificate.purposes]
    return (*side.standing, _why_none_usable(serving, at).value)


def usable(
    certificates: Sequence[CertificateFacts], purpose: Purpose, at: datetime
) -> tuple[CertificateFacts, ...]:
    """Those for this purpose, valid at `at` (both ends, RFC 5280 4.1.2.5), neither revoked nor on hold."""
    return tuple(
        [
            certificate
            for certificate in certificates
            if purpose in certificate.purposes
            and certificate.not_before <= at <= certificate.not_after
            and certificate.revoked_at is None
            and not certificate.on_hold
        ]
    )


def _why_none_usable(certificates: Sequence[CertificateFacts], at: datetime) -> CertificateReason:
    """The most telling reason: what somebody decided before what time did."""
    if any(certificate.revoked_at is not None for certificate in certificates):
        return CertificateReason.REVOKED
    if any(certificate.on_hold for certificate in certificates):
        return CertificateReason.ON_HOLD
    if any(certificate.not_after < at for certificate in certificates):
        return CertificateReason.EXPIRED
    return CertificateReason.NO_CERTIFICATE


def _answer(reasons: Sequence[str]) -> Answer:
    if not reasons:
        return Answer.ALLOWED
    if BEFORE_OUR_RECORDS in reasons or NOT_KNOWING.issuperset(reasons):
        return Answer.UNKNOWN
    return Answer.REFUSED


def _changes_of(party: Party) -> list[datetime]:
    """When a measure against somebody whom this side rests on begins or ends next."""
    facts = party.facts
    people = [*([] if facts.holder is None else [facts.holder]), *facts.answerable]
    return [person.changes_at for person in people if person.changes_at is not None]


def _valid_until(
    occasion: Occasion, resting_on: Sequence[CertificateFacts], changes: Sequence[datetime | None]
) -> datetime:
    ends = [occasion.now + occasion.lifetime, *(certificate.not_after for certificate in resting_on)]
    ends += [change for change in changes if change is not None]
    return max(occasion.now, min(ends))
