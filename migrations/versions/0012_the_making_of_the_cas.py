"""What each CA is for, its generation and whether it issues; certificates that CAs give one another."""

from alembic import op

revision = "0012"
down_revision = "0011"

UP = r"""
ALTER TABLE authority
    ADD COLUMN role text CHECK (role IN ('root', 'persons', 'organisations')),
    ADD COLUMN generation integer NOT NULL DEFAULT 1 CHECK (generation BETWEEN 1 AND 999),
    ADD COLUMN state text NOT NULL DEFAULT 'active' CHECK (state IN ('standby', 'active', 'retired')),
    ADD COLUMN offline boolean NOT NULL DEFAULT false,
    ADD CHECK (offline IN (false, kind = 'root'));
-- Several of a role are here when this release was here before: the first issues, the others stand by.
UPDATE authority a SET role = n.role, generation = n.generation,
    state = CASE WHEN n.role = 'root' OR n.generation = 1 THEN 'active' ELSE 'standby' END
FROM (
    SELECT id, role, row_number() OVER (PARTITION BY role ORDER BY created_at, id) AS generation FROM (
        SELECT id, created_at, CASE WHEN kind = 'root' THEN 'root' WHEN id LIKE 'organisations%' THEN 'organisations'
            ELSE 'persons' END AS role
        FROM authority) AS named
) AS n WHERE n.id = a.id;
ALTER TABLE authority
    ALTER COLUMN role SET NOT NULL,
    ADD CHECK ((role = 'root') = (kind = 'root')),
    ADD UNIQUE (role, generation);

-- The release before knew one CA that issues, and says of none what it is for.
CREATE FUNCTION sceau_authority_role() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.role := coalesce(NEW.role, CASE NEW.kind WHEN 'root' THEN 'root' ELSE 'persons' END);
    RETURN NEW;
END $$;
CREATE TRIGGER role BEFORE INSERT ON authority FOR EACH ROW EXECUTE FUNCTION sceau_authority_role();

-- What certificates point to stays: of a CA only its state may change.
CREATE FUNCTION sceau_authority_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF to_jsonb(OLD) - 'state' <> to_jsonb(NEW) - 'state' THEN
        RAISE EXCEPTION 'of a CA only its state changes' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER stays BEFORE UPDATE ON authority FOR EACH ROW EXECUTE FUNCTION sceau_authority_stays();
CREATE TRIGGER never_removed BEFORE DELETE ON authority FOR EACH ROW EXECUTE FUNCTION sceau_refuse();
CREATE TRIGGER feed_authority_state AFTER UPDATE ON authority REFERENCING NEW TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_feed_authority();

-- One CA's key certified by another CA than its own issuer: the bridge between two generations of roots.
CREATE TABLE cross_certificate (
    id          text PRIMARY KEY CHECK (id ~ '^[a-z][a-z0-9-]{1,62}$'),
    serial      text NOT NULL UNIQUE REFERENCES certificate,
    subject_id  text NOT NULL REFERENCES authority,
    issuer_id   text NOT NULL REFERENCES authority,
    der         bytea NOT NULL,
    not_before  timestamptz NOT NULL,
    not_after   timestamptz NOT NULL CHECK (not_after > not_before),
    created_at  timestamptz NOT NULL,
    CHECK (subject_id <> issuer_id)
);
CREATE TRIGGER stays BEFORE UPDATE OR DELETE ON cross_certificate FOR EACH ROW EXECUTE FUNCTION sceau_refuse();
CREATE TRIGGER feed_cross_certificate AFTER INSERT ON cross_certificate REFERENCING NEW TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_feed_authority();
"""

DOWN = """
DROP TABLE cross_certificate;
DROP TRIGGER feed_authority_state ON authority;
DROP TRIGGER never_removed ON authority;
DROP TRIGGER stays ON authority;
DROP TRIGGER role ON authority;
DROP FUNCTION sceau_authority_stays();
DROP FUNCTION sceau_authority_role();
ALTER TABLE authority DROP COLUMN offline, DROP COLUMN state, DROP COLUMN generation, DROP COLUMN role;
"""


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute(DOWN)
