"""Answers from memory without a turn of the event loop: what makes OCSP as fast under RSGI as under WSGI.

Granian hands each request to the loop: two changes of thread and a task, which an answer from a dictionary
does not need. Here the front is asked first. This rests on a name inside Granian that may change: without it
every request goes by the loop, which is slower and nothing else.
"""

import logging
from collections.abc import Callable
from typing import Any

_LOG = logging.getLogger("sceau.front")


def install(at_once: Callable[[Any, Any], bool]) -> bool:
    """Let this process ask `at_once(scope, protocol)` first; called before Granian begins to serve."""
    try:
        from granian import _futures  # noqa: PLC0415 - may not be there

        usual = _futures._cbsched_aioschedule  # noqa: SLF001 - the one place
    except (ImportError, AttributeError):
        _LOG.warning("this Granian schedules otherwise: OCSP is answered by the event loop, more slowly")
        return False

    def schedule_of(loop: Any, context: Any, callback: Any) -> Callable[[Any], None]:
        by_the_loop: Callable[[Any], None] = usual(loop, context, callback)  # type: ignore[no-untyped-call]

        def schedule(watcher: Any) -> None:
            try:
                answered = at_once(watcher.scope, watcher.proto)
            except Exception:  # noqa: BLE001 - the front meets it again, and answers it
                answered = False
            if answered:
                watcher.done()
            else:
                by_the_loop(watcher)

        return schedule

    _futures._cbsched_aioschedule = schedule_of  # noqa: SLF001 - same
    return True
