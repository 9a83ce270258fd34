"""Two administrators void the last instant signed where a clock that jumped ahead left it in the future.

Hosts keep that instant in files of their own, with the number of resets they knew of. One that was written
before the last reset counts no more. What the record itself holds against going back, it redates.
"""

from alembic import op

revision = "0024"
down_revision = "0023"

UP = r"""
CREATE TABLE clock_reset (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    reason        text NOT NULL CHECK (reason <> ''),
    asked_by      bigint NOT NULL REFERENCES api_token,
    asked_at      timestamptz NOT NULL,
    confirmed_by  bigint REFERENCES api_token,
    confirmed_at  timestamptz CHECK (confirmed_at >= asked_at),
    CHECK (confirmed_by <> asked_by),
    CHECK ((confirmed_by IS NULL) = (confirmed_at IS NULL))
);
CREATE TRIGGER never_removed BEFORE DELETE ON clock_reset FOR EACH ROW EXECUTE FUNCTION sceau_refuse();

-- CRLs up to this number that say a later thisUpdate than `at` count as of `at`.
CREATE TABLE crl_redated (
    authority_id  text NOT NULL,
    shard         smallint NOT NULL,
    number        bigint NOT NULL CHECK (number > 0),
    at            timestamptz NOT NULL,
    PRIMARY KEY (authority_id, shard),
    FOREIGN KEY (authority_id, shard) REFERENCES crl_shard
);
CREATE VIEW crl_dated AS
    SELECT c.authority_id, c.shard, c.number,
           CASE WHEN c.number <= d.number THEN least(c.this_update, d.at) ELSE c.this_update END AS this_update,
           c.next_update, c.watermark, c.der, c.sha256, c.base, coalesce(c.number <= d.number, false) AS voided
    FROM crl c LEFT JOIN crl_redated d ON d.authority_id = c.authority_id AND d.shard = c.shard;
"""

DOWN = """
DROP VIEW crl_dated;
DROP TABLE crl_redated;
DROP TABLE clock_reset;
"""


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute(DOWN)
