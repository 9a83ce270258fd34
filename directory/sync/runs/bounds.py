"""How far a register may move in one night before a person has to look: bounds as data, and the judgement.

`bounds.toml` holds the figures with their reasons; an operator's own file may change them. What is counted is
for `measuring.py`, who lets a run through for `approvals.py`. Pure but for reading those two files.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

from directory.base.errors import Kind, Refusal
from directory.sync.formats.files import refused

SHIPPED = Path(__file__).with_name("bounds.toml")
NEVER = math.inf
_EVERY, _CODES = "every", "codes"
# What only our own file says: an operator's may change how much is too much, not what is counted.
_MEANING = frozenset({"count", "whole", "says", "why"})


@dataclass(frozen=True)
class Bound:
    """How much of one thing is too much.

    A share of `whole` where there is one, else a plain number; all of `one`, `two` and `refuse` hold above
    `floor`, `refuse` above `refuse_floor` too. `says` is the sentence, with `{count}` and `{whole}`; `why`,
    where they come from.
    """

    name: str
    count: str
    says: str
    why: str
    whole: str | None = None
    floor: float = 0
    one: float = NEVER
    two: float = NEVER
    refuse: float = NEVER
    refuse_floor: float = 0

    def __post_init__(self) -> None:
        """Refuse what could never be meant: `bad-bounds`."""
        numbers = (self.floor, self.refuse_floor, self.one, self.two, self.refuse)
        if any(isinstance(number, bool) or not isinstance(number, int | float) for number in numbers):
            raise _bad(f"{self.name}: bounds are numbers.")
        if not all(number >= 0 for number in numbers):
            raise _bad(f"{self.name}: a bound is not below 0.")
        if not self.one <= self.two <= self.refuse:
            raise _bad(f"{self.name}: `one`, `two` and `refuse` must not come down.")
        try:
            self.sentence(0, 0)
        except (KeyError, IndexError, ValueError) as error:
            raise _bad(f"{self.name}: `says` may name {{count}} and {{whole}} only.") from error

    def value(self, count: float, whole: float) -> float:
        """What is compared: the share, or the number itself; 0 of what there was nothing of before."""
        if self.whole is None:
            return count
        return count / whole if whole else 0.0

    def sentence(self, count: float, whole: float) -> str:
        """What the report says of so many."""
        return self.says.format(count=f"{count:,.0f}", whole=f"{whole:,.0f}")


@dataclass(frozen=True)
class RegisterBounds:
    """The bounds of one register, in the order of the report, and the codes in use by name of the cell."""

    register: str
    bounds: tuple[Bound, ...]
    codes: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class LastRun:
    """The run of this register applied last."""

    generated_at: datetime
    counts: Mapping[str, int]
    layout: str | None = None
    began_at: datetime | None = None


@dataclass(frozen=True)
class Finding:
    """One bound that a run went beyond: its name, what was found, the bound, how many persons it needs."""

    name: str
    value: float
    bound: float
    needed: int
    sentence: str


@dataclass(frozen=True)
class Judgement:
    """How many named persons must let a run through (0: nobody need look, 1, 2), and why."""

    needed: int
    findings: tuple[Finding, ...] = ()


def load_bounds(path: Path | None = None) -> Mapping[str, RegisterBounds]:
    """The bounds of every register: those of `bounds.toml`, with the numbers and codes of the file at `path`.

    Refusal `bad-bounds` for a file that is none, names what does not exist, or contradicts itself.
    """
    shipped = _parsed(SHIPPED)
    own = {} if path is None else _parsed(path)
    codes = _codes(shipped.pop(_CODES), own.pop(_CODES, {}))
    every = shipped.pop(_EVERY)
    known = {register: every | bounds for register, bounds in shipped.items()}
    if unknown := set(own) - set(known) - {_EVERY}:
        raise _bad(f"there is no register {', '.join(sorted(unknown))}.")
    for register, bounds in known.items():
        for given in (own.get(_EVERY, {}), own.get(register, {})):
            bounds.update(_changed(register, bounds, given))
    return MappingProxyType(
        {
            register: RegisterBounds(register, tuple(_bound(name, of) for name, of in bounds.items()), codes)
            for register, bounds in known.items()
        }
    )


def check_age(generated_at: datetime, last: LastRun | None) -> None:
    """Refuse `older-than-applied` a file made before the one applied last: it would bring back who left."""
    if last is not None and generated_at < last.generated_at:
        text = f"This file was made on {generated_at:%Y-%m-%d %H:%M}, before the one applied last."
        raise refused("older-than-applied", text)


def judge(
    bounds: RegisterBounds,
    *,
    counts: Mapping[str, int],
    measures: Mapping[str, float],
    last: LastRun | None,
    generated_at: datetime,
    now: datetime,
    layout: str | None = None,
    by_the_minute: bool = False,
) -> Judgement:
    """How many persons a run needs; a Refusal for what nobody may let through.

    `counts` are the run's, `measures` those of `measuring.measure`. `last` is None when nothing was applied
    yet, `by_the_minute` whether the file tells more than a day of itself. Refusal `older-than-applied`, or
    the name of the first bound whose `refuse` is passed, with its sentence.
    """
    check_age(generated_at, last)
    known = {**measures, **_known(counts, last, layout)}
    ahead = max(0.0, (generated_at - now) / timedelta(hours=1))
    known |= {"hours-ahead": ahead, "hours-ahead-by-the-minute": ahead * by_the_minute}
    findings = []
    for bound in bounds.bounds:
        count, whole = known[bound.count], known[bound.whole] if bound.whole else 0
        value = bound.value(count, whole)
        if count > max(bound.floor, bound.refuse_floor) and value > bound.refuse:
            raise refused(bound.name, bound.sentence(count, whole))
        if count > bound.floor and value > bound.one:
            passed = (bound.two, 2) if value > bound.two else (bound.one, 1)
            findings.append(Finding(bound.name, value, *passed, bound.sentence(count, whole)))
    return Judgement(max((finding.needed for finding in findings), default=0), tuple(findings))


def _known(counts: Mapping[str, int], last: LastRun | None, layout: str | None) -> dict[str, float]:
    """What the counts of this run and of the last tell by themselves, whatever the register."""
    before = last.counts if last is not None else {}
    rows, rejections = counts["lines"], counts["rejected"]
    return {
        "rows": rows,
        "rows-last": before.get("lines", 0),
        "rows-fewer": max(0, before.get("lines", rows) - rows),
        "rows-more": max(0, rows - before.get("lines", rows)),
        "rejections": rejections,
        "rejections-more": max(0, rejections - before.get("rejected", rejections)),
        "columns-fewer": _columns_fewer(layout, last.layout if last is not None else None),
    }


def _columns_fewer(layout: str | None, last: str | None) -> int:
    """By the numbers of columns at the end of the layouts' names; 0 when one of them does not say."""
    now, before = ((name or "").rpartition("-")[2] for name in (layout, last))
    return max(0, int(before) - int(now)) if now.isdecimal() and before.isdecimal() else 0


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _bad(f"{path.name} cannot be read: {error}.") from error


