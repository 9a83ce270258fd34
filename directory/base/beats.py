"""Signs of life in the record: a part gives one when its work got on, and whoever judges it counts them.

A number that stands still is a part that does, whatever any clock says. The instant beside it is by the
database's clock, for those who look only once.
"""

from dataclasses import dataclass
from typing import Any

import psycopg
from sqlalchemy import Connection, text

WORKER = "worker"
# A beat is due every three seconds; three missed ones are no longer chance.
LOST_AFTER = 10.0

_BEAT = text("""
    INSERT INTO beat (who, number, wrong) VALUES (:who, 1, :wrong)
    ON CONFLICT (who) DO UPDATE SET number = beat.number + 1, at = clock_timestamp(), wrong = excluded.wrong
    RETURNING number
""")
_LAST = text("""
    SELECT number, wrong, extract(epoch FROM clock_timestamp() - at)::float8 FROM beat WHERE who = :who
""")
_NUMBER = "SELECT number FROM beat WHERE who = %s"


@dataclass(frozen=True)
class Beat:
    """The last sign of a part: its number, what it says is wrong with it, its age in seconds."""

    number: int
    wrong: str
    age: float

    @property
    def is_lost(self) -> bool:
        """Whether it is no sign of now: too old, or dated by a clock that was put back since."""
        return not -LOST_AFTER / 2 <= self.age <= LOST_AFTER


def beat(connection: Connection, who: str, wrong: str = "") -> int:
    """Give a sign of life, with what the part knows to be wrong; its number."""
    return int(connection.execute(_BEAT, {"who": who, "wrong": wrong}).scalar_one())


def last_beat(connection: Connection, who: str) -> Beat | None:
    """The last sign of a part, None when it never gave one."""
    row: Any = connection.execute(_LAST, {"who": who}).one_or_none()
    return None if row is None else Beat(*row)


def last_number(link: psycopg.Connection, who: str) -> int:
    """The number of a part's last sign, 0 when it never gave one; over a connection of the asker's own."""
    row = link.execute(_NUMBER, [who]).fetchone()
    return 0 if row is None else int(row[0])
