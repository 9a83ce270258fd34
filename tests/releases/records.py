"""The records that releases left, and a database made of each."""

import gzip
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from api.embedded.postgres import BINARIES, EmbeddedPostgres
from tests.conftest import fresh_database

HERE = Path(__file__).parent
# Where the history has each release.
COMMITS = {"0.1.0": "ce43664eb619bfe3c7aee63dd03e229cb750a467"}
# Columns ("table.column") of a release's schema that its code names no more: the next may drop them.
UNREAD: dict[str, frozenset[str]] = {"0.1.0": frozenset()}


@dataclass(frozen=True)
class Release:
    """A release by its version: its schema, rows of nearly every kind, and its own answers about them."""

    version: str

    @property
    def commit(self) -> str:
        return COMMITS[self.version]

    @cached_property
    def sql(self) -> str:
        return gzip.decompress((HERE / f"{self.version}.sql.gz").read_bytes()).decode()

    @property
    def said(self) -> dict[str, Any]:
        """The release's verdicts, the instant of these, and the public key of its log."""
        return dict(json.loads(self.sql.rstrip().rsplit("\n-- ", 1)[1]))

    def __str__(self) -> str:
        return self.version


RELEASES = [Release(path.name.removesuffix(".sql.gz")) for path in sorted(HERE.glob("*.sql.gz"))]


@contextmanager
def loaded(postgres: EmbeddedPostgres, release: Release) -> Iterator[str]:
    """The URL of a database that holds the record as the release left it."""
    with fresh_database(postgres, "template0") as url:
        command = [BINARIES / "psql", "--quiet", "--set=ON_ERROR_STOP=1", conninfo(postgres, url)]
        done = subprocess.run(command, input=release.sql, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        yield url


def conninfo(postgres: EmbeddedPostgres, url: str) -> str:
    return postgres.conninfo.replace("dbname=sceau", f"dbname={make_url(url).database}")
