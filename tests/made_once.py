"""The CAs of a test: a ceremony is held once in a process for each set of words, then copied.

Its keys come as files, its rows as it writes them, under every trigger of the tables. A test of ceremonies
themselves calls `pki.ceremony.perform`.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine

from directory.base.audit import Actor
from directory.base.clock import utc_now
from directory.base.db import transaction
from pki.ceremony import perform
from pki.model import CrlForm
from pki.signing.file import FileKeys

CEREMONY = Actor("test:ceremony")
# In the order of a ceremony's writing; the database counts the lines of the log itself.
_READ = {
    "authority": "SELECT * FROM authority ORDER BY issuer_id NULLS FIRST, id",
    "crl_shard": "SELECT * FROM crl_shard",
    "reservation": "SELECT * FROM reservation",
    "certificate": "SELECT * FROM certificate",
    "audit_pending (at, actor, event, subject, detail)": (
        "SELECT at, actor, event, subject, detail FROM audit_pending"
        f" WHERE actor = '{CEREMONY.name}' ORDER BY id"
    ),
}


@dataclass(frozen=True)
class _Words:
    """What a ceremony is held for; `now` is None for the day of the run."""

    base_url: str
    now: datetime | None
    crl_form: CrlForm
    passphrase: bytes


@dataclass(frozen=True)
class _Held:
    """What a ceremony left: key files by name, rows of each table as COPY gives them."""

    keys: dict[str, bytes]
    rows: dict[str, bytes]


_held: dict[_Words, _Held] = {}


def establish(engine: Engine, keys: FileKeys, *, base_url: str, now: datetime, crl_form: CrlForm) -> None:
    """As `perform.establish`, on a record without CAs and in a folder without keys."""
    today = abs(utc_now() - now) < timedelta(minutes=1)
    words = _Words(base_url, None if today else now, crl_form, keys.passphrase)
    if words not in _held:
        perform.establish(engine, keys, base_url=base_url, now=now, actor=CEREMONY, crl_form=crl_form)
        _held[words] = _Held(_files(keys.folder), _rows(engine))
        return
    _put_files(keys.folder, _held[words].keys)
    with transaction(engine) as connection:
        for table, rows in _held[words].rows.items():
            with _cursor(connection).copy(f"COPY {table} FROM STDIN") as copy:
                copy.write(rows)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.key")}


def _put_files(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, content in files.items():
        (folder / name).touch(mode=0o600, exist_ok=False)
        (folder / name).write_bytes(content)


def _rows(engine: Engine) -> dict[str, bytes]:
    found = {}
    with transaction(engine, read_only=True) as connection:
        for table, query in _READ.items():
            with _cursor(connection).copy(f"COPY ({query}) TO STDOUT") as copy:
                found[table] = b"".join(bytes(part) for part in copy)
    return found


def _cursor(connection: Connection) -> Any:
    """That of the driver: SQLAlchemy has no COPY."""
    return connection.connection.cursor()
