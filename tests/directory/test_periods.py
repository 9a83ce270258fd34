"""Days and instants of measures: days are of Paris, whatever its clocks do; nonsense is refused in words."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from directory import periods
from directory.base.errors import Refusal
from directory.periods import Moment, Period
from directory.rules import FRANCE

NOW = datetime(2026, 11, 29, 23, 30, tzinfo=UTC)  # In Paris it is the 30th already.


def utc(*at: int) -> datetime:
    return datetime(*at, tzinfo=UTC)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("begins", "until", "starts_at", "ends_at"),
    [
        # The clocks go forward on 28 March 2027: the day has 23 hours.
        (date(2027, 3, 28), date(2027, 3, 28), utc(2027, 3, 27, 23), utc(2027, 3, 28, 22)),
        # They go back on 31 October 2027: it has 25.
        (date(2027, 10, 31), date(2027, 10, 31), utc(2027, 10, 30, 22), utc(2027, 10, 31, 23)),
        (date(2027, 1, 1), date(2027, 3, 31), utc(2026, 12, 31, 23), utc(2027, 3, 31, 22)),
        (date(2026, 11, 30), date(2026, 11, 30), NOW, utc(2026, 11, 30, 23)),
        (None, date(2026, 11, 30), NOW, utc(2026, 11, 30, 23)),
        (None, None, NOW, None),
        (utc(2027, 1, 1, 8), utc(2027, 1, 1, 8, 0, 1), utc(2027, 1, 1, 8), utc(2027, 1, 1, 8, 0, 1)),
        (NOW, None, NOW, None),
    ],
    ids=["23 hours", "25 hours", "three months", "today", "until today", "until lifted", "one second", "now"],
)
def test_a_period_is_what_its_days_and_instants_say(
    begins: Moment | None, until: Moment | None, starts_at: datetime, ends_at: datetime | None
) -> None:
    assert periods.period(begins, until, NOW) == Period(starts_at, ends_at)


@pytest.mark.parametrize(
    ("begins", "until", "code"),
    [
        (date(2026, 11, 29), None, "begins-in-the-past"),
        (NOW - timedelta(seconds=1), None, "begins-in-the-past"),
        (date(1, 1, 1), None, "begins-in-the-past"),
        (None, date(2026, 11, 29), "ends-too-early"),
        (None, date(1, 1, 1), "ends-too-early"),
        (None, NOW, "ends-too-early"),
        (date(2027, 2, 1), date(2027, 1, 31), "ends-too-early"),
        (utc(2027, 2, 1), utc(2027, 2, 1), "ends-too-early"),
        (date(9999, 12, 31), None, "too-far-ahead"),
        (None, date(9999, 12, 31), "too-far-ahead"),
        (None, utc(9999, 12, 31, 23, 59, 59), "too-far-ahead"),
    ],
)
def test_a_period_that_cannot_be_is_refused(begins: Moment | None, until: Moment | None, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        periods.period(begins, until, NOW)
    assert refused.value.code == code


@given(st.dates(date(2026, 12, 1), date(2036, 11, 1)))
def test_a_day_is_the_whole_day_in_paris_and_nothing_of_another(day: date) -> None:
    found = periods.period(day, day, NOW)
    assert found.ends_at is not None
    last = found.ends_at - timedelta(microseconds=1)
    assert {found.starts_at.astimezone(FRANCE).date(), last.astimezone(FRANCE).date()} == {day}
    assert found.ends_at.astimezone(FRANCE).date() == day + timedelta(days=1)
    assert (found.starts_at - timedelta(microseconds=1)).astimezone(FRANCE).date() == day - timedelta(days=1)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("2027-03-31", date(2027, 3, 31)),
        ("2027-03-31T18:00:00+02:00", utc(2027, 3, 31, 16)),
        ("2027-03-31t18:00:00.9z", utc(2027, 3, 31, 18)),
    ],
)
def test_a_day_or_an_instant_is_read(text: str, read: Moment) -> None:
    found = periods.read(text)
    assert (type(found), found) == (type(read), read)


@pytest.mark.parametrize(
    "text",
    ["", "31/03/2027", "2027-02-29", "2027-W13-3", "20270331", "2027-03-31T18:00:00", "2027-03-31 18:00:00Z",
     "2027-03-31T18:00Z", "2027-03-31T25:00:00Z", "9999-12-31T23:59:59-23:59", "tomorrow", "2027-03-31Z"],
)  # fmt: skip
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        periods.read(text)
    assert refused.value.code == "bad-moment"


@pytest.mark.parametrize(
    ("known", "asked", "covered"),
    [
        ((1, None), (1, None), True),
        ((1, None), (5, 9), True),
        ((1, 9), (1, 9), True),
        ((1, 9), (2, 9), True),
        ((2, 9), (1, 9), False),
        ((1, 9), (2, 10), False),
        ((1, 9), (2, None), False),
    ],
)
def test_one_period_covers_another_when_nothing_is_added(
    known: tuple[int, int | None], asked: tuple[int, int | None], *, covered: bool
) -> None:
    def made(days: tuple[int, int | None]) -> Period:
        first, last = days
        return Period(utc(2027, 1, first), None if last is None else utc(2027, 1, last))

    assert periods.covers(made(known), made(asked)) is covered
