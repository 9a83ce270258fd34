"""What is said here in place of a register, of a person, an establishment or a mailbox: made and withdrawn.

A correction shows at once and survives the nights (`directory/sync/runs/corrections_overlay.py`), until it is
withdrawn or the register has come to agree. It never gives trust: the fields that may be corrected are in
`directory/precedence.py`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, Text, cast, func, insert, select, text, update

from directory import dual_control, privacy, store
from directory.access import Role, Token
from directory.base.audit import Event, record
from directory.base.comments import check_reason
from directory.base.errors import Kind, Refusal
from directory.base.instant import not_before, present
from directory.base.locks import share_until_commit_if_free
from directory.feed.changes import Entity
from directory.identifiers import parse_address, read_finess, read_national_id
from directory.precedence import CORRECTABLE
from directory.rules import registering_authorities, search_form
from directory.tables import correction, correction_withdrawal, mailbox, organisation, practitioner
from directory.withdrawal_limits import charge

# Which approved enrolments are void by what a row says now. Only `pki` tells, so the entry point brings it.
VoidOf = Callable[[Connection, Entity, str], AbstractSet[Any]]
LONGEST_VALUE = 200
# Of PostgreSQL's bigint: no row has a number beyond it, and to ask for one is an error there.
LARGEST_NUMBER = (1 << 63) - 1
_MARKS = text("""
    SELECT key, field, register_value, authority, made_at FROM correction
    WHERE entity = :entity AND key = ANY(CAST(:keys AS text[])) AND ending IS NULL ORDER BY key, field
""")
_OF_OTHERS = text("""
    SELECT EXISTS (SELECT FROM correction c
        WHERE c.entity = :entity AND c.key = :key AND c.field = :field AND c.made_by <> :actor
        AND c.id > coalesce((
            SELECT max(o.id) FROM correction o WHERE o.entity = c.entity AND o.key = c.key
            AND o.field = c.field AND o.ending IN ('withdrawn', 'agreed')), 0))
