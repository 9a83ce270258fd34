"""What follows a departure, after which grace, and what a person should look at."""

from alembic import op

revision = "0007"
down_revision = "0006"

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
