"""An approved enrolment lasts until the one that takes its place is approved: a request ends nothing."""

from alembic import op

revision = "0032"
down_revision = "0031"

# `enrolment_live` is what the searches by mailbox ask; the two others say how many of each there may be. The one
# before goes last: from then on nobody reads an enrolment, and no verdict is given, until the commit.
UP = """
CREATE UNIQUE INDEX enrolment_asked_once ON enrolment (mailbox, practitioner) WHERE state = 'requested';
CREATE UNIQUE INDEX enrolment_approved_once ON enrolment (mailbox, practitioner) WHERE state = 'approved';
CREATE INDEX enrolment_standing ON enrolment (mailbox, practitioner) WHERE state <> 'ended';
DROP INDEX enrolment_live;
ALTER INDEX enrolment_standing RENAME TO enrolment_live;
"""
# The earlier release knows one of a pair alone: the request goes.
DOWN = """
UPDATE enrolment e SET state = 'ended', ended_at = greatest(now(), e.requested_at) WHERE e.state = 'requested'
    AND EXISTS (SELECT FROM enrolment a WHERE a.mailbox = e.mailbox AND a.practitioner = e.practitioner
                AND a.state = 'approved');
CREATE UNIQUE INDEX enrolment_single ON enrolment (mailbox, practitioner) WHERE state <> 'ended';
DROP INDEX enrolment_live, enrolment_asked_once, enrolment_approved_once;
ALTER INDEX enrolment_single RENAME TO enrolment_live;
"""


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute(DOWN)
