"""The consequences of a departure: certificates revoked or held, enrolments ended, the unsettled listed.

Level-triggered: the feed says whom to look at, the present rows say what should be so
(`pki/impediments/causes.py`), and whatever is not so is made so. Looking twice changes nothing; looking late
is as good as looking early.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Connection, Engine

from directory import store as directory_store
from directory.attention import Concern, Matter, keep
from directory.base.audit import Event, record_all
from directory.base.db import transaction
from directory.base.instant import present
from directory.feed import follower
from directory.feed.changes import Change, Entity
from directory.feed.readers import save_cursor
from directory.model import MailboxStanding
from directory.rules import registering_authority, standing
from pki.impediments import standing as impediments
from pki.impediments.causes import (
    RULES,
    Bond,
    Decision,
    Present,
    WithdrawalCause,
    causes,
    decide,
    ends_enrolment,
)
from pki.model import RevocationAction, Serial
from pki.record import certificates, revocations
from pki.record import enrolments as enrolment_rows
from pki.record.revocations import Revocable
from pki.revocation import revoke
from pki.revocation.revoke import RevocationOrder
from pki.revocation.rules import ACTOR
from pki.verdict import answer
from pki.withdrawal import store as withdrawal_store
from pki.withdrawal import void_enrolments

CONSUMER = "consequences"
# About a second of revoking: a registrar who waits for one of these certificates waits no longer than that.
BATCH = 2000
_LIFTED = "the suspension was lifted"
Graces = Mapping[WithdrawalCause, timedelta]


@dataclass(frozen=True)
class Touched:
    """Whom to look at: people by national id, mailboxes by address, certificates by serial."""

    people: frozenset[str] = frozenset()
    mailboxes: frozenset[str] = frozenset()
    serials: frozenset[Serial] = frozenset()


@dataclass(frozen=True)
class Outcome:
    """How many certificates were revoked, held, released, enrolments ended, changes of the feed read."""

    revoked: int = 0
    held: int = 0
    released: int = 0
    ended: int = 0
    changes: int = 0

    def __add__(self, other: "Outcome") -> "Outcome":
        return Outcome(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    def __str__(self) -> str:
        done = {"revoked": self.revoked, "held": self.held, "released": self.released}
        told = [f"{count} certificates {word}" for word, count in done.items() if count]
        return ", ".join([*told, *([f"{self.ended} enrolments ended"] if self.ended else [])])


@dataclass
class _Plan:
    """What each touched certificate and enrolment comes to; `about` are those of which something follows.

    `serials` are the certificates looked at, `over` those of them whose end was noted and has come otherwise.
    `present` is the record's word on all that was looked at.
    """

    serials: Sequence[Serial] = ()
    over: frozenset[Serial] = frozenset()
    present: Mapping[Bond, Present] = field(default_factory=dict)
    orders: list[RevocationOrder] = field(default_factory=list)
    release: list[Revocable] = field(default_factory=list)
    pending: list[tuple[Serial, WithdrawalCause, datetime]] = field(default_factory=list)
    ended: set[UUID] = field(default_factory=set)
    about: set[Bond] = field(default_factory=set)


def settle(
    connection: Connection, touched: Touched, *, graces: Graces, now: datetime, waits: bool = True
) -> Outcome:
    """Make the certificates and enrolments of whom is touched what the present record says they should be.

    Not to wait is for a caller that has locked a person already. One linked to another meanwhile has another
    lock, and two with one each would wait for ever. What is not released then, the job releases.
    """
    # 0. A measure against somebody, or a departure, is felt under every number he had.
    if touched.people:
        touched = replace(touched, people=directory_store.numbers_of(connection, touched.people))
    # 1. A look at all of them. Of most nothing follows, and to lock them would be to wait for every issuance
    # under way. A commit behind this look tells of itself by a change of its own.
    seen = plan = _plan(connection, touched, graces, now, lock=False)
    noted = set(seen.over)
    # 2. Those of which something follows again, now that nobody can change their certificates any more.
    if seen.about:
        free = {revocable.certificate.practitioner or "" for revocable in seen.release}
        # Nobody takes a measure against them between the look and the release. Before any other lock.
        if waits:
            directory_store.lock_people(connection, free)
        else:
            free = directory_store.lock_people_if_free(connection, free)
        plan = _plan(connection, _of(seen.about), graces, now, lock=True)
        # Of others who came to be free behind the first look, a change of its own tells.
        plan.release = [revocable for revocable in plan.release if revocable.certificate.practitioner in free]
        noted.update(plan.serials)
    serials = sorted({*seen.serials, *plan.serials})
    # 3. Act: what is revoked before everything else.
    revoked = revoke.revoke_or_suspend(connection, plan.orders, now=now, actor=ACTOR)
    revoke.release(connection, plan.release, now=now, actor=ACTOR, comment=_LIFTED)
    ended = _end(connection, plan.ended, now)
    if noted:
        withdrawal_store.keep_due(connection, noted, plan.pending)
    # 4. What is left for a person to look at.
    _list_unsettled(connection, touched, serials, now)
    void_enrolments.list_matters(
        connection, people=touched.people, mailboxes=touched.mailboxes, known=seen.present, now=now,
        actor=ACTOR,
    )  # fmt: skip
    held = sum(event.action is RevocationAction.HOLD for event in revoked)
    return Outcome(len(revoked) - held, held, len(plan.release), ended)


def settle_due(connection: Connection, *, graces: Graces, now: datetime, limit: int = BATCH) -> Outcome:
    """Revoke what has fallen due and still has a cause against it; `changes` is how many were looked at."""
    serials = withdrawal_store.fallen_due(connection, now, limit)
    if not serials:
        return Outcome()
    done = settle(connection, Touched(serials=frozenset(serials)), graces=graces, now=now)
    return done + Outcome(changes=len(serials))


def list_claims(connection: Connection, now: datetime) -> None:
    """List the mailboxes that two holders claim in the last file, for as long as it says so."""
    matters = [
        Matter(address, sorted({registering_authority(code) for code in codes}), {"line": line})
        for address, line, codes in withdrawal_store.claimed_twice(connection)
    ]
    keep(connection, Concern.MAILBOX_CLAIMED_TWICE, matters, among=None, now=now, actor=ACTOR)


class Follower:
    """Follows the feed: what takes something away first, without waiting for an older open transaction."""

    def __init__(self, engine: Engine, graces: Graces) -> None:
        self._engine = engine
        self._graces = graces
        self._feed = follower.Follower(CONSUMER, BATCH)

    def step(self, now: datetime) -> Outcome:
        """Settle the next changes, in one transaction with the place in the feed; none: `changes` is 0."""
        with transaction(self._engine) as connection:
            batch = self._feed.read(connection)
            if not batch.changes:
                return Outcome()
            outcome = settle(connection, _touched(batch.changes), graces=self._graces, now=now)
            if batch.reached != batch.start:
                save_cursor(connection, CONSUMER, batch.reached, now)
        self._feed.finish(batch)
        return outcome + Outcome(changes=len(batch.changes))


def _touched(changes: Iterable[Change]) -> Touched:
    """An establishment's change tells of its mailboxes too, so that its own row need not be read."""
    keys: dict[Entity, set[str]] = {Entity.PRACTITIONER: set(), Entity.MAILBOX: set()}
    for change in changes:
        if change.entity in keys:
            keys[change.entity].add(change.key)
    return Touched(frozenset(keys[Entity.PRACTITIONER]), frozenset(keys[Entity.MAILBOX]))


