"""The bounds: each at, below and above; what an operator may change; more never needs fewer persons."""

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from directory.base.errors import Refusal
from directory.sync.runs.bounds import NEVER, Bound, Judgement, LastRun, RegisterBounds, judge, load_bounds

NOW = datetime(2026, 9, 2, 3, tzinfo=UTC)
NIGHT = timedelta(days=1)
MANY = 1_000_000
LOADED = load_bounds()
EVERY = [(register, bound) for register, of in LOADED.items() for bound in of.bounds]
NAMES = [f"{register}:{bound.name}" for register, bound in EVERY]
# Floors of these are met by the file's own rows.
MEASURED_BY_ROWS = {"rows-fewer", "rows-more", "rejections", "rejections-more"}
EARLY_AND_SMALL = LastRun(NOW - NIGHT, {"lines": 1, "rejected": 0}, "x-56")
UNCLEAN = LastRun(NOW - NIGHT, {"lines": MANY, "rejected": MANY}, "x-56")
EARLY = LastRun(NOW - NIGHT, {"lines": MANY, "rejected": 0}, "x-56")


@dataclass(frozen=True)
class Told:
    """What a night's counts are when `bound` alone counts anything."""

    counts: dict[str, int]
    measures: dict[str, float]
    last: LastRun
    generated_at: datetime
    layout: str = "x-56"
    by_the_minute: bool = False


def quiet(bounds: RegisterBounds) -> Told:
    """A night on which nothing happened to a register of a million of everything."""
    measures = {b.count: 0.0 for b in bounds.bounds} | {
        b.whole: float(MANY) for b in bounds.bounds if b.whole
    }
    return Told({"lines": MANY, "rejected": 0}, measures, EARLY, NOW - timedelta(hours=1))


def told(bounds: RegisterBounds, bound: Bound, count: float) -> Told:
    """The quiet night but for one count."""
    calm, number = quiet(bounds), round(count)
    special: dict[str, dict[str, object]] = {
        "hours-ahead": {"generated_at": NOW + timedelta(hours=count)},
        "hours-ahead-by-the-minute": {
            "generated_at": NOW + timedelta(hours=count),
            "by_the_minute": True,
        },
        "columns-fewer": {"layout": f"x-{56 - number}"},
        "rows-fewer": {"counts": calm.counts | {"lines": MANY - number}},
        "rows-more": {"counts": calm.counts | {"lines": MANY + number}},
        "rejections-more": {"counts": calm.counts | {"rejected": number}},
        "rejections": {"counts": calm.counts | {"rejected": number}, "last": UNCLEAN},
    }
    return replace(calm, **special.get(bound.count, {"measures": calm.measures | {bound.count: count}}))


def needed(bounds: RegisterBounds, night: Told) -> float:
    """How many persons; NEVER when nobody may."""
    try:
        return asked(bounds, night).needed
    except Refusal:
        return NEVER


def asked(bounds: RegisterBounds, night: Told) -> Judgement:
    return judge(
        bounds, counts=night.counts, measures=night.measures, last=night.last, now=NOW,
        generated_at=night.generated_at, layout=night.layout, by_the_minute=night.by_the_minute,
    )  # fmt: skip


def test_every_register_has_bounds_and_a_quiet_night_needs_nobody() -> None:
    assert set(LOADED) == {"rpps", "finess", "mailboxes", "trusted-domains"}
    for bounds in LOADED.values():
        assert asked(bounds, quiet(bounds)) == Judgement(0)


LEVELS = [
    pytest.param(register, bound, level, above, id=f"{register}:{bound.name}:{above}")
    for register, bound in EVERY
    for level, above in {bound.one: 1, bound.two: 2, bound.refuse: NEVER}.items()
    if level != NEVER
]


@pytest.mark.parametrize(("register", "bound", "level", "above"), LEVELS)
def test_each_bound_lets_through_what_is_at_it_and_stops_what_is_above(
    register: str, bound: Bound, level: float, above: float
) -> None:
    bounds = LOADED[register]
    at = level * MANY if bound.whole else level
    assert needed(bounds, told(bounds, bound, at)) < above
    assert needed(bounds, told(bounds, bound, at + 1)) >= above


def test_what_is_far_beyond_one_bound_alone_needs_as_many_as_its_last_level_says() -> None:
    alone = LOADED["rpps"].bounds
    moves = next(bound for bound in alone if bound.name == "too-many-moves")
    by_count = {
        count: needed(LOADED["rpps"], told(LOADED["rpps"], moves, count))
        for count in (20_000, 20_001, 100_001)
    }
    assert by_count == {20_000: 0, 20_001: 1, 100_001: 2}


@pytest.mark.parametrize(("register", "bound"), EVERY, ids=NAMES)
def test_a_finding_says_what_it_is_with_its_figures(register: str, bound: Bound) -> None:
    bounds = LOADED[register]
    level = min(bound.one, bound.two)
    count = round(level * MANY if bound.whole else level) + 1
    (found,) = (f for f in asked(bounds, told(bounds, bound, count)).findings if f.name == bound.name)
    assert found.sentence == bound.sentence(count, MANY)
    assert f"{count:,}" in found.sentence
    assert found.value > found.bound
    assert found.needed in (1, 2)


WITH_A_FLOOR = [
    pytest.param(r, b, id=f"{r}:{b.name}") for r, b in EVERY if b.floor and b.count not in MEASURED_BY_ROWS
]


