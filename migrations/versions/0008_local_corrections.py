"""Corrections made here, which survive the night."""

from alembic import op

revision = "0008"
down_revision = "0007"

UP = r"""
-- What is said here of one field in place of what the register says, and what the register said last.
CREATE TABLE correction (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    entity          text NOT NULL CHECK (entity IN ('practitioner', 'organisation', 'mailbox')),
    key             text NOT NULL CHECK (key <> ''),
    field           text NOT NULL CHECK (field ~ '^[a-z]+(_[a-z]+)*$'),
    value           text NOT NULL,
    register_value  text NOT NULL,
    authority       text NOT NULL DEFAULT '',
    reason          text NOT NULL CHECK (reason <> ''),
    made_by         text NOT NULL CHECK (made_by <> ''),
    made_at         timestamptz NOT NULL,
    ending          text CHECK (ending IN ('withdrawn', 'agreed', 'replaced')),
    ended_by        text,
    ended_at        timestamptz,
    CHECK (num_nulls(ending, ended_by, ended_at) IN (0, 3)),
    -- What the register has come to agree with is no correction.
    CHECK (ending IS NOT NULL OR value <> register_value)
);
CREATE UNIQUE INDEX correction_live ON correction (entity, key, field) WHERE ending IS NULL;
CREATE INDEX correction_of ON correction (entity, key, id);

-- A correction keeps what was said, by whom and why; it only follows the register, and ends once.
CREATE FUNCTION sceau_correction_ends_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.ending IS NOT NULL
       OR (OLD.id, OLD.entity, OLD.key, OLD.field, OLD.value, OLD.authority, OLD.reason, OLD.made_by, OLD.made_at)
          IS DISTINCT FROM
          (NEW.id, NEW.entity, NEW.key, NEW.field, NEW.value, NEW.authority, NEW.reason, NEW.made_by, NEW.made_at)
    THEN
        RAISE EXCEPTION 'a correction is never rewritten' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER ends_once BEFORE UPDATE ON correction FOR EACH ROW EXECUTE FUNCTION sceau_correction_ends_once();
CREATE TRIGGER never_removed BEFORE DELETE ON correction FOR EACH ROW EXECUTE FUNCTION sceau_refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON correction FOR EACH STATEMENT EXECUTE FUNCTION sceau_refuse();
"""

DOWN = """
DROP TABLE correction;
DROP FUNCTION sceau_correction_ends_once();
"""


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute(DOWN)
