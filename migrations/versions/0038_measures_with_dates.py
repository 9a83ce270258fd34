"""Measures with dates: told when they begin and end, prolonged, shortened, annulled; what an error took comes back.

What a measure is at an instant follows from its dates alone. `measure_phase` remembers what was told of it, so that
a clock put forward or back, or a worker that was away, leaves nothing untold.
"""

from alembic import op

revision = "0038"
down_revision = "0037"

UP = r"""
-- A measure that was withdrawn before it began has an empty period: it never is in force.
ALTER TABLE measure DROP CONSTRAINT measure_check;
ALTER TABLE measure ADD CONSTRAINT measure_check CHECK (ends_at >= starts_at);
CREATE INDEX measure_dated ON measure (national_id) WHERE ends_at IS NOT NULL OR starts_at > recorded_at;

CREATE FUNCTION sceau_phase(starts_at timestamptz, ends_at timestamptz, at timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN ends_at <= greatest(starts_at, at) THEN 'over' WHEN starts_at > at THEN 'to-come'
                ELSE 'in-force' END
$$;
-- The instant at which the phase ends by itself.
CREATE FUNCTION sceau_phase_ends(phase text, starts_at timestamptz, ends_at timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE phase WHEN 'to-come' THEN starts_at WHEN 'in-force' THEN coalesce(ends_at, 'infinity')
                ELSE 'infinity' END
$$;

CREATE TABLE measure_phase (
    measure_id  bigint PRIMARY KEY REFERENCES measure,
    phase       text NOT NULL CHECK (phase IN ('to-come', 'in-force', 'over')),
    told_at     timestamptz NOT NULL,
    due_at      timestamptz NOT NULL
);
CREATE INDEX measure_phase_due ON measure_phase (due_at) WHERE due_at < 'infinity';
CREATE INDEX measure_phase_told ON measure_phase (told_at);

-- Who writes a measure tells the feed of it by the triggers that are there; here is noted what was told.
CREATE FUNCTION sceau_measure_written() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO measure_phase (measure_id, phase, told_at, due_at)
    SELECT r.id, now_is.phase, now_is.at, sceau_phase_ends(now_is.phase, r.starts_at, r.ends_at)
    FROM rows r CROSS JOIN LATERAL (
        SELECT at, sceau_phase(r.starts_at, r.ends_at, at) AS phase
        FROM clock_timestamp() AS at) AS now_is
    ON CONFLICT (measure_id) DO UPDATE
        SET phase = excluded.phase, told_at = excluded.told_at, due_at = excluded.due_at;
    RETURN NULL;
END $$;
CREATE TRIGGER phase_insert AFTER INSERT ON measure REFERENCING NEW TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_measure_written();
CREATE TRIGGER phase_update AFTER UPDATE ON measure REFERENCING NEW TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_measure_written();
INSERT INTO measure_phase (measure_id, phase, told_at, due_at)
SELECT id, phase, at, sceau_phase_ends(phase, starts_at, ends_at)
FROM (SELECT m.*, now() AS at, sceau_phase(m.starts_at, m.ends_at, now()) AS phase FROM measure m) AS known;

-- An OCSP answer outlives no instant at which a measure of its holder begins or ends: what was signed ahead, or is
-- kept in memory, without knowing of that instant is signed anew.
CREATE FUNCTION sceau_measure_dated() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    touched text[];
BEGIN
    SELECT array_agg(DISTINCT c.serial) INTO touched
    FROM rows r CROSS JOIN LATERAL (
        SELECT r.national_id AS number
        UNION SELECT u.successor FROM succession u WHERE u.national_id = r.national_id AND u.successor IS NOT NULL
        UNION SELECT u.national_id FROM succession u WHERE u.successor = r.national_id) AS whose
    JOIN certificate c ON c.practitioner = whose.number AND c.not_after > clock_timestamp()
    WHERE r.ends_at IS NOT NULL OR r.starts_at > r.recorded_at;
    UPDATE ocsp_answer SET responder = NULL, der = NULL, this_update = NULL, next_update = NULL
    WHERE serial = ANY(touched);
    PERFORM pg_notify('sceau_revocation', serial) FROM unnest(touched) AS serial;
    RETURN NULL;
END $$;
CREATE TRIGGER dated_insert AFTER INSERT ON measure REFERENCING NEW TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_measure_dated();
CREATE TRIGGER dated_update AFTER UPDATE ON measure REFERENCING NEW TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_measure_dated();

-- What lasts longer, what is shorter, what was an error: with the reason of each.
CREATE TABLE measure_revision (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    measure_id    bigint NOT NULL REFERENCES measure,
    act           text NOT NULL CHECK (act IN ('prolonged', 'shortened', 'annulled')),
    ends_at       timestamptz,
    reason        text NOT NULL CHECK (reason <> ''),
    asked_by      text NOT NULL,
    confirmed_by  text,
    recorded_at   timestamptz NOT NULL,
    -- To prolong takes trust away: one person does. The others give it back: two do.
    CHECK ((act = 'prolonged') = (confirmed_by IS NULL)),
    CHECK (confirmed_by <> asked_by)
);
CREATE INDEX measure_revision_of ON measure_revision (measure_id, id);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON measure_revision FOR EACH ROW EXECUTE FUNCTION sceau_refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON measure_revision FOR EACH STATEMENT EXECUTE FUNCTION sceau_refuse();

-- Both shaped as `measure_lifting`.
CREATE TABLE measure_shortening (
    measure_id    bigint PRIMARY KEY REFERENCES measure,
    until         timestamptz NOT NULL,
    reason        text NOT NULL CHECK (reason <> ''),
    asked_by      bigint NOT NULL REFERENCES api_token,
    asked_at      timestamptz NOT NULL,
    confirmed_by  bigint REFERENCES api_token,
    confirmed_at  timestamptz,
    CHECK (confirmed_by <> asked_by),
    CHECK ((confirmed_by IS NULL) = (confirmed_at IS NULL))
);
CREATE TABLE measure_annulment (
    measure_id    bigint PRIMARY KEY REFERENCES measure,
    reason        text NOT NULL CHECK (reason <> ''),
    asked_by      bigint NOT NULL REFERENCES api_token,
    asked_at      timestamptz NOT NULL,
    confirmed_by  bigint REFERENCES api_token,
    confirmed_at  timestamptz,
    CHECK (confirmed_by <> asked_by),
    CHECK ((confirmed_by IS NULL) = (confirmed_at IS NULL))
);

-- Certificates that an annulled strike-off revoked: revoked is final, so that each gets a successor on its key.
CREATE TABLE certificate_replacement (
    serial        text PRIMARY KEY REFERENCES certificate,
    measure_id    bigint NOT NULL REFERENCES measure,
    enrolment_id  uuid NOT NULL REFERENCES enrolment,
    asked_at      timestamptz NOT NULL,
    replaced_by   text REFERENCES certificate,
    refused       text,
    CHECK (num_nonnulls(replaced_by, refused) < 2)
);
CREATE INDEX certificate_replacement_of ON certificate_replacement (measure_id);
CREATE INDEX certificate_replacement_open ON certificate_replacement (asked_at)
    WHERE replaced_by IS NULL AND refused IS NULL;
"""

DOWN = r"""
DROP TABLE certificate_replacement;
DROP TABLE measure_annulment;
DROP TABLE measure_shortening;
DROP TABLE measure_revision;
DROP TRIGGER dated_insert ON measure;
DROP TRIGGER dated_update ON measure;
DROP TRIGGER phase_insert ON measure;
DROP TRIGGER phase_update ON measure;
DROP FUNCTION sceau_measure_dated();
DROP FUNCTION sceau_measure_written();
DROP TABLE measure_phase;
DROP FUNCTION sceau_phase(timestamptz, timestamptz, timestamptz);
DROP FUNCTION sceau_phase_ends(text, timestamptz, timestamptz);
DROP INDEX measure_dated;
-- The release before knows no empty period: as short as there is one.
UPDATE measure SET starts_at = starts_at - interval '1 microsecond' WHERE ends_at = starts_at;
ALTER TABLE measure DROP CONSTRAINT measure_check;
ALTER TABLE measure ADD CONSTRAINT measure_check CHECK (ends_at > starts_at);
"""


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute(DOWN)
