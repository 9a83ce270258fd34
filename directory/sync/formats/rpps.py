"""The RPPS as published every night (PS_LibreAcces): one row is one activity of one profession of one person.

Rows are grouped by the national identifier in the database, so the file may be in any order and of any size.
Three files come in one archive. Activities are the roll, and know-how (`SavoirFaire`) adds skills to people
on it. Diplomas are counted and ignored, since nothing rests on them yet. The restricted extraction for Pro
Santé Connect tells the same activities in codes alone, beside what is private, and makes the same rows.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import blake2b

from directory.base.errors import Refusal
from directory.feed.changes import Entity
from directory.identifiers import parse_national_id
from directory.rules import search_form
from directory.sync.formats.cells import code
from directory.sync.formats.departments import department_of
from directory.sync.formats.files import Member
from directory.sync.formats.layout import Column, Layout, rows
from directory.sync.formats.register import Reading, Register
from directory.sync.formats.scan import Keyed
from directory.sync.formats.staging import NULL, Staging

_STRUCTURE = "(coord. structure)"

# Headings beyond the first are drift seen in files of other years.
IDENTITY = (
    Column("id_type", ("Type d'identifiant PP",)),
    Column("id_number", ("Identifiant PP",), code=True),
    Column("national_id", ("Identification nationale PP",), code=True),
    Column("family_name", ("Nom d'exercice",)),
    Column("given_name", ("Prénom d'exercice",)),
    Column("profession", ("Code profession",), code=True),
    Column("category", ("Code catégorie professionnelle",), code=True),
)
# Know-how moved to a file of its own in some editions.
SKILL = (
    Column("skill_type", ("Code type savoir-faire",), optional=True, code=True),
    Column("skill_code", ("Code savoir-faire",), optional=True, code=True),
)
TITLES = (
    Column("title", ("Code civilité d'exercice", "Code civilité exercice"), code=True),
    Column("civility", ("Code civilité",), code=True),
)
PRACTICE = (
    Column("mode", ("Code mode exercice", "Code mode d'exercice"), code=True),
    Column("sector", ("Code secteur d'activité", "Code secteur activité"), code=True),
    Column("role", ("Code rôle", "Code fonction"), optional=True, code=True),
    Column("activity_genre", ("Code genre activité", "Code genre d'activité"), optional=True, code=True),
    Column("pharmacist_table", ("Code section tableau pharmaciens",), optional=True, code=True),
    Column("structure_id", ("Identifiant technique de la structure",), code=True),
    Column("finess", ("Numéro FINESS site",), code=True),
    Column("legal_finess", ("Numéro FINESS établissement juridique",), code=True),
    Column("siret", ("Numéro SIRET site",), code=True),
    Column("name", ("Raison sociale site",)),
    Column("sign", ("Enseigne commerciale site",), optional=True),
    Column("number", (f"Numéro Voie {_STRUCTURE}",)),
    Column("repetition", (f"Indice répétition voie {_STRUCTURE}",), optional=True),
    Column("street_type", (f"Libellé type de voie {_STRUCTURE}",), optional=True),
    Column("street_code", (f"Code type de voie {_STRUCTURE}",), optional=True, code=True),
    Column("street", (f"Libellé Voie {_STRUCTURE}",)),
    Column("cedex", (f"Bureau cedex {_STRUCTURE}",)),
    Column("postal_code", (f"Code postal {_STRUCTURE}",)),
    Column("commune", (f"Code commune {_STRUCTURE}",), code=True),
    Column("town", (f"Libellé commune {_STRUCTURE}",), optional=True),
    Column("country", (f"Code pays {_STRUCTURE}",), code=True),
    Column("telephone", (f"Téléphone {_STRUCTURE}",)),
    Column("department", ("Code Département (structure)", f"Code département {_STRUCTURE}"), code=True),
    Column("registered_by", ("Autorité d'enregistrement",)),
)
ACTIVITIES = (*IDENTITY, *SKILL, *TITLES, *PRACTICE)
# TRE_R35 in the words of the public edition; a code that is not here is shown as it is.
STREET_TYPES = {
    "ALL": "Allée", "AV": "Avenue", "BD": "Boulevard", "CAR": "Carrefour", "CHE": "Chemin", "CITE": "Cité",
    "CRS": "Cours", "ESP": "Esplanade", "FG": "Faubourg", "HAM": "Hameau", "IMP": "Impasse",
    "LD": "Lieu-dit", "LOT": "Lotissement", "PAS": "Passage", "PL": "Place", "QUAI": "Quai",
    "R": "Rue", "RES": "Résidence", "RLE": "Ruelle", "RPT": "Rond-point", "RTE": "Route", "SQ": "Square",
}  # fmt: skip
_PERSON = len(IDENTITY) + len(SKILL) + len(TITLES)
_NO_PRACTICE = (NULL, *("",) * 18)
_DIGEST = 16
_NUMBER = re.compile(r"[0-9A-Z/]{8,40}")
# Those of ADELI look like telephone numbers.
_PERSON_NUMBER = re.compile(r"8[0-9]{11}")

# Of the restricted extraction: never staged, never hashed, never shown.
PRIVATE = (
    "Nom de famille", "Prénoms", "Date de naissance", "Code commune de naissance", "Code pays de naissance",
    "Lieu de naissance", "Code sexe", "Téléphone (coord. correspondance)",
    "Adresse e-mail (coord. correspondance)",
)  # fmt: skip

ROLES = {
    "activities": re.compile(
        r"(?i)PS_LibreAcces_?Personne_?activite.*\.(txt|csv)|ps-libreacces-personne-activite.*\.txt"
        r"|Extraction_ProSanteConnect_?Personne_?activite.*\.(txt|csv)"
    ),
    "know-how": re.compile(r"(?i)PS_LibreAcces_?SavoirFaire.*\.(txt|csv)|ps-libreacces-savoirfaire.*\.txt"),
    "diplomas": re.compile(
        r"(?i)PS_LibreAcces_?Dipl_?AutExerc.*\.(txt|csv)|ps-libreacces-dipl-autexerc.*\.txt"
    ),
}


def _spelled(cell: str) -> str:
    # A row is taken only where this cell, normalised, is the number as the record spells it.
    if _NUMBER.fullmatch(cell):
        return cell
    return number if _NUMBER.fullmatch(number := code(cell)) else ""


KEYED = Keyed(("activities", "know-how"), IDENTITY[2], _spelled, PRIVATE)


def read(members: Mapping[str, Member], staging: Staging, *, strict: bool) -> Reading:
    """Stage the activities, then the know-how; count the diplomas."""
    layouts: list[Layout] = []
    check = identity_check(strict=strict)
    known = rows(
        members["activities"],
        staging,
        ACTIVITIES,
        register="rpps",
        key="national_id",
        private=PRIVATE,
        spared=_anybody,
        on_layout=layouts.append,
    )
    for number, line, cells in known:
        if reason := check(cells):
            detail = f"{cells[2]}: {cells[3]}"
            staging.reject(number, reason, detail, line, spared=_spoken_of(cells, strict=strict))
        else:
            staging.stage(activity_row(number, cells))
    if "know-how" in members:
        _read_know_how(members, staging, check)
    if "diplomas" in members:
        staging.ignored += max(0, sum(chunk.count(b"\n") + 1 for chunk in members["diplomas"].chunks()) - 1)
    layout = layouts[0]
    return Reading(f"rpps-psc-{layout.width}" if layout.private else layout.name)


def _anybody(key: str, line: str) -> tuple[str, ...]:
    """Whom a line may speak of whose cells stand anywhere."""
    return (key, *filter(_PERSON_NUMBER.fullmatch, map(code, line.split("|"))))


def _spoken_of(cells: tuple[str, ...], *, strict: bool) -> tuple[str, ...]:
    """Whom a row may speak of whose identity cannot be taken: by either spelling of the number, and by the
    name where neither is one.
    """
    id_type, id_number, national_id, family, given = cells[:5]
    numbers = (national_id, id_type + id_number)
    if any(_is_number(number, strict=strict) for number in numbers):
        return numbers
    return (*numbers, f"name {_searched(family, given)}")


def _is_number(national_id: str, *, strict: bool) -> bool:
    try:
        parse_national_id(national_id, strict=strict)
    except Refusal:
        return False
    return True


def _read_know_how(members: Mapping[str, Member], staging: Staging, check: "_Check") -> None:
    # A bad row here holds nobody back: the activities alone say who is on the roll. His skills are kept.
    known = rows(
        members["know-how"],
        staging,
        (*IDENTITY, *SKILL),
        register="rpps-know-how",
        key="national_id",
        prefix="know-how-",
        spared=lambda key, line: _skills_of(_anybody(key, line)),
    )
    for number, line, cells in known:
        if reason := check(cells):
            detail, kept = f"{cells[2]}: {cells[3]}", _skills_of((cells[2], cells[0] + cells[1]))
            staging.reject(number, f"know-how-{reason}", detail, line, spared=kept)
        else:
            staging.stage(know_how_row(number, cells))


def _skills_of(numbers: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"skills {number}" for number in numbers)


_Check = Callable[[tuple[str, ...]], str]


def identity_check(*, strict: bool) -> _Check:
    """Why a row's identity cannot be taken, '' when it can; one person's rows come together, so answers are
    kept.
    """

    @lru_cache(maxsize=64)
    def number_reason(id_type: str, id_number: str, national_id: str) -> str:
        try:
            parsed = parse_national_id(national_id, strict=strict)
        except Refusal as refusal:
            return refusal.code
        return "" if parsed == national_id == id_type + id_number else "identifier-disagrees"

    def reason(cells: tuple[str, ...]) -> str:
        id_type, id_number, national_id, family, _, profession = cells[:6]
        if not family:
            return "no-name"
        if not profession:
            return "no-profession"
        return number_reason(id_type, id_number, national_id)

    return reason


def know_how_row(number: int, cells: tuple[str, ...]) -> tuple[str, ...]:
    """What is staged of a person's skill beside his activities; cells of IDENTITY and SKILL."""
    return _row(number, "1", cells, ("", ""), _NO_PRACTICE)


