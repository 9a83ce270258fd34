"""From how many each token and each body took trust within the hour, and what second persons opened beyond."""

from alembic import op

revision = "0023"
down_revision = "0022"

UP = """
-- A row for each act and scope (`token:12`, `authority:CNOM`): the window rolls, so hours of the clock do not do.
CREATE TABLE withdrawal_use (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scope  text NOT NULL CHECK (scope <> ''),
    at     timestamptz NOT NULL,
    used   integer NOT NULL CHECK (used > 0)
);
CREATE INDEX withdrawal_use_window ON withdrawal_use (scope, at) INCLUDE (used);
CREATE INDEX withdrawal_use_at ON withdrawal_use (at);

-- One more allotment for a token and its body, by the word of a second person; kept as evidence.
CREATE TABLE withdrawal_agreement (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    token_id   bigint NOT NULL REFERENCES api_token,
    scopes     text[] NOT NULL CHECK (cardinality(scopes) = 2),
    number     integer NOT NULL CHECK (number > 0),
    agreed_by  bigint NOT NULL REFERENCES api_token,
    reason     text NOT NULL CHECK (reason <> ''),
    agreed_at  timestamptz NOT NULL,
    CHECK (agreed_by <> token_id)
);
CREATE INDEX withdrawal_agreement_window ON withdrawal_agreement (agreed_at);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON withdrawal_agreement
    FOR EACH ROW EXECUTE FUNCTION sceau_refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON withdrawal_agreement
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_refuse();

-- When the log last heard that a limit was reached.
CREATE TABLE withdrawal_alarm (
    scope    text PRIMARY KEY CHECK (scope <> ''),
    told_at  timestamptz NOT NULL
);
"""
DOWN = """
DROP TABLE withdrawal_alarm;
DROP TABLE withdrawal_agreement;
DROP TABLE withdrawal_use;
"""


def execute(sql: str) -> None:
    # The driver's own cursor, as in the migrations before.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute(DOWN)
