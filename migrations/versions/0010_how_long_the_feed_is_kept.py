"""From where on the change feed is whole."""

from alembic import op

revision = "0010"
down_revision = "0009"

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
