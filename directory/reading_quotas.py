"""How much one caller, and one source address, may read within an hour: the figures, and the count of all.

A reader without a limit has the whole directory. The count of an installation lies in the record. Processes
draw portions from it and spend them by themselves (`api/process/readers.py`), so that a read writes nothing.
A portion counts from when it is drawn; its rest is given back. A token's draws from the quota of its body are
kept under a name of their own (`operator:3/12`). Once the token has ended, it counts no more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, text

from directory.access import Role, Token, actor_of
from directory.base.audit import Event, record
from directory.base.errors import Kind, Refusal
from directory.base.instant import present
from directory.base.locks import lock_all_until_commit
from directory.base.prepared_statement import Statement

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
# For how long who drew a portion may spend it.
PORTION_HOLDS = timedelta(seconds=10)
# What was read in an hour was drawn within it or just before, and is counted under the beginning of a minute.
WINDOW = HOUR + MINUTE + PORTION_HOLDS
# A host whose clock is ahead counts a minute ahead at most. What lies farther ahead was counted under a clock
# that had jumped, and would count for as long as it jumped.
UNEVEN = MINUTE
# A portion is this share of the least quota, and of what is left: who meets the end draws what he asks for.
_OF_QUOTA, _OF_REST = 100, 8
_REGISTRARS_SHARE = 5
CODE = "reading-quota-reached"

_LIVING = """
    living AS (
        SELECT id, CASE role WHEN 'operator' THEN 'operator:' || operator_id
            WHEN 'registrar' THEN 'authority:' || authority END AS body
        FROM api_token WHERE revoked_at IS NULL AND expires_at > :now
        UNION ALL
        -- By his certificate an operator asks as a token without a number.
        SELECT 0, 'operator:' || id FROM operator)
"""
# A body has used what those of its tokens drew that live.
_COUNTED = f"""
    WITH {_LIVING},
    asked AS (SELECT scope FROM unnest(CAST(:scopes AS text[])) AS given (scope)),
    counted (scope, kept) AS (
        SELECT scope, scope FROM asked
        UNION
        SELECT asked.scope, living.body || '/' || living.id
        FROM asked JOIN living ON living.body = split_part(asked.scope, '/', 1))
"""  # noqa: S608 - names of this module
_USED = Statement(f"""
    {_COUNTED}
    SELECT counted.scope, coalesce(sum(u.used), 0), min(u.minute)
    FROM counted
    LEFT JOIN reading_use u
        ON u.reading = :reading AND u.scope = counted.kept AND u.minute > :since AND u.minute <= :until
        AND u.used > 0
    GROUP BY counted.scope ORDER BY array_position(CAST(:scopes AS text[]), counted.scope)
""")  # noqa: S608 - names of this module
_DRAW = Statement("""
    INSERT INTO reading_use (reading, scope, minute, used)
    SELECT :reading, drawn.scope, :minute, drawn.number
    FROM unnest(CAST(:scopes AS text[]), CAST(:numbers AS bigint[])) AS drawn (scope, number)
    ON CONFLICT (reading, scope, minute) DO UPDATE SET used = reading_use.used + excluded.used
    RETURNING scope
""")
_GIVE_BACK = Statement("""
    UPDATE reading_use u SET used = greatest(0, u.used - back.number)
    FROM unnest(CAST(:readings AS text[]), CAST(:scopes AS text[]), CAST(:minutes AS timestamptz[]),
        CAST(:numbers AS bigint[])) AS back (reading, scope, minute, number)
    WHERE u.reading = back.reading AND u.scope = back.scope AND u.minute = back.minute
    RETURNING u.scope
""")
_OLDEST_FIRST = text(f"""
    {_COUNTED}
    SELECT u.minute, u.used FROM reading_use u JOIN counted ON u.scope = counted.kept
    WHERE u.reading = :reading AND u.minute > :since AND u.minute <= :until AND u.used > 0
    ORDER BY u.minute
