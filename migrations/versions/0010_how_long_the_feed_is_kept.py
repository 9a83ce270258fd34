"""From where on the change feed is whole, and what it tells when one national number takes another's place."""

from alembic import op

revision = "0010"
down_revision = "0009"

UP = r"""
-- Rows of `change` at or before this place may have been removed; all behind it are there. (0, 0): none ever was.
CREATE TABLE feed_floor (
    single    boolean PRIMARY KEY DEFAULT true CHECK (single),
    xid       xid8 NOT NULL DEFAULT '0',
    id        bigint NOT NULL DEFAULT 0,
    moved_at  timestamptz
);
INSERT INTO feed_floor DEFAULT VALUES;

-- By trigger, so that whoever removes rows, housekeeping or a hand, cannot leave readers a hole that nobody tells
-- them of.
CREATE FUNCTION sceau_feed_floor() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE feed_floor f SET xid = last.xid, id = last.id, moved_at = transaction_timestamp()
    FROM (SELECT xid, id FROM rows ORDER BY xid DESC, id DESC LIMIT 1) AS last
    WHERE (last.xid, last.id) > (f.xid, f.id);
    RETURN NULL;
END $$;
CREATE TRIGGER floor AFTER DELETE ON change REFERENCING OLD TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_feed_floor();

-- A certificate of the old number shows on the mailboxes of its successor, and no longer once the link is taken back.
-- Neither person's row need change, nor the mailbox's, which the file may have given to the new number before.
CREATE FUNCTION sceau_feed_succession() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO change (entity, key, urgent)
    SELECT DISTINCT 'mailbox', c.mailbox, TG_OP = 'DELETE'
    FROM rows r JOIN certificate c ON c.practitioner = r.national_id WHERE c.mailbox IS NOT NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER feed_insert AFTER INSERT ON succession REFERENCING NEW TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_feed_succession();
CREATE TRIGGER feed_update AFTER UPDATE ON succession REFERENCING NEW TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_feed_succession();
CREATE TRIGGER feed_delete AFTER DELETE ON succession REFERENCING OLD TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_feed_succession();
"""

DOWN = """
DROP TRIGGER feed_insert ON succession;
DROP TRIGGER feed_update ON succession;
DROP TRIGGER feed_delete ON succession;
DROP FUNCTION sceau_feed_succession();
DROP TRIGGER floor ON change;
DROP FUNCTION sceau_feed_floor();
DROP TABLE feed_floor;
"""


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute(DOWN)
