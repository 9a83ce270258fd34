"""The acts that two persons signed for an enrolment: what the signer goes by where the installation has anchors.

An enrolment without them stays what it was: an installation without anchors asks for none.
"""

from alembic import op

revision = "0047"
down_revision = "0046"

UP = """
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '1min';
CREATE TABLE enrolment_act (
    enrolment_id  uuid NOT NULL REFERENCES enrolment,
    kind          text NOT NULL CHECK (kind IN ('enrolment.request', 'enrolment.approve')),
    person        text NOT NULL,
    credential    text NOT NULL,
    signed        text NOT NULL,
    at            timestamptz NOT NULL,
    PRIMARY KEY (enrolment_id, kind)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON enrolment_act
    FOR EACH ROW EXECUTE FUNCTION sceau_refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON enrolment_act FOR EACH STATEMENT EXECUTE FUNCTION sceau_refuse()
"""
DOWN = """
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '1min';
DROP TABLE enrolment_act
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
