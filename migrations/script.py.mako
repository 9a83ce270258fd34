"""${message}

Written so that the previous release still runs on the new schema: add first, remove a release later.
`tests/repo/migration_lint.py` says what it may not do.
"""

from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}

TIMEOUTS = "SET LOCAL lock_timeout = '4s'; SET LOCAL statement_timeout = '5min'"


def upgrade() -> None:
    op.execute(TIMEOUTS)
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
