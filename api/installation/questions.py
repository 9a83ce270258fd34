"""What the supervisor asks each part, again and again: a real question, with the seconds in which it is due.

Each answers whether the part gave a sign of work since it was last asked. The consequences of a silence are
for `api/installation/supervisor.py`.
"""

import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping

from api.database_timeout import CONNECT_SECONDS, ImpatientConnection
from api.embedded.postgres import EmbeddedPostgres
from api.installation.supervisor import parts_written
from api.process.writing import Writing
from directory.base.beats import WORKER, last_number
from directory.base.db import libpq
from pki.signing import wire

Question = Callable[[], bool]
# Longer than an answer takes on a machine that is busy, shorter than anybody waits.
SECONDS = 5.0
# A web process that gave no answer for so long, while so many questions got none, is the one that hangs.
WEB_SILENT = 15.0
WEB_UNANSWERED = 2
# Shorter: half of the questions go to the process that hangs, and time passes with each.
WEB_SECONDS = 3.0


def postgres(cluster: EmbeddedPostgres) -> Question:
    """Whether it takes a connection and answers on it, or refuses one for no fault of its own."""

    def answers() -> bool:
        try:
            link = _asking(cluster.conninfo)
        except psycopg.errors.ConnectionTimeout:
            # libpq's ping would wait as long again and hold up every thread of ours meanwhile. The supervisor
            # then forgave the silence for ever, as if it had stood still itself.
            return False
        except psycopg.Error:
            # All connections in use (53300) is the fault of those who hold them.
            return _ping(cluster) == Ping.OK
        with suppress(psycopg.Error), link:
            return link.execute("SELECT 1").fetchone() is not None
        return False

    return answers


def recovering(cluster: EmbeddedPostgres) -> Question:
    """Whether it takes no connection yet (57P03) because it starts up or recovers, and not since it stops."""

    def makes_itself_ready() -> bool:
        with suppress(OSError):
            return _refuses(cluster) and _ping(cluster) == Ping.REJECT and not cluster.is_stopping()
        return False

    return makes_itself_ready


def signer(socket_path: Path) -> Question:
    """Whether it answers or hangs up: that it cannot sign is another matter, and known from its word."""

    def answers() -> bool:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as link, wire.short(socket_path) as path:
            link.settimeout(SECONDS)
            link.connect(path)
            # It may hang up before it was asked, or with the question unread.
            with suppress(ConnectionError):
                wire.send(link, {"ask": "ping"})
                link.recv(1)
            return True
        return False

    return answers


def worker(url: str) -> Question:
    """Whether its count went on; not asked while the record takes no row, its sign being one."""
    writing, seen = Writing(url), 0

    def gets_on() -> bool:
        nonlocal seen
        if writing.wrong():
            return True
        number = _worker_number(url)
        before, seen = seen, number
        return number != before

    return gets_on


def beats_since(url: str) -> Question:
    """Whether the worker gave a sign since now: for a start, which is over when its work begins."""
    before = _worker_number(url)
    return lambda: _worker_number(url) != before


def web(local: str, state: Path) -> Question:
    """Whether it answers; of its processes, ends the one that hangs while others answer."""
    asked = _Processes()

    def answers() -> bool:
        process = answering_process(local)
        for hung in asked.hung(process, time.monotonic()):
            if _is_of(hung, int(parts_written(state)["web"]["pid"])):
                # At once: a request in it is lost already, and the server starts another in its place.
                os.kill(hung, signal.SIGKILL)
        return process is not None

    return answers


def answering_process(local: str) -> int | None:
    """Which process answered at this address, None when none did in time."""
    try:
        with urllib.request.urlopen(f"{local}/healthz", timeout=WEB_SECONDS) as reply:  # noqa: S310 - always http
            return int(json.loads(reply.read())["process"])
    except (urllib.error.URLError, OSError, ValueError, KeyError):
        return None


class _Processes:
    """Who answered when, and when nobody did."""

    def __init__(self) -> None:
        self._answered: dict[int, float] = {}
        self._unanswered: list[float] = []

    def hung(self, process: int | None, now: float) -> list[int]:
        """Note one answer, or that there was none; which processes hang by now, each told once."""
        self._unanswered = [at for at in self._unanswered if now - at <= WEB_SILENT]
        if process is None:
            self._unanswered.append(now)
        else:
            self._answered[process] = now
        silent = [number for number, at in self._answered.items() if now - at > WEB_SILENT]
        for number in silent:
            del self._answered[number]
        others_answer = any(now - at <= WEB_SILENT for at in self._answered.values())
        return silent if others_answer and len(self._unanswered) >= WEB_UNANSWERED else []


def _is_of(process: int, leader: int) -> bool:
    with suppress(OSError, psutil.Error):
        return process != leader and os.getsid(process) == leader
    return False


def _refuses(cluster: EmbeddedPostgres) -> bool:
    """Whether it refuses a connection, rather than saying nothing or taking it."""
    try:
        _asking(cluster.conninfo).close()
    except psycopg.errors.ConnectionTimeout:
        return False
    except psycopg.Error:
        return True
    return False


def _ping(cluster: EmbeddedPostgres) -> Ping:
    # psycopg does not tell the SQLSTATE of a connection that was refused; libpq's ping goes by it.
    return Ping(PGconn.ping(make_conninfo(cluster.conninfo, connect_timeout=CONNECT_SECONDS).encode()))


def _worker_number(url: str) -> int:
    with suppress(psycopg.Error), _asking(libpq(url)) as link:
        return last_number(link, WORKER)
    return 0


def _asking(conninfo: str) -> ImpatientConnection:
    link = ImpatientConnection.connect(
        conninfo, autocommit=True, connect_timeout=CONNECT_SECONDS, application_name="sceau-supervisor"
    )
    link.patience = SECONDS
    return link
