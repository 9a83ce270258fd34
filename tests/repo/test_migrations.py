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

import pki.record.tables  # noqa: F401 - registers the PKI's tables beside the directory's
from directory.tables import Xid8, metadata
from tests.factories import seed_organisation, seed_practitioner, seed_token
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


def test_what_is_held_back_now_is_searched_no_more_and_all_is_looked_at_again(engine: Engine) -> None:
    seed_practitioner(engine, 1, family_name="ZYGOMATIX", given_name="JEAN 12051985")
    seed_organisation(engine, "750990012", name="CABINET ZYGOTE 12051985")
    words = text("SELECT sort_name FROM search_person UNION ALL SELECT sort_name FROM search_place")
    begun = text(
        "INSERT INTO feed_cursor (consumer, xid, id, updated_at) VALUES ('privacy-watch', '9', 9, now())"
    )
    made = config()
    with engine.connect() as connection:
        made.attributes["connection"] = connection
        command.downgrade(made, "0039")
        before = set(connection.execute(words).scalars())
        connection.execute(begun)
        command.upgrade(made, "head")
        after = set(connection.execute(words).scalars())
        looked_at = connection.execute(text("SELECT consumer FROM feed_cursor")).scalars().all()
        connection.rollback()
    assert before == {"ZYGOMATIX JEAN 12051985", "CABINET ZYGOTE 12051985"}
    assert after == {"ZYGOMATIX ", ""}
    assert looked_at == []


def test_what_two_persons_saw_is_taken_from_the_history(engine: Engine) -> None:
    """Of enrolments made before names were recorded: the record as of the request and the approval."""
    corrected, renamed, kept, waits = (seed_practitioner(engine, number) for number in range(1, 5))
    office = seed_organisation(engine)
    first, second = seed_token(engine, "first"), seed_token(engine, "second")
    enrol = text(
        "INSERT INTO enrolment (practitioner, mailbox, authority, identity_check, state, requested_by,"
        " requested_at) VALUES (:who, :mailbox, 'CNOM', '{}', 'requested', :by, clock_timestamp())"
    )
    approve = text(
        "UPDATE enrolment SET state = 'approved', approved_by = :by, approved_at = clock_timestamp()"
        " WHERE practitioner <> :waits"
    )
    rename = text("UPDATE practitioner SET family_name = 'CHOSEN' WHERE national_id = :who")
    everyone = [(one.national_id, one.mailbox) for one in (corrected, renamed, kept, waits)]
    for who, mailbox in [*everyone, (kept.national_id, office)]:
        with engine.begin() as connection:
            connection.execute(enrol, {"who": who, "mailbox": mailbox, "by": first})
    with engine.begin() as connection:
        connection.execute(rename, {"who": renamed.national_id})
    with engine.begin() as connection:
        connection.execute(approve, {"by": second, "waits": waits.national_id})
    with engine.begin() as connection:
        connection.execute(rename, {"who": corrected.national_id})
    made = config()
    with engine.connect() as connection:
        made.attributes["connection"] = connection
        command.downgrade(made, "0024")
        command.upgrade(made, "head")
        found = connection.execute(
            text("SELECT e.mailbox, n.names FROM enrolment e JOIN enrolment_names n ON n.enrolment_id = e.id")
        )
        names = {row.mailbox: row.names for row in found}
        connection.rollback()
    # Corrected after the approval: what was approved counts. Renamed in between: two saw different things.
    assert {address: told.get("family_name") for address, told in names.items()} == {
        corrected.mailbox: "MARTIN", kept.mailbox: "MARTIN", waits.mailbox: "MARTIN", office: None,
    }  # fmt: skip
    assert names[office] == {
        "kind": "ORG", "address": office, "name": "CLINIQUE DES LILAS", "finess": "750990012", "service": "",
    }  # fmt: skip
    assert names[kept.mailbox] == {
        "kind": "PER", "address": kept.mailbox, "given_name": "Camille", "family_name": "MARTIN",
        "national_id": kept.national_id, "professions": ["10"],
    }  # fmt: skip


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
