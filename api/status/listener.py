"""Hears of revocations and publications from the database, on a connection of its own, for one process.

A lost connection costs speed, never truth. Without a heartbeat the cache is not used, and it is emptied
before the first heartbeat of the next connection.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from api.database_timeout import CONNECT_SECONDS, ImpatientConnection
from api.status.cache import AnswerCache
from directory.base.notifications import heard, listen
from pki.model import Serial

# Under this name its connection shows in pg_stat_activity.
APPLICATION = "sceau-status-listener"
_LOG = logging.getLogger("sceau.status")
# Four heartbeats fit into the time one of them counts.
_PULSE_SECONDS = 0.25
_RETRY_SECONDS = 0.1
# Notifications within so long are heard together. Woken for each of two hundred commits a second, two
# processes would spend a tenth of the machine on listening. A revocation waits no longer than this for its
# turn, and the last of thousands no longer than a pulse.
_GATHERING_SECONDS = 0.02


class Listener:
    """A thread that follows `sceau_revocation` and `sceau_change` from `start()` until `stop()`.

    `conninfo` is libpq's; `changed` is called when a CRL may have been published.
    """

    def __init__(
        self, conninfo: str, caches: Sequence[AnswerCache[Any]], changed: Callable[[], None]
    ) -> None:
        self._conninfo = conninfo
        self._caches = caches
        self._changed = changed
        self._stopped = threading.Event()
        self._heard = False
        self._thread = threading.Thread(target=self._run, name="status-listener", daemon=True)

    def start(self) -> None:
        """Begin to listen; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End within one pulse."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        told = False
        while not self._stopped.is_set():
            try:
                self._follow()
            except psycopg.Error as error:
                # Once for each time it is lost, or one outage would fill the log.
                if self._heard or not told:
                    _LOG.warning(
                        "status is answered from the record alone, the listener is cut off: %s", error
                    )
                told, self._heard = True, False
                self._stopped.wait(_RETRY_SECONDS)

    def _follow(self) -> None:
        with ImpatientConnection.connect(
            self._conninfo, autocommit=True, connect_timeout=CONNECT_SECONDS, application_name=APPLICATION
        ) as link:
            listen(link, "sceau_revocation", "sceau_change")
            # What was committed while nobody listened is told by no notification.
            for cache in self._caches:
                cache.clear()
            self._changed()
            while not self._stopped.is_set():
                self._pulse(link)
                self._heard = True

    def _pulse(self, link: psycopg.Connection) -> None:
        asked_at = time.monotonic()
        # An answer proves the connection alive and brings along every notification sent before it.
        link.execute("SELECT 1")
        self._hear(link, 0)
        for cache in self._caches:
            cache.vouch(asked_at)
        while (left := asked_at + _PULSE_SECONDS - time.monotonic()) > 0 and not self._stopped.is_set():
            if self._hear(link, left):
                time.sleep(_GATHERING_SECONDS)

    def _hear(self, link: psycopg.Connection, seconds: float) -> bool:
        """Whether anything was told, and heed it; waits for so long, and ends with the first."""
        told = heard(link, seconds)
        for serial in (note.payload for note in told if note.channel != "sceau_change"):
            for cache in self._caches:
                cache.forget(Serial(serial))
        if any(note.channel == "sceau_change" for note in told):
            self._changed()
        return bool(told)
