"""The measures of an Ordre or agency, with what follows for certificates in the same transaction.

Taking one is the act of one registrar, because delay leaks; lifting gives trust back and takes two. Whose
measure it is and who is competent is decided in `directory/use_cases.py`.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from sqlalchemy import Connection, Row, select

from directory import dual_control
from directory import store as directory_store
from directory import use_cases as directory_use_cases
from directory.access import Role, Token
from directory.base.audit import Event, record
from directory.base.errors import Kind, Refusal
from directory.base.instant import not_before, present
from directory.model import MeasureKind
from directory.rules import check_reason
from directory.tables import measure, measure_lifting, practitioner
from directory.withdrawal_limits import charge
from pki import rules
from pki.consequences import Graces, Touched, settle


class MeasureState(Enum):
    """In force; in force, and one registrar asks for its end; ended."""

    IN_FORCE = "in-force"
    LIFTING_ASKED = "lifting-asked"
    LIFTED = "lifted"


@dataclass(frozen=True)
class Measure:
    """A measure as it stands; `reason` is why it was lifted once it is, `recorded_by` a name of the log."""

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


_MEASURES = (
    select(
        measure,
        measure_lifting.c.asked_at.label("lifting_asked_at"),
        measure_lifting.c.reason.label("lifting_reason"),
    )
    .outerjoin(measure_lifting, measure_lifting.c.measure_id == measure.c.id)
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
) -> Measure:
    """Suspend or strike off from this commit on: verdict, OCSP and enrolments; LDAP and CRL follow the feed.

    Refuses `not-a-registrar`, `withdrawal-limit-reached` and what `directory.use_cases.take_measure` refuses.
    """
    rules.check_registrar(token)
    measure_id = directory_use_cases.take_measure(
        connection, now=now, actor=token.actor, national_id=national_id, kind=kind,
        authority=token.authority, reason=reason,
    )  # fmt: skip
    settle(connection, Touched(frozenset({national_id})), graces=graces, now=now)
    charge(connection, token, now=now)
    return _load(connection, measure_id, now)


def lift(
    connection: Connection, *, now: datetime, token: Token, measure_id: int, reason: str, graces: Graces
) -> Measure:
    """Ask for the end of a measure, or confirm what another registrar asked within a week.

    Confirmed, it ends, with the `lifting_reason` that was asked with; what was put on hold for it is
    released: by the job, where the person was linked to another number meanwhile and somebody holds that.
    Refuses `not-a-registrar`, `unknown-measure`, `reason-missing`, `reason-too-long`,
    `measure-not-in-force`, and `self-approval` to whoever asked.
    """
    rules.check_registrar(token)
    check_reason(reason)
    found = _locked(connection, token, measure_id, now)
    if found.state is MeasureState.LIFTED:
        raise Refusal(Kind.CONFLICT, "measure-not-in-force", f"Measure {measure_id} has ended already.")
    if found.state is MeasureState.IN_FORCE:
        _ask(connection, now, token, found, reason)
    else:
        _confirm(connection, now, token, found, graces)
    return _load(connection, measure_id, now)


def measures_seen(connection: Connection, *, token: Token, national_id: str, now: datetime) -> list[Measure]:
    """The measures ever taken against this person, under any number he had.

    A registrar sees those of his authority, an auditor all.

    Refuses `not-a-registrar`, `unknown-practitioner`.
    """
    if token.role is not Role.AUDITOR:
        rules.check_registrar(token)
    known = select(practitioner.c.national_id).where(practitioner.c.national_id == national_id)
    if connection.execute(known).one_or_none() is None:
        raise Refusal(Kind.NOT_FOUND, "unknown-practitioner", f"The national register has no {national_id}.")
    query = _MEASURES.where(measure.c.national_id.in_(directory_store.numbers_of(connection, [national_id])))
    if token.role is not Role.AUDITOR:
        query = query.where(measure.c.authority == token.authority)
    return [_measure(row, now) for row in connection.execute(query)]


def _locked(connection: Connection, token: Token, measure_id: int, now: datetime) -> Measure:
    """The measure, its person locked first: lifting, taking, issuing and departing queue there."""
    found = _load(connection, measure_id, now)
    rules.check_own(token, found.authority, directory_use_cases.unknown_measure(measure_id))
    directory_store.lock_person(connection, found.practitioner)
    return _load(connection, measure_id, now)


def _ask(connection: Connection, now: datetime, token: Token, found: Measure, reason: str) -> None:
    now = not_before(present(connection, now), found.recorded_at)
    dual_control.ask(connection, measure_lifting, found.id, token=token, reason=reason, now=now)
    detail = {"measure": found.id, "kind": found.kind.value, "authority": found.authority}
    record(
        connection, now=now, actor=token.actor, event=Event.MEASURE_LIFTING_ASKED, subject=found.practitioner,
        detail=detail,
    )  # fmt: skip


def _confirm(connection: Connection, now: datetime, token: Token, found: Measure, graces: Graces) -> None:
    asked = dual_control.waiting(connection, measure_lifting, found.id, now)
    if asked is None:
        raise TypeError("only what was asked is confirmed")
    dual_control.check_is_another(asked, token)
    directory_use_cases.lift_measure(
        connection, now=now, actor=token.actor, measure_id=found.id, authority=token.authority
    )
    agreed_at = not_before(present(connection, now), found.lifting_asked_at)
    dual_control.confirm(connection, measure_lifting, found.id, token=token, now=agreed_at)
    settle(
        connection, Touched(frozenset({found.practitioner})), graces=graces, now=now, waits=False
    )  # fmt: skip


def _load(connection: Connection, measure_id: int, now: datetime) -> Measure:
    row = connection.execute(_MEASURES.where(measure.c.id == measure_id)).one_or_none()
    if row is None:
        raise directory_use_cases.unknown_measure(measure_id)
    return _measure(row, now)


def _measure(row: Row[Any], now: datetime) -> Measure:
    asked = dual_control.still_holds(row.lifting_asked_at, now)
    if row.ends_at is not None:
        state = MeasureState.LIFTED
    else:
        state = MeasureState.LIFTING_ASKED if asked else MeasureState.IN_FORCE
    return Measure(
        row.id, row.national_id, MeasureKind(row.kind), row.authority, row.reason, state, row.starts_at,
        row.ends_at, row.recorded_by, row.lifting_asked_at, row.lifting_reason,
        row.recorded_at,
    )  # fmt: skip
