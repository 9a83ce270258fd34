"""Places of those who are still sending: plenty.

When all are taken, the one who is longest at it, of the source that has most, makes room.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from api.front.askers import Asker
from api.front.shares import Shares
from directory.base.errors import Kind, Refusal

_RETRY_SECONDS = 2


class Senders:
    """At most `most` at a time, each source and credential within its share."""

    def __init__(self, most: int) -> None:
        self._shares = Shares(most, "places for requests on their way")
        # In the order of their coming.
        self._under_way: dict[asyncio.Task[Any], Asker] = {}

    @asynccontextmanager
    async def place(self, asker: Asker) -> AsyncIterator[None]:
        """A place for as long as the block lasts; Refusal when there is none, or when it is needed more."""
        self._make_room(asker)
        self._shares.take(asker)
        task = _this_task()
        self._under_way[task] = asker
        try:
            yield
        except asyncio.CancelledError:
            if task in self._under_way:
                raise
            task.uncancel()
            text = "Others needed the place of this request, which was long on its way; nothing was done."
            raise Refusal(Kind.UNAVAILABLE, "process-full", text, retry_after=_RETRY_SECONDS) from None
        finally:
            self._leave(task)

    def _make_room(self, asker: Asker) -> None:
        heaviest = self._shares.heaviest()
        if self._shares.taken < self._shares.most or heaviest is None:
            return
        if self._shares.of_source(heaviest) <= self._shares.of_source(asker.source):
            return
        oldest = next(task for task, known in self._under_way.items() if known.source == heaviest)
        self._leave(oldest)
        oldest.cancel()

    def _leave(self, task: "asyncio.Task[Any]") -> None:
        asker = self._under_way.pop(task, None)
        if asker is not None:
            self._shares.give_back(asker)


def _this_task() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("called outside of a task")
    return task
