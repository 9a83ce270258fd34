"""What triggers write, they write with the owner's rights, so that each part needs those of its own work alone.

The rights themselves stand in directory/base/rights.toml, and `sceau migrate` grants them after the migrations.
"""

from alembic import op

revision = "0048"
down_revision = "0047"

TIMEOUTS = """
SET LOCAL lock_timeout = '4s';
SET LOCAL statement_timeout = '1min';
"""
# Each writes, reads or locks what the one who writes the row has no right to. Their text alone says what is done.
WITH_OWNERS_RIGHTS = (
    "sceau_archive()", "sceau_crl_event()", "sceau_feed_anew()", "sceau_feed_authority()", "sceau_feed_certificate()",
    "sceau_feed_crl()", "sceau_feed_domain()", "sceau_feed_enrolment()", "sceau_feed_floor()", "sceau_feed_followed()",
    "sceau_feed_holder()", "sceau_feed_mailbox()", "sceau_feed_operator()", "sceau_feed_organisation()",
    "sceau_feed_practitioner()", "sceau_feed_renumbered_place()", "sceau_feed_revocation()", "sceau_feed_succession()",
    "sceau_feed_time(timestamptz)", "sceau_keep_holds()", "sceau_measure_dated()", "sceau_measure_written()",
    "sceau_red_list()", "sceau_revoked_is_final()", "sceau_search_people(text[])", "sceau_search_person_touched()",
    "sceau_search_place_touched()", "sceau_search_places(text[])", "sceau_trust_list_domain()",
    "sceau_trust_list_due()", "sceau_trust_list_operator()",
)  # fmt: skip
# pg_temp last: a table of the caller's own must not be taken for one of ours.
PATH = "pg_catalog, public, pg_temp"
NEW = """
-- A run is locked by who approves it, and no part that approves may change one.
CREATE FUNCTION sceau_lock_run(run bigint) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    PERFORM FROM register_run WHERE id = run FOR UPDATE;
END $$;

-- The feed's far end goes: what every part of this service has read, what no transaction can still add to, and what
-- is older than `before` and than 90 days, which are promised to readers outside.
CREATE FUNCTION sceau_forget_changes(before timestamptz, most integer) RETURNS integer LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    low record;
    last record;
    limit_at timestamptz := least(before, clock_timestamp() - interval '90 days');
    removed integer;
BEGIN
    SELECT xid, id INTO STRICT low FROM feed_floor;
    WITH oldest AS (
        SELECT c.xid, c.id, c.at FROM change c
        WHERE (c.xid, c.id) > (low.xid, low.id) AND c.xid < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY c.xid, c.id LIMIT most
    ), slowest AS (
        SELECT f.xid, f.id FROM feed_cursor f ORDER BY f.xid, f.id LIMIT 1
    ), kept AS (
        SELECT o.xid, o.id FROM oldest o LEFT JOIN slowest s ON true
        WHERE o.at >= limit_at OR (o.xid, o.id) > (s.xid, s.id) ORDER BY o.xid, o.id LIMIT 1
    )
    SELECT o.xid, o.id INTO last FROM oldest o
    WHERE NOT EXISTS (SELECT FROM kept k WHERE (k.xid, k.id) <= (o.xid, o.id))
    ORDER BY o.xid DESC, o.id DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    -- From the floor on: below it lie the entries of what former batches removed, to be stepped over each time.
    DELETE FROM change c WHERE (c.xid, c.id) > (low.xid, low.id) AND (c.xid, c.id) <= (last.xid, last.id);
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END $$;

-- OCSP answers signed later than now, by a clock that was ahead, are emptied; the worker signs others.
CREATE FUNCTION sceau_unsign_answers(now timestamptz) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    UPDATE ocsp_answer a SET responder = NULL, der = NULL, this_update = NULL, next_update = NULL
    WHERE a.this_update > sceau_unsign_answers.now;
END $$;

-- Statistics after a first load, which only the owner of a table may gather.
CREATE FUNCTION sceau_analyse_people() RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    ANALYZE practitioner, profession, skill,
        practice (national_id, structure_id, finess, legal_finess, siret, department, town, structure_name);
END $$;
"""
# Every function of ours, also one that a later migration makes: who may call it is said, never left open.
CLOSED = """
DO $$
DECLARE
    ours regprocedure;
BEGIN
    FOR ours IN
        SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace AND NOT EXISTS (
            SELECT FROM pg_depend d
            WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', ours);
    END LOOP;
END $$;
"""


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once, and '%' means itself.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    rights = [
        f"ALTER FUNCTION {function} SECURITY DEFINER SET search_path = {PATH};"
        for function in WITH_OWNERS_RIGHTS
    ]
    execute(TIMEOUTS + NEW + "\n".join(rights) + CLOSED)


def downgrade() -> None:
    rights = [
        f"ALTER FUNCTION {function} SECURITY INVOKER RESET search_path;" for function in WITH_OWNERS_RIGHTS
    ]
    gone = """
    DROP FUNCTION sceau_analyse_people();
    DROP FUNCTION sceau_unsign_answers(timestamptz);
    DROP FUNCTION sceau_forget_changes(timestamptz, integer);
    DROP FUNCTION sceau_lock_run(bigint);
    """
    execute(
        TIMEOUTS
        + "\n".join(rights)
        + gone
        + CLOSED.replace("REVOKE", "GRANT").replace("FROM PUBLIC", "TO PUBLIC")
    )
