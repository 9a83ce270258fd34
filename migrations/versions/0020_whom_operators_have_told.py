"""Whom an operator has told that its certificates run out, and a notice for each of them."""

from alembic import op

revision = "0020"
down_revision = "0019"

UP = r"""
-- At most five, in the operator's own order.
CREATE TABLE operator_contact (
    operator_id  bigint NOT NULL REFERENCES operator,
    place        smallint NOT NULL CHECK (place BETWEEN 1 AND 5),
    address      text NOT NULL CHECK (address <> ''),
    kept_at      timestamptz NOT NULL,
    PRIMARY KEY (operator_id, place),
    UNIQUE (operator_id, address)
);
-- One notice for each who is told: of several contacts, one may be refused while the others get theirs.
ALTER TABLE expiry_notice DROP CONSTRAINT expiry_notice_pkey, ADD PRIMARY KEY (serial, days, recipient);
"""

DOWN = """
DELETE FROM expiry_notice n USING certificate c WHERE c.serial = n.serial AND c.mailbox IS NULL;
ALTER TABLE expiry_notice DROP CONSTRAINT expiry_notice_pkey, ADD PRIMARY KEY (serial, days);
DROP TABLE operator_contact;
"""


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute(DOWN)
