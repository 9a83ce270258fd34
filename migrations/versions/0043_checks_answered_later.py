"""Checks of very many recipients that are answered later: who asked, and how far each has come.

The addresses and the verdicts are files of the state folder, and never stand in the record.
"""

from alembic import op

revision = "0043"
down_revision = "0042"

UP = """
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '1min';
CREATE TABLE recipient_check (
    id          uuid PRIMARY KEY,
    token_id    bigint NOT NULL REFERENCES api_token,
    state       text NOT NULL CHECK (state IN ('waiting', 'running', 'done', 'failed')),
    included    text NOT NULL,
    number      integer NOT NULL CHECK (number > 0),
    decided     integer NOT NULL DEFAULT 0 CHECK (decided BETWEEN 0 AND number),
    attempts    smallint NOT NULL DEFAULT 0,
    asked_at    timestamptz NOT NULL,
    finished_at timestamptz,
    size        bigint,
    sha256      bytea,
    CHECK ((state = 'done') = (size IS NOT NULL AND sha256 IS NOT NULL))
);
CREATE INDEX recipient_check_asked ON recipient_check (asked_at)
"""
DOWN = """
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '1min';
DROP TABLE recipient_check
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
