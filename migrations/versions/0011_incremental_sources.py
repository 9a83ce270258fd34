"""Where an incremental source stands."""

from alembic import op

revision = "0011"
down_revision = "0010"

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