""")
_KEY = {
    Entity.PRACTITIONER: practitioner.c.national_id,
    Entity.ORGANISATION: organisation.c.finess,
    Entity.MAILBOX: mailbox.c.address,
}
_UNKNOWN = {
    Entity.PRACTITIONER: ("unknown-practitioner", "Nobody is registered under {}."),
    Entity.ORGANISATION: ("unknown-organisation", "FINESS holds nothing under {}."),
    Entity.MAILBOX: ("unknown-mailbox", "The national list holds no mailbox {}."),
}
_CODE = re.compile(r"[0-9A-Z]{0,10}")
_SHAPE = {
    "civility": _CODE,
    "title": _CODE,
    "telephone": re.compile(r"[0-9+(). -]{0,30}"),
    "closed_on": re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}"),
    "listed": re.compile(r"true|false"),
    "family_name": re.compile(r".+"),
    "name": re.compile(r".+"),
}


@dataclass(frozen=True)
class Correction:
    """One field said otherwise here than in the register; in force while `ending` is None.

    Values are text: a day as ISO has it, `true` or `false`. `authority` is the body that made it, '' for an
    administrator; `made_by` and `ended_by` are names of the log. `ending`: `withdrawn`, `replaced` by
    another, or `agreed` when a register's file came to say the same.
    """

    id: int
    entity: str
    key: str
    field: str
    value: str
    register_value: str
    authority: str
    reason: str
    made_by: str
    made_at: datetime
    ending: str | None
    ended_by: str | None
    ended_at: datetime | None


@dataclass(frozen=True)
class Mark:
    """What readers are told beside a corrected value."""

    field: str
    register_value: str
    authority: str
    made_at: datetime


def spelled(entity: Entity, key: str) -> str:
    """The key as the record spells it; Refusal MALFORMED for what can be none."""
    match entity:
        case Entity.PRACTITIONER:
            # Whether its check digit holds was decided when the person was taken in.
            return read_national_id(key, strict=False)
        case Entity.ORGANISATION:
            return read_finess(key)
        case _:
            return parse_address(key)


def lock_of(entity: Entity) -> str:
    """The lock a register holds alone while it is applied, and corrections of the same rows share."""
    return f"corrections:{entity.value}"


def correct(
    connection: Connection,
    *,
    now: datetime,
    token: Token,
    entity: Entity,
    key: str,
    field: str,
    value: str,
    reason: str,
    void_of: VoidOf,
) -> Correction:
    """Say `value` of this field from the commit on; one in force for it is replaced.

    One act within the limits of the token, or as many as the mailboxes it closes or the enrolments it voids.
    Refuses what is no key, `not-correctable`, `bad-correction`, `reason-missing`, `reason-too-long`,
    `unknown-…`, `wrong-authority`, `nothing-to-correct`, `closing-put-off`, `register-being-applied`,
    `withdrawal-limit-reached`.
    """
    key, value = spelled(entity, key), _checked(entity, field, value)
    check_reason(reason)
    # 1. Nobody else changes the row, and no register is about to.
    shown = _locked(connection, entity, key)[field]
    authority = _competent(connection, token, entity, key)
    # 2. What the register says is remembered by the one in force.
    old = _in_force(connection, entity, key, field)
    now = not_before(present(connection, now), old.made_at if old is not None else None)
    said = shown if old is None else old.register_value
    _check_news(field, value, shown, said)
    if field == "closed_on" and old is not None and value > shown and _of_others(connection, old, token):
        sentence = (
            "Somebody else said this closing day: whoever wants a later one withdraws it, by two persons."
        )
        raise Refusal(Kind.CONFLICT, "closing-put-off", sentence)
    # 3. The old one ends, the new one stands, the row shows it.
    if old is not None:
        _end(connection, old, now=now, actor=token.actor.name, ending="replaced")
    row = {
        "entity": entity.value, "key": key, "field": field, "value": value, "register_value": said,
        "authority": authority, "reason": reason.strip(), "made_by": token.actor.name, "made_at": now,
    }  # fmt: skip
    made = _correction(
        connection.execute(insert(correction).values(row).returning(correction)).mappings().one()
    )
    voided = _show(connection, entity, key, field, value, void_of=void_of)
    # The value and its reason may tell of a person's life: they stay in the record, out of a published log.
    detail = {"correction": made.id, "entity": entity.value, "field": field, "authority": authority}
    detail |= {} if old is None else {"replaces": old.id}
    record(connection, now=now, actor=token.actor, event=Event.CORRECTION_MADE, subject=key, detail=detail)
    charge(connection, token, now=now, number=_taken_from(connection, token, made, voided))
    return made


def _taken_from(connection: Connection, token: Token, made: Correction, voided: int) -> int:
    """From how many it takes trust: each open mailbox of what it closes, each approved enrolment it voids."""
    closed = 0
    if made.field == "closed_on":
        closed = len(store.addresses_resting_on(connection, made.key))
    return _at_most(token, max(1, closed, voided))


def _at_most(token: Token, number: int) -> int:
    """No more than one token may take with a colleague's agreement.

    A large hospital could be neither closed nor given its new name else.
    """
    return min(number, 2 * token.allowance.token)


def withdraw_correction(
    connection: Connection, *, now: datetime, token: Token, correction_id: int, void_of: VoidOf
) -> Correction:
    """Give the field back to the register: it shows what the register said last, from the commit on.

    A closing day that others said takes two persons, as every act that gives trust back. The first one asks,
    and it stands until another agrees within a week. Refuses `unknown-correction`, `correction-ended`,
    `register-being-applied`, `self-approval`, and `withdrawal-limit-reached` where it hides a mailbox, shows
    one that was hidden, or voids enrolments approved under the corrected name.
    """
    change = _by_number(connection, correction_id)
    entity = Entity(change.entity)
    _locked(connection, entity, change.key)
    try:
        _competent(connection, token, entity, change.key)
    except Refusal as refusal:
        # Another body's is not there for it, as a number that nobody made.
        raise _unknown(correction_id) from refusal
    # Read again, now that nobody can end it meanwhile.
    change = _by_number(connection, correction_id)
    if change.ending is not None:
        raise Refusal(Kind.CONFLICT, "correction-ended", f"Correction {correction_id} has ended already.")
    now = not_before(present(connection, now), change.made_at)
    if change.field == "closed_on" and _of_others(connection, change, token):
        asked = dual_control.waiting(connection, correction_withdrawal, change.id, now)
        if asked is None:
            return _ask(connection, change, token, now)
        dual_control.check_is_another(asked, token)
        dual_control.confirm(connection, correction_withdrawal, change.id, token=token, now=now)
    voided = _show(connection, entity, change.key, change.field, change.register_value, void_of=void_of)
    ended = _end(connection, change, now=now, actor=token.actor.name, ending="withdrawn")
    detail = {"correction": change.id, "entity": change.entity, "field": change.field, "ending": "withdrawn"}
    record(
        connection,
        now=now,
        actor=token.actor,
        event=Event.CORRECTION_ENDED,
        subject=change.key,
        detail=detail,
    )
    # The losses by a withdrawal. A mailbox goes on the red list, or off it, which nothing can undo once it
    # was read; a name was vouched for since.
    charge(connection, token, now=now, number=_at_most(token, max(int(change.field == "listed"), voided)))
    return ended


def _of_others(connection: Connection, change: Correction, token: Token) -> bool:
    """Whether anybody else said this field since the register's own value showed last.

    Who replaces another's word does not become its only author.
    """
    asked = {"entity": change.entity, "key": change.key, "field": change.field, "actor": token.actor.name}
    return bool(connection.execute(_OF_OTHERS, asked).scalar_one())


def _ask(connection: Connection, change: Correction, token: Token, now: datetime) -> Correction:
    dual_control.ask(connection, correction_withdrawal, change.id, token=token, reason="", now=now)
    record(
        connection, now=now, actor=token.actor, event=Event.CORRECTION_WITHDRAWAL_ASKED, subject=change.key,
        detail={"correction": change.id, "entity": change.entity, "field": change.field},
    )  # fmt: skip
    return change


def corrections_made(
    connection: Connection,
    *,
    token: Token,
    entity: Entity | None = None,
    key: str | None = None,
    ended: bool = False,
    after: int = 0,
    limit: int = 100,
) -> list[Correction]:
    """The first `limit` corrections that come after number `after`, oldest first, ended ones if asked for.

    A registrar sees those of his authority, everybody else all.
    """
    query = select(correction).where(correction.c.id > after).order_by(correction.c.id).limit(limit)
    if token.role is Role.REGISTRAR:
        query = query.where(correction.c.authority == token.authority)
    if entity is not None:
        query = query.where(correction.c.entity == entity.value)
    if key is not None:
        query = query.where(correction.c.key == (spelled(entity, key) if entity else key))
    if not ended:
        query = query.where(correction.c.ending.is_(None))
    return [_correction(row) for row in connection.execute(query).mappings()]


def marks(connection: Connection, entity: Entity, keys: Sequence[str]) -> dict[str, tuple[Mark, ...]]:
    """The fields corrected of each key, in the order of their names; a key without any is absent."""
    if not keys:
        return {}
    by_key: dict[str, tuple[Mark, ...]] = {}
    for key, *mark in connection.execute(_MARKS, {"entity": entity.value, "keys": list(keys)}):
        by_key[key] = (*by_key.get(key, ()), _shown(Mark(*mark)))
    return by_key


def _shown(mark: Mark) -> Mark:
    """What a register says wrongly may be what nobody outside may read."""
    secrets = privacy.secrets_in(mark.register_value, is_street=mark.field == "street")
    return replace(mark, register_value="") if secrets else mark


def _checked(entity: Entity, field: str, value: str) -> str:
    """The value as the record holds it, by the rules that a register's own cells pass."""
    if field not in CORRECTABLE.get(entity, ()):
        known = {kind.value: sorted(fields) for kind, fields in CORRECTABLE.items()}
        fit = ", ".join(known.get(entity.value, ()))
        sentence = f"{field} of a {entity.value} is not corrected here; these are: {fit}."
        raise Refusal(Kind.MALFORMED, "not-correctable", sentence, correctable=known)
    value = value.strip()
    fits = len(value) <= LONGEST_VALUE and value.isprintable() and "|" not in value
    if field in _SHAPE:
        fits = fits and _SHAPE[field].fullmatch(value) is not None
    if not fits or (field == "closed_on" and not _is_day(value)):
        raise Refusal(Kind.MALFORMED, "bad-correction", f"No register could hold this as {field}.")
    return value


