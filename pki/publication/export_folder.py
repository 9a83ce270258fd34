"""Exports as folders: how one comes to be whole or not at all, and which of them are handed out.

What stands in the files is `export`'s; when one is due, `api/jobs/exports.py`'s.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection

from directory import red_list
from directory.base.durable_files import onto_disk
from directory.base.errors import Refusal
from directory.feed import outside_cursor
from pki.publication.export import Manifest
from pki.service_keys import jws

# A week: who could not fetch one over a holiday still finds it.
KEPT = 7
MANIFEST, SIGNED, SUMS = "manifest.json", "manifest.jws", "SHA256SUMS"
# For who finds none to begin from. The job writes one at once: after this it is there, or he asks again.
RETRY_SECONDS = 60
HELD_BACK_SINCE = 3
_STAMP = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_PARTIAL = ".part"


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
    paths = folder.iterdir() if folder.is_dir() else ()
    stamps = sorted((path.name for path in paths if _STAMP.fullmatch(path.name)), reverse=True)
    return [export for stamp in stamps if (export := _read(folder / stamp)) is not None]


def served(connection: Connection, folder: Path) -> list[Export]:
    """Those of them that are handed out, the newest first: none holds what was hidden since."""
    return [export for export in all_exports(folder) if not is_withdrawn(connection, export)]


def find(connection: Connection, folder: Path, stamp: str) -> Export | None:
    """The export of that stamp, or the newest for `latest`; None when there is none that is handed out."""
    if stamp == "latest":
        return next(iter(served(connection, folder)), None)
    export = _read(folder / stamp) if _STAMP.fullmatch(stamp) else None
    return None if export is None or is_withdrawn(connection, export) else export


def is_withdrawn(connection: Connection, export: Export) -> bool:
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


def seal(folder: Path, manifest: Manifest, signer: jws.ListSigner) -> None:
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
def whole_or_not(folder: Path, stamp: str) -> Iterator[Path]:
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


def forget(folder: Path) -> None:
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