""")  # noqa: S608 - names of this module
_SHARES = text(f"""
    WITH {_LIVING},
    used AS (
        SELECT reading, scope, sum(used) AS used,
            CASE WHEN scope NOT LIKE 'source%' THEN CAST(substring(scope FROM '[0-9]+$') AS bigint) END AS id
        FROM reading_use WHERE minute > :since AND minute <= :until GROUP BY reading, scope)
    SELECT used.reading,
        CASE WHEN used.scope = living.body || '/' || living.id THEN living.body ELSE used.scope END,
        sum(used.used)
    FROM used LEFT JOIN living
        ON living.id = used.id AND (living.id <> 0 OR used.scope = living.body || '/0')
    WHERE used.scope LIKE 'source%' OR living.id IS NOT NULL
    GROUP BY 1, 2
""")  # noqa: S608 - names of this module
_TELL = text("""
    INSERT INTO reading_alarm (reading, scope, told_at) VALUES (:reading, :scope, :now)
    ON CONFLICT (reading, scope) DO UPDATE SET told_at = :now
    WHERE reading_alarm.told_at <= :since OR reading_alarm.told_at > :until
    RETURNING scope
""")
_FORGET = (
    text("DELETE FROM reading_use WHERE minute <= :since OR minute > :until"),
    text("DELETE FROM reading_alarm WHERE told_at <= :since OR told_at > :until"),
)


class Reading(Enum):
    """What is counted, each by itself; the words stand in `RateLimit-Policy`."""

    SEARCHES = "searches"
    ADDRESSES = "addresses"
    NUMBERS = "numbers"
    FEEDS = "feeds"
    DOWNLOADS = "downloads"

    # There is one of each. An enumeration's own hash is Python's, and each read looks a dozen up.
    __hash__ = object.__hash__


@dataclass(frozen=True)
class ReadingQuotas:
    """What an operator may read in an hour.

    One of several tokens of his may have half of it, and a registrar a fifth. All of one authority together
    may have `authority_times` as much as a registrar, and a source address `source_times` as much as an
    operator. 0 is for any number.
    """

    searches: int = 1_000
    addresses: int = 200_000
    numbers: int = 10_000
    feeds: int = 40_000
    downloads: int = 1_000
    authority_times: int = 20
    source_times: int = 5

    def __post_init__(self) -> None:
        """Refuse what would let nobody read, or one caller use up the quota of his source."""
        if any(getattr(self, reading.value) < 1 for reading in Reading):
            raise ValueError("a quota is above zero")
        if self.authority_times not in range(2, 1001) and self.authority_times != 0:
            raise ValueError("an authority may read between 2 and 1000 times as much as a registrar, or 0")
        if self.source_times not in range(2, 1001) and self.source_times != 0:
            raise ValueError("a source may read between 2 and 1000 times as much as an operator, or 0")

    def of(self, reading: Reading, scope: str) -> int:
        """The quota of a scope, by the word that it begins with."""
        of_operator = int(getattr(self, reading.value))
        match scope.partition(":")[0]:
            case "share":
                # Rounded up, so that a token has one.
                return (of_operator + 1) // 2
            case "registrar":
                return max(1, of_operator // _REGISTRARS_SHARE)
            case "authority":
                return max(1, of_operator // _REGISTRARS_SHARE) * self.authority_times
            case "source":
                return of_operator * self.source_times
            case _:
                return of_operator


@dataclass(frozen=True)
class Portion:
    """A number drawn from the quota of a scope; `rest` was left to others then, `oldest` counts longest."""

    reading: Reading
    scope: str
    minute: datetime
    number: int
    rest: int
    oldest: datetime


@dataclass(frozen=True)
class Reached:
    """A scope that has too little left for `asked`; `opens_at` is None when its whole quota is less."""

    reading: Reading
    scope: str
    asked: int
    limit: int
    left: int
    opens_at: datetime | None

    def refusal(self, now: datetime) -> Refusal:
        """Refusal TOO_MANY `reading-quota-reached`: what is left and, where it helps to wait, until when."""
        who = _WHOSE[self.scope.partition(":")[0]]
        words = _WORDS[self.reading]
        details: dict[str, Any] = {
            "policy": f"{self.reading.value}-{policy_of(self.scope)}", "asked": self.asked,
            "limit": self.limit, "left": self.left,
        }  # fmt: skip
        if self.opens_at is None:
            when = "this asks for more than that at once"
        else:
            seconds = max(1, int((self.opens_at - now).total_seconds()) + 1)
            details |= {"opens_at": self.opens_at.isoformat(), "retry_after": seconds}
            when = f"this asks for {self.asked}, to be had from {self.opens_at:%Y-%m-%d %H:%M:%S} UTC"
        text_ = f"{who} may have {self.limit} {words} within an hour. {self.left} are left; {when}."
        return Refusal(Kind.TOO_MANY, "reading-quota-reached", text_, **details)


_WHOSE = {
    "share": "This token",
    "registrar": "This token",
    "token": "This token",
    "operator": "All tokens of this operator",
    "authority": "All tokens of this authority",
    "source": "This source address",
}
_WORDS = {
    Reading.SEARCHES: "pages of searches and lists",
    Reading.ADDRESSES: "checked addresses",
    Reading.NUMBERS: "answers by number",
    Reading.FEEDS: "pages of the feed",
    Reading.DOWNLOADS: "answers about exports",
}


def scopes_of(token: Token, source: str, quotas: ReadingQuotas) -> tuple[str, ...]:
    """Under which names a read is counted: who asks, with his body, and from where.

    Tokens of one operator are one, or another token would buy another quota. Yet none has it all, or one that
    was stolen would stop the others.
    """
    match token.role:
        case Role.REGISTRAR:
            who = [f"registrar:{token.id}"]
            if quotas.authority_times:
                who.append(f"authority:{token.authority}/{token.id}")
        case Role.OPERATOR if token.operator_id is not None:
            who = [f"share:{token.id}"] if token.is_one_of_several else []
            who.append(f"operator:{token.operator_id}/{token.id}")
        case Role.OPERATOR | Role.AUDITOR | Role.ADMIN:
            who = [f"token:{token.id}"]
    return (*who, f"source:{source}") if quotas.source_times else tuple(who)


def policy_of(scope: str) -> str:
    """The kind of scope in one word, for headers: a registrar's quota, or a share, is that of a token."""
    kind = scope.partition(":")[0]
    return "token" if kind in {"registrar", "share"} else kind