def _is_day(value: str) -> bool:
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return True


def _check_news(field: str, value: str, shown: str, said: str) -> None:
    """A correction says something else than what shows, and than what the register says."""
    if value in (shown, said):
        sentence = "The record shows this already."
        if value != shown:
            sentence = "The register says this itself: withdraw the correction that hides it."
        raise Refusal(Kind.CONFLICT, "nothing-to-correct", sentence)
    # Whoever is closed in FINESS is not opened by one person's word (two give trust back, one takes it).
    if field == "closed_on" and said and value > said:
        sentence = f"FINESS says {said}: a closing day is brought forward here, never put off."
        raise Refusal(Kind.CONFLICT, "closing-put-off", sentence)


def _locked(connection: Connection, entity: Entity, key: str) -> Mapping[str, str]:
    """The row's correctable fields as text; it and its register stay as they are until the commit."""
    if not share_until_commit_if_free(connection, lock_of(entity)):
        sentence = "A register is being applied to these rows: ask again in a minute."
        raise Refusal(Kind.UNAVAILABLE, "register-being-applied", sentence)
    columns = _KEY[entity].table.c
    fields = [func.coalesce(cast(columns[field], Text), "").label(field) for field in CORRECTABLE[entity]]
    row = connection.execute(select(*fields).where(_KEY[entity] == key).with_for_update()).mappings()
    mapping = row.one_or_none()
    if mapping is None:
        code, sentence = _UNKNOWN[entity]
        raise Refusal(Kind.NOT_FOUND, code, sentence.format(key))
    return {**mapping}


