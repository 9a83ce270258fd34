"""Whose token it is: an act handed in under it must be of that person."""

from alembic import op

revision = "0046"
down_revision = "0043"

UP = """
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '1min';
ALTER TABLE api_token ADD COLUMN person text;
ALTER TABLE api_token ADD CONSTRAINT api_token_person
    CHECK (person ~ '^person:[0-9a-f]{32}$') NOT VALID;
ALTER TABLE api_token VALIDATE CONSTRAINT api_token_person
"""
DOWN = """
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '1min';
ALTER TABLE api_token DROP COLUMN person
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
