"""Where registers are fetched from, as the operator's file says, and how the last attempt at each went.

The pauses between attempts live here and in the database, so that nothing sleeps and a killed worker goes on
where it stood. How a file is fetched is `https.py`'s.
"""

import tomllib
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Connection, text

from directory.base.errors import Kind, Refusal
from directory.sync.sources.fhir_client import Api
from directory.sync.sources.https import Origin, Version, checked

# The national service answers 429 to who asks again too soon; these are the waits its users found to do.
PAUSES = tuple(timedelta(minutes=minutes) for minutes in (1, 2, 4, 8))
# A server may ask for more patience than that, not for a lost night.
LONGEST_PAUSE = timedelta(hours=1)
_TEXTS = {"register", "url", "files"}
_PATHS = {"trust_anchor", "client_certificate", "client_key"}
_API = "fhir"
_API_KNOWN = {"url", "key_file", "trust_anchor", "allow_private", "registers"}
_KNOWN = {*_TEXTS, *_PATHS, "redirects_to", "allow_private"}


def load_origins(path: Path, registers: Collection[str]) -> tuple[Origin, ...]:
    """The sources of a TOML file: `hosts`, the list of all hosts that may be asked, and `[sources.<name>]`.

    Paths in it are relative to its folder. Refusal MALFORMED `bad-source` for what cannot be meant.
    """
    given = _parsed(path)
    said = given.get("sources", {})
    return tuple(_origin(name, of, path.parent, given["hosts"], registers) for name, of in said.items())


def load_api(path: Path, registers: Collection[str]) -> tuple[Api, tuple[str, ...]] | None:
    """The API that `[fhir]` of the same file names, and the registers it brings in step; None when none is.

    Refusal as of `load_origins`.
    """
    given = _parsed(path)
    if _API not in given:
        return None
    said = given[_API]
    if not isinstance(said, dict) or set(said) - _API_KNOWN or {"url", "key_file"} - set(said):
        raise _bad(_API, f"needs `url` and `key_file` and knows {sorted(_API_KNOWN)}")
    wanted = said.get("registers", list(registers))
    texts = [said[key] for key in ("url", "key_file", "trust_anchor") if key in said]
    if not _is_texts(texts) or not isinstance(wanted, list):
        raise _bad(_API, "holds something that is no text where one belongs")
    if unknown := [register for register in wanted if register not in registers]:
        raise _bad(_API, f"brings no register {unknown} in step")
    origin = Origin(
        name=_API,
        register="",
        url=said["url"].rstrip("/"),
        files="",
        trust_anchor=path.parent / said["trust_anchor"] if "trust_anchor" in said else None,
        allow_private=said.get("allow_private", False) is True,
    )
    api = Api(_allowed(origin, given["hosts"]), path.parent / said["key_file"])
    return api, tuple(register for register in registers if register in wanted)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        given = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise _bad(path.name, f"cannot be read: {error}") from error
    if set(given) - {"hosts", "sources", _API} or not isinstance(given.get("sources", {}), dict):
        raise _bad(path.name, "holds something else than `hosts`, `[sources.<name>]` and `[fhir]`")
    if not _is_texts(given.setdefault("hosts", [])):
        raise _bad(path.name, "lists something in `hosts` that is no text")
    return given


def _origin(
    name: str, said: Mapping[str, Any], folder: Path, hosts: list[str], registers: Collection[str]
) -> Origin:
    if not name.replace("-", "").isalnum() or not name.isascii():
        raise _bad(name[:40], "is no name of letters, digits and hyphens")
    if not isinstance(said, dict) or set(said) - _KNOWN or _TEXTS - set(said):
        raise _bad(name, f"needs {sorted(_TEXTS)} and knows {sorted(_KNOWN)}")
    texts = [said[key] for key in (_TEXTS | _PATHS) & set(said)]
    if not _is_texts(texts) or not _is_texts(said.get("redirects_to", [])):
        raise _bad(name, "holds something that is no text where one belongs")
    if said["register"] not in registers:
        raise _bad(name, f"is of no register: {said['register']!r}")
    made = Origin(
        name=name,
        register=said["register"],
        url=said["url"],
        files=said["files"],
        redirects_to=frozenset(said.get("redirects_to", ())),
        allow_private=said.get("allow_private", False) is True,
        **{key: folder / said[key] for key in _PATHS & set(said)},
    )
    return _allowed(made, hosts)


