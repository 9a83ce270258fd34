"""Whether the database takes a row, gives it back, and has room on its disks for what it sorts.

Asked over a connection of the asker's own; how often, and what follows, is for `api/process/writing.py`.
"""

import psycopg

_BEAT = """INSERT INTO beat (who, number) VALUES ('readiness', 1)
    ON CONFLICT (who) DO UPDATE SET number = beat.number + 1, at = clock_timestamp() RETURNING number"""
_READ_BACK = "SELECT number FROM beat WHERE who = 'readiness'"
# A row that replaces another needs no room, and the next revocation may. So the sorting of half a megabyte is
# put on the disk on purpose. Digests, which no file system makes shorter.
_SPILL = """SELECT max(n) FROM (
    SELECT n FROM generate_series(1, 5000) AS n ORDER BY sha512(int4send(n))) AS sorted"""


def keeps_rows(link: psycopg.Connection) -> bool:
    """Whether a row that was written is read back; raises what the server says when it takes none."""
    written = link.execute(_BEAT).fetchone()
    row = link.execute(_READ_BACK).fetchone()
    link.execute(_SPILL)
    return bool(written and row and row[0] >= written[0])
