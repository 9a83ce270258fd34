"""One request on its way to its answer: what came of it so far, and what it holds of the process meanwhile.

What is done with it, and when, is `application.py`'s.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any

from api.front.answers import Scope
from api.front.askers import Asker
from api.front.roads import ORDINARY, Road
from api.front.turns import Turn, Turns

NOBODY = Asker("", "", None)


class Departure:
    """Whether the client has left; read by views on their threads."""

    __slots__ = ("told",)

    def __init__(self) -> None:
        self.told = False

    def is_set(self) -> bool:
        """True from the moment on when it is known."""
        return self.told


@dataclass(slots=True, eq=False)
class Exchange:
    """A request, by itself even beside one that says the same; `ended` is called once, after its answer.

    `octets` of its body are granted; `sends` and `seated` say which place it has. `due` is when a body that
    must come at one go is late, `stopped` says that it is read no further.
    `began`, `due` and `waits` are seconds of time.monotonic().
    """

    scope: Scope
    protocol: Any
    ended: Callable[[], object]
    asker: Asker = NOBODY
    road: Road = ORDINARY
    body: bytes = b""
    octets: int = 0
    reading: Any = None
    sends: bool = False
    stopped: bool = False
    seated: bool = False
    turn: tuple[Turns, Turn] | None = None
    watch: Any = None
    due: float = inf
    waits: float = 0.0
    began: float = field(default_factory=time.monotonic)
    left: Departure = field(default_factory=Departure)
    over: bool = False
