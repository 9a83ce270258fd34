"""An index of the tokens of an operator: each request of one asks whether another lives."""

from alembic import op

revision = "0036"
down_revision = "0035"


def upgrade() -> None:
    op.execute(
        "CREATE INDEX api_token_of_operator ON api_token (operator_id)"
        " WHERE operator_id IS NOT NULL AND revoked_at IS NULL"
    )


def downgrade() -> None:
    op.execute("DROP INDEX api_token_of_operator")
