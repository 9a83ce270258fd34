"""How fresh an answer is: the header that says when each register it rests on was generated.

The header never claims more than is true. It is read in the snapshot of the answer, or, where there is no one
snapshot (an act), in the second before the act. An answer given before anything was read (no token, a
malformed request) rests on no register and says nothing of any.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

from flask import Response, g
from sqlalchemy import Connection

from api.http.schemas import rfc3339
from directory.base.errors import Refusal
from directory.store import sources

HEADER = "Sceau-Registers"
_HOLDS_SECONDS = 1.0
DOCUMENTED = {
    HEADER: {
        "description": "Date de génération de chaque registre dont dépend la réponse — When each register the"
        " answer rests on was generated; `none`: never read",
        "schema": {"type": "string"},
        "example": "rpps=2026-09-01T01:12:00Z, finess=none",
        "required": True,
    }
}


def rest_on(generated: Mapping[str, datetime | None]) -> None:
    """Say what the answer under way rests on; a view that has read it says so, and it is not read again."""
    g.rests_on = written(generated)


def written(generated: Mapping[str, datetime | None]) -> str:
    """The header's value."""
    return ", ".join(
        f"{register}={'none' if at is None else rfc3339(at)}" for register, at in generated.items()
    )


class Lately:
    """What was in force within the last second, for acts: registers are taken in by night."""

    def __init__(self) -> None:
        self._read: tuple[float, Mapping[str, datetime | None]] = (float("-inf"), {})

    def sources(self, connection: Connection) -> Mapping[str, datetime | None]:
        """As `sources` gives them, read again once a second has gone by."""
        asked_at = time.monotonic()
        read_at, instants = self._read
        if asked_at - read_at > _HOLDS_SECONDS:
            instants = sources(connection)
            self._read = asked_at, instants
        return instants


@contextmanager
def told(connection: Connection, beforehand: Lately | None) -> Iterator[None]:
    """See that the answer made inside, or its refusal, says what it rests on.

    In a snapshot one look at any time is right, so that it is left out when the view took it. An act
    (`beforehand`) sees what commits meanwhile: only what was in force before it began is sure.
    """
    if beforehand is not None:
        rest_on(beforehand.sources(connection))
    try:
        yield
    except Refusal:
        _unless_told(connection)
        raise
    _unless_told(connection)


def mark(response: Response) -> Response:
    """Put the header on an answer that rests on registers."""
    if "rests_on" in g:
        response.headers[HEADER] = g.rests_on
    return response


def _unless_told(connection: Connection) -> None:
    if "rests_on" not in g:
        rest_on(sources(connection))