def activity_row(number: int, cells: tuple[str, ...]) -> tuple[str, ...]:
    """What is staged of one activity; cells of ACTIVITIES."""
    told, shown = _practice(cells[_PERSON:])
    # Students and people between two posts have a row and no activity on it.
    practice = (_digest(*cells[5:7], *told), *shown) if any(told[:5]) else _NO_PRACTICE
    return _row(number, "0", cells, cells[9:_PERSON], practice)


def _digest(*parts: str) -> str:
    return blake2b("|".join(parts).encode(), digest_size=_DIGEST).hexdigest()


def _row(
    number: int, member: str, cells: tuple[str, ...], titles: tuple[str, ...], practice: tuple[str, ...]
) -> tuple[str, ...]:
    id_type, id_number, national_id, family, given, profession, category, skill_type, skill_code = cells[:9]
    named = (family, given, *titles, profession, category)
    return (str(number), member, national_id, _digest(*named, practice[0]), id_type, id_number,
            _searched(family, given), *named, skill_type, skill_code, *practice)  # fmt: skip


def _searched(family: str, given: str) -> str:
    return f"{_folded(family)} {_folded(given)}".strip()


# Names are shared by many, given names most.
_folded = lru_cache(maxsize=1 << 14)(search_form)


def _practice(cells: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What all editions tell of a practice, by which it is known again; and what is shown of it."""
    (mode, sector, role, genre, table, structure_id, finess, legal_finess, siret, name, sign, number,
     repetition, street_type, street_code, street, cedex, postal_code, commune, town, country, telephone,
     department, registered_by) = cells  # fmt: skip
    street_type = street_type or STREET_TYPES.get(street_code, street_code)
    line = " ".join(filter(None, (number, repetition, street_type, street)))
    # "25304 PONTARLIER CEDEX": the town stands after the code when the commune is not named.
    town = town or cedex.lstrip("0123456789 ")
    department = department_of(commune, postal_code, told=department, country=country)
    # The commune's code says the town, and the kind of activity is told by some editions only.
    told = (mode, sector, role, structure_id, siret, table, finess, legal_finess, name or sign, number,
            repetition, street_code or street_type, street, postal_code, commune or town, department,
            country, telephone, registered_by)  # fmt: skip
    shown = (mode, sector, role, genre, structure_id, siret, table, finess, legal_finess, name or sign, line,
             postal_code, town, commune, department, country, telephone, registered_by)  # fmt: skip
    return told, shown


TABLES = """
CREATE TEMP TABLE staged (
    line integer, member smallint, national_id text, digest uuid, id_type text, id_number text,
    search_name text, family_name text, given_name text, title text, civility text, profession text,
    category text, skill_type text, skill_code text,
    practice uuid, mode text, sector text, role text, activity_genre text, structure_id text, siret text,
    pharmacist_table text, finess text, legal_finess text, structure_name text, street text,
    postal_code text, town text, commune text, department text, country text, telephone text,
    registered_by text
);
CREATE TEMP VIEW present AS SELECT national_id AS key, row_hash, departed_at FROM practitioner;
"""
COPY = "COPY staged FROM STDIN"

# Somebody known by know-how alone is not on the roll.
SETTLE = (
    "CREATE INDEX ON staged (national_id, member)",
    # By no other column is anything joined, grouped or picked.
    "ANALYZE staged (national_id, member, profession, category, skill_type, skill_code, practice)",
    """
    WITH stray AS (
        DELETE FROM staged s WHERE member = 1
        AND NOT EXISTS (SELECT FROM staged a WHERE a.national_id = s.national_id AND a.member = 0)
        RETURNING *
    )
    INSERT INTO rejected
    SELECT line, 'know-how-without-activity', national_id,
           concat_ws('|', national_id, family_name, skill_code)
    FROM stray
    """,
)

# The hash is over the set of activities and the set of skills: neither order nor repetition changes a person.
# Nor does the place of a skill: beside the activity, in the file of its own, or in both. That one has several
# names is hashed besides: records from before they were kept have the same activities.
WANTED = """
    CREATE TEMP TABLE wanted AS
    SELECT key, lines, named_otherwise,
           sha256(CASE WHEN named_otherwise THEN content || '\\x01'::bytea ELSE content END) AS row_hash
    FROM (
        SELECT national_id AS key, count(*) AS lines,
               coalesce(min(family_name || '|' || given_name COLLATE "C") FILTER (WHERE member = 0)
                   <> max(family_name || '|' || given_name COLLATE "C") FILTER (WHERE member = 0), false)
                   AS named_otherwise,
               string_agg(DISTINCT uuid_send(digest), ''::bytea ORDER BY uuid_send(digest))
                   FILTER (WHERE member = 0)
               || coalesce(convert_to(string_agg(
                   DISTINCT concat_ws('|', profession, category, skill_type, skill_code) COLLATE "C", '/')
                   FILTER (WHERE skill_code <> ''), 'UTF8'), ''::bytea) AS content
        FROM staged GROUP BY national_id
    ) AS told
"""

# A person may exercise under a name for each profession: the first in order is shown, whatever the file's
# order. He has one act; named among the columns that are distinct, it is looked at before anything is sorted.
TOLD = """
    CREATE TEMP VIEW told AS
    SELECT DISTINCT ON (s.national_id, p.act)
           s.national_id AS key, s.id_type, s.id_number, s.civility, s.title, s.family_name, s.given_name,
           s.search_name, w.row_hash, p.act
    FROM staged s JOIN planned p ON p.key = s.national_id JOIN wanted w ON w.key = s.national_id
    WHERE p.act IN ('create', 'change') AND s.member = 0
    ORDER BY s.national_id, p.act, s.family_name, s.given_name, s.title DESC, s.civility, s.line
"""
APPLY = (
    # What people are searched by is renewed once, at the end, for all whom these statements touch.
    "SELECT set_config('sceau.search', 'at-the-end', true)",
    """
    CREATE TEMP VIEW named AS
    SELECT t.key AS national_id, t.id_type, t.id_number, t.row_hash, t.act,
           coalesce(c.civility, t.civility) AS civility, coalesce(c.title, t.title) AS title,
           coalesce(c.family_name, t.family_name) AS family_name,
           coalesce(c.given_name, t.given_name) AS given_name,
           CASE WHEN num_nonnulls(c.family_name, c.given_name) = 0 THEN t.search_name
                ELSE sceau_fold(coalesce(c.family_name, t.family_name) || ' '
                                || coalesce(c.given_name, t.given_name)) END AS search_name
    FROM told t LEFT JOIN corrected c ON c.key = t.key
    """,
    """
    INSERT INTO practitioner (national_id, id_type, id_number, civility, title, family_name, given_name,
                              search_name, row_hash, sys_from)
    SELECT national_id, id_type, id_number, civility, title, family_name, given_name, search_name, row_hash,
           :now
    FROM named WHERE act = 'create'
    """,
    """
    UPDATE practitioner t
    SET id_type = n.id_type, id_number = n.id_number, civility = n.civility, title = n.title,
        family_name = n.family_name, given_name = n.given_name, search_name = n.search_name,
        row_hash = n.row_hash, departed_at = NULL
    FROM named n WHERE n.act = 'change' AND t.national_id = n.national_id
    """,
    """
    UPDATE practitioner t SET departed_at = :now
    FROM planned p WHERE p.key = t.national_id AND p.act = 'remove'
    """,
    """
    DELETE FROM practice t USING planned p
    WHERE p.key = t.national_id AND p.act IN ('change', 'remove') AND NOT EXISTS (
        SELECT FROM staged s
        WHERE p.act = 'change' AND s.national_id = t.national_id AND uuid_send(s.practice) = t.digest)
    """,
    """
    DELETE FROM profession t USING planned p
    WHERE p.key = t.national_id AND p.act IN ('change', 'remove') AND NOT EXISTS (
        SELECT FROM staged s
        WHERE p.act = 'change' AND s.national_id = t.national_id AND s.member = 0
        AND (s.profession, s.category) = (t.code, t.category))
    """,
    """
    DELETE FROM skill t USING planned p
    WHERE p.key = t.national_id AND p.act IN ('change', 'remove') AND NOT EXISTS (
        SELECT FROM staged s
        WHERE p.act = 'change' AND s.national_id = t.national_id
        AND (s.profession, s.category, s.skill_type, s.skill_code)
          = (t.profession_code, t.category, t.skill_type, t.skill_code))
    AND NOT EXISTS (SELECT FROM spared x WHERE p.act = 'change' AND x.key = 'skills ' || t.national_id)
    """,
    """
    INSERT INTO profession (national_id, code, category, sys_from)
    SELECT DISTINCT s.national_id, s.profession, s.category, CAST(:now AS timestamptz)
    FROM staged s JOIN planned p ON p.key = s.national_id
    WHERE p.act IN ('create', 'change') AND s.member = 0
    ORDER BY s.national_id
    ON CONFLICT DO NOTHING
    """,
    # Few have another name, and all of `told` need not be gone through for them.
    """
    CREATE TEMP TABLE named_besides ON COMMIT DROP AS
    SELECT DISTINCT national_id, profession, category, family_name, given_name
    FROM (
        SELECT s.*, first_value(s.family_name) OVER names AS shown_family_name,
               first_value(s.given_name) OVER names AS shown_given_name
        FROM wanted w JOIN planned p ON p.key = w.key JOIN staged s ON s.national_id = w.key
        WHERE w.named_otherwise AND p.act IN ('create', 'change') AND s.member = 0
        WINDOW names AS (PARTITION BY s.national_id
                         ORDER BY s.family_name, s.given_name, s.title DESC, s.civility, s.line)
    ) AS told
    WHERE (family_name, given_name) <> (shown_family_name, shown_given_name)
    """,
    # An increment tells one name of each person, and takes no other away.
    """
    DELETE FROM professional_name t USING planned p
    WHERE p.key = t.national_id AND p.act IN ('change', 'remove')
    AND NOT (p.act = 'change' AND to_regclass('pg_temp.learned') IS NOT NULL)
    AND NOT EXISTS (
        SELECT FROM named_besides n
        WHERE (n.national_id, n.profession, n.category, n.family_name, n.given_name)
            = (t.national_id, t.profession_code, t.category, t.family_name, t.given_name))
    """,
    """
    INSERT INTO professional_name (national_id, profession_code, category, family_name, given_name, sys_from)
    SELECT national_id, profession, category, family_name, given_name, :now FROM named_besides
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO skill (national_id, profession_code, category, skill_type, skill_code, sys_from)
    SELECT DISTINCT s.national_id, s.profession, s.category, s.skill_type, s.skill_code,
           CAST(:now AS timestamptz)
    FROM staged s JOIN planned p ON p.key = s.national_id
    WHERE p.act IN ('create', 'change') AND s.skill_code <> ''
    ORDER BY s.national_id
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO practice (national_id, digest, profession_code, category, mode, sector, role, activity_genre,
                          pharmacist_table, structure_id, finess, legal_finess, siret, structure_name, street,
                          postal_code, town, commune, department, country, telephone, registered_by, sys_from)
    SELECT DISTINCT ON (s.national_id, s.practice)
           s.national_id, uuid_send(s.practice), s.profession, s.category, s.mode, s.sector, s.role,
           s.activity_genre, s.pharmacist_table, s.structure_id, s.finess, s.legal_finess, s.siret,
           s.structure_name, s.street, s.postal_code, s.town, s.commune, s.department, s.country,
           s.telephone, s.registered_by, :now
    FROM staged s JOIN planned p ON p.key = s.national_id
    WHERE p.act IN ('create', 'change') AND s.practice IS NOT NULL
    ORDER BY s.national_id, s.practice, s.activity_genre DESC, s.line
    ON CONFLICT DO NOTHING
    """,
    # After a first load nothing is known of these tables' sizes, and what follows would be planned for empty
    # ones: hours instead of seconds. It has many hashes side by side: each gets a small part of the memory.
    """
    DO $$ BEGIN
        IF (SELECT count(*) FROM planned) > 10000 THEN
            PERFORM sceau_analyse_people();
            PERFORM set_config('work_mem', '24MB', true), set_config('hash_mem_multiplier', '1', true);
        END IF;
    END $$
    """,
    "SELECT sceau_search_people(ARRAY(SELECT key FROM planned)), set_config('sceau.search', '', true)",
)

# Of a row that names no number but somebody's name, its bearer may not have gone.
UNCLEAR = """
    DELETE FROM planned p USING practitioner t, spared s
    WHERE p.act = 'remove' AND t.national_id = p.key AND s.key = 'name ' || t.search_name
"""

RPPS = Register(
    "rpps", ROLES, TABLES, COPY, read, SETTLE, WANTED, APPLY, KEYED, Entity.PRACTITIONER, TOLD, UNCLEAR
)
