"""An index for what awaits a registrar: the enrolments of one body in one state, in the order they were asked for."""

from alembic import op

revision = "0004"
down_revision = "0003"


def execute(sql: str) -> None:
    # The driver's own cursor, as in the migrations before.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute("CREATE INDEX enrolment_awaits ON enrolment (authority, state, requested_at, id)")


def downgrade() -> None:
    execute("DROP INDEX enrolment_awaits")
