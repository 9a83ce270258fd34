"""Which notices of expiry are to be sent, were sent, and are tried again."""

from alembic import op

revision = "0018"
down_revision = "0017"

UP = r"""
-- One notice a certificate and step; that there is one says that it is due, so that none is forgotten.
CREATE TABLE expiry_notice (
    serial           text NOT NULL REFERENCES certificate,
    days             smallint NOT NULL CHECK (days IN (60, 30, 7)),
    recipient        text NOT NULL CHECK (recipient <> ''),
    attempts         smallint NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    next_attempt_at  timestamptz,
    sent_at          timestamptz,
    last_error       text NOT NULL DEFAULT '',
    PRIMARY KEY (serial, days),
    -- Waiting, or over: sent, or without a use since it was noted.
    CHECK (sent_at IS NULL OR next_attempt_at IS NULL)
);
CREATE INDEX expiry_notice_waiting ON expiry_notice (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
-- An operator's certificate is followed by the next of the same name.
CREATE INDEX certificate_of_no_mailbox ON certificate (profile, subject) WHERE mailbox IS NULL;
"""

DOWN = """
DROP INDEX certificate_of_no_mailbox;
DROP TABLE expiry_notice;
"""


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute(DOWN)
