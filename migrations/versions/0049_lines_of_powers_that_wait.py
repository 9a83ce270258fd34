"""An index of the lines of powers that wait: each signature and each act that gives trust asks for them."""

from alembic import op

revision = "0049"
down_revision = "0048"

UP = """
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '1min';
CREATE INDEX audit_pending_power ON audit_pending (id) WHERE event = 'power.changed'
"""
DOWN = """
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '1min';
DROP INDEX audit_pending_power
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
