"""A register run says at which step it is, and what each file said last is remembered by key."""

from alembic import op

revision = "0005"
down_revision = "0004"

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
