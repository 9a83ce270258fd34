"""Proxies that nobody named in `trusted_proxies`: said, so that an operator knows why all share one share.

Only said: the sender may have written the header himself, so no share follows from it.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from directory.base.durable_files import write_atomically

_LOG = logging.getLogger("sceau.front")
SAID_EVERY = 3600.0
# Strangers write such headers too: their lines are not to fill the log.
_MOST = 16
WHAT_TO_DO = (
    "says for whom it asks and is not trusted: all behind it share one share. If it is your proxy, name it in"
    " `trusted_proxies`"
)


class Unnamed:
    """Says of each peer, once in an hour and of sixteen at most; keeps the last in `state`."""

    def __init__(self, state: Path, ticks: Callable[[], float] = time.monotonic) -> None:
        self._state, self._ticks = state, ticks
        self._said: dict[str, float] = {}

    def note(self, peer: str) -> None:
        """This peer sent `Forwarded` or `X-Forwarded-For`, and is not among the trusted."""
        now = self._ticks()
        if peer in self._said and now - self._said[peer] < SAID_EVERY:
            return
        self._said = {address: at for address, at in self._said.items() if now - at < SAID_EVERY}
        if len(self._said) >= _MOST:
            return
        self._said[peer] = now
        _LOG.warning("%s %s", peer, WHAT_TO_DO)
        # A disk without room is told elsewhere.
        with suppress(OSError):
            _kept(self._state).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(_kept(self._state), peer.encode())


def last_unnamed(state: Path) -> str | None:
    """The last such peer, while it was one within the last two hours."""
    try:
        if time.time() - _kept(state).stat().st_mtime > 2 * SAID_EVERY:
            return None
        return _kept(state).read_text()
    except OSError:
        return None


def _kept(state: Path) -> Path:
    return state / "run" / "unnamed-proxy"
