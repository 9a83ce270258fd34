"""From where on the change feed is whole, and what it tells when one national number takes another's place."""

from alembic import op

revision = "0010"
down_revision = "0009"

UP = r"""
-- The cluster that numbers the transactions here, the same for as long as it lives.
CREATE FUNCTION sceau_cluster() RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT system_identifier FROM pg_control_system()
$$;

-- Rows of `change` at or before this place may have been removed; all behind it are there. (0, 0): none ever was.
CREATE TABLE feed_floor (
    single   boolean PRIMARY KEY DEFAULT true CHECK (single),
    xid      xid8 NOT NULL DEFAULT '0',
    id       bigint NOT NULL DEFAULT 0,
    cluster  bigint NOT NULL DEFAULT sceau_cluster()
);
INSERT INTO feed_floor DEFAULT VALUES;

-- By trigger, so that whoever removes rows, housekeeping or a hand, cannot leave readers a hole that nobody tells
-- them of.
CREATE FUNCTION sceau_feed_floor() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE feed_floor f SET xid = last.xid, id = last.id
    FROM (SELECT xid, id FROM rows ORDER BY xid DESC, id DESC LIMIT 1) AS last
    WHERE (last.xid, last.id) > (f.xid, f.id);
    RETURN NULL;
END $$;
CREATE TRIGGER floor AFTER DELETE ON change REFERENCING OLD TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_feed_floor();

-- After a dump was loaded into another cluster the numbers in the feed mean nothing: they lie before or behind all
-- that is written there, and whoever stands at one would never be told. What some part of the service had not read is
-- written once more, the rest goes, everybody reads from here. How many rows went; 0 where they were numbered here.
CREATE FUNCTION sceau_feed_anew() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    removed bigint;
BEGIN
    PERFORM FROM feed_floor WHERE cluster <> sceau_cluster() FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    -- One statement, hence one snapshot: what commits meanwhile is neither removed nor forgotten.
    WITH old AS (
        DELETE FROM change RETURNING xid, id, at, entity, key, urgent
    ), read AS (
        -- By time as well: what was written here already has numbers that look as if it had been read.
        SELECT xid, id, min(updated_at) OVER () AS at FROM feed_cursor ORDER BY xid, id LIMIT 1
    ), unread AS (
        INSERT INTO change (entity, key, urgent)
        SELECT o.entity, o.key, bool_or(o.urgent) FROM old o LEFT JOIN read r ON true
        WHERE r.xid IS NULL OR (o.xid, o.id) > (r.xid, r.id) OR o.at > r.at
        GROUP BY o.entity, o.key
    )
    SELECT count(*) INTO removed FROM old;
    UPDATE feed_cursor SET xid = '0', id = 0, updated_at = transaction_timestamp();
    -- Before this transaction nothing is there any more.
    UPDATE feed_floor SET cluster = sceau_cluster(), id = 0,
        xid = CAST(CAST(CAST(CAST(pg_current_xact_id() AS text) AS bigint) - 1 AS text) AS xid8);
    RETURN removed;
END $$;

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
DROP FUNCTION sceau_feed_anew();
DROP TABLE feed_floor;
DROP FUNCTION sceau_cluster();
"""


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute(DOWN)
