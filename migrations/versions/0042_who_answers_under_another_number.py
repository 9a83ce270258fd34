"""The feed tells of the mailboxes that a number of ADELI answers for, when another number takes its place.

The person of the new number answers for them from then on, and neither his row nor theirs need change.
"""

from alembic import op

revision = "0042"
down_revision = "0041"

FEED = """
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '1min';
CREATE OR REPLACE FUNCTION sceau_feed_succession() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO change (entity, key, urgent)
    SELECT DISTINCT 'mailbox', c.mailbox, TG_OP = 'DELETE'
    FROM rows r JOIN certificate c ON c.practitioner = r.national_id WHERE c.mailbox IS NOT NULL;
{answering}    RETURN NULL;
END $$
"""
ANSWERING = """\
    INSERT INTO change (entity, key, urgent)
    SELECT DISTINCT 'mailbox', e.mailbox, TG_OP = 'DELETE'
    FROM rows r JOIN enrolment e ON e.practitioner = r.national_id;
"""


def upgrade() -> None:
    op.execute(FEED.format(answering=ANSWERING))


def downgrade() -> None:
    op.execute(FEED.format(answering=""))
