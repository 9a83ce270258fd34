"""Delta CRLs: which events the complete CRLs in force have seen, the base of a delta, bytes that are let go.

An event is noted as it happens and marked with the number of the first CRL made after it. Events that the
oldest complete CRL in force has seen are forgotten again. So the difference to that CRL is found by index, in
whatever order transactions commit, and however many certificates are revoked.
"""

from alembic import op

revision = "0016"
down_revision = "0015"

UP = r"""
-- A delta names the complete CRL it completes; NULL in a complete one. Both take numbers from one sequence
-- (RFC 5280 5.2.3).
ALTER TABLE crl ADD COLUMN base bigint CHECK (base > 0 AND base < number);
-- Entries compress by half, but megabytes of them wait a tenth of a second for it, twice a publication.
ALTER TABLE crl ALTER COLUMN tbs SET STORAGE EXTERNAL, ALTER COLUMN der SET STORAGE EXTERNAL;
CREATE INDEX crl_in_force ON crl (authority_id, shard, next_update) WHERE base IS NULL AND der IS NOT NULL;
CREATE INDEX crl_newest_of_kind ON crl (authority_id, shard, (base IS NOT NULL), number) WHERE der IS NOT NULL;
CREATE INDEX crl_with_bytes ON crl (this_update) WHERE der <> '' OR tbs <> '';

-- No foreign key: rows come from the trigger below alone, a hundred thousand in one statement.
CREATE TABLE crl_event (
    revocation_id  bigint PRIMARY KEY,
    authority_id   text NOT NULL,
    shard          smallint NOT NULL,
    number         bigint CHECK (number > 0)
);
CREATE INDEX crl_event_shard ON crl_event (authority_id, shard, number);
INSERT INTO crl_event (revocation_id, authority_id, shard)
    SELECT r.id, r.authority_id, r.shard FROM revocation r;

CREATE FUNCTION sceau_crl_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO crl_event (revocation_id, authority_id, shard) SELECT id, authority_id, shard FROM rows;
    RETURN NULL;
END $$;
CREATE TRIGGER crl_event AFTER INSERT ON revocation REFERENCING NEW TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_crl_event();

-- Letting old bytes go is no publication.
CREATE OR REPLACE FUNCTION sceau_feed_crl() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO change (entity, key)
    SELECT DISTINCT 'crl', authority_id || '/' || shard FROM rows WHERE der <> '';
    RETURN NULL;
END $$;

-- A signed CRL is never unsigned, renumbered or rewritten; its digest stays when its bytes are let go, which
-- they are only when a later one of its kind is there. What was signed holds what was to be signed.
CREATE OR REPLACE FUNCTION sceau_crl_signed_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.authority_id, NEW.shard, NEW.number, NEW.this_update, NEW.next_update, NEW.entries, NEW.watermark,
        NEW.tbs_sha256) IS DISTINCT FROM (OLD.authority_id, OLD.shard, OLD.number, OLD.this_update,
        OLD.next_update, OLD.entries, OLD.watermark, OLD.tbs_sha256)
        OR NEW.base IS DISTINCT FROM OLD.base OR NEW.tbs NOT IN (OLD.tbs, '')
    THEN
        RAISE EXCEPTION 'a numbered CRL is never changed' USING ERRCODE = 'restrict_violation';
    END IF;
    IF OLD.sha256 IS NULL THEN
        RETURN NEW;
    END IF;
    IF NEW.sha256 IS DISTINCT FROM OLD.sha256 OR NEW.der NOT IN (OLD.der, '') THEN
        RAISE EXCEPTION 'a CRL is signed once' USING ERRCODE = 'restrict_violation';
    END IF;
    PERFORM 1 FROM crl c
    WHERE c.authority_id = OLD.authority_id AND c.shard = OLD.shard AND c.number > OLD.number
      AND (c.base IS NULL) = (OLD.base IS NULL) AND c.der <> '';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the CRL in service keeps its bytes' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
"""

DOWN = """
CREATE OR REPLACE FUNCTION sceau_crl_signed_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.der IS NOT NULL OR NEW.tbs <> OLD.tbs OR NEW.number <> OLD.number THEN
        RAISE EXCEPTION 'a CRL is signed once' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE FUNCTION sceau_feed_crl() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO change (entity, key)
    SELECT 'crl', authority_id || '/' || shard FROM rows WHERE der IS NOT NULL;
    RETURN NULL;
END $$;
DROP TRIGGER crl_event ON revocation;
DROP FUNCTION sceau_crl_event();
DROP TABLE crl_event;
-- To the release before, every row of crl is a complete one: it would serve a delta as if it were whole.
ALTER TABLE crl DISABLE TRIGGER never_removed;
DELETE FROM crl WHERE base IS NOT NULL OR der = '';
ALTER TABLE crl ENABLE TRIGGER never_removed;
DROP INDEX crl_in_force, crl_newest_of_kind, crl_with_bytes;
ALTER TABLE crl ALTER COLUMN tbs SET STORAGE EXTENDED, ALTER COLUMN der SET STORAGE EXTENDED;
ALTER TABLE crl DROP COLUMN base;
"""


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute(DOWN)
