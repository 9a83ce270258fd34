"""What a register module gives to the run: which files, how to read a row, and how its rows become the
record.

The SQL of each speaks of the same temporary names: `staged` (good rows), `rejected`, `spared` (keys that an
unreadable row names) and `planned` (key, act). `wanted` has key, hash and number of rows, as the file has
them. `present` has key, hash and departed_at, as the record has them. Where rows may be corrected here, the
view `told` is the file's word on each planned key (key, act, columns of the record). The view `corrected` is
our word instead.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from directory.feed.changes import Entity
from directory.sync.formats.files import Member, Remark
from directory.sync.formats.scan import Keyed
from directory.sync.formats.staging import Staging


@dataclass(frozen=True)
class Reading:
    """The findings of reading a file: its layout, the generation time it states itself, if it does, and its
    oddities. Of an increment also since when it tells.
    """

    layout: str
    generated_at: datetime | None = None
    since: datetime | None = None
    remarks: tuple[Remark, ...] = ()


class Read(Protocol):
    """Stage every row of the members, or reject it; `strict`: numbers of persons pass their check digit."""

    def __call__(self, members: Mapping[str, Member], staging: Staging, *, strict: bool) -> Reading:
        """The layout found, and the time the file states."""


@dataclass(frozen=True)
class Register:
    """One national register.

    `tables` makes `staged` and the view `present`; `settle` moves rows that contradict others from `staged`
    to `rejected`. `wanted` fills the table of that name. `apply` are the acts, each one set operation, that
    may use `:now`. `keyed` where lines name whom they speak of: then only those of keys of which a file says
    something new are read. `told` makes the view of that name, whose keys are of `entity`. `unclear` takes
    out of `planned` the removals of whom an unreadable row may speak of without naming his key.
    """

    name: str
    roles: Mapping[str, re.Pattern[str]]
    tables: str
    copy: str
    read: Read
    settle: tuple[str, ...]
    wanted: str
    apply: tuple[str, ...]
    keyed: Keyed | None = None
    entity: Entity | None = None
    told: str = ""
    unclear: str = ""
