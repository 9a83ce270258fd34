"""An index for the enrolments of a mailbox, ended ones included: each pass over what changed asks for them."""

from alembic import op

revision = "0021"
down_revision = "0020"


def execute(sql: str) -> None:
    # The driver's own cursor, as in the migrations before.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute("CREATE INDEX enrolment_mailbox ON enrolment (mailbox)")


def downgrade() -> None:
    execute("DROP INDEX enrolment_mailbox")