def _of(bonds: Iterable[Bond]) -> Touched:
    """The people of these bonds, who have all that follows; not their colleagues at the same mailbox."""
    return Touched(people=frozenset(bond.practitioner for bond in bonds))


def _plan(connection: Connection, touched: Touched, graces: Graces, now: datetime, *, lock: bool) -> _Plan:
    # 1. The enrolments first, then the reservations: locks are taken in the same order everywhere.
    enrolments = withdrawal_store.live_enrolments(
        connection, people=touched.people, mailboxes=touched.mailboxes, lock=lock
    )
    serials = certificates.touched_certificates(
        connection, people=touched.people, mailboxes=touched.mailboxes, serials=touched.serials
    )
    revocables = revocations.revocable_among(connection, serials, now, lock=lock) if serials else []
    due = withdrawal_store.due(connection, serials) if serials else {}
    # 2. What the record says now, read when what is locked is held.
    present = impediments.present_of(
        connection, [*(enrolment.bond for enrolment in enrolments), *map(impediments.bond_of, revocables)]
    )
    blocked = impediments.blocked_among(
        connection,
        [revocable.certificate.serial for revocable in revocables if revocable.last is RevocationAction.HOLD],
    )
    # 3. What follows.
    plan = _Plan(
        serials, frozenset(due.keys() - {revocable.certificate.serial for revocable in revocables}), present
    )
    for revocable in revocables:
        bond, serial = impediments.bond_of(revocable), revocable.certificate.serial
        known = due.get(serial, {})
        against = causes(bond, present[bond], now)
        decision = decide(
            against, graces=graces, due=known, last=revocable.last, ours=revocable.acted == ACTOR.name,
            impeded=bool(impediments.standing(against, blocked=blocked.get(serial))), now=now,
        )  # fmt: skip
        plan.pending += [(serial, cause, known.get(cause, now + graces[cause])) for cause in decision.pending]
        _add(plan, revocable, decision)
        if known or decision != Decision():
            plan.about.add(bond)
    for enrolment in enrolments:
        if ends_enrolment(causes(enrolment.bond, present[enrolment.bond], now), graces):
            plan.ended.add(enrolment.id)
            plan.about.add(enrolment.bond)
    return plan


