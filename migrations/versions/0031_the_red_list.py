"""Since when each mailbox is on the red list, and the key under which the feed names mailboxes without saying them."""

from alembic import op

revision = "0031"
down_revision = "0030"

UP = """
-- Kept by trigger: no path onto the list can forget it. `xid` tells which exports and which readers' places are older.
CREATE TABLE red_listed (
    address  text PRIMARY KEY,
    xid      xid8 NOT NULL DEFAULT pg_current_xact_id(),
    cluster  bigint NOT NULL DEFAULT sceau_cluster(),
    at       timestamptz NOT NULL DEFAULT transaction_timestamp()
);
CREATE INDEX red_listed_xid ON red_listed (xid);

CREATE TABLE feed_key (
    single  boolean PRIMARY KEY DEFAULT true CHECK (single),
    key     bytea NOT NULL
);
INSERT INTO feed_key (key) VALUES (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));

CREATE FUNCTION sceau_red_list() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM red_listed d USING rows r WHERE d.address = r.address AND r.listed;
    INSERT INTO red_listed (address) SELECT address FROM rows WHERE NOT listed ON CONFLICT (address) DO NOTHING;
    RETURN NULL;
END $$;
-- Before the fill: a trigger waits for those who write, so that the fill sees what they listed.
CREATE TRIGGER red_list_insert AFTER INSERT ON mailbox REFERENCING NEW TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_red_list();
CREATE TRIGGER red_list_update AFTER UPDATE ON mailbox REFERENCING NEW TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_red_list();
INSERT INTO red_listed (address) SELECT address FROM mailbox WHERE NOT listed ON CONFLICT (address) DO NOTHING;
"""

DOWN = """
DROP TRIGGER red_list_insert ON mailbox;
DROP TRIGGER red_list_update ON mailbox;
DROP FUNCTION sceau_red_list();
DROP TABLE red_listed;
DROP TABLE feed_key;
"""


def execute(sql: str) -> None:
    # The driver's own cursor, as in the migrations before.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute(DOWN)
