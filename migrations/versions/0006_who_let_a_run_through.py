"""Runs beyond a bound wait for named persons; numbers that replaced others are remembered."""

from alembic import op

revision = "0006"
down_revision = "0005"

UP = r"""
-- Who let a held run through: one row for each token, so that two approvals are two tokens.
CREATE TABLE register_approval (
    run_id       bigint NOT NULL REFERENCES register_run,
    token_id     bigint NOT NULL REFERENCES api_token,
    comment      text NOT NULL CHECK (comment <> ''),
    approved_at  timestamptz NOT NULL,
    PRIMARY KEY (run_id, token_id)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON register_approval FOR EACH ROW EXECUTE FUNCTION sceau_refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON register_approval FOR EACH STATEMENT EXECUTE FUNCTION sceau_refuse();

-- Namesakes in ADELI, where numbers vanish: a few in a hundred of all people.
CREATE INDEX practitioner_of_adeli ON practitioner (search_name) WHERE id_type = '0';

-- A national number that went: the number that took its place, or none, when it was retired.
CREATE TABLE succession (
    national_id  text PRIMARY KEY REFERENCES practitioner,
    successor    text REFERENCES practitioner CHECK (successor <> national_id),
    run_id       bigint NOT NULL REFERENCES register_run,
    linked_at    timestamptz NOT NULL,
    sys_from     timestamptz NOT NULL
);
CREATE INDEX succession_successor ON succession (successor) WHERE successor IS NOT NULL;

CREATE TABLE succession_history (LIKE succession, sys_to timestamptz NOT NULL CHECK (sys_to > sys_from));
CREATE INDEX succession_history_key ON succession_history (national_id, sys_to);
CREATE INDEX succession_history_successor ON succession_history (successor, sys_to) WHERE successor IS NOT NULL;
CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON succession FOR EACH ROW EXECUTE FUNCTION sceau_stamp();
CREATE TRIGGER archive AFTER UPDATE OR DELETE ON succession FOR EACH ROW EXECUTE FUNCTION sceau_archive();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON succession_history FOR EACH ROW EXECUTE FUNCTION sceau_refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON succession_history FOR EACH STATEMENT EXECUTE FUNCTION sceau_refuse();
CREATE FUNCTION succession_at(instant timestamptz) RETURNS SETOF succession_history LANGUAGE sql STABLE AS $$
    SELECT t.*, 'infinity'::timestamptz FROM succession t WHERE t.sys_from <= instant
    UNION ALL
    SELECT h.* FROM succession_history h WHERE h.sys_from <= instant AND h.sys_to > instant
$$;
"""

DOWN = """
DROP FUNCTION succession_at(timestamptz);
DROP TABLE succession_history;
DROP TABLE succession;
DROP INDEX practitioner_of_adeli;
DROP TABLE register_approval;
"""


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute(DOWN)
