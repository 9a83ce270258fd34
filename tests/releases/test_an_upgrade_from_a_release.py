"""Each release upgrades to this one: its rows stay, its schema becomes ours, its answers are given again."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
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
from tests.releases.records import RELEASES, Release, conninfo, loaded

# What is never rewritten, by whatever comes later: the acts, and the bytes others rely upon.
KEPT = (
    "audit_checkpoint", "audit_entry", "authority", "certificate", "correction", "crl", "enrolment",
    "enrolment_names", "measure", "measure_annulment", "reservation", "revocation", "withdrawal_agreement",
)  # fmt: skip
Rows = dict[str, list[dict[str, Any]]]


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
def upgraded(postgres: EmbeddedPostgres, release: Release) -> Iterator[tuple[Engine, Rows]]:
    """The record of a release after the migrations of this one, and the rows of before."""
    with loaded(postgres, release) as url:
        engine = connect_engine(url)
        before = rows(engine)
        migrate(engine)
        yield engine, before
        engine.dispose()


def test_every_release_before_this_one_left_a_record() -> None:
    """When this fails: tests/releases/README.md says how a release's record is made."""
    dated = re.findall(
        r"^## (\d+\.\d+\.\d+) — \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert {release.version for release in RELEASES} >= set(dated[1:])


def test_a_record_has_rows_of_nearly_every_kind(upgraded: tuple[Engine, Rows]) -> None:
    _, before = upgraded
    filled = {table for table, found in before.items() if found}
    assert set(KEPT) <= filled
    assert len(filled) > 0.7 * len(before)


def test_the_schema_becomes_that_of_a_new_installation(
    upgraded: tuple[Engine, Rows], postgres: EmbeddedPostgres
) -> None:
    engine, _ = upgraded
    with fresh_database(postgres) as new:
        assert schema(postgres, engine.url.render_as_string(hide_password=False)) == schema(postgres, new)


def test_no_row_is_lost_and_no_act_rewritten(upgraded: tuple[Engine, Rows]) -> None:
    engine, before = upgraded
    after = rows(engine)
    assert {
        table: len(found) for table, found in before.items() if len(after.get(table, ())) < len(found)
    } == {}
    for table in KEPT:
        columns = before[table][0].keys()
        kept = [{column: row[column] for column in columns} for row in after[table]]
        missing = list(before[table])
        for row in kept:
            with suppress(ValueError):
                missing.remove(row)
        assert missing == [], table


def test_the_log_is_intact(upgraded: tuple[Engine, Rows], release: Release) -> None:
    engine, _ = upgraded
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(release.said["log_key"]))
    with transaction(engine, read_only=True) as connection:
        assert verifier.verify(connection, key, None) == []


def test_verdicts_are_those_of_the_release(upgraded: tuple[Engine, Rows], release: Release) -> None:
    engine, _ = upgraded
    said = release.said["verdicts"]
    assert {verdict for verdict, _, _ in said.values()} == {"allowed", "refused"}
    with transaction(engine, read_only=True) as connection:
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
