"""What two million people are found by within a tenth of a second."""

from alembic import op

revision = "0009"
down_revision = "0008"

# The same as `search_form` in directory/rules.py, which a test holds against it letter by letter.
FOLDING = r"""
CREATE FUNCTION sceau_fold(raw text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    folded text := translate(upper(left(raw, 200) COLLATE "C"), E'-''\u2019.,', '     ');
BEGIN
    -- Nearly all names, and translating accents takes ten times as long as looking.
    IF folded ~ '^[A-Z0-9]+( [A-Z0-9]+)*$' THEN
        RETURN folded;
    END IF;
    folded := translate(normalize(folded, NFKD), 'ıøØđĐłŁ', 'IOODDLL');
    folded := replace(replace(replace(folded, 'œ', 'OE'), 'Œ', 'OE'), 'æ', 'AE');
    folded := replace(replace(replace(folded, 'Æ', 'AE'), 'ß', 'SS'), 'ẞ', 'SS');
    folded := regexp_replace(folded, '[\u0300-\u036F\u1AB0-\u1AFF\u1DC0-\u1DFF\u20D0-\u20FF\uFE20-\uFE2F]+', '', 'g');
    RETURN btrim(regexp_replace(upper(folded COLLATE "C"), '[^A-Z0-9]+', ' ', 'g'));
END $$;

-- DE LA BRUYELLE is DELABRUYELLE LABRUYELLE BRUYELLE: whatever word is begun, and however many are written together,
-- it is the beginning of one of them.
CREATE FUNCTION sceau_endings(folded text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    words text[];
BEGIN
    IF strpos(folded, ' ') = 0 THEN
        RETURN folded;
    END IF;
    words := string_to_array(folded, ' ');
    RETURN (SELECT string_agg(array_to_string(words[i:], ''), ' ' ORDER BY i) FROM generate_subscripts(words, 1) AS i);
END $$;

CREATE FUNCTION sceau_fold_town(raw text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    folded text := sceau_fold(raw);
BEGIN
    IF folded ~ '\mSTE?\M' THEN
        folded := regexp_replace(regexp_replace(folded, '\mST\M', 'SAINT', 'g'), '\mSTE\M', 'SAINTE', 'g');
    END IF;
    RETURN replace(folded, ' ', '');
END $$;

-- Words after letters that say what they are, as an array may hold each once and none empty.
CREATE FUNCTION sceau_terms(words text) RETURNS tsvector LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT array_to_tsvector(array_remove(string_to_array(left(words, 500000), ' '), ''))
$$;
"""

# Derived from the record, so without history; written by set, so without foreign keys, which would be checked
# row by row. `terms`: f the family name written together, o where other words of the name begin. Then p
# profession, s skill, d department, t town, i FINESS number, n word of a place's name.
TABLES = r"""
CREATE TABLE search_person (
    national_id  text COLLATE "C" CONSTRAINT search_person_pkey PRIMARY KEY,
    sort_name    text COLLATE "C" NOT NULL,
    terms        tsvector NOT NULL
);
CREATE INDEX search_person_order ON search_person (sort_name, national_id);
-- Without a list of what is pending, which every search would have to read through.
CREATE INDEX search_person_terms ON search_person USING gin (terms) WITH (fastupdate = off);

CREATE TABLE search_place (
    finess     text COLLATE "C" PRIMARY KEY,
    sort_name  text COLLATE "C" NOT NULL,
    terms      tsvector NOT NULL
);
CREATE INDEX search_place_order ON search_place (sort_name, finess);
CREATE INDEX search_place_terms ON search_place USING gin (terms) WITH (fastupdate = off);
"""

