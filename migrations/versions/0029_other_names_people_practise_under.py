"""Names under which people practise beside the one that is shown: kept, with their history, and searched."""

from alembic import op

revision = "0029"
down_revision = "0028"

TABLE = r"""
CREATE TABLE professional_name (
    national_id      text NOT NULL REFERENCES practitioner ON DELETE CASCADE,
    profession_code  text NOT NULL,
    category         text NOT NULL,
    family_name      text NOT NULL CHECK (family_name <> ''),
    given_name       text NOT NULL,
    sys_from         timestamptz NOT NULL,
    PRIMARY KEY (national_id, profession_code, category, family_name, given_name)
);
CREATE TABLE professional_name_history (
    LIKE professional_name, sys_to timestamptz NOT NULL CHECK (sys_to > sys_from)
);
CREATE INDEX professional_name_history_key ON professional_name_history (national_id, sys_to);
CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON professional_name FOR EACH ROW EXECUTE FUNCTION sceau_stamp();
CREATE TRIGGER archive AFTER UPDATE OR DELETE ON professional_name FOR EACH ROW EXECUTE FUNCTION sceau_archive();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON professional_name_history
    FOR EACH ROW EXECUTE FUNCTION sceau_refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON professional_name_history
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_refuse();
CREATE FUNCTION professional_name_at(instant timestamptz) RETURNS SETOF professional_name_history
LANGUAGE sql STABLE AS $$
    SELECT t.*, 'infinity'::timestamptz FROM professional_name t WHERE t.sys_from <= instant
    UNION ALL
    SELECT h.* FROM professional_name_history h WHERE h.sys_from <= instant AND h.sys_to > instant
$$;
"""
TRIGGER = """
CREATE TRIGGER feed_{event} AFTER {event} ON professional_name REFERENCING {which} TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION sceau_feed_holder();
CREATE TRIGGER search_{event} AFTER {event} ON professional_name REFERENCING {which} TABLE AS rows
    FOR EACH STATEMENT WHEN (coalesce(current_setting('sceau.search', true), '') <> 'at-the-end')
    EXECUTE FUNCTION sceau_search_person_touched();
"""
# As in 0026, but for the words of other names, by which nobody is sorted.
SEARCH_PEOPLE = r"""
CREATE OR REPLACE FUNCTION sceau_search_people(keys text[]) RETURNS void LANGUAGE plpgsql
-- Two million groups do not fit into the memory of a hash, and how many there are is not known in time.
SET enable_hashagg = off AS $$
DECLARE
    from_nothing boolean := cardinality(keys) > 10000 AND NOT EXISTS (SELECT FROM search_person);
BEGIN
    IF from_nothing THEN
        -- A first load: indexes made once are made in a tenth of the time.
        ALTER TABLE search_person DROP CONSTRAINT search_person_pkey;
        DROP INDEX search_person_order, search_person_terms;
    ELSE
        DELETE FROM search_person WHERE national_id = ANY (keys);
    END IF;
    -- EXECUTE: planned for these keys, be they one or ten thousand.
    EXECUTE format($sql$
        WITH touched AS (SELECT unnest($1) AS national_id)
        INSERT INTO search_person (national_id, sort_name, terms)
        SELECT p.national_id, replace(sceau_saints(p.family), ' ', '') || ' ' || sceau_saints(p.given),
               sceau_terms(concat_ws(' ', 'f' || replace(nullif(sceau_name_words(p.family), ''), ' ', ' o'),
                                     'o' || replace(nullif(sceau_name_words(p.given), ''), ' ', ' o'),
                                     %WORDS%professions.words, skills.words, practices.words))
        FROM (
            SELECT national_id, sceau_fold(family_name) AS family, sceau_fold(given_name) AS given
            FROM practitioner %1$s WHERE departed_at IS NULL OFFSET 0
        ) AS p
        LEFT JOIN (SELECT x.national_id, string_agg('p' || code, ' ') AS words
                   FROM profession x %1$s GROUP BY x.national_id
        ) AS professions USING (national_id)
        LEFT JOIN (SELECT x.national_id, string_agg('s' || skill_code, ' ') AS words
                   FROM skill x %1$s GROUP BY x.national_id
        ) AS skills USING (national_id)
        LEFT JOIN (SELECT x.national_id, string_agg(concat_ws(' ',
                       'd' || nullif(department, ''), 't' || nullif(sceau_fold_town(town), ''),
                       'i' || nullif(finess, ''), 'n' || replace(nullif(sceau_place_words(structure_name), ''), ' ', ' n')
                   ), ' ') AS words
                   FROM practice x %1$s GROUP BY x.national_id
        ) AS practices USING (national_id)
%NAMES%        ORDER BY 2
    $sql$, CASE WHEN from_nothing THEN '' ELSE 'JOIN touched USING (national_id)' END) USING keys;
    IF from_nothing THEN
        ALTER TABLE search_person ADD CONSTRAINT search_person_pkey PRIMARY KEY (national_id);
        CREATE INDEX search_person_order ON search_person (sort_name, national_id);
        CREATE INDEX search_person_terms ON search_person USING gin (terms) WITH (fastupdate = off);
        ANALYZE search_person;
    END IF;
END $$;
"""
WORDS = "names.words, "
NAMES = """\
        LEFT JOIN (SELECT x.national_id, string_agg('o' || replace(concat_ws(' ',
                       nullif(sceau_name_words(sceau_fold(family_name)), ''),
                       nullif(sceau_name_words(sceau_fold(given_name)), '')), ' ', ' o'), ' ') AS words
                   FROM professional_name x %1$s GROUP BY x.national_id
        ) AS names USING (national_id)
"""


def search_people(words: str, names: str) -> str:
    return SEARCH_PEOPLE.replace("%WORDS%", words).replace("%NAMES%", names)


def execute(sql: str) -> None:
    # The driver's own cursor, as in the migrations before.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    events = {"INSERT": "NEW", "DELETE": "OLD"}
    execute(TABLE + "".join(TRIGGER.format(event=event, which=which) for event, which in events.items()))
    execute(search_people(WORDS, NAMES))


def downgrade() -> None:
    execute(search_people("", ""))
    execute("""
        DROP FUNCTION professional_name_at;
        DROP TABLE professional_name, professional_name_history;
    """)
