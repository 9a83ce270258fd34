"""The names that an enrolment vouches for, as they were when it was asked for and approved.

Of the enrolments that live, the history says what both persons saw: the record as of the request, and as of
the approval. Where both agree that is kept; where they differ, or the history does not reach back, nothing
is, and the enrolment certifies nothing more. Certificates that were made stay. A release that still serves
while this runs, or after it, writes enrolments without names: of these the history is asked when they are read.
"""

from alembic import op

revision = "0025"
down_revision = "0024"

UP = r"""
-- What refers to `enrolment` comes after the fill: from then to the commit nobody can write there.
CREATE TABLE enrolment_names (
    enrolment_id  uuid PRIMARY KEY,
    names         jsonb NOT NULL CHECK (names ? 'kind')
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON enrolment_names
    FOR EACH ROW EXECUTE FUNCTION sceau_refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON enrolment_names FOR EACH STATEMENT EXECUTE FUNCTION sceau_refuse();

-- Of living enrolments, where the history agrees on them. In plpgsql: a statement that hardly ever comes to it
-- is not to plan it.
CREATE FUNCTION sceau_names_seen(asked uuid[]) RETURNS TABLE (enrolment_id uuid, names jsonb)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
    WITH seen AS (
        SELECT e.id, e.practitioner, e.mailbox, at.instant FROM enrolment e
        CROSS JOIN LATERAL (
            SELECT e.requested_at AS instant UNION SELECT e.approved_at WHERE e.approved_at IS NOT NULL) AS at
        WHERE e.id = ANY (asked) AND e.state <> 'ended'
    ), named AS (
        SELECT s.id, CASE m.kind
            WHEN 'PER' THEN jsonb_build_object(
                'kind', m.kind, 'address', m.address, 'given_name', p.given_name, 'family_name', p.family_name,
                'national_id', p.national_id, 'professions', coalesce(
                    (SELECT jsonb_agg(DISTINCT x.code ORDER BY x.code) FROM profession_at(s.instant) x
                     WHERE x.national_id = s.practitioner), '[]'))
            WHEN 'APP' THEN jsonb_build_object(
                'kind', m.kind, 'address', m.address, 'name', coalesce(o.name, m.structure_name),
                'finess', CASE m.structure_type WHEN '1' THEN m.structure_id ELSE '' END)
            WHEN 'ORG' THEN jsonb_build_object(
                'kind', m.kind, 'address', m.address, 'name', coalesce(o.name, m.structure_name),
                'finess', CASE m.structure_type WHEN '1' THEN m.structure_id ELSE '' END, 'service', m.service)
            END AS names
        FROM seen s
        -- Not by the functions practitioner_at and the like: these read whole tables for each row.
        LEFT JOIN LATERAL (
            SELECT t.national_id, t.given_name, t.family_name
            FROM practitioner t WHERE t.national_id = s.practitioner AND t.sys_from <= s.instant
            UNION ALL SELECT t.national_id, t.given_name, t.family_name FROM practitioner_history t
            WHERE t.national_id = s.practitioner AND t.sys_from <= s.instant AND t.sys_to > s.instant) AS p ON true
        LEFT JOIN LATERAL (
            SELECT t.address, t.kind, t.finess, t.structure_name, t.structure_type, t.structure_id, t.service
            FROM mailbox t WHERE t.address = s.mailbox AND t.sys_from <= s.instant
            UNION ALL SELECT t.address, t.kind, t.finess, t.structure_name, t.structure_type, t.structure_id, t.service
            FROM mailbox_history t WHERE t.address = s.mailbox AND t.sys_from <= s.instant AND t.sys_to > s.instant) AS m ON true
        LEFT JOIN LATERAL (
            SELECT t.name FROM organisation t WHERE t.finess = m.finess AND t.sys_from <= s.instant AND m.finess <> ''
            UNION ALL SELECT t.name FROM organisation_history t
            WHERE t.finess = m.finess AND t.sys_from <= s.instant AND t.sys_to > s.instant AND m.finess <> '') AS o ON true
    )
    SELECT n.id, (array_agg(n.names))[1] FROM named n GROUP BY n.id
    HAVING count(n.names) = count(*) AND count(DISTINCT n.names) = 1
       AND bool_and(n.names ->> 'kind' <> 'PER' OR n.names ->> 'national_id' IS NOT NULL);
END $$;

INSERT INTO enrolment_names
SELECT * FROM sceau_names_seen(ARRAY(SELECT id FROM enrolment WHERE state <> 'ended'));

-- What is there is validated by the next migration, which locks nobody out.
ALTER TABLE enrolment_names ADD CONSTRAINT enrolment_names_enrolment_id_fkey
    FOREIGN KEY (enrolment_id) REFERENCES enrolment NOT VALID;
"""


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute("DROP FUNCTION sceau_names_seen; DROP TABLE enrolment_names")
