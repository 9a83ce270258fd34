"""Indexes for what is asked every few seconds or by strangers, so that its cost does not grow with the record."""

from alembic import op

revision = "0003"
down_revision = "0002"

UP = """
-- Recovery looks at the reservations of the last days, not at all there ever were.
CREATE INDEX reservation_time ON reservation (reserved_at);
-- /metrics counts by these, and is open: counted over an index of a few bytes a row, not over the certificates.
CREATE INDEX certificate_profile ON certificate (profile);
CREATE INDEX revocation_action ON revocation (action);
"""

DOWN = """
DROP INDEX reservation_time;
DROP INDEX certificate_profile;
DROP INDEX revocation_action;
"""


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute(DOWN)
