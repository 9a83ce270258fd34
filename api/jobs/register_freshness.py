"""The work of the jobs that look after registers between two nights: say when one grows too old or is young
again.

How old is too old is a setting; how it is known, `directory.sync.runs.history`.
"""

import logging

from api.wiring import Container
from directory.base import job_runs
from directory.base.db import transaction
from directory.sync.runs.history import Turned, turned

FRESHNESS = "freshness"
log = logging.getLogger("sceau.registers")


def watch_freshness(container: Container) -> str:
    """Write one line for each register that became late, or is so no more, since this job last ended well.

    What was true then is asked of the record: a restarted or a second worker repeats nothing.
    """
    now = container.clock()
    with transaction(container.engine, read_only=True) as connection:
        since = job_runs.last_success(connection, FRESHNESS)
        turns = turned(connection, since=since, now=now, limits=container.settings.freshness)
    for turn in turns:
        log.log(logging.WARNING if turn.late else logging.INFO, "%s", _told(turn))
    return ""


def _told(turn: Turned) -> str:
    made = f"{turn.generated_at:%Y-%m-%d %H:%M}Z"
    if turn.late:
        return f"register {turn.register} is late: what we know of it was generated on {made}"
    return f"register {turn.register} is late no more: generated on {made}"
