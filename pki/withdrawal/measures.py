"""The measures of an Ordre or agency, with what follows for certificates in the same transaction.

Taking one, now or for a day to come, is the act of one registrar, because delay leaks; so is to prolong one.
Lifting, shortening and annulling give trust back and take two; who confirms the last two names what he read.
What begins or ends by its date is followed by
`directory/measures_due.py`; whose measure it is and who is competent is decided in `directory/measures.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from sqlalchemy import Connection, Row, Table, insert, select

from directory import dual_control, periods
from directory import measures as directory_use_cases
from directory import store as directory_store
from directory.access import Role, Token, actor_of
from directory.base.audit import Event, record
from directory.base.comments import check_reason
from directory.base.errors import Kind, Refusal
from directory.base.instant import not_before, present
from directory.model import MeasureKind
from directory.periods import Moment
from directory.tables import (
    measure,
    measure_annulment,
    measure_lifting,
    measure_revision,
    measure_shortening,
    practitioner,
)
from directory.withdrawal_limits import charge
from pki.issuance import restitution
from pki.issuance.restitution import Replacement
from pki.registration import eligibility
from pki.withdrawal.reconcile import Graces, Touched, settle


class MeasureState(Enum):
    """Yet to begin; in force; one asks for its end; ended by two, or by its date; an error from the start."""

    TO_COME = "to-come"
    IN_FORCE = "in-force"
    LIFTING_ASKED = "lifting-asked"
    LIFTED = "lifted"
    ENDED = "ended"
    ANNULLED = "annulled"


class Act(Enum):
    """What was done with a measure after it was taken, beside its lifting."""

    PROLONGED = "prolonged"
    SHORTENED = "shortened"
    ANNULLED = "annulled"


@dataclass(frozen=True)
class Revision:
    """One such act: the end it gave, why, and who; `confirmed_by` is None for what one person may do."""

    act: Act
    ends_at: datetime | None
    reason: str
    asked_by: str
    confirmed_by: str | None
    recorded_at: datetime


@dataclass(frozen=True)
class _Asking:
    """One of two persons who give trust back: what for, and the table that keeps what the first asked."""

    token: Token
    measure: "Measure"
    table: Table
    now: datetime


@dataclass(frozen=True)
class Measure:
    """A measure as it stands; `reason` is why it was taken, `recorded_by` a name of the log.

    `shortening_asked` and `annulment_asked` are what one registrar asks and nobody has agreed to yet:
    the end to be, and since when. `replacements` are the certificates that its annulment gives back.
    """

    id: int
    practitioner: str
    kind: MeasureKind
    authority: str
    reason: str
    state: MeasureState
    starts_at: datetime
    ends_at: datetime | None
    recorded_by: str
    lifting_asked_at: datetime | None
    lifting_reason: str | None
    recorded_at: datetime
    shortening_asked: datetime | None = None
    annulment_asked: datetime | None = None
    revisions: Sequence[Revision] = field(default=())
    replacements: Sequence[Replacement] = field(default=())


_MEASURES = (
    select(
        measure,
        measure_lifting.c.asked_at.label("lifting_asked_at"),
        measure_lifting.c.reason.label("lifting_reason"),
        measure_lifting.c.confirmed_at.label("lifted_at"),
        measure_shortening.c.until.label("shorter_until"),
        measure_shortening.c.asked_at.label("shortening_asked_at"),
        measure_shortening.c.confirmed_at.label("shortened_at"),
        measure_annulment.c.asked_at.label("annulment_asked_at"),
        measure_annulment.c.confirmed_at.label("annulled_at"),
    )
    .outerjoin(measure_lifting, measure_lifting.c.measure_id == measure.c.id)
    .outerjoin(measure_shortening, measure_shortening.c.measure_id == measure.c.id)
    .outerjoin(measure_annulment, measure_annulment.c.measure_id == measure.c.id)
    .order_by(measure.c.id)
)


def take(
    connection: Connection,
    *,
    now: datetime,
    token: Token,
    national_id: str,
    kind: MeasureKind,
    reason: str,
    graces: Graces,
    begins: Moment | None = None,
    until: Moment | None = None,
) -> Measure:
    """Suspend or strike off from this commit on, or from `begins`: verdict, OCSP and enrolments at once.

    LDAP and CRL follow the feed. Refuses `not-a-registrar`, `withdrawal-limit-reached` and what
    `directory.measures.take_measure` refuses.
    """
    eligibility.check_registrar(token)
    measure_id = directory_use_cases.take_measure(
        connection, now=now, actor=token.actor, national_id=national_id, kind=kind,
        authority=token.authority, reason=reason, begins=begins, until=until,
    )  # fmt: skip
    settle(connection, Touched(frozenset({national_id})), graces=graces, now=now)
    charge(connection, token, now=now)
    return _load(connection, measure_id, now)


def prolong(
    connection: Connection,
    *,
    now: datetime,
    token: Token,
    measure_id: int,
    until: Moment | None,
    reason: str,
) -> Measure:
    """Have a suspension end later, or (None) when it is lifted: by one registrar, and within his limits.

    Refuses `not-a-registrar`, `unknown-measure`, `withdrawal-limit-reached`, `reason-missing`,
    `reason-too-long` and what `directory.measures.prolong_measure` refuses.
    """
    eligibility.check_registrar(token)
    check_reason(reason)
    _locked(connection, token, measure_id, now)
    ends_at = directory_use_cases.prolong_measure(
        connection, now=now, actor=token.actor, measure_id=measure_id, authority=token.authority, until=until
    )
    at = present(connection, now)
    _note(connection, measure_id, Revision(Act.PROLONGED, ends_at, reason, token.actor.name, None, at))
    charge(connection, token, now=now)
    return _load(connection, measure_id, now)


def shorten(
    connection: Connection,
    *,
    now: datetime,
    token: Token,
    measure_id: int,
    until: Moment,
    reason: str,
    graces: Graces,
    confirms: Moment | None = None,
) -> Measure:
    """Ask for an earlier end of a suspension, or confirm the one that another registrar asked within a week.

    Who confirms names it: `confirms` is `shortening_asked`, or that last day, and the same as `until`.
    Whoever asked may ask for another end instead. Refuses `not-a-registrar`, `unknown-measure`,
    `self-approval`, `already-asked`, `nothing-asked`, `reason-missing`, `reason-too-long` and what
    `directory.measures.shortened_end` refuses.
    """
    eligibility.check_registrar(token)
    check_reason(reason)
    locked_measure = _locked(connection, token, measure_id, now)
    row = connection.execute(select(measure).where(measure.c.id == measure_id)).one()
    ends_at = directory_use_cases.shortened_end(
        row, until, not_before(present(connection, now), row.recorded_at)
    )
    asking = _Asking(token, locked_measure, measure_shortening, now)
    same = locked_measure.shortening_asked == ends_at
    named = None if confirms is None else periods.ending(confirms)
    if not _confirms(connection, asking, locked_measure.shortening_asked, named, same=same):
        _ask(connection, asking, Event.MEASURE_SHORTENING_ASKED, reason, until=ends_at)
    else:
        with _agreed(connection, asking, Act.SHORTENED, graces):
            directory_use_cases.shorten_measure(
                connection, now=now, actor=token.actor, measure_id=locked_measure.id,
                authority=token.authority, until=ends_at,
            )  # fmt: skip
    return _load(connection, measure_id, now)


def annul(
    connection: Connection,
    *,
    now: datetime,
    token: Token,
    measure_id: int,
    reason: str,
    graces: Graces,
    confirms: datetime | None = None,
) -> Measure:
    """Say that a measure was an error, or confirm what another registrar said within a week.

    Who confirms names it: `confirms` is `annulment_asked`.

    Confirmed, it ends, whatever was held for it is released, and what a strike-off ended or revoked comes
    back (`pki/issuance/restitution.py`). One that has ended is annulled all the same. Refuses
    `not-a-registrar`, `unknown-measure`, `measure-annulled`, `self-approval`, `already-asked`,
    `nothing-asked`, `reason-missing`, `reason-too-long`.
    """
    eligibility.check_registrar(token)
    check_reason(reason)
    locked_measure = _locked(connection, token, measure_id, now)
    if locked_measure.state is MeasureState.ANNULLED:
        raise Refusal(Kind.CONFLICT, "measure-annulled", f"Measure {measure_id} is annulled already.")
    asking = _Asking(token, locked_measure, measure_annulment, now)
    if not _confirms(connection, asking, locked_measure.annulment_asked, confirms, same=True):
        _ask(connection, asking, Event.MEASURE_ANNULMENT_ASKED, reason)
    else:
        with _agreed(connection, asking, Act.ANNULLED, graces):
            _end_in_error(connection, now, token, locked_measure)
    return _load(connection, measure_id, now)


def lift(
    connection: Connection, *, now: datetime, token: Token, measure_id: int, reason: str, graces: Graces
) -> Measure:
    """Ask for the end of a measure, or confirm what another registrar asked within a week.

    One that is yet to come never begins then.

    Confirmed, it ends, with the `lifting_reason` that was asked with. Certificates put on hold for it are
    released: by the job, where the person was linked to another number meanwhile and somebody holds that.
    Refuses `not-a-registrar`, `unknown-measure`, `reason-missing`, `reason-too-long`, `measure-not-in-force`,
    and `self-approval` to whoever asked.
    """
    eligibility.check_registrar(token)
    check_reason(reason)
    locked_measure = _locked(connection, token, measure_id, now)
    if locked_measure.state in _OVER:
        raise Refusal(Kind.CONFLICT, "measure-not-in-force", f"Measure {measure_id} has ended already.")
    if dual_control.still_holds(locked_measure.lifting_asked_at, now):
        _confirm(connection, now, token, locked_measure, graces)
    else:
        asking = _Asking(token, locked_measure, measure_lifting, now)
        _ask(connection, asking, Event.MEASURE_LIFTING_ASKED, reason)
    return _load(connection, measure_id, now)


def measures_seen(connection: Connection, *, token: Token, national_id: str, now: datetime) -> list[Measure]:
    """The measures ever taken against this person, under any number he had.

    A registrar sees those of his authority, an auditor all.

    Refuses `not-a-registrar`, `unknown-practitioner`.
    """
    if token.role is not Role.AUDITOR:
        eligibility.check_registrar(token)
    known = select(practitioner.c.national_id).where(practitioner.c.national_id == national_id)
    if connection.execute(known).one_or_none() is None:
        raise Refusal(Kind.NOT_FOUND, "unknown-practitioner", f"The national register has no {national_id}.")
    query = _MEASURES.where(measure.c.national_id.in_(directory_store.numbers_of(connection, [national_id])))
    if token.role is not Role.AUDITOR:
        query = query.where(measure.c.authority == token.authority)
    return _measures(connection, connection.execute(query).all(), now)


def _locked(connection: Connection, token: Token, measure_id: int, now: datetime) -> Measure:
    """The measure, its person locked first: lifting, taking, issuing and departing queue there."""
    locked_measure = _load(connection, measure_id, now)
    eligibility.check_own(token, locked_measure.authority, directory_use_cases.unknown_measure(measure_id))
    directory_store.lock_person(connection, locked_measure.practitioner)
    return _load(connection, measure_id, now)


def _ask(connection: Connection, asking: _Asking, event: Event, reason: str, **besides: datetime) -> None:
    locked_measure = asking.measure
    now = not_before(present(connection, asking.now), locked_measure.recorded_at)
    dual_control.ask(
        connection, asking.table, locked_measure.id, token=asking.token, reason=reason, now=now, **besides
    )
    detail: dict[str, Any] = {
        "measure": locked_measure.id,
        "kind": locked_measure.kind.value,
        "authority": locked_measure.authority,
    }
    detail |= {name: value.isoformat() for name, value in besides.items()}
    record(
        connection,
        now=now,
        actor=asking.token.actor,
        event=event,
        subject=locked_measure.practitioner,
        detail=detail,
    )


def _confirms(
    connection: Connection, asking: _Asking, shown: datetime | None, confirms: datetime | None, *, same: bool
) -> bool:
    """Whether this call agrees to what waits; False where it asks.

    A registrar who means to ask must not agree unawares to the request of a thief of the other token. Nor
    must he put his own in its place. So a colleague's is confirmed by what it shows (`shown`), or refused.
    `same` is whether this call is about the same as what waits.
    """
    asked = dual_control.waiting(connection, asking.table, asking.measure.id, asking.now)
    if asked is None or shown is None:
        if confirms is None:
            return False
        raise Refusal(Kind.CONFLICT, "nothing-asked", "Nobody asked for this within seven days: ask first.")
    if same and (confirms == shown or asked.by == asking.token.id):
        return True
    if confirms is None and asked.by == asking.token.id:
        return False
    by = actor_of(asked.by).name
    text = (
        f"{by} has asked already. Read the measure; to agree, give in `confirms` (--confirm) the instant "
        "that it shows as asked; of an end, its last day will do."
    )
    raise Refusal(Kind.CONFLICT, "already-asked", text, asked_by=by, asked_at=_in_utc(asked.at))


def _in_utc(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


@contextmanager
def _agreed(connection: Connection, asking: _Asking, act: Act, graces: Graces) -> Iterator[None]:
    """Inside, what another asked is done: noted with his reason, with what follows seen to."""
    locked_measure, actor = asking.measure, asking.token.actor
    asked = dual_control.waiting(connection, asking.table, locked_measure.id, asking.now)
    if asked is None:
        raise TypeError("only what was asked is confirmed")
    dual_control.check_is_another(asked, asking.token)
    yield
    agreed_at = not_before(present(connection, asking.now), asked.at)
    dual_control.confirm(connection, asking.table, locked_measure.id, token=asking.token, now=agreed_at)
    ends_at = connection.execute(
        select(measure.c.ends_at).where(measure.c.id == locked_measure.id)
    ).scalar_one()
    by = actor_of(asked.by).name
    _note(connection, locked_measure.id, Revision(act, ends_at, asked.reason, by, actor.name, agreed_at))
    if act is Act.ANNULLED and locked_measure.kind is MeasureKind.STRUCK_OFF:
        restitution.give_back(
            connection, locked_measure.id, locked_measure.practitioner, now=agreed_at, actor=actor
        )
    touched = Touched(frozenset({locked_measure.practitioner}))
    settle(connection, touched, graces=graces, now=asking.now, waits=False)


def _end_in_error(connection: Connection, now: datetime, token: Token, locked_measure: Measure) -> None:
    if locked_measure.state not in _OVER:
        directory_use_cases.lift_measure(
            connection, now=now, actor=token.actor, measure_id=locked_measure.id, authority=token.authority,
            event=Event.MEASURE_ANNULLED,
        )  # fmt: skip
        return
    # Over already: what was taken while it stood comes back, and the log says by whose word.
    detail = {
        "measure": locked_measure.id,
        "kind": locked_measure.kind.value,
        "authority": locked_measure.authority,
    }
    record(
        connection, now=not_before(present(connection, now), locked_measure.recorded_at), actor=token.actor,
        event=Event.MEASURE_ANNULLED, subject=locked_measure.practitioner, detail=detail,
    )  # fmt: skip


def _note(connection: Connection, measure_id: int, made: Revision) -> None:
    row = {**vars(made), "act": made.act.value, "measure_id": measure_id}
    connection.execute(insert(measure_revision).values(row))


def _confirm(
    connection: Connection, now: datetime, token: Token, locked_measure: Measure, graces: Graces
) -> None:
    asked = dual_control.waiting(connection, measure_lifting, locked_measure.id, now)
    if asked is None:
        raise TypeError("only what was asked is confirmed")
    dual_control.check_is_another(asked, token)
    directory_use_cases.lift_measure(
        connection, now=now, actor=token.actor, measure_id=locked_measure.id, authority=token.authority
    )
    agreed_at = not_before(present(connection, now), locked_measure.lifting_asked_at)
    dual_control.confirm(connection, measure_lifting, locked_measure.id, token=token, now=agreed_at)
    settle(
        connection, Touched(frozenset({locked_measure.practitioner})), graces=graces, now=now, waits=False
    )  # fmt: skip


def _load(connection: Connection, measure_id: int, now: datetime) -> Measure:
    row = connection.execute(_MEASURES.where(measure.c.id == measure_id)).one_or_none()
    if row is None:
        raise directory_use_cases.unknown_measure(measure_id)
    return _measures(connection, [row], present(connection, now))[0]


def _measures(connection: Connection, rows: Sequence[Row[Any]], now: datetime) -> list[Measure]:
    numbers = [row.id for row in rows]
    revisions = _revisions(connection, numbers)
    replacements = restitution.replacements(connection, numbers)
    return [_measure(row, now, revisions, replacements) for row in rows]


def _revisions(connection: Connection, measure_ids: Sequence[int]) -> dict[int, list[Revision]]:
    by_measure: dict[int, list[Revision]] = {}
    query = select(measure_revision).where(measure_revision.c.measure_id.in_(measure_ids))
    for row in connection.execute(query.order_by(measure_revision.c.id)):
        made = Revision(
            Act(row.act), row.ends_at, row.reason, row.asked_by, row.confirmed_by, row.recorded_at
        )
        by_measure.setdefault(row.measure_id, []).append(made)
    return by_measure


def _measure(
    row: Row[Any],
    now: datetime,
    revisions: Mapping[int, Sequence[Revision]],
    replacements: Mapping[int, Sequence[Replacement]],
) -> Measure:
    return Measure(
        row.id, row.national_id, MeasureKind(row.kind), row.authority, row.reason, _state(row, now),
        row.starts_at, row.ends_at, row.recorded_by, row.lifting_asked_at, row.lifting_reason,
        row.recorded_at,
        shortening_asked=_waiting(row.shortening_asked_at, row.shortened_at, now) and row.shorter_until,
        annulment_asked=_waiting(row.annulment_asked_at, row.annulled_at, now),
        revisions=tuple(revisions.get(row.id, ())), replacements=tuple(replacements.get(row.id, ())),
    )  # fmt: skip


def _waiting(asked_at: datetime | None, confirmed_at: datetime | None, now: datetime) -> datetime | None:
    """Since when somebody waits for a second person; None where nobody does."""
    return asked_at if confirmed_at is None and dual_control.still_holds(asked_at, now) else None


_OVER = frozenset({MeasureState.LIFTED, MeasureState.ENDED, MeasureState.ANNULLED})


def _state(row: Row[Any], now: datetime) -> MeasureState:
    if row.annulled_at is not None:
        return MeasureState.ANNULLED
    if row.lifted_at is not None:
        return MeasureState.LIFTED
    # By the clock that dated it, where that was ahead of this one.
    now = not_before(now, row.recorded_at)
    if row.ends_at is not None and row.ends_at <= max(now, row.starts_at):
        return MeasureState.ENDED
    if _waiting(row.lifting_asked_at, row.lifted_at, now) is not None:
        return MeasureState.LIFTING_ASKED
    return MeasureState.TO_COME if row.starts_at > now else MeasureState.IN_FORCE
