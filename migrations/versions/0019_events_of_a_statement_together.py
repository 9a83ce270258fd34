"""Which revocations no CRL has seen, noted once for each statement and shard instead of each revocation.

A bulk revocation is a few statements of a thousand. Marking its events as seen rewrote a row and two index
entries for each of them. For a shard of 100,000 that took longer than all else that makes a CRL.
"""

from alembic import op

revision = "0019"
down_revision = "0018"

UP = r"""
CREATE TABLE crl_news (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    authority_id  text NOT NULL,
    shard         smallint NOT NULL,
    number        bigint CHECK (number > 0),
    revocations   bigint[] NOT NULL CHECK (revocations <> '{}')
);
CREATE INDEX crl_news_shard ON crl_news (authority_id, shard, number);
INSERT INTO crl_news (authority_id, shard, number, revocations)
    SELECT authority_id, shard, number, array_agg(revocation_id ORDER BY revocation_id)
    FROM crl_event GROUP BY authority_id, shard, number;

DROP TRIGGER crl_event ON revocation;
DROP FUNCTION sceau_crl_event();
DROP TABLE crl_event;
ALTER TABLE crl_news RENAME TO crl_event;
ALTER INDEX crl_news_pkey RENAME TO crl_event_pkey;
ALTER INDEX crl_news_shard RENAME TO crl_event_shard;

CREATE FUNCTION sceau_crl_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO crl_event (authority_id, shard, revocations)
    SELECT authority_id, shard, array_agg(id ORDER BY id) FROM rows GROUP BY authority_id, shard;
    RETURN NULL;
END $$;
CREATE TRIGGER crl_event AFTER INSERT ON revocation REFERENCING NEW TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_crl_event();
"""

DOWN = """
CREATE TABLE crl_news (
    revocation_id  bigint PRIMARY KEY,
    authority_id   text NOT NULL,
    shard          smallint NOT NULL,
    number         bigint CHECK (number > 0)
);
CREATE INDEX crl_news_shard ON crl_news (authority_id, shard, number);
INSERT INTO crl_news (revocation_id, authority_id, shard, number)
    SELECT unnest(revocations), authority_id, shard, number FROM crl_event;

DROP TRIGGER crl_event ON revocation;
DROP FUNCTION sceau_crl_event();
DROP TABLE crl_event;
ALTER TABLE crl_news RENAME TO crl_event;
ALTER INDEX crl_news_pkey RENAME TO crl_event_pkey;
ALTER INDEX crl_news_shard RENAME TO crl_event_shard;

CREATE FUNCTION sceau_crl_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO crl_event (revocation_id, authority_id, shard) SELECT id, authority_id, shard FROM rows;
    RETURN NULL;
END $$;
CREATE TRIGGER crl_event AFTER INSERT ON revocation REFERENCING NEW TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_crl_event();
"""


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute(DOWN)