KEPT_IN_STEP = r"""
CREATE FUNCTION sceau_search_people(keys text[]) RETURNS void LANGUAGE plpgsql
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
        SELECT p.national_id, replace(p.family, ' ', '') || ' ' || p.given,
               sceau_terms(concat_ws(' ', 'f' || replace(nullif(sceau_endings(p.family), ''), ' ', ' o'),
                                     'o' || replace(nullif(sceau_endings(p.given), ''), ' ', ' o'),
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
                       'i' || nullif(finess, ''), 'n' || replace(nullif(sceau_fold(structure_name), ''), ' ', ' n')
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

CREATE FUNCTION sceau_search_places(keys text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM search_place WHERE finess = ANY (keys);
    EXECUTE $sql$
        INSERT INTO search_place (finess, sort_name, terms)
        SELECT finess, folded, sceau_terms(concat_ws(' ',
                   'o' || replace(nullif(btrim(folded || ' ' || sceau_fold(long_name)), ''), ' ', ' o'),
                   'd' || nullif(coalesce(usual.code, department), ''),
                   't' || nullif(sceau_fold_town(ltrim(postal_line, '0123456789 ')), '')))
        FROM (SELECT unnest($1) AS finess) AS touched JOIN organisation USING (finess)
        LEFT JOIN (VALUES ('9A', '971'), ('9B', '972'), ('9C', '973'), ('9D', '974'), ('9E', '975'), ('9F', '976'))
            AS usual (finess_code, code) ON usual.finess_code = department,
        LATERAL (SELECT sceau_fold(name) AS folded OFFSET 0) AS named
        WHERE departed_at IS NULL
    $sql$ USING keys;
END $$;

-- Statement triggers, so that no path into the record can forget the search. A register that changes many rows in
-- many statements says `at-the-end`, and calls the function itself with all it touched.
CREATE FUNCTION sceau_search_person_touched() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM sceau_search_people(ARRAY(SELECT DISTINCT national_id FROM rows));
    RETURN NULL;
END $$;
CREATE FUNCTION sceau_search_place_touched() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM sceau_search_places(ARRAY(SELECT finess FROM rows));
    RETURN NULL;
END $$;
"""

TOUCHED_BY = {
    "practitioner": "sceau_search_person_touched",
    "profession": "sceau_search_person_touched",
    "skill": "sceau_search_person_touched",
    "practice": "sceau_search_person_touched",
    "organisation": "sceau_search_place_touched",
}
TRIGGER = """
CREATE TRIGGER search_{event} AFTER {event} ON {table} REFERENCING {which} TABLE AS rows FOR EACH STATEMENT
WHEN (coalesce(current_setting('sceau.search', true), '') <> 'at-the-end') EXECUTE FUNCTION {function}();
"""
WHICH = {"INSERT": "NEW", "UPDATE": "NEW", "DELETE": "OLD"}

# What only the search of before used; its statement still runs without.
OTHER_INDEXES = """
DROP INDEX practitioner_search, practitioner_name, profession_code, practice_department;
SELECT sceau_search_people(ARRAY(SELECT national_id FROM practitioner)),
       sceau_search_places(ARRAY(SELECT finess FROM organisation));
"""

UP = (
    FOLDING
    + TABLES
    + KEPT_IN_STEP
    + "".join(
        TRIGGER.format(table=table, function=function, event=event, which=which)
        for table, function in TOUCHED_BY.items()
        for event, which in WHICH.items()
    )
    + OTHER_INDEXES
)

DOWN = (
    "".join(f"DROP TRIGGER search_{event} ON {table};\n" for table in TOUCHED_BY for event in WHICH)
    + """
DROP TABLE search_person, search_place;
DROP FUNCTION sceau_search_person_touched, sceau_search_place_touched, sceau_search_people, sceau_search_places,
              sceau_terms, sceau_fold_town, sceau_endings, sceau_fold;
CREATE INDEX practitioner_search ON practitioner USING gin (to_tsvector('simple', search_name));
CREATE INDEX practitioner_name ON practitioner (search_name text_pattern_ops, national_id);
CREATE INDEX profession_code ON profession (code, national_id);
CREATE INDEX practice_department ON practice (department, national_id);
"""
)


def execute(sql: str) -> None:
    # The driver's own cursor: several statements at once.
    op.get_bind().connection.driver_connection.execute(sql)


def upgrade() -> None:
    execute(UP)


def downgrade() -> None:
    execute(DOWN)
