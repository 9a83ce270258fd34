"""The feed told of what time changed, and trimmed to what is promised."""

from datetime import timedelta

from api.wiring import Container
from directory.base.db import transaction
from directory.feed import retention
from directory.feed.retention import tell_of_time

# Some 50 ms of locks each, and at most some minutes of an hour.
TRIMMED_AT_ONCE = 5_000
MOST_TRIMMED = 2_000_000


def due_changes(container: Container) -> str:
    """Tell the feed what time alone changed, for LDAP to follow; have it begin anew where it was moved."""
    with transaction(container.engine) as connection:
        moved = retention.begin_anew_if_moved(connection)
    with transaction(container.engine) as connection:
        told = tell_of_time(connection, container.present(connection))
    done = [f"the feed begins anew in this cluster, {moved} rows removed"] if moved else []
    return ", ".join([*done, *([f"{told} changes told"] if told else [])])


def trim_feed(container: Container) -> str:
    """Remove from the feed what is older than promised, a small batch at a time."""
    # A day more than promised: a row is dated by the beginning of its transaction, and read after its end.
    before = container.clock() - timedelta(days=container.settings.feed_days + 1)
    removed = 0
    while removed < MOST_TRIMMED:
        with transaction(container.engine) as connection:
            batch = retention.cut(connection, before, TRIMMED_AT_ONCE)
        removed += batch
        if batch < TRIMMED_AT_ONCE:
            break
    return f"{removed} changes removed" if removed else ""
