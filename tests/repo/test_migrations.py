"""Migrations: numbered, one head that the HEAD file names, up and down, and equal to the tables in code."""

import re
from datetime import datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text
from sqlalchemy.dialects.postgresql.base import ischema_names

import pki.tables  # noqa: F401 - registers the PKI's tables beside the directory's
from directory.tables import Xid8, metadata
from tests.status_ca import StatusCa

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"


def config() -> Config:
    made = Config()
    made.set_main_option("script_location", str(MIGRATIONS))
    return made


def test_files_are_numbered_and_say_what_they_do() -> None:
    for path in (MIGRATIONS / "versions").glob("*.py"):
        assert re.fullmatch(r"\d{4}_[a-z_]+\.py", path.name)


def test_there_is_one_head_and_the_head_file_names_it() -> None:
    assert ScriptDirectory.from_config(config()).get_heads() == [(MIGRATIONS / "HEAD").read_text().strip()]


def test_no_migration_imports_our_own_code() -> None:
    for path in MIGRATIONS.rglob("*.py"):
        assert not re.search(r"^\s*(from|import) (directory|pki|api)\b", path.read_text(), re.MULTILINE), path


def test_down_leaves_nothing_and_up_brings_all_back(engine: Engine) -> None:
    made = config()
    leftovers = (
        "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE nspname = 'public' AND relname NOT LIKE 'alembic%' UNION ALL"
        " SELECT proname FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = 'public'"
    )
    with engine.begin() as connection:
        made.attributes["connection"] = connection
        command.downgrade(made, "base")
        assert connection.execute(text(leftovers)).scalars().all() == []
        command.upgrade(made, "head")


def test_down_and_up_again_keeps_the_cas_apart(engine: Engine, now: datetime) -> None:
    ca = StatusCa(engine, now).establish()
    for name in ("organisations-1", "persons-2"):
        ca.add_issuing(name)
    made = config()
    with engine.connect() as connection:
        made.attributes["connection"] = connection
        command.downgrade(made, "0011")
        command.upgrade(made, "head")
        known = connection.execute(
            text("SELECT id, role, generation, state FROM authority ORDER BY id")
        ).all()
        connection.rollback()
    # Whether persons-2 had been activated is gone with the column: nobody issues by an accident.
    assert [tuple(row) for row in known] == [
        ("organisations-1", "organisations", 1, "active"),
        ("persons-1", "persons", 1, "active"),
        ("persons-2", "persons", 2, "standby"),
        ("root-1", "root", 1, "active"),
    ]


def test_the_tables_in_code_are_the_tables_in_the_database(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ischema_names, "xid8", Xid8)

    def ours(name: str | None, kind: str, _: object) -> bool:
        # History tables, expression indexes and the database's own checks live in the migrations alone.
        if kind == "table":
            return not (name or "").endswith("_history")
        return kind in ("schema", "column", "unique_constraint", "foreign_key_constraint")

    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_name": ours, "compare_type": True, "target_metadata": metadata}
        )
        differences = [d for d in compare_metadata(context, metadata) if "index" not in str(d[0])]
    assert differences == []
