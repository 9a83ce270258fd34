"""Nobody and no place is found, or sorted, by a text that must not be published."""

from alembic import op

revision = "0040"
down_revision = "0039"

# All that `secrets_in` of directory/privacy.py finds in a text that is no street is in here (a test holds
# that). It leaves out little more: thirteen digits and more, any mail address, any date in figures. The whole
# text is left out, so that no word of it says that the rest is there.
SEARCHED = r"""
CREATE FUNCTION sceau_searched(raw text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    plain text;
    month CONSTANT text := '[ ./-]{0,3}(janv|fev|mars|avr|mai|juin|juil|aou|sept|oct|nov|dec)[a-z]*[ ./-]{0,3}';
    a_day CONSTANT text := '[0-9]{1,2}(er)?' || month || '[0-9]{4}';
BEGIN
    -- Nearly all texts.
    IF raw COLLATE "C" !~ E'[^A-Za-z\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u00FF \'\u2019.,&()-]' THEN
        RETURN raw;
    END IF;
    plain := regexp_replace(raw, E'[\u2010-\u2015\u2212]', '-', 'g');
    plain := regexp_replace(plain, E'[\t\x0b\f\r\x1c-\x1f\u0085\u1680\u2028\u2029]', ' ', 'g');
    plain := regexp_replace(normalize(plain, NFKD), '[%UNSEEN%]', '', 'g');
    plain := lower(regexp_replace(plain, '[^ -~]', '~', 'g') COLLATE "C");
    IF length(regexp_replace(plain, '[^0-9]', '', 'g')) >= (CASE WHEN plain ~ '2[ab]' THEN 12 ELSE 13 END)
        OR plain ~ '(?<![0-9])[0-9]{8}(?![0-9])'
        OR plain ~ '[0-9]{1,2}[ /.,_-]{1,5}[0-9]{1,2}[ /.,_-]{1,5}[0-9]{4}'
        OR plain ~ '[0-9]{4}[ /.,_-]{1,5}[0-9]{1,2}[ /.,_-]{1,5}[0-9]{1,2}'
        OR plain ~ '\mne([^0-9a-z]{0,2}e[)]?)? {1,3}le {1,3}[0-9]'
        OR plain ~ '[^ @<>]@[a-z0-9.-]+[.][a-z]{2}'
        -- A day that something is called by says nobody's birth.
        OR regexp_replace(
            regexp_replace(plain, '(^| )(du|de|le) *' || a_day, '~', 'g'),
            '\m(11' || month || '1918|18' || month || '1940|0?6' || month || '1944|0?8' || month || '1945|19' || month
            || '1962)', '~', 'g'
        ) ~ a_day
    THEN
        RETURN '';
    END IF;
    RETURN raw;
END $$;
"""
# As in 0037, but for what is searched.
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
        SELECT p.national_id, family.sorted || ' ' || given.sorted,
               sceau_terms(concat_ws(' ', 'f' || replace(nullif(family.words, ''), ' ', ' o'),
                                     'o' || replace(nullif(given.words, ''), ' ', ' o'),
                                     names.words, professions.words, skills.words, practices.words))
        FROM practitioner p %1$s
        CROSS JOIN LATERAL (
            SELECT replace(sceau_saints(folded), ' ', '') AS sorted, sceau_name_words(folded) AS words
            FROM sceau_fold({searched}(p.family_name)) AS folded OFFSET 0
        ) AS family
        CROSS JOIN LATERAL (
            SELECT sceau_saints(folded) AS sorted, sceau_name_words(folded) AS words
            FROM sceau_fold({searched}(p.given_name)) AS folded OFFSET 0
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
                   CROSS JOIN LATERAL (SELECT sceau_fold_town({searched}(x.town)) AS town OFFSET 0) AS place
                   CROSS JOIN LATERAL (SELECT sceau_place_words({searched}(x.structure_name)) AS words OFFSET 0) AS named
                   GROUP BY x.national_id
        ) AS practices USING (national_id)
        LEFT JOIN (SELECT x.national_id, string_agg('o' || replace(concat_ws(' ',
                       nullif(sceau_name_words(sceau_fold({searched}(family_name))), ''),
                       nullif(sceau_name_words(sceau_fold({searched}(given_name))), '')), ' ', ' o'), ' ') AS words
                   FROM professional_name x %1$s GROUP BY x.national_id
        ) AS names USING (national_id)
        WHERE p.departed_at IS NULL
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
# As in 0026, but for what is searched.
PLACES = r"""
CREATE OR REPLACE FUNCTION sceau_search_places(keys text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM search_place WHERE finess = ANY (keys);
    EXECUTE $sql$
        INSERT INTO search_place (finess, sort_name, terms)
        SELECT finess, sceau_saints(sceau_fold({searched}(name))), sceau_terms(concat_ws(' ',
                   'o' || replace(nullif(btrim(sceau_place_words({searched}(name)) || ' ' || sceau_place_words({searched}(long_name))), ''), ' ', ' o'),
                   'd' || nullif(coalesce(usual.code, department), ''),
                   't' || nullif(sceau_fold_town(ltrim({searched}(postal_line), '0123456789 ')), '')))
        FROM (SELECT unnest($1) AS finess) AS touched JOIN organisation USING (finess)
        LEFT JOIN (VALUES ('9A', '971'), ('9B', '972'), ('9C', '973'), ('9D', '974'), ('9E', '975'), ('9F', '976'))
            AS usual (finess_code, code) ON usual.finess_code = department
        WHERE departed_at IS NULL
    $sql$ USING keys;
END $$;
"""
# What is not seen, and the accents that stand apart.
UNSEEN = (
    r"\u0300-\u036F\u1AB0-\u1AFF\u1DC0-\u1DFF\u20D0-\u20FF\uFE20-\uFE2F"
    r"\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180b-\u180e\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U0001bca0-\U0001bca3"
    r"\U0001d173-\U0001d17a\U000e0001-\U000e01ef"
)
# Only those whose words change.
AGAIN = r"""
SELECT sceau_search_people(ARRAY(
    SELECT national_id FROM practitioner
    WHERE sceau_searched(family_name) <> family_name OR sceau_searched(given_name) <> given_name
    UNION SELECT national_id FROM professional_name
    WHERE sceau_searched(family_name) <> family_name OR sceau_searched(given_name) <> given_name
    UNION SELECT national_id FROM practice
    WHERE sceau_searched(structure_name) <> structure_name OR sceau_searched(town) <> town));
SELECT sceau_search_places(ARRAY(
    SELECT finess FROM organisation
    WHERE sceau_searched(name) <> name OR sceau_searched(long_name) <> long_name
       OR sceau_searched(postal_line) <> postal_line));
"""

# More is held back than when all that shows was looked at: the job `privacy-watch` looks once more.
LOOK_AGAIN = "DELETE FROM feed_cursor WHERE consumer = 'privacy-watch';"


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once, and a % is left alone.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(
        SEARCHED.replace("%UNSEEN%", UNSEEN)
        + (PEOPLE + PLACES).replace("{searched}", "sceau_searched")
        + AGAIN
        + LOOK_AGAIN
    )


def downgrade() -> None:
    execute((PEOPLE + PLACES).replace("{searched}", "") + AGAIN + "DROP FUNCTION sceau_searched;")
