"""Waiting for what the database tells on a connection that listens (LISTEN): one wait, by the kernel.

psycopg's own wait asks in whole milliseconds, and without pause in the last one. A thread of a busy process
then took the interpreter from the others a thousand times a second.
"""

import select

import psycopg
from psycopg import sql


def listen(link: psycopg.Connection, *channels: str) -> None:
    """Have this connection told of these channels of our own, from now on."""
    for channel in channels:
        link.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))


def heard(link: psycopg.Connection, seconds: float) -> list[psycopg.Notify]:
    """What was told, after waiting so long at most for the first of it; raises as a statement does.

    What came with the answer to a statement wakes nobody: it is given with 0 seconds, or after the wait.
    """
    if seconds > 0:
        poll = select.poll()
        poll.register(link.fileno(), select.POLLIN)
        poll.poll(seconds * 1000)
    return list(link.notifies(timeout=0))
