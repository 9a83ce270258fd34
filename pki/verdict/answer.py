"""Verdicts for addresses: what they are decided on, loaded in the same few statements for 1 or 10,000.

HTTP, JSON and signatures are for `api`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from directory import store
from directory.base.errors import Kind, Refusal
from directory.identifiers import address_or_none
from directory.model import MailboxFacts, MailboxStanding
from pki.verdict import store as verdict_store
from pki.verdict.decide import Occasion, Party, decide, side_of
from pki.verdict.memory import NOTHING_MISSED, Mark, Memory
from pki.verdict.model import CertificateFacts, Side, Verdict
from pki.verdict.present import bytes_of, head_of, look_in_parts, with_bytes
from pki.verdict.trial_addresses import MALFORMED, Trial, trial_of

MALFORMED_SIDE = Side((MailboxStanding.MALFORMED_ADDRESS.value,))


@dataclass(frozen=True)
class Gathered:
    """All that some verdicts rest on, read at one instant; to decide them takes the record no more.

    `sides` are by the spelling asked; `tried` is what is answered as it says itself.
    """

    sender: str | None
    sides: Mapping[str, Side]
    tried: Mapping[str, Trial]
    occasion: Occasion

    def verdict(self, address: str) -> Verdict:
        """The verdict on one of the addresses asked for."""
        if not self.tried:
            sender = None if self.sender is None else self.sides[self.sender]
            return decide(address, self.sides[address], sender, self.occasion)
        tried = self.tried if is_trial(address, self.tried) else {}
        return decide_among(address, self.sender, self.sides, tried, self.occasion)


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
    """One verdict for each address, in the order asked, as `gather` reads what they rest on."""
    gathered = gather(connection, addresses, sender=sender, at=at, now=now, lifetime=lifetime, trials=trials)
    return [gathered.verdict(address) for address in addresses]


def gather(
    connection: Connection,
    addresses: Sequence[str],
    *,
    sender: str | None,
    at: datetime | None,
    now: datetime,
    lifetime: timedelta,
    trials: bool = False,
    memory: Memory | None = None,
    mark: Mark | None = None,
    with_der: bool = True,
) -> Gathered:
    """What the verdicts on these addresses rest on; `at` None is the present.

    With `trials` the addresses of `pki/verdict/trial_addresses.py` are answered as they say themselves, as
    senders towards one another alone. Malformed addresses are answered, never raised. Without `with_der`
    certificates come without their bytes. Refuses `at-in-the-future` and `at-out-of-range`. Open the
    transaction with `read_only=True`, so that all is read at one instant. `mark` is where `memory` stood
    before it: without, what others heard since its beginning leaves the memory unused.
    """
    at = None if at is None else past(at, now)
    asked = [*addresses, *([] if sender is None else [sender])]
    occasion = _occasion(connection, at, now, lifetime)
    tried = _tried(asked, occasion.as_of) if trials else {}
    # A sender to try reasons with is none towards a mailbox of the record: there he is judged by the record.
    known = [address for address in addresses if not is_trial(address, tried)]
    loaded = [address for address in asked if address not in tried or (address == sender and known)]
    if at is None:
        sides = present_sides(connection, loaded, now, memory=memory, mark=mark, with_der=with_der)
    else:
        sides = _past_sides(connection, loaded, at)
    return Gathered(sender, sides, tried, occasion)


def present_sides(
    connection: Connection,
    addresses: Iterable[str],
    now: datetime,
    *,
    memory: Memory | None = None,
    mark: Mark | None = None,
    with_der: bool = True,
) -> dict[str, Side]:
    """All sides of the question about now, by the spelling asked; remembered ones are not read again."""
    canonical = {
        # What is remembered by this spelling is canonical: to parse it takes as long as to decide.
        asked: asked if memory is not None and memory.holds(asked) else address_or_none(asked)
        for asked in set(addresses)
    }
    wanted = {address for address in canonical.values() if address is not None}
    if memory is None:
        head = head_of(connection, seen=NOTHING_MISSED, now=now)
        facts = look_in_parts(connection, list(wanted), head)
        sides = {address: fact.side for address, fact in facts.items()}
        if with_der:
            sides = _with_their_bytes(connection, sides)
    else:
        mark = mark or memory.begin()
        sides = _remembered_first(connection, wanted, memory, mark, now, with_der=with_der)
    return {
        asked: MALFORMED_SIDE if address is None else sides[address] for asked, address in canonical.items()
    }


def _remembered_first(
    connection: Connection, wanted: set[str], memory: Memory, mark: Mark, now: datetime, *, with_der: bool
) -> dict[str, Side]:
    head = head_of(connection, seen=mark.seen, now=now)
    mark = memory.hear(mark, head)
    sides = _gotten(memory, wanted, head.now, mark, whole=with_der)
    bare = _gotten(memory, wanted - sides.keys(), head.now, mark, whole=False) if with_der else {}
    if missing := wanted - sides.keys() - bare.keys():
        facts = look_in_parts(connection, list(missing), head)
        memory.keep(facts.items(), mark)
        bare |= {address: fact.side for address, fact in facts.items()}
    if with_der and bare:
        bare = _with_their_bytes(connection, bare)
        memory.keep_bytes(bare.items(), mark)
    return sides | bare


def _gotten(
    memory: Memory, wanted: Iterable[str], now: datetime, mark: Mark, *, whole: bool
) -> dict[str, Side]:
    got = ((address, memory.get(address, now, mark, whole=whole)) for address in wanted)
    return {address: side for address, side in got if side is not None}


def _with_their_bytes(connection: Connection, sides: Mapping[str, Side]) -> dict[str, Side]:
    octets = bytes_of(connection, [c.serial for side in sides.values() for c in side.certificates])
    return {address: with_bytes(side, octets) for address, side in sides.items()}


def past(at: datetime, now: datetime) -> datetime:
    """The instant in UTC; Refusal `at-in-the-future`, `at-out-of-range`."""
    try:
        at = at.astimezone(UTC)
    except OverflowError as error:
        raise Refusal(Kind.MALFORMED, "at-out-of-range", "This instant is outside the calendar.") from error
    if at > now:
        raise Refusal(Kind.MALFORMED, "at-in-the-future", "Nobody can say today what will be true then.")
    return at


def is_trial(recipient: str, tried: Mapping[str, Trial]) -> bool:
    """Whether senders to try reasons with count towards this recipient; a malformed one is refused anyhow."""
    return recipient in tried or (bool(tried) and recipient == MALFORMED)


def decide_among(
    address: str,
    sender: str | None,
    sides: Mapping[str, Side],
    tried: Mapping[str, Trial],
    occasion: Occasion,
) -> Verdict:
    """The verdict on `address`; what is in `tried` is taken from there, all else from the record."""
    both = [address, *([] if sender is None else [sender])]
    of_both = [
        side_of(Party(tried[spelling].facts, tried[spelling].certificates), occasion.as_of)
        if spelling in tried
        else sides[spelling]
        for spelling in both
    ]
    if tried:
        recorded = all(tried[spelling].recorded for spelling in both if spelling in tried)
        occasion = replace(occasion, recorded=occasion.recorded and recorded)
    return decide(address, of_both[0], None if sender is None else of_both[1], occasion)


def _tried(addresses: Iterable[str], at: datetime) -> dict[str, Trial]:
    trials = {address: trial_of(address, at) for address in set(addresses)}
    return {address: trial for address, trial in trials.items() if trial is not None}


def _occasion(connection: Connection, at: datetime | None, now: datetime, lifetime: timedelta) -> Occasion:
    sources = store.sources(connection, at)
    begin = None if at is None else store.records_begin(connection)
    recorded = at is None or begin is None or at >= begin
    return Occasion(now, now if at is None else at, lifetime, sources, recorded)


def _past_sides(connection: Connection, addresses: Sequence[str], at: datetime) -> dict[str, Side]:
    """The same as of an instant past."""
    facts = store.mailbox_facts(connection, addresses, at)
    known = {fact.address: fact for fact in facts.values() if fact.mailbox is not None}
    certificates = verdict_store.certificates_of(connection, list(known), at) if known else {}
    answered = with_answerable(connection, facts, at)
    return {
        asked: side_of(Party(fact, _for_its_holder(fact, certificates.get(fact.address, ()))), at)
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
