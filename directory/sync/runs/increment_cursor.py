"""Up to when increments were taken in, and what they stated that an older whole file must not undo.

The cursor moves in the transaction that changes the record, never by itself: what was read and not applied
is read again. How increments are asked for is for `directory/sync/sources/fhir_increment.py`.
"""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, text

from directory.sync.formats.files import refused
from directory.sync.runs.measuring import last_applied

# The API tells of no more than this.
WINDOW = timedelta(days=30)
# Their clock and ours differ, and a change may show a little after the instant it bears.
OVERLAP = timedelta(minutes=10)
SOURCE = "annuaire-sante"
_FILE = re.compile(r"annuaire-fhir-[0-9TZ]+\.ndjson")

_CURSOR = text("SELECT cursor FROM source_state WHERE source = :source")
_MOVE = text("""
    INSERT INTO source_state (source, register, cursor, answered_at)
    VALUES (:source, :register, :cursor, :now)
    ON CONFLICT (source) DO UPDATE SET cursor = excluded.cursor, answered_at = excluded.answered_at
""")
_OPEN = text("""
    SELECT id FROM register_run WHERE register = :register AND increment AND applies
    AND state IN ('running', 'held', 'interrupted') ORDER BY id DESC LIMIT 1
""")
_IN_USE = text("""
    SELECT kept_file FROM register_run
    WHERE state IN ('running', 'held', 'interrupted') AND kept_file IS NOT NULL
""")
_STATE = text("""
    INSERT INTO stated_since (register, key, stated_at)
    SELECT :register, t.key, :until FROM touched t
    WHERE NOT EXISTS (SELECT FROM spared s WHERE s.key = t.key)
    ON CONFLICT (register, key) DO UPDATE SET stated_at = excluded.stated_at
""")
_LEARN = text("""
    INSERT INTO annuaire_role (role_id, practitioner_id) SELECT role_id, practitioner_id FROM learned
    ON CONFLICT (role_id) DO UPDATE SET practitioner_id = excluded.practitioner_id
""")
_LATER = text(
    "INSERT INTO later SELECT key FROM stated_since WHERE register = :register AND stated_at > :generated_at"
)
_FORGET = text("DELETE FROM stated_since WHERE register = :register AND stated_at <= :generated_at")
_PRACTITIONERS = text(
    "SELECT role_id, practitioner_id FROM annuaire_role WHERE role_id = ANY(CAST(:roles AS text[]))"
)


def is_increment(path: Path) -> bool:
    """Whether a file tells what changed, and not all there is."""
    return _FILE.fullmatch(path.name) is not None


def file_name(until: datetime) -> str:
    """What a file that tells of changes until then is called."""
    return f"annuaire-fhir-{until:%Y%m%dT%H%M%SZ}.ndjson"


def known_until(connection: Connection, register: str) -> datetime | None:
    """Up to when the record of this register is known whole; None while no whole file was ever applied."""
    whole = last_applied(connection, register)
    if whole is None:
        return None
    told = connection.execute(_CURSOR, {"source": _source(register)}).scalar_one_or_none()
    return max(whole.generated_at, datetime.fromisoformat(told)) if told else whole.generated_at


def check_since(connection: Connection, register: str, since: datetime) -> None:
    """Refuse an increment that leaves a gap behind what is known: `increment-gap`, `no-whole-file`."""
    known = known_until(connection, register)
    if known is None:
        raise refused("no-whole-file", "Increments need a whole file of the register to begin with.")
    if since > known:
        text_ = f"This increment begins on {since:%Y-%m-%d %H:%M}; what is known ends before."
        raise refused("increment-gap", text_)


def open_run(connection: Connection, register: str) -> int | None:
    """The increment of this register that is not over, for which the next one waits; None when none is."""
    run_id: int | None = connection.execute(_OPEN, {"register": register}).scalar_one_or_none()
    return run_id


def files_in_use(connection: Connection) -> set[str]:
    """The files of runs that are not over."""
    return set(connection.execute(_IN_USE).scalars())


def remember(connection: Connection, register: str, *, until: datetime, now: datetime) -> None:
    """An increment is being applied: what it stated, and up to when; in its transaction."""
    connection.execute(_STATE, {"register": register, "until": until})
    connection.execute(_LEARN)
    move(connection, register, until=until, now=now)


def move(connection: Connection, register: str, *, until: datetime, now: datetime) -> None:
    """All changes until then are known."""
    asked = {"source": _source(register), "register": register, "cursor": until.isoformat(), "now": now}
    connection.execute(_MOVE, asked)


def mark_later(connection: Connection, register: str, generated_at: datetime) -> None:
    """Fill the temporary table `later`: the keys of which more was stated after this file was made."""
    connection.execute(_LATER, {"register": register, "generated_at": generated_at})


def forget(connection: Connection, register: str, generated_at: datetime) -> None:
    """A whole file is being applied: what was stated before it was made, it states itself."""
    connection.execute(_FORGET, {"register": register, "generated_at": generated_at})


def practitioners_of(connection: Connection, roles: Iterable[str]) -> dict[str, str]:
    """Whose the situations of practice are, by their technical ids, as far as increments told."""
    rows = connection.execute(_PRACTITIONERS, {"roles": list(roles)})
    return {row.role_id: row.practitioner_id for row in rows}


def _source(register: str) -> str:
    return f"{SOURCE}:{register}"