def _competent(connection: Connection, token: Token, entity: Entity, key: str) -> str:
    """The authority this token acts for: a registrar's where he is competent, '' of an administrator."""
    if token.role is Role.ADMIN:
        return ""
    if token.role is not Role.REGISTRAR:
        raise Refusal(
            Kind.FORBIDDEN, "wrong-authority", "Registrars and administrators correct what is shown."
        )
    holder = _holder(connection, entity, key)
    person = store.practitioners(connection, [holder]).get(holder) if holder else None
    competent = sorted(registering_authorities(person)) if person is not None else []
    if token.authority not in competent:
        who = ", ".join(competent) or "an administrator"
        sentence = f"{token.authority} may not correct this; {who} may."
        raise Refusal(Kind.FORBIDDEN, "wrong-authority", sentence, authorities=competent)
    return token.authority


def _holder(connection: Connection, entity: Entity, key: str) -> str | None:
    """The person whom it is about; None for an establishment and its mailboxes."""
    if entity is Entity.PRACTITIONER:
        return key
    if entity is Entity.ORGANISATION:
        return None
    query = select(mailbox.c.holder).where(mailbox.c.address == key)
    holder: str | None = connection.execute(query).scalar_one()
    return holder


def _in_force(connection: Connection, entity: Entity, key: str, field: str) -> Correction | None:
    query = select(correction).where(
        correction.c.entity == entity.value,
        correction.c.key == key,
        correction.c.field == field,
        correction.c.ending.is_(None),
    )
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _correction(row)


def _by_number(connection: Connection, correction_id: int) -> Correction:
    query = select(correction).where(correction.c.id == correction_id)
    known = correction_id <= LARGEST_NUMBER
    row = connection.execute(query).mappings().one_or_none() if known else None
    if row is None:
        raise _unknown(correction_id)
    return _correction(row)


def _unknown(correction_id: int) -> Refusal:
    return Refusal(Kind.NOT_FOUND, "unknown-correction", f"There is no correction {correction_id}.")


def _show(
    connection: Connection, entity: Entity, key: str, field: str, value: str, *, void_of: VoidOf
) -> int:
    """Change the row as readers see it; how many approved enrolments that voids.

    Triggers tell the feed and keep its history.
    """
    before = void_of(connection, entity, key)
    column = _KEY[entity]
    values = {field: _as_held(field, value)}
    if field in ("family_name", "given_name"):
        # One update: the history shall hold no instant at which a name and its search form disagree.
        names = {**_names(connection, key), **values}
        values["search_name"] = search_form(f"{names['family_name']} {names['given_name']}")
    connection.execute(update(column.table).where(column == key).values(values))
    return len(void_of(connection, entity, key) - before)


def _names(connection: Connection, national_id: str) -> Mapping[str, Any]:
    query = select(practitioner.c.family_name, practitioner.c.given_name)
    return {**connection.execute(query.where(practitioner.c.national_id == national_id)).mappings().one()}


def _as_held(field: str, value: str) -> str | bool | date | None:
    if field == "listed":
        return value == "true"
    if field == "closed_on":
        return date.fromisoformat(value) if value else None
    return value


def _end(connection: Connection, change: Correction, *, now: datetime, actor: str, ending: str) -> Correction:
    ended = {"ending": ending, "ended_by": actor, "ended_at": now}
    query = update(correction).where(correction.c.id == change.id).values(ended).returning(correction)
    return _correction(connection.execute(query).mappings().one())


def _correction(row: RowMapping) -> Correction:
    return Correction(**row)
