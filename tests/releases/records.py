"""The records that releases left, and a database made of each."""

import gzip
import json
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from api.embedded.postgres import BINARIES, EmbeddedPostgres
from tests.conftest import ROOT, fresh_database

HERE = Path(__file__).parent
# Where the history has each release.
COMMITS = {
    "0.1.0": "ce43664eb619bfe3c7aee63dd03e229cb750a467",
    "0.2.0": "95a2715ec388b24b3c4377782b0cb2cbdf7ab5ca",
}
# Columns ("table.column") of a release's schema that its code names no more: the next may drop them.
UNREAD: dict[str, frozenset[str]] = {"0.1.0": frozenset(), "0.2.0": frozenset()}
# Tables ("table") and kinds of rows ("table.column=kind") that a record has no example of, and why.
NEVER_WRITTEN: Mapping[str, str] = {
    "blocked_key.cause=another-person": "whose a key is stands in key_holder",
    "operator_history": "no release changes an operator's row",
    "attention.kind=plain-crl-large": "needs a CRL of 50,000 entries",
    "attention.kind=servers-authority-missing": "a first run makes its CA for servers",
}
WITHOUT_EXAMPLE: Mapping[str, frozenset[str]] = {
    "0.1.0": frozenset(NEVER_WRITTEN),
    # The road that made it read less than a quota; it reads more now.
    "0.2.0": frozenset({*NEVER_WRITTEN, "reading_alarm"}),
}


@dataclass(frozen=True)
class Release:
    """A release by its version: its schema, rows of every kind, and its own answers about them."""

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


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


RELEASES = sorted(
    (Release(path.name.removesuffix(".sql.gz")) for path in HERE.glob("*.sql.gz")),
    key=lambda release: numbers(release.version),
)
PRESENT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
# Serves while an upgrade to this one goes on, which left its record when it was dated.
BEFORE = [release for release in RELEASES if numbers(release.version) < numbers(PRESENT)][-1]


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
