"""The verdict: may these two exchange health data, why not, with which certificate, and how long that holds.

`decide` is pure; `verdicts` loads what it decides on, in the same few statements for 1 or 10,000 addresses.
What stands against a mailbox is `directory.rules.standing`; HTTP, JSON and signatures are for `api`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from directory import rules, store
from directory.base.errors import Kind, Refusal
from directory.model import MailboxFacts, Standing
from pki.model import BEFORE_OUR_RECORDS, Answer, CertificateFacts, CertificateReason, Purpose, Verdict
from pki.trial_addresses import MALFORMED, Trial, trial_of
from pki.verdict import store as exchange_store

SENDER = "sender-"
# An address we were never told of may exist in another directory: that is not knowing, which is not a no.
NOT_KNOWING = frozenset({Standing.MAILBOX_UNKNOWN.value, SENDER + Standing.MAILBOX_UNKNOWN.value})


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


def verdicts(
    connection: Connection,
    addresses: Sequence[str],
    *,
    sender: str | None,
    at: datetime | None,
    now: datetime,
    lifetime: timedelta,
    trials: bool = False,
) -> list[Verdict]:
    """One verdict for each address, in the order asked; `at` None is the present.

    With `trials` the addresses of `pki/trial_addresses.py` are answered as they say themselves, as senders
    towards one another alone. Malformed addresses are answered, never raised. Refuses `at-in-the-future` and
    `at-out-of-range`. Open the transaction with `read_only=True`, so that all is read at one instant.
    """
    at = None if at is None else _past(at, now)
    asked = [*addresses, *([] if sender is None else [sender])]
    occasion = _occasion(connection, at, now, lifetime)
    tried = _tried(asked, occasion.as_of) if trials else {}
    # A sender to try reasons with is none towards a mailbox of the record: there he is judged by the record.
    known = [address for address in addresses if not _is_trial(address, tried)]
    loaded = [one for one in asked if one not in tried or (one == sender and known)]
    parties = _load(connection, loaded, at)
    decided = {
        address: _decide_among(address, sender, parties, tried if _is_trial(address, tried) else {}, occasion)
        for address in set(addresses)
    }
    return [decided[address] for address in addresses]


def _is_trial(recipient: str, tried: Mapping[str, Trial]) -> bool:
    """Whether senders to try reasons with count towards this recipient; a malformed one is refused anyhow."""
    return recipient in tried or (bool(tried) and recipient == MALFORMED)


def _decide_among(
    address: str,
    sender: str | None,
    parties: Mapping[str, Party],
    tried: Mapping[str, Trial],
    occasion: Occasion,
) -> Verdict:
    """The verdict on `address`; what is in `tried` is taken from there, all else from the record."""
    both = [address, *([] if sender is None else [sender])]
    sides = [
        Party(tried[one].facts, tried[one].certificates) if one in tried else parties[one] for one in both
    ]
    recorded = occasion.recorded and all(tried[one].recorded for one in both if one in tried)
    return decide(
        address, sides[0], None if sender is None else sides[1], replace(occasion, recorded=recorded)
    )


def _tried(addresses: Iterable[str], at: datetime) -> dict[str, Trial]:
    found = {address: trial_of(address, at) for address in set(addresses)}
    return {address: trial for address, trial in found.items() if trial is not None}


def decide(address: str, recipient: Party, sender: Party | None, occasion: Occasion) -> Verdict:
    """The verdict on sending to `recipient` (from `sender`, when one is named).

    The recipient must have one to encrypt with, the sender one to sign with. Those to encrypt with are handed
    out, and with `allowed` only: beside a refusal, one would be an invitation to use it.
    """
    to, by = Purpose.ENCRYPTION, Purpose.SIGNATURE
    # Before our records nothing is known, so that nothing else can be said, not even "no certificate".
    reasons = [BEFORE_OUR_RECORDS]
    if occasion.recorded:
        reasons = list(reasons_against(recipient, to, occasion.as_of))
    given = usable(recipient.certificates, to, occasion.as_of)
    resting_on, changes = list(given), changes_of(recipient)
    if sender is not None and occasion.recorded:
        reasons += [SENDER + reason for reason in reasons_against(sender, by, occasion.as_of)]
        resting_on += usable(sender.certificates, by, occasion.as_of)
        changes += changes_of(sender)
    answer = _answer(reasons)
    return Verdict(
        address,
        answer,
        tuple(reasons),
        decided_at=occasion.now,
        as_of=occasion.as_of,
        valid_until=_valid_until(occasion, resting_on if answer is Answer.ALLOWED else (), changes),
        sources=dict(occasion.sources),
        certificates=given if answer is Answer.ALLOWED else (),
    )


def reasons_against(party: Party, purpose: Purpose, at: datetime) -> tuple[str, ...]:
    """Every reason that stands against this side at `at`, in the order of the checks; () when none does.

    A certificate for the other purpose is none here, whatever became of it.
    """
    found = [standing.value for standing in rules.standing(party.facts, at)]
    if party.facts.mailbox is not None and not usable(party.certificates, purpose, at):
        serving = [one for one in party.certificates if purpose in one.purposes]
        found.append(_why_none_usable(serving, at).value)
    return tuple(found)


def usable(
    certificates: Sequence[CertificateFacts], purpose: Purpose, at: datetime
) -> tuple[CertificateFacts, ...]:
    """Those for this purpose, valid at `at` (both ends, RFC 5280 4.1.2.5), neither revoked nor on hold."""
    return tuple(
        certificate
        for certificate in certificates
        if purpose in certificate.purposes
        and certificate.not_before <= at <= certificate.not_after
        and certificate.revoked_at is None
        and not certificate.on_hold
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


def changes_of(party: Party) -> list[datetime]:
    """When a measure against somebody whom this side rests on begins or ends next."""
    facts = party.facts
    people = [*([] if facts.holder is None else [facts.holder]), *facts.answerable]
    return [person.changes_at for person in people if person.changes_at is not None]


def _valid_until(
    occasion: Occasion, resting_on: Sequence[CertificateFacts], changes: Sequence[datetime]
) -> datetime:
    ends = [
        occasion.now + occasion.lifetime, *(certificate.not_after for certificate in resting_on), *changes,
    ]  # fmt: skip
    return max(occasion.now, min(ends))


def _past(at: datetime, now: datetime) -> datetime:
    try:
        at = at.astimezone(UTC)
    except OverflowError as error:
        raise Refusal(Kind.MALFORMED, "at-out-of-range", "This instant is outside the calendar.") from error
    if at > now:
        raise Refusal(Kind.MALFORMED, "at-in-the-future", "Nobody can say today what will be true then.")
    return at


def _occasion(connection: Connection, at: datetime | None, now: datetime, lifetime: timedelta) -> Occasion:
    sources = store.sources(connection, at)
    begin = None if at is None else store.records_begin(connection)
    recorded = at is None or begin is None or at >= begin
    return Occasion(now, now if at is None else at, lifetime, sources, recorded)


def _load(connection: Connection, addresses: Sequence[str], at: datetime | None) -> dict[str, Party]:
    """All sides of the question, by the spelling asked."""
    facts = store.mailbox_facts(connection, addresses, at)
    known = {one.address: one for one in facts.values() if one.mailbox is not None}
    certificates = exchange_store.certificates_of(connection, list(known), at) if known else {}
    answered = with_answerable(connection, facts, at)
    return {
        asked: Party(one, _for_its_holder(one, certificates.get(one.address, ())))
        for asked, one in answered.items()
    }


def _for_its_holder(
    facts: MailboxFacts, certificates: tuple[CertificateFacts, ...]
) -> tuple[CertificateFacts, ...]:
    """Those made for whoever holds the mailbox: what names its former holder would be another's key.

    Likewise one that names another establishment than the mailbox now belongs to.
    """
    mailbox = facts.mailbox
    if mailbox is None:
        return certificates
    if mailbox.kind.held:
        return tuple(one for one in certificates if one.practitioner == mailbox.holder)
    return tuple(one for one in certificates if one.establishment in (None, mailbox.establishment))


def with_answerable(
    connection: Connection, facts: dict[str, MailboxFacts], at: datetime | None
) -> dict[str, MailboxFacts]:
    """The same facts, with the people an approved enrolment names for the mailboxes of organisations."""
    asked = {f.address for f in facts.values() if f.mailbox is not None and not f.mailbox.kind.held}
    if not asked:
        return facts
    named = exchange_store.answerable_for(connection, sorted(asked), at)
    people = store.practitioners(connection, [one for ids in named.values() for one in ids], at)
    return {
        spelling: replace(one, answerable=tuple(people[i] for i in named.get(one.address, ()) if i in people))
        if one.address in asked
        else one
        for spelling, one in facts.items()
    }
