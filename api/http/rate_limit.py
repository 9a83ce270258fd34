"""How often one source may ask of what is open to all: so many a minute, counted in this process."""

import threading
import time
from collections import OrderedDict

_REMEMBERED = 10_000
# What all sources together may ask, in shares of one.
ALL_TOGETHER = 10


class Pace:
    """A bucket for each source: `a_minute` at once, filled again in a minute; one for all of them together.

    What is beyond a source's own is not counted for the others. Sources are forgotten oldest first beyond
    some thousands, so that inventing them fills no memory; all together may ask ten times as often as one.
    """

    def __init__(self, a_minute: int) -> None:
        self._most = a_minute
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def allows(self, source: str) -> bool:
        """Whether this source may ask now; counts as having asked when it may."""
        now = time.monotonic()
        with self._lock:
            # His own first: what one source asks beyond it takes nothing from the others.
            return self._take(source, self._most, now) and self._take("", ALL_TOGETHER * self._most, now)

    def _take(self, source: str, most: int, now: float) -> bool:
        left, at = self._left.pop(source, (float(most), now))
        left = min(float(most), left + (now - at) * most / 60)
        allowed = left >= 1
        self._left[source] = (left - 1 if allowed else left, now)
        while len(self._left) > _REMEMBERED:
            self._left.popitem(last=False)
        return allowed
