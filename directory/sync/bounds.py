"""How far a register may move in one night before a person has to look; and what a whole file must look like.

Pure. A truncated or poisoned file that passes as a file is caught here: it would remove too many, hold too
few rows, or be unreadable in too many places.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from directory.sync.source import refused

SMALLEST_SHARE_OF_LAST = 0.5
LARGEST_SHARE_REMOVED = 0.2
REMOVALS_NEVER_TOO_MANY = 20
LARGEST_SHARE_REJECTED = 0.1
# No register is made ahead of its day; applied once, such a file would make all true ones "older" for years.
FURTHEST_AHEAD = timedelta(days=2)


def check(
    counts: Mapping[str, int],
    *,
    present: int,
    last_lines: int | None,
    generated_at: datetime,
    last_generated_at: datetime | None,
    now: datetime,
) -> None:
    """Refuse a run whose counts are out of bounds.

    `present` is how many the record holds now; `last_*` are those of the last applied run, None when there is
    none. Refusal `from-the-future`, `older-than-applied`, `too-many-rejections`, `too-few-rows` or
    `too-many-removals`.
    """
    lines, rejected, removed = counts["lines"], counts["rejected"], counts["removed"]
    if generated_at > now + FURTHEST_AHEAD:
        raise refused("from-the-future", f"This file says it was made on {generated_at:%Y-%m-%d %H:%M}.")
    if last_generated_at is not None and generated_at < last_generated_at:
        text = f"This file was made on {generated_at:%Y-%m-%d %H:%M}, before the one applied last."
        raise refused("older-than-applied", text)
    if rejected > lines * LARGEST_SHARE_REJECTED:
        raise refused("too-many-rejections", f"{rejected} of {lines} rows cannot be read.")
    if last_lines is not None and lines < last_lines * SMALLEST_SHARE_OF_LAST:
        raise refused("too-few-rows", f"{lines} rows; the file applied last had {last_lines}.")
    if removed > max(REMOVALS_NEVER_TOO_MANY, present * LARGEST_SHARE_REMOVED):
        raise refused("too-many-removals", f"{removed} of {present} would be removed.")
