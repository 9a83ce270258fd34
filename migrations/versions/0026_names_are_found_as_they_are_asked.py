r"""Names with St or Ste are found as Saint and Sainte, words around an apostrophe together too. Places are
found by the number of their legal entity and by SIRET.

Replaces functions of 0009 and runs them for the people and places whose words change: some seconds for a country.
"""

from alembic import op

revision = "0026"
down_revision = "0025"

NEW = r"""
-- ST GERMAIN is SAINT GERMAIN, for rows and questions alike.
CREATE FUNCTION sceau_saints(folded text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    IF strpos(folded, 'ST') = 0 OR folded !~ '\mSTE?\M' THEN
        RETURN folded;
    END IF;
    RETURN regexp_replace(regexp_replace(folded, '\mST\M', 'SAINT', 'g'), '\mSTE\M', 'SAINTE', 'g');
END $$;

-- The words a place is found by: N'DIARRAME is N, DIARRAME and NDIARRAME.
CREATE FUNCTION sceau_place_words(raw text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    words text := sceau_saints(sceau_fold(raw));
BEGIN
    IF raw ~ E'[''\u2019]' THEN
        words := words || ' ' || sceau_saints(sceau_fold(regexp_replace(raw, E'[''\u2019]', '', 'g')));
    END IF;
    RETURN words;
END $$;

-- The endings of a name: the first is what people are sorted by; of one with St, those of both spellings.
CREATE FUNCTION sceau_name_words(folded text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE WHEN sceau_saints(folded) = folded THEN sceau_endings(folded)
                ELSE sceau_endings(sceau_saints(folded)) || ' ' || sceau_endings(folded) END
$$;
"""

PEOPLE = r"""
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
        SELECT p.national_id, replace({sorted}(p.family), ' ', '') || ' ' || {sorted}(p.given),
               sceau_terms(concat_ws(' ', 'f' || replace(nullif({name}(p.family), ''), ' ', ' o'),
                                     'o' || replace(nullif({name}(p.given), ''), ' ', ' o'),
                                     professions.words, skills.words, practices.words))
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
                       'i' || nullif(finess, ''), 'n' || replace(nullif({place}(structure_name), ''), ' ', ' n')
                   ), ' ') AS words
                   FROM practice x %1$s GROUP BY x.national_id
        ) AS practices USING (national_id)
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

PLACES = r"""
CREATE OR REPLACE FUNCTION sceau_search_places(keys text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM search_place WHERE finess = ANY (keys);
    EXECUTE $sql$
        INSERT INTO search_place (finess, sort_name, terms)
        SELECT finess, {sorted}(sceau_fold(name)), sceau_terms(concat_ws(' ',
                   'o' || replace(nullif(btrim({place}(name) || ' ' || {place}(long_name)), ''), ' ', ' o'),
                   'd' || nullif(coalesce(usual.code, department), ''),
                   't' || nullif(sceau_fold_town(ltrim(postal_line, '0123456789 ')), '')))
        FROM (SELECT unnest($1) AS finess) AS touched JOIN organisation USING (finess)
        LEFT JOIN (VALUES ('9A', '971'), ('9B', '972'), ('9C', '973'), ('9D', '974'), ('9E', '975'), ('9F', '976'))
            AS usual (finess_code, code) ON usual.finess_code = department
        WHERE departed_at IS NULL
    $sql$ USING keys;
END $$;
"""

# Only those whose words change: whoever has St in a name, a place with St or an apostrophe.
AGAIN = r"""
SELECT sceau_search_people(ARRAY(
    SELECT national_id FROM practitioner
    WHERE departed_at IS NULL AND sceau_fold(family_name) || ' ' || sceau_fold(given_name) ~ '\mSTE?\M'
    UNION SELECT national_id FROM practice WHERE structure_name ~ E'[''\u2019]' OR structure_name ~* '\mSTE?\M'));
SELECT sceau_search_places(ARRAY(
    SELECT finess FROM organisation
    WHERE name || ' ' || long_name ~ E'[''\u2019]' OR name || ' ' || long_name ~* '\mSTE?\M'));
"""
INDEXES = """
CREATE INDEX organisation_legal_finess ON organisation (legal_finess) WHERE legal_finess <> '';
CREATE INDEX organisation_siret ON organisation (siret) WHERE siret <> '';
"""
# Of 0025: there it would have read every enrolment while nobody could write one.
VALID = "ALTER TABLE enrolment_names VALIDATE CONSTRAINT enrolment_names_enrolment_id_fkey;"
NOW = {"sorted": "sceau_saints", "name": "sceau_name_words", "place": "sceau_place_words"}
BEFORE = {"sorted": "", "name": "sceau_endings", "place": "sceau_fold"}


def functions(names: dict[str, str]) -> str:
    made = PEOPLE + PLACES
    for word, function in names.items():
        made = made.replace(f"{{{word}}}", function)
    return made


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    # The indexes last: from then to the commit nobody can write an establishment.
    execute(VALID + NEW + functions(NOW) + AGAIN + INDEXES)


def downgrade() -> None:
    execute(functions(BEFORE) + AGAIN)
    execute("DROP INDEX organisation_legal_finess, organisation_siret")
    execute("DROP FUNCTION sceau_name_words, sceau_place_words, sceau_saints")
