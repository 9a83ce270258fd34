"""Which operator a token acts for, the certificates of operators, and batches for establishments."""

from alembic import op

revision = "0014"
down_revision = "0013"

UP = r"""
-- An operator's token may act for one operator of the trusted list; without one it only asks.
ALTER TABLE api_token ADD COLUMN operator_id bigint REFERENCES operator,
    ADD CONSTRAINT api_token_operator CHECK (operator_id IS NULL OR role = 'operator');

-- Beside the reservation, which has no place for an operator: for whom, and for which hosts ({} for a client).
CREATE TABLE operator_certificate (
    serial       text PRIMARY KEY REFERENCES reservation,
    operator_id  bigint NOT NULL REFERENCES operator,
    hosts        text[] NOT NULL,
    domains      text[] NOT NULL,
    spki_sha256  bytea NOT NULL UNIQUE CHECK (octet_length(spki_sha256) = 32)
);
CREATE INDEX operator_certificate_of ON operator_certificate (operator_id, serial);

-- What was asked for at once: sent twice by the same body, it is the same batch.
CREATE TABLE batch (
    id            uuid PRIMARY KEY,
    authority     text NOT NULL CHECK (authority <> ''),
    requested_by  bigint NOT NULL REFERENCES api_token,
    requested_at  timestamptz NOT NULL,
    digest        bytea NOT NULL CHECK (octet_length(digest) = 32),
    UNIQUE (authority, digest)
);
-- Each item comes to a serial or to a refusal; one that has neither was never begun.
CREATE TABLE batch_item (
    batch_id      uuid NOT NULL REFERENCES batch,
    place         smallint NOT NULL CHECK (place >= 0),
    enrolment_id  uuid NOT NULL,
    serial        text REFERENCES reservation,
    refusal       jsonb,
    PRIMARY KEY (batch_id, place)
);
CREATE UNIQUE INDEX batch_item_serial ON batch_item (serial) WHERE serial IS NOT NULL;
"""

DOWN = """
DROP TABLE batch_item, batch, operator_certificate;
ALTER TABLE api_token DROP COLUMN operator_id;
"""


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute(DOWN)
