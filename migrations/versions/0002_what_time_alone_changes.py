"""What time alone changes: a certificate runs out, an establishment closes, a measure begins or ends.

No statement changes a row then, so no trigger can tell the feed. One function does, for all that came due since it
was last called, found by indexes on the days and instants it looks at.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

UP = r"""
CREATE TABLE feed_clock (
    single   boolean PRIMARY KEY DEFAULT true CHECK (single),
    reached  timestamptz NOT NULL
);
-- What came due before is in LDAP already, by the change that wrote it or by the nightly comparison.
INSERT INTO feed_clock (reached) VALUES (transaction_timestamp());

CREATE INDEX certificate_runs_out ON certificate (not_after) WHERE mailbox IS NOT NULL;
CREATE INDEX organisation_closes ON organisation (closed_on) WHERE closed_on IS NOT NULL;
CREATE INDEX measure_begins ON measure (starts_at);
CREATE INDEX measure_ends ON measure (ends_at) WHERE ends_at IS NOT NULL;

-- Whatever came due after the last call and not after `until`: each is told once, however often and by however
-- many this is called, since the place reached and the rows told commit together.
CREATE FUNCTION sceau_feed_time(until timestamptz) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    since timestamptz;
    told bigint;
BEGIN
    SELECT reached INTO STRICT since FROM feed_clock FOR UPDATE;
    IF until <= since THEN
        RETURN 0;
    END IF;
    WITH person AS (
        SELECT national_id, bool_or(begun) AS urgent FROM (
            SELECT national_id, true AS begun FROM measure WHERE starts_at > since AND starts_at <= until
            UNION ALL
            SELECT national_id, false FROM measure WHERE ends_at > since AND ends_at <= until) AS due
        GROUP BY national_id
    ), place AS (
        -- A French calendar day, as in FINESS; closed from its first minute.
        SELECT finess FROM organisation
        WHERE closed_on > (since AT TIME ZONE 'Europe/Paris')::date
        AND closed_on <= (until AT TIME ZONE 'Europe/Paris')::date
    )
    INSERT INTO change (entity, key, urgent)
    SELECT 'practitioner', national_id, urgent FROM person
    UNION ALL
    SELECT 'mailbox', m.address, p.urgent FROM person p JOIN mailbox m ON m.holder = p.national_id
    UNION ALL
    SELECT 'organisation', finess, true FROM place
    UNION ALL
    SELECT 'mailbox', m.address, true FROM place p JOIN mailbox m ON m.finess = p.finess WHERE m.finess <> ''
    UNION ALL
    SELECT DISTINCT 'mailbox', mailbox, true FROM certificate
    WHERE mailbox IS NOT NULL AND not_after > since AND not_after <= until;
    GET DIAGNOSTICS told = ROW_COUNT;
    UPDATE feed_clock SET reached = until;
    RETURN told;
END $$;
"""

DOWN = """
DROP FUNCTION sceau_feed_time(timestamptz);
DROP INDEX certificate_runs_out;
DROP INDEX organisation_closes;
DROP INDEX measure_begins;
DROP INDEX measure_ends;
DROP TABLE feed_clock;
"""


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute(DOWN)
