"""Versions of the trust list, each as it was signed, and the note that its content may have changed."""

from alembic import op

revision = "0017"
down_revision = "0016"

UP = r"""
-- A published version stays as it was signed, for whoever must show later what was trusted then.
CREATE TABLE trust_list (
    version         bigint PRIMARY KEY CHECK (version > 0),
    content_sha256  bytea NOT NULL CHECK (length(content_sha256) = 32),
    made_at         timestamptz NOT NULL,
    next_update     timestamptz NOT NULL CHECK (next_update > made_at),
    payload         bytea NOT NULL,
    signature       text NOT NULL CHECK (signature ~ '^[\w-]+[.][.][\w-]+$'),
    xml             bytea NOT NULL,
    xml_signature   text NOT NULL CHECK (xml_signature ~ '^[\w-]+[.][.][\w-]+$')
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON trust_list FOR EACH ROW EXECUTE FUNCTION sceau_refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON trust_list FOR EACH STATEMENT EXECUTE FUNCTION sceau_refuse();

-- Rows, not one mark: a night that writes domains for a minute must not make a suspension wait for it.
CREATE TABLE trust_list_due (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    urgent  boolean NOT NULL
);
CREATE FUNCTION sceau_trust_list_due() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO trust_list_due (urgent) VALUES (TG_ARGV[0]::boolean);
    RETURN NULL;
END $$;
-- A suspension, and the end of one, are not to wait.
CREATE FUNCTION sceau_trust_list_domain() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO trust_list_due (urgent) SELECT coalesce(bool_or(
        o.suspended_at IS DISTINCT FROM n.suspended_at OR o.departed_at IS DISTINCT FROM n.departed_at
    ), false) FROM new_rows n JOIN old_rows o USING (name, operator_id);
    RETURN NULL;
END $$;
CREATE FUNCTION sceau_trust_list_operator() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO trust_list_due (urgent) SELECT coalesce(bool_or(
        o.suspended_at IS DISTINCT FROM n.suspended_at
    ), false) FROM new_rows n JOIN old_rows o USING (id);
    RETURN NULL;
END $$;
CREATE TRIGGER trust_list_insert AFTER INSERT ON trusted_domain
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_trust_list_due('false');
CREATE TRIGGER trust_list_delete AFTER DELETE ON trusted_domain
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_trust_list_due('true');
CREATE TRIGGER trust_list_update AFTER UPDATE ON trusted_domain
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_trust_list_domain();
CREATE TRIGGER trust_list_update AFTER UPDATE ON operator
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_trust_list_operator();
CREATE TRIGGER trust_list AFTER INSERT OR UPDATE ON authority
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_trust_list_due('true');
CREATE TRIGGER trust_list AFTER INSERT ON cross_certificate
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_trust_list_due('true');
"""

DOWN = """
DROP TRIGGER trust_list ON cross_certificate;
DROP TRIGGER trust_list ON authority;
DROP TRIGGER trust_list_update ON operator;
DROP TRIGGER trust_list_update ON trusted_domain;
DROP TRIGGER trust_list_delete ON trusted_domain;
DROP TRIGGER trust_list_insert ON trusted_domain;
DROP FUNCTION sceau_trust_list_operator();
DROP FUNCTION sceau_trust_list_domain();
DROP FUNCTION sceau_trust_list_due();
DROP TABLE trust_list_due;
DROP TABLE trust_list;
"""


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute(DOWN)
