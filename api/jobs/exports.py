"""Exports as folders: when one is due, how it comes to be whole or not at all, which are kept.

What stands in the files is `pki/publication/export.py`'s; how they are handed out, `api/rest/exports.py`'s.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, text

from api.jobs.list_signer import list_signer
from api.wiring import Container
from directory import red_list
from directory.base.db import transaction
from directory.base.durable_files import onto_disk
from directory.base.errors import Refusal
from directory.base.locks import held_if_free
from directory.feed import outside_cursor
from pki.publication.export import FORMAT, Manifest, write_export
from pki.service_keys import jws as list_signing

# A week: who could not fetch one over a holiday still finds it.
KEPT = 7
MANIFEST, SIGNED, SUMS = "manifest.json", "manifest.jws", "SHA256SUMS"
# Four registers of one night make one export.
_QUIET = timedelta(minutes=5)
# For who finds none to begin from. The job writes one at once: after this it is there, or he asks again.
RETRY_SECONDS = 60
HELD_BACK_SINCE = 3
_DAILY = timedelta(hours=24)
_STAMP = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_PARTIAL = ".part"
_LAST_APPLIED = text("SELECT max(finished_at) FROM register_run WHERE state = 'applied'")


@dataclass(frozen=True)
class Export:
    """One export, whole: its folder, and its manifest as it was signed."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def stamp(self) -> str:
        """Its name: the instant of its snapshot."""
        return self.folder.name

    @property
    def made_at(self) -> datetime:
        """The instant of its snapshot."""
        return datetime.fromisoformat(self.manifest["made_at"])

    def file(self, name: str) -> tuple[Path, str] | None:
        """A file of it and its SHA-256 in hexadecimal; None for what is not one of its files."""
        path = self.folder / name
        if name in self.manifest["files"]:
            return path, self.manifest["files"][name]["sha256"]
        if name not in (MANIFEST, SIGNED, SUMS):
            return None
        try:
            return path, sha256(path.read_bytes()).hexdigest()
        except FileNotFoundError:
            # Forgotten since the manifest was read.
            return None


def all_exports(folder: Path) -> list[Export]:
    """The exports in this folder, the newest first."""
    found = folder.iterdir() if folder.is_dir() else ()
    stamps = sorted((path.name for path in found if _STAMP.fullmatch(path.name)), reverse=True)
    return [export for stamp in stamps if (export := _read(folder / stamp)) is not None]


def served(connection: Connection, folder: Path) -> list[Export]:
    """Those of them that are handed out, the newest first: none holds what was hidden since."""
    return [export for export in all_exports(folder) if not _is_withdrawn(connection, export)]


def find(connection: Connection, folder: Path, stamp: str) -> Export | None:
    """The export of that stamp, or the newest for `latest`; None when there is none that is handed out."""
    if stamp == "latest":
        return next(iter(served(connection, folder)), None)
    export = _read(folder / stamp) if _STAMP.fullmatch(stamp) else None
    return None if export is None or _is_withdrawn(connection, export) else export


def export_if_due(container: Container) -> str:
    """The job: an export a day, one after registers were applied, and one when none leads into the feed."""
    done = replace_withdrawn(container)
    if _is_due(container) and (export := write(container)):
        done = ", ".join(filter(None, (done, f"wrote {export.stamp}")))
    return done


def replace_withdrawn(container: Container) -> str:
    """The job: another export as soon as one is withdrawn, since until then there is none to begin from.

    The files withdrawn go afterwards, and also where no other can be written: then `export_if_due` tries
    again in its time.
    """
    with transaction(container.engine, read_only=True) as connection:
        if not any(_is_withdrawn(connection, export) for export in all_exports(container.settings.exports)):
            return ""
    try:
        export = write(container)
    except BaseException:
        withdraw(container)
        raise
    if export is None:
        # Another process writes one, or did this very second: the next run sees what is left to do.
        return ""
    return ", ".join([f"wrote {export.stamp}", *(f"withdrew {stamp}" for stamp in withdraw(container))])


