"""The view of last events tells all of an event: when it was written down, and which reason it restates."""

from alembic import op

revision = "0041"
down_revision = "0040"

UP = """
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '1min';
CREATE OR REPLACE VIEW revocation_state AS
    SELECT DISTINCT ON (serial) id, serial, authority_id, shard, action, reason, comment, actor, revoked_at,
           not_after, entry, restates, recorded_at
    FROM revocation ORDER BY serial, id DESC
"""
# Columns of a view are added in place, and taken away only with it.
DOWN = """
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '1min';
DROP VIEW revocation_state;
CREATE VIEW revocation_state AS
    SELECT DISTINCT ON (serial) id, serial, authority_id, shard, action, reason, comment, actor, revoked_at,
           not_after, entry
    FROM revocation ORDER BY serial, id DESC
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