def _bound(name: str, of: Mapping[str, Any]) -> Bound:
    """A level that is not given is the one above it: nobody stops there."""
    two = of.get("two", of.get("refuse", NEVER))
    return Bound(name, **{"one": two, "two": two, **of})


def _changed(register: str, bounds: Mapping[str, Any], given: Any) -> dict[str, Any]:
    """The bounds of a register that an operator's table gives other numbers."""
    may = {of.name for of in fields(Bound)} - _MEANING - {"name"}
    if not isinstance(given, dict):
        raise _bad(f"{register} is a table of bounds.")
    for name, numbers in given.items():
        if name not in bounds:
            raise _bad(f"{register} has no bound {name}.")
        if not isinstance(numbers, dict) or not set(numbers) <= may:
            raise _bad(f"{register}.{name} may give {', '.join(sorted(may))}.")
    return {name: bounds[name] | numbers for name, numbers in given.items()}


def _codes(shipped: Mapping[str, Any], own: Any) -> Mapping[str, frozenset[str]]:
    if not isinstance(own, dict) or not set(own) <= set(shipped):
        raise _bad(f"codes are lists of {', '.join(shipped)}.")
    if not all(isinstance(codes, list) and all(isinstance(c, str) for c in codes) for codes in own.values()):
        raise _bad("codes are lists of texts.")
    known = {cell: frozenset([*codes, *own.get(cell, [])]) for cell, codes in shipped.items()}
    return MappingProxyType(known)


def _bad(text: str) -> Refusal:
    return Refusal(Kind.MALFORMED, "bad-bounds", f"Bounds: {text}")