@pytest.mark.parametrize(("register", "bound"), WITH_A_FLOOR)
def test_a_small_register_is_not_stopped_for_a_handful(register: str, bound: Bound) -> None:
    bounds = LOADED[register]
    small = dict.fromkeys(quiet(bounds).measures, 0.0) | {bound.whole or "": bound.floor}
    for count, expected in ((bound.floor, False), (bound.floor + 1, True)):
        night = Told({"lines": 1, "rejected": 0}, small | {bound.count: count}, EARLY_AND_SMALL, NOW)
        assert (needed(bounds, night) > 0) is expected


def test_the_first_file_ever_is_compared_with_nothing() -> None:
    measures = dict.fromkeys(quiet(LOADED["rpps"]).measures, 0.0) | {"arrivals": MANY, "people": MANY}
    first = judge(
        LOADED["rpps"], counts={"lines": MANY, "rejected": 9_000}, measures=measures, last=None, now=NOW,
        generated_at=NOW, layout="rpps-56",
    )  # fmt: skip
    assert first == Judgement(0)


def test_a_file_made_before_the_last_one_is_refused_whatever_it_says() -> None:
    calm = quiet(LOADED["rpps"])
    older = Told(calm.counts, calm.measures, EARLY, EARLY.generated_at - timedelta(minutes=1))
    with pytest.raises(Refusal) as refused:
        asked(LOADED["rpps"], older)
    assert refused.value.code == "older-than-applied"
    assert needed(LOADED["rpps"], Told(calm.counts, calm.measures, EARLY, EARLY.generated_at)) == 0


def test_a_layout_that_says_no_number_of_columns_is_not_compared_by_them() -> None:
    calm = quiet(LOADED["rpps"])
    assert needed(LOADED["rpps"], Told(calm.counts, calm.measures, EARLY, NOW, "rpps-fhir")) == 0


@given(data=st.data())
def test_more_of_anything_never_needs_fewer_persons(data: st.DataObject) -> None:
    bounds = LOADED[data.draw(st.sampled_from(sorted(LOADED)))]
    wholes = {bound.whole: float(data.draw(st.integers(0, MANY))) for bound in bounds.bounds if bound.whole}
    counts = {b.count: float(data.draw(st.integers(0, MANY))) for b in bounds.bounds}
    more = data.draw(st.sampled_from(sorted(counts)))
    some = Told(
        {"lines": MANY, "rejected": data.draw(st.integers(0, 20_000))}, wholes | counts, EARLY,
        NOW - timedelta(hours=1) + timedelta(hours=data.draw(st.integers(0, 60))),
    )  # fmt: skip
    worse = Told(
        some.counts | {"rejected": some.counts["rejected"] + data.draw(st.integers(0, 100_000))},
        some.measures | {more: counts[more] + data.draw(st.integers(0, MANY))}, EARLY,
        some.generated_at + timedelta(hours=data.draw(st.integers(0, 60))),
    )  # fmt: skip
    assert needed(bounds, worse) >= needed(bounds, some)


@given(lines=st.integers(0, MANY), fewer=st.integers(0, MANY))
def test_a_shorter_file_never_needs_fewer_persons(lines: int, fewer: int) -> None:
    bounds = LOADED["finess"]
    calm = quiet(bounds)
    lengths = (
        Told({"lines": n, "rejected": 0}, calm.measures, EARLY, NOW) for n in (lines, max(0, lines - fewer))
    )
    longer, shorter = (needed(bounds, night) for night in lengths)
    assert shorter >= longer


def test_an_operator_changes_numbers_and_adds_codes_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(
        "[rpps.too-many-moves]\none = 0.5\ntwo = inf\n[every.too-few-rows]\none = 0.001\n"
        '[codes]\nprofession = ["77"]\n'
    )
    own = load_bounds(tmp_path / "own.toml")
    moves = next(bound for bound in own["rpps"].bounds if bound.name == "too-many-moves")
    ours = next(bound for bound in LOADED["rpps"].bounds if bound.name == "too-many-moves")
    assert (moves.one, moves.two, moves.says) == (0.5, math.inf, ours.says)
    for register in own.values():
        assert next(bound for bound in register.bounds if bound.name == "too-few-rows").one == 0.001
    assert own["rpps"].codes["profession"] == LOADED["rpps"].codes["profession"] | {"77"}
    assert load_bounds() == LOADED


NONSENSE = {
    "no file": None,
    "no TOML": "[rpps",
    "no text": b"\xff\xfe",
    "no such register": "[adeli.too-few-rows]\none = 1",
    "no such bound": "[rpps.too-much]\none = 1",
    "no table": "rpps = 3",
    "no table of a bound": "[rpps]\ntoo-few-rows = 3",
    "another count": '[rpps.too-few-rows]\ncount = "arrivals"',
    "another sentence": '[rpps.too-few-rows]\nsays = "fine"',
    "a text for a number": '[rpps.too-few-rows]\none = "2 %"',
    "a truth for a number": "[rpps.too-few-rows]\none = true",
    "below nothing": "[rpps.too-few-rows]\none = -0.1",
    "no number": "[rpps.too-few-rows]\none = nan",
    "levels that come down": "[rpps.too-few-rows]\none = 0.4",
    "codes of what we do not read": '[codes]\nfruit = ["1"]',
    "codes that are numbers": "[codes]\nmode = [1]",
    "codes that are no table": "codes = 1",
}


@pytest.mark.parametrize("content", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_in_an_operators_file_is_refused(content: str | bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(Refusal) as refused:
        load_bounds(path)
    assert refused.value.code == "bad-bounds"
