"""From where on the change feed is whole."""

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
"""

DOWN = """
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
