"""Requests taken by the front without a turn of the event loop: what makes an answer as fast under RSGI as
under WSGI.

Granian hands each request to the loop: two changes of thread and a task. An answer from a dictionary needs
neither these nor threads of ours. This rests on a name inside Granian that may change: without it every
request goes by the loop, which is slower and nothing else.
"""

import logging
from collections.abc import Callable
from typing import Any

_LOG = logging.getLogger("sceau.front")


def install(take: Callable[[Any, Any, Callable[[], object]], None]) -> bool:
    """Let this process call `take(scope, protocol, ended)`; called before Granian begins to serve."""
    try:
        from granian import _futures  # noqa: PLC0415 - may not be there

        _futures._cbsched_aioschedule  # noqa: B018, SLF001 - the one place
    except (ImportError, AttributeError):
        _LOG.warning("this Granian schedules otherwise: requests go by the event loop, more slowly")
        return False

    def schedule_of(*_: Any) -> Callable[[Any], None]:
        return lambda watcher: take(watcher.scope, watcher.proto, watcher.done)

    _futures._cbsched_aioschedule = schedule_of  # noqa: SLF001 - same
    return True