def _add(plan: _Plan, revocable: Revocable, decision: Decision) -> None:
    cause = decision.revoke or (WithdrawalCause.SUSPENDED if decision.hold else None)
    if cause is not None:
        rule = RULES[cause]
        plan.orders.append(RevocationOrder(revocable, rule.reason, rule.sentence))
    if decision.revoke is not None and revocable.enrolment_id is not None:
        plan.ended.add(revocable.enrolment_id)
    if decision.release:
        plan.release.append(revocable)


def _end(connection: Connection, enrolment_ids: Collection[UUID], now: datetime) -> int:
    if not enrolment_ids:
        return 0
    now = present(connection, now)
    ended = enrolment_rows.end_all(connection, enrolment_ids, now)
    lines = [
        (
            str(enrolment.id),
            {
                "practitioner": enrolment.practitioner,
                "mailbox": enrolment.mailbox,
                "authority": enrolment.authority,
            },
        )
        for enrolment in ended
    ]
    record_all(connection, now=now, actor=ACTOR, event=Event.ENROLMENT_ENDED, lines=lines)
    return len(ended)


def _list_unsettled(
    connection: Connection, touched: Touched, serials: Sequence[Serial], now: datetime
) -> None:
    _list_unanswered(connection, touched, now)
    if serials:
        _list_pending(connection, serials, now)
    if touched.people:
        retired = withdrawal_store.retired_numbers(connection, touched.people)
        matters = [Matter(national_id, authorities) for national_id, authorities in retired.items()]
        keep(connection, Concern.NUMBER_RETIRED, matters, among=touched.people, now=now, actor=ACTOR)


def _list_unanswered(connection: Connection, touched: Touched, now: datetime) -> None:
    """Open mailboxes of open establishments that somebody answered for and nobody in good standing does."""
    answered = withdrawal_store.answered_for(connection, people=touched.people, mailboxes=touched.mailboxes)
    if not answered:
        return
    facts = directory_store.mailbox_facts(connection, sorted(answered))
    facts = answer.with_answerable(connection, facts, None)
    matters = []
    for address, known in facts.items():
        against = set(standing(known, now))
        if MailboxStanding.NO_ANSWERABLE_PROFESSIONAL in against and not against & _GONE_ANYWAY:
            detail = {"finess": known.mailbox.finess} if known.mailbox else {}
            matters.append(Matter(address, answered[address], detail))
    keep(connection, Concern.NO_ANSWERABLE_PROFESSIONAL, matters, among=facts, now=now, actor=ACTOR)


_GONE_ANYWAY = frozenset(
    {
        MailboxStanding.MAILBOX_CLOSED,
        MailboxStanding.ORGANISATION_UNKNOWN,
        MailboxStanding.ORGANISATION_CLOSED,
    }
)


def _list_pending(connection: Connection, serials: Sequence[Serial], now: datetime) -> None:
    waiting = withdrawal_store.pending_among(connection, serials)
    enrolled = (
        revocations.enrolled_by(connection, [withdrawal.serial for withdrawal in waiting]) if waiting else {}
    )
    matters = [
        Matter(
            withdrawal.serial,
            enrolled.get(withdrawal.serial, ()),
            {"cause": withdrawal.cause, "due_at": withdrawal.due_at, "mailbox": withdrawal.mailbox,
             "practitioner": withdrawal.practitioner},
        )
        for withdrawal in waiting
    ]  # fmt: skip
    keep(connection, Concern.WITHDRAWAL_PENDING, matters, among=serials, now=now, actor=ACTOR)