def withdraw(container: Container) -> list[str]:
    """Remove the exports that hold a mailbox since put on the red list; their stamps.

    They are not handed out from the moment it was put there.
    """
    with held_if_free(container.engine, "export") as alone:
        if not alone:
            return []
        with transaction(container.engine, read_only=True) as connection:
            exports = all_exports(container.settings.exports)
            doomed = [export for export in exports if _is_withdrawn(connection, export)]
        for export in doomed:
            _forget(export.folder)
        return [export.stamp for export in doomed]


def export_now(container: Container) -> str:
    """The job as a person starts it: an export of what the record holds now, however quiet it is."""
    export = write(container)
    return "" if export is None else f"wrote {export.stamp}"


def write(container: Container) -> Export | None:
    """Write one now, signed, and forget those beyond the last seven.

    None while another process writes one, or when one of this very second exists. Refuses `no-list-signer`
    where there is no CA. What a crash leaves half written nobody sees, and the next one removes.
    """
    with held_if_free(container.engine, "export") as alone:
        if not alone:
            return None
        signer = list_signer(container)
        now = container.clock().replace(microsecond=0)
        folder = container.settings.exports
        stamp = f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
        if (folder / stamp).exists():
            return None
        with _whole_or_not(folder, stamp) as made:
            with transaction(container.engine, read_only=True) as connection:
                manifest = write_export(connection, made, now)
            _seal(made, manifest, signer)
        exports = all_exports(folder)
        for old in exports[KEPT:]:
            _forget(old.folder)
        return exports[0]


def _is_withdrawn(connection: Connection, export: Export) -> bool:
    """What a record put back says of an export made before it is not known: then it is not handed out.

    Nor is one of an earlier release, which held nothing back (`directory/privacy.py`).
    """
    if export.manifest["format"] < HELD_BACK_SINCE:
        return True
    try:
        place = outside_cursor.place_of(outside_cursor.origin(connection), export.manifest["cursor"])
    except Refusal:
        return True
    return red_list.grew_since(connection, place.seen)


def _is_due(container: Container) -> bool:
    now = container.clock()
    newest = next(iter(all_exports(container.settings.exports)), None)
    with transaction(container.engine, read_only=True) as connection:
        applied = connection.execute(_LAST_APPLIED).scalar_one()
        # After a restore, none of those that are kept leads into the feed.
        serves = newest is not None and outside_cursor.leads_on(connection, newest.manifest["cursor"])
    if applied is None:
        return False
    if newest is None or not serves or newest.manifest["format"] < FORMAT or now - newest.made_at >= _DAILY:
        return True
    return bool(applied > newest.made_at and now - applied >= _QUIET)


def _seal(folder: Path, manifest: Manifest, signer: list_signing.ListSigner) -> None:
    """The manifest, its signature, and the sums as `sha256sum --check` reads them."""
    told = manifest.as_json()
    sums = {name: facts.sha256 for name, facts in manifest.files.items()}
    sums[MANIFEST] = sha256(told).hexdigest()
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    for name, content in ((MANIFEST, told), (SIGNED, signer.sign(told)), (SUMS, lines.encode())):
        with (folder / name).open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def _whole_or_not(folder: Path, stamp: str) -> Iterator[Path]:
    """A folder to write into, which takes its name when the block has ended well."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o750)
    for left in folder.glob(f"*{_PARTIAL}"):
        shutil.rmtree(left)
    partial = folder / f"{stamp}{_PARTIAL}"
    partial.mkdir(mode=0o750)
    try:
        yield partial
        for file in partial.iterdir():
            file.chmod(0o640)
        onto_disk(partial)
        partial.rename(folder / stamp)
    except BaseException:
        # The disk may be full, and the database on it.
        shutil.rmtree(partial, ignore_errors=True)
        raise
    onto_disk(folder)


def _forget(folder: Path) -> None:
    """Gone under its name at once: what a crash leaves of it goes with the next export."""
    doomed = folder.with_name(f"{folder.name}{_PARTIAL}")
    folder.rename(doomed)
    shutil.rmtree(doomed)


def _read(folder: Path) -> Export | None:
    try:
        return Export(folder, orjson.loads((folder / MANIFEST).read_bytes()))
    except FileNotFoundError:
        # Forgotten since its name was read.
        return None
