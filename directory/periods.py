"""From when until when a measure holds: days and instants as people give them, to those that count. Pure.

A day is a day of Paris: it begins at its midnight there and ends at the next one. So the day on which the
clocks change has 23 or 25 hours. `until` as a day is the last day; as an instant, the first one free.
"""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from directory.base.errors import Kind, Refusal
from directory.rules import FRANCE

Moment = date | datetime
# A suspension by law lasts some years at most; what lasts longer is given no end, and lifted.
FARTHEST = timedelta(days=3660)
_DAY = timedelta(days=1)
_A_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_AN_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


@dataclass(frozen=True)
class Period:
    """From `starts_at` on, before `ends_at`; None is until further notice."""

    starts_at: datetime
    ends_at: datetime | None = None


def read(text: str) -> Moment:
    """A day (2027-03-31) or an instant with its offset (2027-03-31T18:00:00Z); refuses `bad-moment`."""
    try:
        return date.fromisoformat(text) if _A_DAY.fullmatch(text) else _instant(text)
    except (ValueError, OverflowError) as error:
        told = "Give a day (2027-03-31) or an instant with its offset (2027-03-31T18:00:00+02:00)."
        raise Refusal(Kind.MALFORMED, "bad-moment", told) from error


def beginning(begins: Moment | None, now: datetime) -> datetime:
    """When it begins: now where nothing else is said or the day is today.

    Refuses `begins-in-the-past`: what was known yesterday is not rewritten today. Refuses `too-far-ahead`.
    """
    if begins is None or (not isinstance(begins, datetime) and begins == now.astimezone(FRANCE).date()):
        return now
    _check_near(begins, now)
    starts_at = begins if isinstance(begins, datetime) else _midnight(begins)
    if starts_at < now:
        text = "A measure begins now or later: what was true before stays as it was known."
        raise Refusal(Kind.UNACCEPTABLE, "begins-in-the-past", text)
    return starts_at


def end(until: Moment, period: Period, now: datetime) -> datetime:
    """When it ends.

    Refuses `ends-too-early` unless that is after its beginning and after now, and `too-far-ahead`.
    """
    _check_near(until, now)
    ends_at = ending(until)
    if ends_at <= max(now, period.starts_at):
        text = "A measure ends after it begins, and after now: lift one that is to end at once."
        raise Refusal(Kind.UNACCEPTABLE, "ends-too-early", text)
    return ends_at


def ending(until: Moment) -> datetime:
    """The instant that a last day, or an instant, names; whether anything may end then is for `end`."""
    if isinstance(until, datetime):
        return until
    # Beyond any end that there is: the calendar's last day has none after it.
    return _midnight(min(until, date(9000, 1, 1)) + _DAY)


def period(begins: Moment | None, until: Moment | None, now: datetime) -> Period:
    """Both at once; refuses what `beginning` and `end` refuse."""
    opened = Period(beginning(begins, now))
    return opened if until is None else Period(opened.starts_at, end(until, opened, now))


def covers(known: Period, asked: Period) -> bool:
    """Whether what is asked would add nothing to what is known."""
    if known.starts_at > asked.starts_at:
        return False
    return known.ends_at is None or (asked.ends_at is not None and asked.ends_at <= known.ends_at)


def _check_near(moment: Moment, now: datetime) -> None:
    if moment.year > (now + FARTHEST).year:
        text = f"This is more than {FARTHEST.days // 366} years ahead: leave the end open instead."
        raise Refusal(Kind.UNACCEPTABLE, "too-far-ahead", text)


def _midnight(day: date) -> datetime:
    # Any day long past is as good: the calendar's first has no midnight before it in UTC.
    day = max(day, date(2000, 1, 1))
    return datetime.combine(day, time(), FRANCE).astimezone(UTC)


def _instant(text: str) -> datetime:
    if not _AN_INSTANT.fullmatch(text):
        raise ValueError("an instant has a time and an offset")
    instant = datetime.fromisoformat(text.upper())
    # To the second, as certificates, CRLs and OCSP count.
    return instant.astimezone(UTC).replace(microsecond=0)
