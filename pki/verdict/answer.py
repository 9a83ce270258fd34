"""Verdicts for addresses: what they are decided on, loaded in the same few statements for 1 or 10,000.

HTTP, JSON and signatures are for `api`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from directory import store
from directory.base.errors import Kind, Refusal
from directory.model import MailboxFacts
from pki.verdict import store as verdict_store
from pki.verdict.decide import Occasion, Party, decide
from pki.verdict.model import CertificateFacts, Verdict
from pki.verdict.trial_addresses import MALFORMED, Trial, trial_of


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

    With `trials` the addresses of `pki/verdict/trial_addresses.py` are answered as they say themselves, as
    senders towards one another alone. Malformed addresses are answered, never raised. Refuses
    `at-in-the-future` and `at-out-of-range`. Open the transaction with `read_only=True`, so that all is read
    at one instant.
    """
    at = None if at is None else _past(at, now)
    asked = [*addresses, *([] if sender is None else [sender])]
    occasion = _occasion(connection, at, now, lifetime)
    tried = _tried(asked, occasion.as_of) if trials else {}
    # A sender to try reasons with is none towards a mailbox of the record: there he is judged by the record.
    known = [address for address in addresses if not is_trial(address, tried)]
    loaded = [address for address in asked if address not in tried or (address == sender and known)]
    parties = _load(connection, loaded, at)
    decided = {
        address: decide_among(address, sender, parties, tried if is_trial(address, tried) else {}, occasion)
        for address in set(addresses)
    }
    return [decided[address] for address in addresses]


def is_trial(recipient: str, tried: Mapping[str, Trial]) -> bool:
    """Whether senders to try reasons with count towards this recipient; a malformed one is refused anyhow."""
    return recipient in tried or (bool(tried) and recipient == MALFORMED)


def decide_among(
    address: str,
    sender: str | None,
    parties: Mapping[str, Party],
    tried: Mapping[str, Trial],
    occasion: Occasion,
) -> Verdict:
    """The verdict on `address`; what is in `tried` is taken from there, all else from the record."""
    both = [address, *([] if sender is None else [sender])]
    sides = [
        Party(tried[spelling].facts, tried[spelling].certificates) if spelling in tried else parties[spelling]
        for spelling in both
    ]
    recorded = occasion.recorded and all(tried[spelling].recorded for spelling in both if spelling in tried)
    return decide(
        address, sides[0], None if sender is None else sides[1], replace(occasion, recorded=recorded)
    )


def _tried(addresses: Iterable[str], at: datetime) -> dict[str, Trial]:
    trials = {address: trial_of(address, at) for address in set(addresses)}
    return {address: trial for address, trial in trials.items() if trial is not None}


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
    known = {fact.address: fact for fact in facts.values() if fact.mailbox is not None}
    certificates = verdict_store.certificates_of(connection, list(known), at) if known else {}
    answered = with_answerable(connection, facts, at)
    return {
        asked: Party(fact, _for_its_holder(fact, certificates.get(fact.address, ())))
        for asked, fact in answered.items()
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
        return tuple(
            certificate for certificate in certificates if certificate.practitioner == mailbox.holder
        )
    return tuple(
        certificate
        for certificate in certificates
        if certificate.establishment in (None, mailbox.establishment)
    )


def with_answerable(
    connection: Connection, facts: dict[str, MailboxFacts], at: datetime | None
) -> dict[str, MailboxFacts]:
    """The same facts, with the people an approved enrolment names for the mailboxes of organisations."""
    asked = {f.address for f in facts.values() if f.mailbox is not None and not f.mailbox.kind.held}
    if not asked:
        return facts
    named = verdict_store.answerable_for(connection, sorted(asked), at)
    people = store.practitioners(
        connection, [national_id for ids in named.values() for national_id in ids], at
    )
    return {
        spelling: replace(
            fact, answerable=tuple(people[i] for i in named.get(fact.address, ()) if i in people)
        )
        if fact.address in asked
        else fact
        for spelling, fact in facts.items()
    }
