"""A register run says at which step it is, and what each file said last is remembered by key."""

from alembic import op

revision = "0005"
down_revision = "0004"

UP = r"""
ALTER TABLE register_run
    DROP CONSTRAINT register_run_state_check,
    ADD CONSTRAINT register_run_state_check
        CHECK (state IN ('running', 'planned', 'held', 'applied', 'refused', 'interrupted')),
    ADD COLUMN step text
        CHECK (step IN ('fetch', 'verify', 'parse', 'check', 'stage', 'diff', 'plan', 'apply', 'report')),
    ADD COLUMN attempts smallint NOT NULL DEFAULT 1 CHECK (attempts > 0),
    ADD COLUMN applies boolean NOT NULL DEFAULT true,
    ADD COLUMN actor text NOT NULL DEFAULT '',
    ADD COLUMN measures jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN findings jsonb NOT NULL DEFAULT '[]',
    ADD COLUMN approvals_needed smallint NOT NULL DEFAULT 0 CHECK (approvals_needed BETWEEN 0 AND 2),
    ADD COLUMN kept_file text,
    ADD CONSTRAINT register_run_held_needs_somebody CHECK (state <> 'held' OR approvals_needed > 0);
-- What waits for somebody or something is looked for every few seconds among years of runs.
CREATE INDEX register_run_open ON register_run (register, id) WHERE state IN ('running', 'held', 'interrupted');

CREATE TABLE register_step (
    run_id       bigint NOT NULL REFERENCES register_run ON DELETE CASCADE,
    step         text NOT NULL
        CHECK (step IN ('fetch', 'verify', 'parse', 'check', 'stage', 'diff', 'plan', 'apply', 'report')),
    started_at   timestamptz NOT NULL,
    finished_at  timestamptz CHECK (finished_at >= started_at),
    detail       jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (run_id, step)
);

-- Each run of lines that a file said of one key when it was last applied, and what they came to: a hint which lines
-- need not be read again, never a reason to remove or keep anyone. Unlogged: a crash empties it, and the next night
-- reads every line, as the first one did.
CREATE UNLOGGED TABLE register_known (
    register   text NOT NULL,
    key        text NOT NULL,
    digest     uuid NOT NULL,
    row_hash   bytea NOT NULL
);
"""

DOWN = """
DROP TABLE register_known;
DROP TABLE register_step;
DROP INDEX register_run_open;
DELETE FROM register_run WHERE state IN ('running', 'held', 'interrupted');
ALTER TABLE register_run
    DROP CONSTRAINT register_run_held_needs_somebody,
    DROP CONSTRAINT register_run_state_check,
    ADD CONSTRAINT register_run_state_check CHECK (state IN ('planned', 'applied', 'refused')),
    DROP COLUMN step, DROP COLUMN attempts, DROP COLUMN applies, DROP COLUMN actor, DROP COLUMN measures,
    DROP COLUMN findings, DROP COLUMN approvals_needed, DROP COLUMN kept_file;
"""


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute(DOWN)
