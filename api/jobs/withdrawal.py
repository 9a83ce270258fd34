"""Trust withdrawn from whom the feed tells of, and from whose grace has ended."""

from functools import lru_cache

from api.wiring import Container
from directory.base.db import transaction
from pki.withdrawal import operators as withdrawal_operators
from pki.withdrawal.reconcile import BATCH, Follower, Outcome, list_claims, settle_due


@lru_cache(maxsize=4)
def _follower(container: Container) -> Follower:
    """The follower of this process: it remembers how far it looked ahead of its place in the feed."""
    return Follower(container.engine, container.graces)


def consequences(container: Container) -> str:
    """Withdraw trust from whom the feed tells of; what commits meanwhile is for the next run.

    The place in the feed and the revocations commit together: a crash repeats a batch, and a repeated batch
    revokes nothing twice.
    """
    follower, done = _follower(container), Outcome()
    while True:
        step = follower.step(container.present())
        done += step
        # Fewer than a batch are all there were. To go on until nothing more came would be to go on as long as
        # anybody enrols. It would run five times a second for a few changes each.
        if step.changes < BATCH:
            return str(done)


def withdraw_due(container: Container) -> str:
    """Revoke what has come to the end of its grace, unless the cause has gone; list what files contradict."""
    done = Outcome()
    while True:
        with transaction(container.engine) as connection:
            now = container.present(connection)
            step = settle_due(connection, graces=container.graces, now=now)
            if not step.changes:
                list_claims(connection, now)
                done += withdrawal_operators.settle(connection, graces=container.graces, now=now)
                return str(done)
        done += step
