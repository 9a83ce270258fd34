"""Where a source stands: what was fetched last, when to ask again, and the cursor of an incremental one."""

from alembic import op

revision = "0011"
down_revision = "0010"

UP = r"""
CREATE TABLE source_state (
    source          text PRIMARY KEY,
    register        text NOT NULL,
    file_name       text NOT NULL DEFAULT '',
    etag            text NOT NULL DEFAULT '',
    last_modified   text NOT NULL DEFAULT '',
    attempts        smallint NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    answered_at     timestamptz,
    reason          text,
    cursor          text
);

ALTER TABLE register_run ADD COLUMN increment boolean NOT NULL DEFAULT false;

CREATE TABLE stated_since (
    register   text NOT NULL,
    key        text NOT NULL,
    stated_at  timestamptz NOT NULL,
    PRIMARY KEY (register, key)
);

CREATE TABLE annuaire_role (
    role_id          text PRIMARY KEY,
    practitioner_id  text NOT NULL
);
"""

DOWN = """
DROP TABLE annuaire_role;
DROP TABLE stated_since;
ALTER TABLE register_run DROP COLUMN increment;
DROP TABLE source_state;
"""


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute(DOWN)
