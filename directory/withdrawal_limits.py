"""How much trust one token, and its body, may take away within an hour before a second person agrees.

A stolen token must not empty a country's directory alone. Every road that takes trust away by a token's word
charges here, last in its own transaction. The window rolls: no burst at the turn of an hour. Which acts count
is said by who charges; jobs, and whoever proves a key, do not.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from sqlalchemy import Connection, Engine, text

from directory import attention
from directory.access import Allowance, Role, Token, actor_of, colleague_of
from directory.attention import Concern, Matter
from directory.base.audit import Actor, Event, record
from directory.base.comments import check_reason
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.base.instant import present
from directory.base.locks import lock_all_until_commit
from directory.base.prepared_statement import Statement

WINDOW = timedelta(hours=1)
# Beyond the window a row says nothing that the log does not say.
_KEPT = timedelta(days=1)
_ACTOR = Actor("job:withdrawal-limits")
_CODE = "withdrawal-limit-reached"
ADMINISTRATORS = "administrators"

# Rows dated a little after `now` count: a host whose clock is behind must not overlook what the others did.
# What lies farther ahead was dated by a clock that had jumped, and would count for as long as it jumped.
_UNEVEN = timedelta(minutes=1)
_STANDING = """
    SELECT asked.scope,
        (SELECT coalesce(sum(u.used), 0) FROM withdrawal_use u
         WHERE u.scope = asked.scope AND u.at > :since AND u.at <= :until),
        (SELECT coalesce(sum(a.number), 0) FROM withdrawal_agreement a
         WHERE asked.scope = ANY(a.scopes) AND a.agreed_at > :since AND a.agreed_at <= :until)
    FROM unnest(CAST(:scopes AS text[])) WITH ORDINALITY AS asked (scope, place)
"""
_SEEN = Statement(f"{_STANDING} ORDER BY asked.place")
_CHARGE = Statement(f"""
    WITH charged AS (
        INSERT INTO withdrawal_use (scope, at, used)
        SELECT unnest(CAST(:scopes AS text[])), CAST(:now AS timestamptz), CAST(:number AS integer))
    {_STANDING} ORDER BY asked.place
""")
# Without the newest row, which is the refused act's own: no other of the scope came after it.
_OLDEST_FIRST = text("""
    SELECT at, used FROM withdrawal_use
    WHERE scope = :scope AND at > :since AND at <= :until
        AND id < (SELECT max(id) FROM withdrawal_use WHERE scope = :scope)
    ORDER BY at, id
""")
_AGREE = text("""
    INSERT INTO withdrawal_agreement (token_id, scopes, number, agreed_by, reason, agreed_at)
    VALUES (:token_id, :scopes, :number, :agreed_by, :reason, :now)
""")
_TELL = text("""
    INSERT INTO withdrawal_alarm (scope, told_at) VALUES (:scope, :now)
    ON CONFLICT (scope) DO UPDATE SET told_at = :now WHERE withdrawal_alarm.told_at <= :since
        OR withdrawal_alarm.told_at > :until
    RETURNING scope
