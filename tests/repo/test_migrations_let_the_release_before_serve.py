"""Migrations obey `migration_lint.py`, and each of its rules is awake: what it forbids is reported."""

import re
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from mako.template import Template
from sqlalchemy import Engine, text

from tests.releases.records import BEFORE, RELEASES, UNREAD
from tests.repo.migration_lint import EXEMPT, findings
from tests.repo.test_migrations import MIGRATIONS

HEAD = (MIGRATIONS / "HEAD").read_text().strip()
FILES = sorted((MIGRATIONS / "versions").glob("*.py"))
TIMEOUTS = "SET LOCAL lock_timeout = '4s'; SET LOCAL statement_timeout = '1min'; "
ANEW = "DROP INDEX CONCURRENTLY IF EXISTS certificate_new; "


def migration(sql: str, *, timeouts: str = TIMEOUTS, also: str = "") -> str:
    upgrade = "def upgrade() -> None:\n    op.execute(SQL)\n"
    return f'from alembic import op\nSQL = """{timeouts}{sql}"""\n\n{upgrade}{also}'


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_migration_lets_the_release_before_serve(path: Path) -> None:
    if path.name[:4] not in EXEMPT:
        assert findings(path.read_text(), UNREAD[BEFORE.version]) == []


def test_those_exempt_are_those_of_the_first_release() -> None:
    assert {path.name[:4] for path in FILES} >= EXEMPT
    assert (
        f"'{max(EXEMPT)}'"
        in re.split(r"^INSERT|^COPY", RELEASES[0].sql.split("alembic_version VALUES")[1])[0]
    )


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("CREATE INDEX certificate_new ON certificate (mailbox)", "built CONCURRENTLY"),
        ("CREATE UNIQUE INDEX certificate_new ON public.certificate (mailbox)", "built CONCURRENTLY"),
        ("CREATE INDEX CONCURRENTLY certificate_new ON certificate (mailbox)", "invalid index"),
        (ANEW + "CREATE INDEX CONCURRENTLY certificate_new ON certificate (mailbox)", "autocommit_block"),
        ("ALTER TABLE certificate DROP COLUMN profile", "reads certificate.profile"),
        ("ALTER TABLE certificate ADD a text, DROP COLUMN IF EXISTS profile", "reads certificate.profile"),
        ("DROP TABLE measure", "read what is dropped"),
        ("DROP FUNCTION sceau_fold(text)", "call the function"),
        ("ALTER TABLE certificate RENAME COLUMN profile TO kind", "the old name"),
        ("ALTER TABLE certificate RENAME TO certificates", "the old name"),
        ("ALTER TABLE certificate ALTER COLUMN shard TYPE bigint", "change of type"),
        ("ALTER TABLE certificate ALTER shard SET DATA TYPE bigint", "change of type"),
        ("ALTER TABLE certificate ALTER COLUMN mailbox SET NOT NULL", "SET NOT NULL"),
        ("ALTER TABLE certificate ADD COLUMN a text NOT NULL", "needs a default"),
        ("ALTER TABLE certificate ADD COLUMN a uuid DEFAULT gen_random_uuid()", "is a constant"),
        ("ALTER TABLE certificate ADD COLUMN a int GENERATED ALWAYS AS (1) STORED", "is a constant"),
        ("ALTER TABLE certificate ADD COLUMN a bigint REFERENCES measure", "a statement of its own"),
        ("ALTER TABLE certificate ADD CONSTRAINT a CHECK (shard > 0)", "added NOT VALID"),
        ("ALTER TABLE certificate ADD CONSTRAINT a UNIQUE (mailbox)", "USING INDEX"),
        ("ALTER TABLE certificate SET UNLOGGED", "rewrites the table"),
        ("UPDATE certificate SET shard = 0", "in portions"),
        ("-- all of them\nDELETE FROM change", "in portions"),
        ("TRUNCATE change", "in portions"),
        ("LOCK TABLE certificate", "locks or rewrites"),
        ("CLUSTER certificate USING certificate_pkey", "locks or rewrites"),
    ],
)  # fmt: skip
def test_what_stops_the_release_before_is_reported(sql: str, said: str) -> None:
    assert any(said in found for found in findings(migration(sql)))


@pytest.mark.parametrize(
    ("timeouts", "said"),
    [
        ("", "lock_timeout"),
        ("SET LOCAL lock_timeout = '4s'; ", "statement_timeout"),
        (TIMEOUTS.replace("'4s'", "'40s'"), "lock_timeout"),
        (TIMEOUTS.replace("'4s'", "'0s'"), "lock_timeout"),
        (TIMEOUTS.replace("'1min'", "'0'"), "statement_timeout"),
    ],
)
def test_a_wait_without_end_is_reported(timeouts: str, said: str) -> None:
    assert said in findings(migration("SELECT 1", timeouts=timeouts))[0]


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE new (a int); CREATE INDEX new_a ON new (a); ALTER TABLE new ADD CHECK (a > 0)",
        "ALTER TABLE certificate ADD COLUMN a text NOT NULL DEFAULT ''",
        "ALTER TABLE certificate ADD CONSTRAINT a CHECK (shard > 0) NOT VALID",
        "ALTER TABLE certificate VALIDATE CONSTRAINT a",
        "UPDATE feed_clock SET reached = now()",
        "CREATE OR REPLACE FUNCTION f() RETURNS void LANGUAGE sql AS $$ UPDATE certificate SET shard = 0; $$",
        "ALTER TABLE certificate DROP COLUMN unread",
    ],
)
def test_what_stops_nobody_passes(sql: str) -> None:
    assert findings(migration(sql), frozenset({"certificate.unread"})) == []


def test_what_only_the_way_back_does_is_not_judged() -> None:
    back = '\nBACK = "DROP TABLE measure"\n\ndef downgrade() -> None:\n    op.execute(BACK)\n'
    assert findings(migration("SELECT 1", also=back)) == []


def test_a_migration_begun_from_the_template_passes_and_builds_its_index(
    engine: Engine, tmp_path: Path
) -> None:
    """An index that an attempt cut short had left invalid is built anew."""
    index = f"{ANEW}CREATE INDEX CONCURRENTLY certificate_new ON certificate (mailbox)"
    body = "with op.get_context().autocommit_block():\n        " + "\n        ".join(
        f'op.execute("{statement.strip()}")' for statement in index.split(";")
    )
    made = Template(filename=str(MIGRATIONS / "script.py.mako")).render(
        message="One more index.", up_revision="next", down_revision=HEAD, upgrades=body, downgrades="",
        imports="", branch_labels=None, depends_on=None,
    )  # fmt: skip
    assert findings(made) == []
    (tmp_path / "next_index.py").write_text(made)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("version_locations", f"{MIGRATIONS / 'versions'}\n{tmp_path}")
    config.set_main_option("path_separator", "newline")
    with engine.begin() as connection:
        connection.execute(text("CREATE INDEX certificate_new ON certificate (serial)"))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    with engine.connect() as connection:
        built = "SELECT pg_get_indexdef('certificate_new'::regclass)"
        assert "(mailbox)" in connection.execute(text(built)).scalar_one()