def whose(scope: str) -> str:
    """Whose quota it is: of a body's, without the token that draws from it."""
    is_of_body = scope.startswith(("operator:", "authority:"))
    return scope.partition("/")[0] if is_of_body else scope


def draw(
    connection: Connection,
    quotas: ReadingQuotas,
    reading: Reading,
    scopes: Sequence[str],
    *,
    number: int,
    now: datetime,
    unspent: Sequence[Portion] = (),
) -> list[Portion] | Reached:
    """A portion of `number` or more for each scope, or whose quota has too little left: then none is drawn.

    What is `unspent` of the portions before, of the same scopes, is given back first. Who draws for the same
    scope waits for the commit of the other, so that no number of processes goes beyond.
    """
    lock_all_until_commit(connection, [_lock(reading, scope) for scope in scopes])
    _count_no_more(connection, unspent)
    now = present(connection, now)
    minute = _minute(now)
    asked = {"reading": reading.value, "scopes": list(scopes), **_window(now), "now": now}
    least = min(quotas.of(reading, scope) for scope in scopes)
    portions = []
    for scope, used, oldest in _USED.rows(connection, asked):
        limit = quotas.of(reading, scope)
        size = portion(limit - int(used), number, usual=least // _OF_QUOTA)
        if not size:
            return _reached(connection, reading, scope, limit=limit, used=int(used), number=number, now=now)
        rest = limit - int(used) - size
        portions.append(Portion(reading, scope, minute, size, rest, _utc(oldest or minute)))
    drawn = {
        "reading": reading.value,
        "minute": minute,
        "scopes": [drawn_portion.scope for drawn_portion in portions],
        "numbers": [drawn_portion.number for drawn_portion in portions],
    }
    _DRAW.rows(connection, drawn)
    return portions


def portion(left: int, number: int, *, usual: int) -> int:
    """How much to draw where `number` is asked for; 0 when less is left."""
    return 0 if number > left else max(number, min(usual, left // _OF_REST))


def give_back(connection: Connection, unspent: Sequence[Portion]) -> None:
    """Count what is left of portions no more."""
    lock_all_until_commit(
        connection, [_lock(drawn_portion.reading, drawn_portion.scope) for drawn_portion in unspent]
    )
    _count_no_more(connection, unspent)


def tell(connection: Connection, reached: Reached, token: Token, now: datetime) -> bool:
    """Write into the log that a quota was reached, once for each scope and hour; whether it was written.

    The log is kept for ever and an address may be a person's: a source is not named in it.
    """
    now = present(connection, now)
    asked = {
        "reading": reached.reading.value,
        "scope": whose(reached.scope),
        "now": now,
        "since": now - HOUR,
        "until": now + UNEVEN,
    }
    if connection.execute(_TELL, asked).one_or_none() is None:
        return False
    subject = "source" if reached.scope.startswith("source:") else _in_the_log(whose(reached.scope))
    detail = {"reading": reached.reading.value, "limit": reached.limit, "asked": reached.asked}
    record(
        connection, now=now, actor=token.actor, event=Event.READING_QUOTA_REACHED, subject=subject,
        detail=detail,
    )  # fmt: skip
    return True


def shares(connection: Connection, quotas: ReadingQuotas, now: datetime) -> Mapping[tuple[str, str], float]:
    """For each reading and kind of scope the largest share of a quota in use; names nobody."""
    kinds = ("token", "operator", "authority", "source")
    largest = {(reading.value, kind): 0.0 for reading in Reading for kind in kinds}
    for word, scope, used in connection.execute(_SHARES, {**_window(now), "now": now}):
        limit = quotas.of(Reading(word), scope)
        if limit:
            key = (word, policy_of(scope))
            largest[key] = max(largest[key], int(used) / limit)
    return MappingProxyType(largest)


def forget(connection: Connection, now: datetime) -> int:
    """Drop what counts no more, source addresses with it, and what lies ahead; how many rows."""
    return sum(connection.execute(query, _window(now)).rowcount for query in _FORGET)


def _reached(
    connection: Connection, reading: Reading, scope: str, *, limit: int, used: int, number: int, now: datetime
) -> Reached:
    opens_at = None
    if number <= limit:
        # More than the limit may be used where it was larger before.
        opens_at = _opens_at(connection, reading, scope, number - (limit - used), now)
    return Reached(reading, scope, number, limit, max(0, limit - used), opens_at)


def _opens_at(
    connection: Connection, reading: Reading, scope: str, lacking: int, now: datetime
) -> datetime | None:
    asked = {"reading": reading.value, "scopes": [scope], **_window(now), "now": now}
    for minute, used in connection.execute(_OLDEST_FIRST, asked):
        lacking -= used
        if lacking <= 0:
            return _utc(minute) + WINDOW
    return None


def _count_no_more(connection: Connection, unspent: Sequence[Portion]) -> None:
    if not unspent:
        return
    columns = {
        "readings": [drawn_portion.reading.value for drawn_portion in unspent],
        "scopes": [drawn_portion.scope for drawn_portion in unspent],
        "minutes": [drawn_portion.minute for drawn_portion in unspent],
        "numbers": [drawn_portion.number for drawn_portion in unspent],
    }
    _GIVE_BACK.rows(connection, columns)


def _lock(reading: Reading, scope: str) -> str:
    return f"reading:{reading.value}:{whose(scope)}"


def _in_the_log(scope: str) -> str:
    kind, _, number = scope.partition(":")
    return actor_of(int(number)).name if kind in {"registrar", "share", "token"} else scope


def _window(now: datetime) -> dict[str, datetime]:
    return {"since": now - WINDOW, "until": now + UNEVEN}


def _minute(now: datetime) -> datetime:
    return now.replace(second=0, microsecond=0)


def _utc(instant: datetime) -> datetime:
    # psycopg gives instants in the zone of the session.
    return instant.astimezone(UTC)