""")
_IN_WINDOW = text(
    "SELECT DISTINCT scope FROM withdrawal_use WHERE at > :since AND at <= :until ORDER BY scope"
)
_COLLEAGUES = text(
    "SELECT id FROM api_token WHERE role = :role AND authority = :authority"
    " AND operator_id IS NOT DISTINCT FROM CAST(:operator_id AS bigint)"
)
_OPEN = text("SELECT subject FROM attention WHERE kind = :kind AND resolved_at IS NULL ORDER BY subject")
_FORGET = text("DELETE FROM withdrawal_use WHERE at < :before")
_REDATE = text("UPDATE withdrawal_use SET at = :now WHERE at > :until")


@dataclass(frozen=True)
class LimitUse:
    """What a scope (`token:12`, `authority:CNOM`, `operator:3`, `administrators`) has used of its hour.

    `limit` is its own, `agreed` what second persons opened beside it.
    """

    scope: str
    used: int
    limit: int
    agreed: int

    @property
    def left(self) -> int:
        """How many more may go in this hour."""
        return max(0, self.limit + self.agreed - self.used)

    @property
    def is_half_used(self) -> bool:
        """Whether somebody should look; agreements do not put it off."""
        return 2 * self.used >= self.limit


@dataclass(frozen=True)
class Agreement:
    """One more allotment, opened by a second person for one token until an instant."""

    token: int
    scopes: tuple[str, ...]
    number: int
    agreed_by: str
    agreed_at: datetime
    until: datetime


def charge(connection: Connection, token: Token, *, now: datetime, number: int = 1) -> None:
    """Count acts that take trust from `number` subjects; call it last before the commit.

    Whoever charges the same body waits for the commit of the other, so that no number of parallel requests or
    processes goes beyond. Refuses `withdrawal-limit-reached`, with `scope`, `limit`, `token` and, unless the
    act is larger than an hour's limit, `opens_at` and `retry_after` (s).
    """
    if number < 1:
        return
    limits = _limits(token)
    _hold(connection, limits)
    now = present(connection, now)
    asked = {"scopes": list(limits), **_window(now), "now": now, "number": number}
    for scope, used, agreed in _CHARGE.rows(connection, asked):
        standing = LimitUse(scope, int(used) + number, limits[scope], int(agreed))
        if standing.used > standing.limit + standing.agreed:
            raise _reached(connection, token, standing, now=now, number=number)
        if standing.is_half_used:
            _open_matter(connection, token, standing, now)


@contextmanager
def audit_limit_refusals(engine: Engine, now: datetime) -> Iterator[None]:
    """See that a limit reached inside is written into the log: the transaction that met it is undone.

    Once for each scope and window, or a burst would fill the log as well.
    """
    try:
        yield
    except Refusal as refusal:
        if refusal.code == _CODE:
            _tell(engine, refusal, now)
        raise


def agree(connection: Connection, *, now: datetime, token: Token, token_id: int, reason: str) -> Agreement:
    """Open one more allotment to a colleague's token, for an hour, beside its own limit and its body's.

    Refuses `role-lacking` to auditors, `unknown-token` for a token that is no live one of the same body,
    `self-approval`, `reason-missing`, `reason-too-long`. Refuses `allotment-open` while more than one
    allotment is unused.
    """
    check_reason(reason)
    body = _body(token)
    other = colleague_of(connection, token, token_id, now)
    if other.id == token.id:
        text_ = "Somebody else of the same body agrees, not the token that has reached its limit."
        raise Refusal(Kind.FORBIDDEN, "self-approval", text_)
    scopes = (_scope_of(other.id), body)
    _hold(connection, scopes)
    now = present(connection, now)
    number = token.allowance.token
    left = min(use.left for use in _standings(connection, token.allowance, scopes, now))
    if left > number:
        text_ = f"{left} acts are left to this token already: agree again when they are used."
        raise Refusal(Kind.CONFLICT, "allotment-open", text_, left=left)
    row = {
        "token_id": other.id,
        "scopes": list(scopes),
        "number": number,
        "agreed_by": token.id,
        "reason": reason.strip(),
        "now": now,
    }
    connection.execute(_AGREE, row)
    until = now + WINDOW
    detail = {"body": body, "number": number, "until": until.isoformat()}
    record(
        connection,
        now=now,
        actor=token.actor,
        event=Event.WITHDRAWALS_AGREED,
        subject=scopes[0],
        detail=detail,
    )
    return Agreement(other.id, scopes, number, token.actor.name, now, until)


def standings_seen(connection: Connection, *, token: Token, now: datetime) -> list[LimitUse]:
    """What was used within the hour: by a body and its tokens for its own people, by all for auditors and
    administrators.
    """
    scopes = list(connection.execute(_IN_WINDOW, _window(now)).scalars())
    if token.role not in {Role.ADMIN, Role.AUDITOR}:
        asked = {"role": token.role.value, "authority": token.authority, "operator_id": token.operator_id}
        own = {_scope_of(number) for number in connection.execute(_COLLEAGUES, asked).scalars()}
        scopes = [scope for scope in scopes if scope in {*own, _body(token)}]
    return _standings(connection, token.allowance, scopes, now)


def shares(connection: Connection, allowance: Allowance, now: datetime) -> Mapping[str, float]:
    """For each kind of scope the largest share of a limit used within the hour; names nobody."""
    kinds = dict.fromkeys(("token", "authority", "operator", ADMINISTRATORS), 0.0)
    scopes = list(connection.execute(_IN_WINDOW, _window(now)).scalars())
    for use in _standings(connection, allowance, scopes, now):
        kind = use.scope.partition(":")[0]
        kinds[kind] = max(kinds[kind], use.used / use.limit)
    return MappingProxyType(kinds)


def close_matters(connection: Connection, allowance: Allowance, now: datetime) -> int:
    """Close the matters whose hour has passed, forget old rows; how many were closed."""
    connection.execute(_FORGET, {"before": now - _KEPT})
    concern = Concern.WITHDRAWALS_HALF_USED
    noted = list(connection.execute(_OPEN, {"kind": concern.value}).scalars())
    # Nobody may use up the other half between the look and the closing.
    _hold(connection, noted)
    now = present(connection, now)
    gone = [use.scope for use in _standings(connection, allowance, noted, now) if not use.is_half_used]
    attention.keep(connection, concern, [], among=gone, now=now, actor=_ACTOR)
    return len(gone)


def redate(connection: Connection, now: datetime) -> None:
    """Count what a clock that had jumped ahead dated as used now, lest it count once that day comes."""
    connection.execute(_REDATE, {"now": now, "until": now + _UNEVEN})


def _window(now: datetime) -> dict[str, datetime]:
    return {"since": now - WINDOW, "until": now + _UNEVEN}


def _body(token: Token) -> str:
    match token.role:
        case Role.REGISTRAR:
            return f"authority:{token.authority}"
        case Role.OPERATOR:
            return f"operator:{token.operator_id}"
        case Role.ADMIN:
            return ADMINISTRATORS
        case Role.AUDITOR:
            roles = sorted(role.value for role in Role if role is not Role.AUDITOR)
            raise Refusal(Kind.FORBIDDEN, "role-lacking", "An auditor takes trust from nobody.", roles=roles)


def _scope_of(token_id: int) -> str:
    return actor_of(token_id).name


def _limits(token: Token) -> dict[str, int]:
    return {scope: _limit(token.allowance, scope) for scope in (_scope_of(token.id), _body(token))}


def _limit(allowance: Allowance, scope: str) -> int:
    return allowance.token if scope.startswith("token:") else allowance.authority


def _hold(connection: Connection, scopes: Sequence[str] | Mapping[str, int]) -> None:
    lock_all_until_commit(connection, [f"withdrawals:{scope}" for scope in scopes])


def _standings(
    connection: Connection, allowance: Allowance, scopes: Sequence[str], now: datetime
) -> list[LimitUse]:
    rows = _SEEN.rows(connection, {"scopes": list(scopes), **_window(now)})
    return [LimitUse(scope, int(used), _limit(allowance, scope), int(agreed)) for scope, used, agreed in rows]


def _open_matter(connection: Connection, token: Token, standing: LimitUse, now: datetime) -> None:
    authorities = [token.authority] if token.role is Role.REGISTRAR else []
    # The same until it closes, so that what follows writes nothing more.
    detail = {"limit": standing.limit, "within_minutes": WINDOW // timedelta(minutes=1)}
    matter = Matter(standing.scope, authorities, detail)
    attention.keep(
        connection, Concern.WITHDRAWALS_HALF_USED, [matter], among=[standing.scope], now=now,
        actor=token.actor,
    )  # fmt: skip


def _reached(
    connection: Connection, token: Token, standing: LimitUse, *, now: datetime, number: int
) -> Refusal:
    whose = "This token" if standing.scope.startswith("token:") else "All tokens of this body"
    opens_at = _opens_at(connection, standing, now=now, number=number)
    when = "not in one act" if opens_at is None else f"alone from {opens_at:%Y-%m-%d %H:%M} UTC"
    text_ = (
        f"{whose} may take trust from {standing.limit} within an hour: {when}, or as soon as a second person"
        " of the same body agrees."
    )
    details = {"scope": standing.scope, "limit": standing.limit, "token": token.id}
    if opens_at is not None:
        seconds = int((opens_at - now).total_seconds()) + 1
        details |= {"opens_at": opens_at.isoformat(), "retry_after": max(1, seconds)}
    return Refusal(Kind.TOO_MANY, "withdrawal-limit-reached", text_, **details)


def _opens_at(connection: Connection, standing: LimitUse, *, now: datetime, number: int) -> datetime | None:
    """From when on this act fits without anybody's agreement; None when it is larger than the limit."""
    if number > standing.limit:
        return None
    excess = standing.used - standing.limit
    at: datetime
    for at, used in connection.execute(_OLDEST_FIRST, {"scope": standing.scope, **_window(now)}):
        excess -= used
        if excess <= 0:
            return at.astimezone(UTC) + WINDOW
    return None


def _tell(engine: Engine, refusal: Refusal, now: datetime) -> None:
    scope = refusal.details["scope"]
    with transaction(engine) as connection:
        now = present(connection, now)
        asked = {"scope": scope, "now": now, **_window(now)}
        if connection.execute(_TELL, asked).one_or_none() is None:
            return
        detail = {name: refusal.details[name] for name in ("limit", "opens_at") if name in refusal.details}
        record(
            connection, now=now, actor=actor_of(refusal.details["token"]),
            event=Event.WITHDRAWAL_LIMIT_REACHED, subject=scope, detail=detail,
        )  # fmt: skip
