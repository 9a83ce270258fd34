"""Reasons corrected after the fact, holds that end, and revocations of many at once with their progress."""

from alembic import op

revision = "0015"
down_revision = "0014"

UP = r"""
-- `restates` is the event whose reason this one corrects; `recorded_at` when that became known, where it differs
-- from the date that counts (X.509: a hold made final keeps the date of the hold).
ALTER TABLE revocation
    ADD COLUMN restates bigint REFERENCES revocation,
    ADD COLUMN recorded_at timestamptz CHECK (recorded_at >= revoked_at);
DROP INDEX revocation_final;
CREATE UNIQUE INDEX revocation_final ON revocation (serial) WHERE action = 'revoke' AND restates IS NULL;
CREATE UNIQUE INDEX revocation_restates ON revocation (restates) WHERE restates IS NOT NULL;
CREATE INDEX certificate_spki ON certificate (spki_sha256);

-- Revoked is final: what follows may only say the reason better, and leaves the date where it was.
CREATE OR REPLACE FUNCTION sceau_revoked_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last revocation%ROWTYPE;
BEGIN
    -- Two events of one serial queue here, so that the second sees the first whatever it did.
    PERFORM 1 FROM reservation WHERE serial = NEW.serial FOR UPDATE;
    SELECT * INTO last FROM revocation WHERE serial = NEW.serial AND action = 'revoke' ORDER BY id DESC LIMIT 1;
    IF NOT FOUND AND NEW.restates IS NULL THEN
        RETURN NEW;
    END IF;
    IF NEW.restates IS DISTINCT FROM last.id OR NEW.action <> 'revoke' OR NEW.reason = last.reason
        OR NEW.reason = 'certificateHold' OR last.reason IN ('keyCompromise', 'cACompromise')
        OR (NEW.authority_id, NEW.shard, NEW.revoked_at, NEW.not_after)
            IS DISTINCT FROM (last.authority_id, last.shard, last.revoked_at, last.not_after)
    THEN
        RAISE EXCEPTION 'certificate % is revoked for good', NEW.serial USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

-- What is on hold now, kept by the events themselves: no path in or out can forget it.
CREATE TABLE standing_hold (
    serial  text PRIMARY KEY REFERENCES reservation,
    actor   text NOT NULL,
    since   timestamptz NOT NULL
);
CREATE INDEX standing_hold_since ON standing_hold (since);
INSERT INTO standing_hold (serial, actor, since)
SELECT serial, actor, revoked_at FROM revocation_state WHERE action = 'hold';
CREATE FUNCTION sceau_keep_holds() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM standing_hold h USING rows r WHERE h.serial = r.serial;
    INSERT INTO standing_hold (serial, actor, since)
    SELECT serial, actor, revoked_at FROM rows WHERE action = 'hold';
    RETURN NULL;
END $$;
CREATE TRIGGER keep_holds AFTER INSERT ON revocation REFERENCING NEW TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_keep_holds();

-- Many at once: what was selected is written down before anybody approves it, and done in that order.
CREATE TABLE bulk_revocation (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    selection    jsonb NOT NULL,
    reason       text NOT NULL CHECK (reason <> ''),
    comment      text NOT NULL,
    per_second   integer NOT NULL CHECK (per_second BETWEEN 1 AND 100000),
    total        integer NOT NULL CHECK (total > 0),
    digest       bytea NOT NULL CHECK (octet_length(digest) = 32),
    needed       smallint NOT NULL CHECK (needed BETWEEN 1 AND 2),
    asked_by     bigint NOT NULL REFERENCES api_token,
    asked_at     timestamptz NOT NULL,
    state        text NOT NULL CHECK (state IN ('planned', 'running', 'stopped', 'done')),
    reached      integer NOT NULL DEFAULT 0 CHECK (reached BETWEEN 0 AND total),
    revoked      integer NOT NULL DEFAULT 0 CHECK (revoked >= 0),
    skipped      integer NOT NULL DEFAULT 0 CHECK (skipped >= 0),
    started_at   timestamptz,
    finished_at  timestamptz,
    CHECK (revoked + skipped = reached),
    CHECK (state NOT IN ('running', 'done') OR started_at IS NOT NULL),
    CHECK ((state IN ('stopped', 'done')) = (finished_at IS NOT NULL)),
    CHECK (state <> 'done' OR reached = total)
);
CREATE INDEX bulk_revocation_running ON bulk_revocation (id) WHERE state = 'running';
CREATE TABLE bulk_revocation_item (
    bulk_id  bigint NOT NULL REFERENCES bulk_revocation,
    place    integer NOT NULL CHECK (place > 0),
    serial   text NOT NULL REFERENCES certificate,
    PRIMARY KEY (bulk_id, place)
);
CREATE TRIGGER stays BEFORE UPDATE OR DELETE ON bulk_revocation_item FOR EACH ROW EXECUTE FUNCTION sceau_refuse();
CREATE TABLE bulk_revocation_approval (
    bulk_id      bigint NOT NULL REFERENCES bulk_revocation,
    token_id     bigint NOT NULL REFERENCES api_token,
    comment      text NOT NULL CHECK (comment <> ''),
    approved_at  timestamptz NOT NULL,
    PRIMARY KEY (bulk_id, token_id)
);
"""

DOWN = """
DROP TABLE bulk_revocation_approval, bulk_revocation_item, bulk_revocation;
DROP TRIGGER keep_holds ON revocation;
DROP FUNCTION sceau_keep_holds;
DROP TABLE standing_hold;
CREATE OR REPLACE FUNCTION sceau_revoked_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM reservation WHERE serial = NEW.serial FOR UPDATE;
    PERFORM 1 FROM revocation WHERE serial = NEW.serial AND action = 'revoke';
    IF FOUND THEN
        RAISE EXCEPTION 'certificate % is revoked for good', NEW.serial USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
DROP INDEX certificate_spki;
DROP INDEX revocation_restates;
DROP INDEX revocation_final;
CREATE UNIQUE INDEX revocation_final ON revocation (serial) WHERE action = 'revoke';
-- The view names every column there was when it was made, and none of these.
ALTER TABLE revocation DROP COLUMN restates, DROP COLUMN recorded_at;
"""


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute(DOWN)
