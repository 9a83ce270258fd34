"""A closing day that another put is withdrawn by two persons, as a hold is released."""

from alembic import op

revision = "0033"
down_revision = "0032"

# Shaped as `hold_release`.
UP = """
CREATE TABLE correction_withdrawal (
    correction_id bigint PRIMARY KEY REFERENCES correction,
    reason        text NOT NULL,
    asked_by      bigint NOT NULL REFERENCES api_token,
    asked_at      timestamptz NOT NULL,
    confirmed_by  bigint REFERENCES api_token,
    confirmed_at  timestamptz,
    CHECK (confirmed_by <> asked_by),
    CHECK ((confirmed_by IS NULL) = (confirmed_at IS NULL))
);
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute("DROP TABLE correction_withdrawal")
