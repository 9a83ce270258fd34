"""The words that people are found by are made once for each name, town and place, however many share it."""

from alembic import op

revision = "0037"
down_revision = "0036"

# As in 0029, but for the rows.
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
        %ROWS%
        ORDER BY 2
    $sql$, CASE WHEN from_nothing THEN '' ELSE 'JOIN touched USING (national_id)' END) USING keys;
    IF from_nothing THEN
        ALTER TABLE search_person ADD CONSTRAINT search_person_pkey PRIMARY KEY (national_id);
        CREATE INDEX search_person_order ON search_person (sort_name, national_id);
        CREATE INDEX search_person_terms ON search_person USING gin (terms) WITH (fastupdate = off);
        ANALYZE search_person;
    END IF;
END $$;
"""
# Each LATERAL keeps by its OFFSET 0 to itself, and PostgreSQL remembers what one gave for a value (Memoize).
ROWS = """
        SELECT p.national_id, family.sorted || ' ' || given.sorted,
               sceau_terms(concat_ws(' ', 'f' || replace(nullif(family.words, ''), ' ', ' o'),
                                     'o' || replace(nullif(given.words, ''), ' ', ' o'),
                                     names.words, professions.words, skills.words, practices.words))
        FROM practitioner p %1$s
        CROSS JOIN LATERAL (
            SELECT replace(sceau_saints(folded), ' ', '') AS sorted, sceau_name_words(folded) AS words
            FROM sceau_fold(p.family_name) AS folded OFFSET 0
        ) AS family
        CROSS JOIN LATERAL (
            SELECT sceau_saints(folded) AS sorted, sceau_name_words(folded) AS words
            FROM sceau_fold(p.given_name) AS folded OFFSET 0
        ) AS given
        LEFT JOIN (SELECT x.national_id, string_agg('p' || code, ' ') AS words
                   FROM profession x %1$s GROUP BY x.national_id
        ) AS professions USING (national_id)
        LEFT JOIN (SELECT x.national_id, string_agg('s' || skill_code, ' ') AS words
                   FROM skill x %1$s GROUP BY x.national_id
        ) AS skills USING (national_id)
        LEFT JOIN (SELECT x.national_id, string_agg(concat_ws(' ',
                       'd' || nullif(department, ''), 't' || nullif(place.town, ''),
                       'i' || nullif(finess, ''), 'n' || replace(nullif(named.words, ''), ' ', ' n')
                   ), ' ') AS words
                   FROM practice x %1$s
                   CROSS JOIN LATERAL (SELECT sceau_fold_town(x.town) AS town OFFSET 0) AS place
                   CROSS JOIN LATERAL (SELECT sceau_place_words(x.structure_name) AS words OFFSET 0) AS named
                   GROUP BY x.national_id
        ) AS practices USING (national_id)
        LEFT JOIN (SELECT x.national_id, string_agg('o' || replace(concat_ws(' ',
                       nullif(sceau_name_words(sceau_fold(family_name)), ''),
                       nullif(sceau_name_words(sceau_fold(given_name)), '')), ' ', ' o'), ' ') AS words
                   FROM professional_name x %1$s GROUP BY x.national_id
        ) AS names USING (national_id)
        WHERE p.departed_at IS NULL
"""
BEFORE = """
        SELECT p.national_id, replace(sceau_saints(p.family), ' ', '') || ' ' || sceau_saints(p.given),
               sceau_terms(concat_ws(' ', 'f' || replace(nullif(sceau_name_words(p.family), ''), ' ', ' o'),
                                     'o' || replace(nullif(sceau_name_words(p.given), ''), ' ', ' o'),
                                     names.words, professions.words, skills.words, practices.words))
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
        LEFT JOIN (SELECT x.national_id, string_agg('o' || replace(concat_ws(' ',
                       nullif(sceau_name_words(sceau_fold(family_name)), ''),
                       nullif(sceau_name_words(sceau_fold(given_name)), '')), ' ', ' o'), ' ') AS words
                   FROM professional_name x %1$s GROUP BY x.national_id
        ) AS names USING (national_id)
"""


def define(rows: str) -> None:
    # The driver's own cursor: a % is left alone.
    op.get_bind().connection.driver_connection.execute(SEARCH_PEOPLE.replace("%ROWS%", rows.strip()))


def upgrade() -> None:
    define(ROWS)


def downgrade() -> None:
    define(BEFORE)
