"""A record that holds a register's file of the evening before, and the text that the night brings.

The evening is made once for each source; a test of the night gets a copy of its database.
"""

import gzip
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

from api.embedded.postgres import EmbeddedPostgres
from directory.base.audit import Actor
from directory.base.db import connect_engine
from directory.sync.runs.run import RunReport, run_register
from tests.conftest import NOON, copy_database
from tests.directory.sync.files import Run

PLAN = {"practitioners": 60, "organisations": 40, "mailboxes": 40, "seed": 4}
# Register, and what the maker of its file is told.
SOURCES = {
    "rpps": ("rpps", {}),
    "rpps-psc": ("rpps", {"psc": True}),
    "finess": ("finess", {}),
    "finess-json": ("finess", {"finess_json": True}),
    "mailboxes": ("mailboxes", {}),
    "trusted-domains": ("trusted-domains", {}),
}


@dataclass(frozen=True)
class Evening:
    """The database that holds the file of the day before, and tonight's text under its name."""

    database: str
    name: str
    text: bytes


@dataclass(frozen=True)
class Night:
    """A register whose file of the day before is applied, and the text of tonight's."""

    source: str
    register: str
    name: str
    text: bytes
    run: Run
    folder: Path

    def bring(self, text: bytes, *, apply: bool = True) -> RunReport:
        """Run a text as tonight's file."""
        with TemporaryDirectory(dir=self.folder) as folder:
            path = Path(folder) / self.name
            path.write_bytes(text)
            return self.run(self.register, path, apply=apply)


def make_evening(postgres: EmbeddedPostgres, maker: ModuleType, source: str, folder: Path) -> Evening:
    register, told = SOURCES[source]
    day = maker.Plan(**PLAN, **told)
    before = maker.make(folder / "before", day)[register]
    database = make_loaded(postgres, f"evening_{source.replace('-', '_')}", [(register, before)])
    tonight = maker.make(folder / "tonight", maker.replace(day, day=maker.date(2026, 9, 2)))[register]
    return Evening(database, *unpacked(tonight))


def make_loaded(postgres: EmbeddedPostgres, database: str, files: Iterable[tuple[str, Path]]) -> str:
    """Make a database that holds these files, each of a register, and is there to be copied; its name."""
    engine = connect_engine(copy_database(postgres, database))
    for register, path in files:
        report = run_register(
            engine, register=register, path=path, now=NOON, actor=Actor("test:someone"), apply=True
        )
        assert report.state == "applied"
    # A database in use cannot be copied.
    engine.dispose()
    return database


def unpacked(path: Path) -> tuple[str, bytes]:
    """The register's text and a name for it: the first member of an archive, or the file."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            name = archive.namelist()[0]
            return name, archive.read(name)
    data = path.read_bytes()
    return (path.stem, gzip.decompress(data)) if path.suffix == ".gz" else (path.name, data)
