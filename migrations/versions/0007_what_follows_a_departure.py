"""What follows a departure, after which grace, and what a person should look at."""

from alembic import op

revision = "0007"
down_revision = "0006"

UP = r"""
-- A certificate with a cause against it that has a grace: when it falls due, unless the cause is gone by then.
CREATE TABLE withdrawal_due (
    serial  text NOT NULL REFERENCES certificate,
    cause   text NOT NULL CHECK (cause ~ '^[a-z]+(-[a-z]+)*$'),
    due_at  timestamptz NOT NULL,
    PRIMARY KEY (serial, cause)
);
CREATE INDEX withdrawal_due_when ON withdrawal_due (due_at);

-- What a person should look at. Closed by whoever opened it when the matter is gone.
CREATE TABLE attention (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind         text NOT NULL CHECK (kind ~ '^[a-z]+(-[a-z]+)*$'),
    subject      text NOT NULL CHECK (subject <> ''),
    authorities  text[] NOT NULL DEFAULT '{}',
    since        timestamptz NOT NULL,
    detail       jsonb NOT NULL DEFAULT '{}',
    resolved_at  timestamptz,
    resolved_by  text,
    CHECK ((resolved_at IS NULL) = (resolved_by IS NULL))
);
CREATE UNIQUE INDEX attention_open ON attention (kind, subject) WHERE resolved_at IS NULL;

-- Lifting a measure gives trust back: one registrar asks, another confirms.
CREATE TABLE measure_lifting (
    measure_id    bigint PRIMARY KEY REFERENCES measure,
    reason        text NOT NULL CHECK (reason <> ''),
    asked_by      bigint NOT NULL REFERENCES api_token,
    asked_at      timestamptz NOT NULL,
    confirmed_by  bigint REFERENCES api_token,
    confirmed_at  timestamptz,
    CHECK (confirmed_by <> asked_by),
    CHECK ((confirmed_by IS NULL) = (confirmed_at IS NULL))
);

-- Whether somebody answers for an establishment's mailbox is part of what may be said of it.
CREATE FUNCTION sceau_feed_enrolment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO change (entity, key) SELECT DISTINCT 'mailbox', mailbox FROM rows;
    RETURN NULL;
END $$;
CREATE TRIGGER feed_update AFTER UPDATE ON enrolment REFERENCING NEW TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_feed_enrolment();

-- A measure shows under the number that replaced the one it was taken under, and so does a link to such a number. Any
-- link tells of the successor: neither person's row need change when the mailbox list makes it.
CREATE FUNCTION sceau_feed_followed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    followed text[];
    is_urgent boolean := true;
BEGIN
    IF TG_TABLE_NAME = 'measure' THEN
        SELECT array_agg(DISTINCT u.successor) INTO followed FROM rows r JOIN succession u USING (national_id)
        WHERE u.successor IS NOT NULL;
    ELSE
        SELECT array_agg(DISTINCT r.successor),
               bool_or(EXISTS (SELECT FROM measure m WHERE m.national_id = r.national_id))
        INTO followed, is_urgent FROM rows r WHERE r.successor IS NOT NULL;
    END IF;
    INSERT INTO change (entity, key, urgent) SELECT 'practitioner', key, is_urgent FROM unnest(followed) AS key;
    INSERT INTO change (entity, key, urgent)
    SELECT 'mailbox', address, is_urgent FROM mailbox WHERE holder = ANY(followed);
    RETURN NULL;
END $$;
CREATE TRIGGER feed_insert_followed AFTER INSERT ON measure REFERENCING NEW TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_feed_followed();
CREATE TRIGGER feed_update_followed AFTER UPDATE ON measure REFERENCING NEW TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_feed_followed();
CREATE TRIGGER feed_insert_followed AFTER INSERT ON succession REFERENCING NEW TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_feed_followed();
CREATE TRIGGER feed_update_followed AFTER UPDATE ON succession REFERENCING NEW TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_feed_followed();
CREATE TRIGGER feed_delete_followed AFTER DELETE ON succession REFERENCING OLD TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_feed_followed();

-- The FINESS number that a certificate's subject names, NULL when it names none. A comma inside a name is escaped
-- (RFC 4514 2.4), so that no establishment can be called another's number.
CREATE FUNCTION sceau_establishment_of(subject text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT substring(subject FROM '(?:^|(?:^|[^\\])(?:\\\\)*,)organizationIdentifier=FI:FR-([0-9A-Z]{9})(?:,|$)')
$$;
"""

DOWN = """
DROP FUNCTION sceau_establishment_of(text);
DROP TRIGGER feed_insert_followed ON measure;
DROP TRIGGER feed_update_followed ON measure;
DROP TRIGGER feed_insert_followed ON succession;
DROP TRIGGER feed_update_followed ON succession;
DROP TRIGGER feed_delete_followed ON succession;
DROP FUNCTION sceau_feed_followed();
DROP TRIGGER feed_update ON enrolment;
DROP FUNCTION sceau_feed_enrolment();
DROP TABLE measure_lifting;
DROP TABLE attention;
DROP TABLE withdrawal_due;
"""


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute(DOWN)
