"""What changed that a memory of the record has not heard of, asked within the question that it serves.

A memory that hears of changes from elsewhere is late by the way they take. Here each question brings what
became visible since the last one: whoever answers from memory then knows it to be as the record is now.
"""

from collections.abc import Mapping
from typing import Any

from directory.feed.changes import Entity, Seen

# Beyond so many a memory is better emptied than told.
MOST_UNHEARD = 5_000
# Whose numbers of transactions these are: another server's, or those of a record put back, begin elsewhere.
# After a crash the server gives lost numbers out again, and counts its statistics anew.
# Then the snapshot by its text, and the changes that it shows of transactions not in `:below` and `:open`. A
# transaction that is still open is not looked into: it may have written millions of rows that nobody sees.
# A person's change tells of the mailboxes that he holds by now: its trigger knew those of its own snapshot.
UNHEARD = f"""concat_ws(' ', pg_postmaster_start_time(), pg_stat_get_bgwriter_stat_reset_time(),
        pg_relation_filepath('change')) AS origin,
    CAST(pg_current_snapshot() AS text) AS snapshot,
    (WITH unheard AS MATERIALIZED (
        -- All that is visible lies below the end: said, it has the planner expect few rows of any range.
        SELECT entity, key FROM change WHERE xid >= CAST(CAST(:below AS text) AS xid8)
        AND xid < pg_snapshot_xmax(pg_current_snapshot())
        UNION ALL
        SELECT c.entity, c.key
        FROM unnest(CAST(CAST(:open AS text[]) AS xid8[])) AS ended (xid) JOIN change c USING (xid)
        WHERE pg_visible_in_snapshot(ended.xid, pg_current_snapshot())
        LIMIT {MOST_UNHEARD + 1})
    SELECT CAST(json_agg(json_build_array(told.entity, told.key)) AS text) FROM (
        SELECT entity, key FROM unheard
        UNION ALL
        SELECT 'mailbox', m.address FROM unheard u JOIN mailbox m ON m.holder = u.key
        WHERE u.entity = 'practitioner') AS told) AS unheard"""  # noqa: S608 - a number of this module
# The entities that a verdict rests on; of the others nothing is remembered.
TOLD = frozenset({Entity.MAILBOX.value, Entity.PRACTITIONER.value})


def asked_since(seen: Seen) -> Mapping[str, Any]:
    """What `UNHEARD` is asked with by who knows all of `seen`."""
    return {"below": str(seen.below), "open": [str(xid) for xid in seen.open]}


def snapshot_of(written: str) -> Seen:
    """PostgreSQL's text of a snapshot (`xmin:xmax:xip`) as what it shows."""
    _, below, still_open = written.split(":")
    return Seen(int(below), tuple(int(xid) for xid in still_open.split(",") if xid))
