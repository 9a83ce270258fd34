"""Each release upgrades to this one: its rows stay, its schema becomes ours, its answers are given again."""

import json
import re
import subprocess
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Engine, text

from api.embedded.postgres import BINARIES, EmbeddedPostgres
from directory.base.db import connect_engine, transaction
from pki.tlog import verifier
from pki.verdict.answer import verdicts
from tests.conftest import ROOT, fresh_database, migrate
from tests.releases.kinds import Rows, kinds, without_example
from tests.releases.records import PRESENT, RELEASES, WITHOUT_EXAMPLE, Release, conninfo, loaded

# Tables that a migration since fills anew, each with the reason. Of every other no row is lost or rewritten.
FILLED_ANEW: Mapping[str, str] = {}


@dataclass(frozen=True)
class Upgraded:
    """The record of a release after the migrations of this one, and what it held before them."""

    engine: Engine
    before: Rows
    known: Mapping[tuple[str, str], frozenset[str]]


def rows(engine: Engine) -> Rows:
    """Every row of every table, by column, as JSON has them: Python knows no infinite instant."""
    tables = text(
        "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE nspname = 'public' AND relkind = 'r' AND relname <> 'alembic_version'"
    )
    with engine.connect() as connection:
        return {
            table: list(connection.execute(text(f"SELECT to_jsonb(t) FROM {table} t")).scalars())
            for table in connection.execute(tables).scalars()
        }


def schema(postgres: EmbeddedPostgres, url: str) -> set[str]:
    """Every object of the schema as it is created; columns in any order, since later ones stand last."""
    words = [BINARIES / "pg_dump", "--schema-only", "--no-owner", "--no-privileges", conninfo(postgres, url)]
    dumped = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    dumped = re.sub(r"^\\(un)?restrict .*$", "", dumped, flags=re.MULTILINE)
    # PostgreSQL 18 names these after what else there was when they were made.
    dumped = re.sub(r" CONSTRAINT \w+_not_null\d* NOT NULL", " NOT NULL", dumped)
    return {"\n".join(sorted(re.split(r",?\n", part.strip()))) for part in dumped.split("\n\n")}


@pytest.fixture(scope="module", params=RELEASES, ids=str)
def release(request: pytest.FixtureRequest) -> Release:
    assert isinstance(request.param, Release)
    return request.param


@pytest.fixture(scope="module")
def upgraded(postgres: EmbeddedPostgres, release: Release) -> Iterator[Upgraded]:
    with loaded(postgres, release) as url:
        engine = connect_engine(url)
        found = Upgraded(engine, rows(engine), kinds(engine))
        migrate(engine)
        yield found
        engine.dispose()


def test_every_release_before_this_one_left_a_record() -> None:
    """When this fails: tests/releases/README.md says how a release's record is made."""
    dated = re.findall(
        r"^## (\d+\.\d+\.\d+) — \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert {release.version for release in RELEASES} >= set(dated[1:])


def test_a_record_has_an_example_of_every_table_and_kind(upgraded: Upgraded, release: Release) -> None:
    """When this fails: `making` makes an example, or records.py says why none can be made."""
    assert without_example(upgraded.before, upgraded.known) == WITHOUT_EXAMPLE[release.version]


def test_the_schema_becomes_that_of_a_new_installation(
    upgraded: Upgraded, postgres: EmbeddedPostgres
) -> None:
    with fresh_database(postgres) as new:
        assert schema(postgres, upgraded.engine.url.render_as_string(hide_password=False)) == schema(
            postgres, new
        )


def test_no_row_is_lost_or_rewritten(upgraded: Upgraded) -> None:
    """Of the columns that stay; a table that is filled anew keeps the number of its rows."""
    after = rows(upgraded.engine)
    for table, found in upgraded.before.items():
        kept = after.get(table, [])
        assert len(kept) >= len(found), table
        if found and table not in FILLED_ANEW:
            columns = found[0].keys() & kept[0].keys()
            assert alike(found, columns) - alike(kept, columns) == Counter(), table


def alike(found: list[dict[str, Any]], columns: Collection[str]) -> Counter[str]:
    """How often each row stands there, told by these columns."""
    return Counter(json.dumps({column: row[column] for column in sorted(columns)}) for row in found)


def test_this_release_makes_no_migration_after_its_record() -> None:
    """When this fails: a migration came after the record of this version. The next version begins with it."""
    left = {release.version: release for release in RELEASES}
    if present := left.get(PRESENT):
        head = (ROOT / "migrations" / "HEAD").read_text().strip()
        assert f"INSERT INTO public.alembic_version VALUES\n\t('{head}')" in present.sql


def test_the_log_is_intact(upgraded: Upgraded, release: Release) -> None:
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(release.said["log_key"]))
    with transaction(upgraded.engine, read_only=True) as connection:
        assert verifier.verify(connection, key, None) == []


def test_verdicts_are_those_of_the_release(upgraded: Upgraded, release: Release) -> None:
    said = release.said["verdicts"]
    assert {verdict for verdict, _, _ in said.values()} == {"allowed", "refused"}
    with transaction(upgraded.engine, read_only=True) as connection:
        found = verdicts(
            connection, list(said), sender=None, at=None, now=datetime.fromisoformat(release.said["at"]),
            lifetime=timedelta(minutes=15),
        )  # fmt: skip
    given = {
        verdict.address: [
            verdict.answer.value, [str(reason) for reason in verdict.reasons],
            [certificate.serial for certificate in verdict.certificates],
        ]
        for verdict in found
    }  # fmt: skip
    assert given == said
