"""The work of the jobs that take certificates back: holds that end, revocations of many."""

import time

from api.wiring import Container
from directory.base.db import transaction
from pki.revocation import bulk, suspension


def end_holds(container: Container) -> str:
    """Revoke for good what was on hold for as long as a hold lasts."""
    ended = 0
    while True:
        with transaction(container.engine) as connection:
            step = suspension.end_holds(connection, container.present(connection))
        if not step:
            return f"{ended} holds became final" if ended else ""
        ended += len(step)


def carry_on(container: Container) -> str:
    """Carry out the revocations of many that were agreed to, each no faster than it says."""
    revoked = 0
    while True:
        started = time.monotonic()
        with transaction(container.engine) as connection:
            before = bulk.waiting(connection)
            after = None if before is None else bulk.step(connection, before, container.present(connection))
        if before is None or after is None:
            return f"{revoked} certificates revoked" if revoked else ""
        revoked += after.revoked - before.revoked
        _pace(after.reached - before.reached, after.per_second, started)


def _pace(done: int, per_second: int, started: float) -> None:
    time.sleep(max(0.0, done / per_second - (time.monotonic() - started)))
