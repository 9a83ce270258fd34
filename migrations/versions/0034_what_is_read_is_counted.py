"""What is read is counted: portions of each quota drawn within the last hour, and whom the log was told of."""

from alembic import op

revision = "0034"
down_revision = "0033"

UP = """
-- Unlogged: written for a while and worth nothing after it. After a crash the count begins anew.
CREATE UNLOGGED TABLE reading_use (
    reading text NOT NULL,
    scope   text NOT NULL,
    minute  timestamptz NOT NULL,
    used    bigint NOT NULL,
    PRIMARY KEY (reading, scope, minute)
) WITH (fillfactor = 50);
CREATE UNLOGGED TABLE reading_alarm (
    reading text NOT NULL,
    scope   text NOT NULL,
    told_at timestamptz NOT NULL,
    PRIMARY KEY (reading, scope)
);
"""


def execute(sql: str) -> None:
    # The driver's own cursor, as in the migrations before.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute("DROP TABLE reading_alarm")
    execute("DROP TABLE reading_use")