def _allowed(origin: Origin, hosts: list[str]) -> Origin:
    try:
        url = urlsplit(origin.url)
        asked = {checked(origin, url), *origin.redirects_to}
        known = url.port is None or url.port > 0
    except (ValueError, Refusal) as error:
        raise _bad(origin.name, f"has an address that is not plain https: {origin.url[:120]!r}") from error
    if not known or asked - set(hosts):
        raise _bad(origin.name, f"asks hosts that `hosts` does not name: {sorted(asked - set(hosts))}")
    return origin


def _is_texts(texts: Any) -> bool:
    return isinstance(texts, list) and all(isinstance(word, str) and word.isprintable() for word in texts)


def _bad(name: str, how: str) -> Refusal:
    return Refusal(Kind.MALFORMED, "bad-source", f"sources: {name} {how}.")


def begin_night(connection: Connection, origins: Iterable[Origin], *, now: datetime) -> None:
    """Let every source be due, whatever became of it last night."""
    begun = text(
        "INSERT INTO source_state (source, register, next_attempt_at) VALUES (:source, :register, :now)"
        " ON CONFLICT (source) DO UPDATE"
        " SET register = excluded.register, attempts = 0, next_attempt_at = excluded.next_attempt_at"
    )
    for origin in origins:
        connection.execute(begun, {"source": origin.name, "register": origin.register, "now": now})


def due(connection: Connection, *, now: datetime) -> set[str]:
    """The names of the sources whose time has come."""
    query = text("SELECT source FROM source_state WHERE next_attempt_at <= :now")
    return set(connection.execute(query, {"now": now}).scalars())


def last_version(connection: Connection, origin: Origin) -> Version:
    """What was fetched last from this source, empty when nothing was."""
    query = text("SELECT file_name, etag, last_modified FROM source_state WHERE source = :source")
    row = connection.execute(query, {"source": origin.name}).one_or_none()
    return Version(*row) if row else Version()


def note_fetched(connection: Connection, origin: Origin, version: Version | None, *, now: datetime) -> None:
    """The source answered: with this file, or that there is none newer (None)."""
    connection.execute(
        text(
            "UPDATE source_state SET attempts = 0, next_attempt_at = NULL, answered_at = :now, reason = NULL"
            " WHERE source = :source"
        ),
        {"source": origin.name, "now": now},
    )
    if version is not None:
        connection.execute(
            text(
                "UPDATE source_state SET file_name = :file_name, etag = :etag, last_modified = :last_modified"
                " WHERE source = :source"
            ),
            {
                "source": origin.name,
                "file_name": version.file_name,
                "etag": version.etag,
                "last_modified": version.last_modified,
            },
        )


def note_refused(
    connection: Connection, origin: Origin, refusal: Refusal, *, now: datetime
) -> datetime | None:
    """The attempt failed: when the next one is due, None when there is none before another night."""
    attempts = connection.execute(
        text("UPDATE source_state SET attempts = attempts + 1 WHERE source = :source RETURNING attempts"),
        {"source": origin.name},
    ).scalar_one()
    again = None
    if refusal.kind is Kind.UNAVAILABLE and attempts <= len(PAUSES):
        asked = timedelta(seconds=refusal.details.get("retry_after") or 0)
        again = now + max(PAUSES[attempts - 1], min(asked, LONGEST_PAUSE))
    connection.execute(
        text("UPDATE source_state SET next_attempt_at = :again, reason = :reason WHERE source = :source"),
        {"source": origin.name, "again": again, "reason": refusal.code},
    )
    return again
