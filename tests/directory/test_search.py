"""People and places are found as people look for them, and the words they are found by keep in step."""

import random
import sys
import unicodedata

import pytest
from sqlalchemy import Engine, text

from directory.base.db import transaction
from directory.base.errors import Refusal
from directory.privacy import secrets_in
from directory.rules import search_form
from directory.search import (
    MOST_COUNTED,
    PEOPLE,
    PLACES,
    START,
    Index,
    Page,
    Question,
    Total,
    find,
    people_question,
    places_question,
    sites_of,
    total,
)
from tests.conftest import NOON
from tests.factories import depart, rpps, seed_organisation, seed_practitioner


def run(engine: Engine, sql: str, **values: object) -> None:
    with engine.begin() as connection:
        connection.execute(text(sql), values)


def page(engine: Engine, question: Question, index: Index = PEOPLE, *, limit: int = 50) -> Page:
    with transaction(engine, read_only=True) as connection:
        return find(connection, index, question, after=START, limit=limit)


def found(engine: Engine, name: str | None = None, **criteria: str) -> list[str]:
    return list(page(engine, people_question(name=name, **criteria)).keys)


def places(engine: Engine, **criteria: str) -> list[str]:
    return list(page(engine, places_question(**criteria), PLACES).keys)


def people(engine: Engine) -> None:
    seed_practitioner(engine, 1, family_name="D'Épinay-Lefèvre", given_name="Anaïs")
    seed_practitioner(engine, 2, family_name="MARTIN", given_name="Jean-Pierre", professions=(("60", "C"),))
    seed_practitioner(engine, 3, family_name="MARTINEZ", given_name="Zoé")
    seed_practitioner(engine, 4, family_name="MARTIN", given_name="Jean-Pierre")
    seed_practitioner(engine, 5, family_name="De La Bruyelle", given_name="Léa")
    seed_practitioner(engine, 6, family_name="LEGOËLLIC", given_name="Cœur Désiré")
    seed_practitioner(engine, 7, family_name="Saint-Brézeau", given_name="O")
    run(engine, "UPDATE practice SET department = '13' WHERE national_id = :id", id=rpps(4))


NAMES = {
    "d'epinay": [1], "D\u2019EPINAY LEFEVRE": [1], "lefèvre épi": [1], "anais": [1], "martin": [2, 4, 3],
    "jean-pierre martin": [2, 4], "PIERRE": [2, 4], "martinez": [3], "zoé mart": [3], "artin": [],
    "martin anais": [], "martin & !zoe": [3], "martin:*": [2, 4, 3],
    # Written together, begun in the middle, or with a particle more or less.
    "jeanpierre": [2, 4], "depinaylef": [1], "delabruyelle": [5], "labruy": [5], "bruyelle": [5],
    "de bruyelle": [5], "du bruyelle léa": [5], "le goellic": [6], "de la martin": [2, 4, 3], "goellic": [],
    "de la": [5], "le": [1, 5, 6], "coeur": [6], "cœurd": [6], "st brezeau": [7], "saintbrez": [7],
    "bruyelle lea de la": [5], "martin d'": [2, 4, 3], "o brezeau": [7],
}  # fmt: skip


@pytest.mark.parametrize(("name", "numbers"), NAMES.items(), ids=NAMES)
def test_people_are_found_by_beginnings_of_words_whatever_their_spelling_and_order(
    engine: Engine, name: str, numbers: list[int]
) -> None:
    people(engine)
    assert sorted(found(engine, name)) == [rpps(number) for number in sorted(numbers)]


def test_people_come_in_the_order_of_names(engine: Engine) -> None:
    people(engine)
    assert found(engine) == [rpps(number) for number in (5, 1, 6, 2, 4, 3, 7)]
    assert found(engine, "martin") == [rpps(number) for number in (2, 4, 3)]


@pytest.mark.parametrize("name", ["", "  ", "'&|!:*()<->", "\\", "李", "o", "d", "é j"])
def test_a_name_of_less_than_two_letters_is_too_little_alone(name: str) -> None:
    with pytest.raises(Refusal) as caught:
        people_question(name=name)
    assert caught.value.code == "too-little-to-search"


@pytest.mark.parametrize("criteria", [{"town": "x"}, {"organisation": "de la"}, {"organisation": "-"}])
def test_a_town_or_place_needs_two_letters_whatever_stands_beside(criteria: dict[str, str]) -> None:
    with pytest.raises(Refusal):
        people_question(name="martin", **criteria)


def test_one_letter_is_enough_beside_another_criterion(engine: Engine) -> None:
    people(engine)
    assert found(engine, "m", profession="60") == [rpps(2)]


def test_profession_skill_and_department_narrow_a_search(engine: Engine) -> None:
    people(engine)
    run(engine, f"INSERT INTO skill VALUES ('{rpps(3)}', '10', 'C', 'S', 'SM04')")
    assert found(engine, "martin", profession="10") == [rpps(4), rpps(3)]
    assert found(engine, "martin", department="13") == found(engine, department="13") == [rpps(4)]
    assert found(engine, profession="60", department="13") == []
    assert found(engine, skill="SM04") == found(engine, "zo", skill="SM04", profession="10") == [rpps(3)]
    assert found(engine, skill="SM0") == []


def test_a_town_is_found_by_its_beginning_and_saints_however_written(engine: Engine) -> None:
    people(engine)
    for number, town in (
        (1, "Saint-Étienne-du-Bois"),
        (2, "ST ETIENNE CEDEX"),
        (3, "Paris 12e Arrondissement"),
    ):
        run(engine, "UPDATE practice SET town = :town WHERE national_id = :id", town=town, id=rpps(number))
    assert found(engine, town="st étienne") == found(engine, town="SAINT-ETIENNE") == [rpps(1), rpps(2)]
    assert found(engine, town="saint etienne du b") == [rpps(1)]
    assert found(engine, town="paris") == found(engine, "martinez", town="Paris 12") == [rpps(3)]
    assert found(engine, town="etienne") == []


def test_a_place_of_practice_is_found_by_number_or_by_words_of_its_name(engine: Engine) -> None:
    seed_practitioner(engine, 1, finess="250990033")
    seed_practitioner(engine, 2, finess="750990012")
    run(
        engine,
        "UPDATE practice SET structure_name = 'Hôpital Noirépine de Besançon' WHERE finess = '250990033'",
    )
    run(engine, "UPDATE practice SET structure_name = 'EHPAD NOIREPINE' WHERE finess = '750990012'")
    assert found(engine, organisation="250990033") == [rpps(1)]
    assert found(engine, organisation="noirepine") == [rpps(1), rpps(2)]
    assert found(engine, organisation="besançon hop") == [rpps(1)]
    assert found(engine, organisation="hôpital de la Noirépine") == [rpps(1)]
    assert found(engine, organisation="irepine") == []


def test_who_has_departed_is_found_no_more_and_who_comes_back_is(engine: Engine) -> None:
    people(engine)
    depart(engine, rpps(3), NOON)
    assert found(engine, "martin") == [rpps(2), rpps(4)]
    run(engine, "UPDATE practitioner SET departed_at = NULL WHERE national_id = :id", id=rpps(3))
    assert found(engine, "martinez") == [rpps(3)]


def test_what_is_searched_by_follows_every_change_of_the_record(engine: Engine) -> None:
    seeded = seed_practitioner(engine)
    run(engine, "UPDATE practitioner SET family_name = 'DURÉAU'")
    assert (found(engine, "martin"), found(engine, "dureau")) == ([], [seeded.national_id])
    run(engine, "DELETE FROM practice")
    run(engine, "DELETE FROM profession")
    assert found(engine, department="75") == found(engine, profession="10") == []
    run(engine, "INSERT INTO profession VALUES (:id, '21', 'C')", id=seeded.national_id)
    assert found(engine, profession="21") == [seeded.national_id]


def test_a_first_load_of_many_is_found_like_any_other_and_its_indexes_are_whole(engine: Engine) -> None:
    count = 10_001
    insert = (
        "INSERT INTO practitioner"
        " (national_id, id_type, id_number, family_name, given_name, search_name, row_hash)"
        " SELECT '8' || lpad(n::text, 11, '0'), '8', '', 'NOM' || n, 'Zoé', '', ''"
        " FROM generate_series(1, :count) AS n"
    )
    indexes = "SELECT indexdef FROM pg_indexes WHERE tablename = 'search_person' ORDER BY 1"
    with engine.begin() as connection:
        before = connection.execute(text(indexes)).all()
        connection.execute(text(insert), {"count": count})
        assert connection.execute(text(indexes)).all() == before
        assert total(connection, PEOPLE, people_question(name="zoe")) == Total(MOST_COUNTED, more=True)
        assert total(connection, PEOPLE, Question()) == Total(MOST_COUNTED, more=True)
        assert total(connection, PEOPLE, people_question(name="nom77")) == Total(111, more=False)


def test_a_first_load_gives_each_the_words_that_he_gets_alone(engine: Engine) -> None:
    """Names, towns and places that many share are worked out once in a first load."""
    people = (
        "INSERT INTO practitioner"
        " (national_id, id_type, id_number, family_name, given_name, search_name, row_hash)"
        " SELECT '8' || lpad(n::text, 11, '0'), '8', '',"
        " (ARRAY['ST GERMAIN', 'd''Aubépine', 'LE GOËLLIC', 'Ste-Rose', 'COEUR'])[n % 5 + 1],"
        " (ARRAY['Zoé', '', 'Jean-Baptiste'])[n % 3 + 1], '', '' FROM generate_series(1, 10001) AS n"
    )
    practices = (
        "INSERT INTO practice (national_id, digest, profession_code, category, town, structure_name)"
        " SELECT national_id, uuid_send(gen_random_uuid()), '10', 'C',"
        " (ARRAY['St Étienne', '', 'L''Île'])[last % 3 + 1],"
        " (ARRAY['EHPAD N''DIARRAME', '', 'Ste Marie'])[last % 3 + 1]"
        " FROM (SELECT national_id, right(national_id, 2)::int AS last FROM practitioner) AS p"
        " WHERE last < 40"
    )
    with engine.begin() as connection:
        connection.execute(text("SELECT set_config('sceau.search', 'at-the-end', true)"))
        connection.execute(text(people))
        connection.execute(text(practices))
        connection.execute(text("ANALYZE practitioner, practice"))
        connection.execute(text("SELECT sceau_search_people(ARRAY(SELECT national_id FROM practitioner))"))
        sample = "SELECT national_id FROM practitioner ORDER BY 1 LIMIT 60"
        words = text(f"SELECT * FROM search_person WHERE national_id IN ({sample}) ORDER BY national_id")
        together = connection.execute(words).all()
        connection.execute(text(f"SELECT sceau_search_people(ARRAY[national_id]) FROM ({sample}) AS p"))
        assert connection.execute(words).all() == together
    by_number = {row.national_id[-2:]: row for row in together}
    assert by_number["05"].sort_name == "SAINTGERMAIN JEAN BAPTISTE"
    assert "'nNDIARRAME'" in by_number["03"].terms
    assert "'tSAINTETIENNE'" in by_number["03"].terms


def test_places_are_found_by_words_of_either_name_department_and_town(engine: Engine) -> None:
    seed_organisation(engine, "750990012", name="CLINIQUE DES LILAS")
    seed_organisation(engine, "250990033", name="CHI FICTIF")
    run(
        engine,
        "UPDATE organisation SET long_name = 'Centre Hospitalier Intercommunal Fictif', department = '25',"
        " postal_line = '25304 PONTARLIER CEDEX' WHERE finess = '250990033'",
    )
    assert places(engine) == ["250990033", "750990012"]
    assert places(engine, name="lilas") == places(engine, name="clinique de lil") == ["750990012"]
    assert places(engine, name="chi inter") == places(engine, department="25") == ["250990033"]
    assert places(engine, town="pontarlier") == places(engine, name="fic", town="pontarl") == ["250990033"]
    assert places(engine, name="linique") == places(engine, name="lilas", department="25") == []
    run(engine, "UPDATE organisation SET departed_at = now() WHERE finess = '250990033'")
    assert places(engine) == ["750990012"]


def test_departments_overseas_are_asked_by_the_code_everybody_knows(engine: Engine) -> None:
    seed_organisation(engine, "970990012")
    run(engine, "UPDATE organisation SET department = '9D'")
    assert places(engine, department="974") == ["970990012"]


def test_the_database_folds_every_letter_as_the_questions_are_folded(engine: Engine) -> None:
    letters = [chr(code) for code in range(1, sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    # Unassigned here may be assigned in the database's edition of Unicode, and the other way round.
    shown = [f"a{letter}b" for letter in letters if unicodedata.category(letter) not in ("Cn", "Co")]
    with engine.connect() as connection:
        folded = connection.execute(
            text(
                "SELECT array_agg(sceau_fold(t) ORDER BY n)"
                " FROM unnest(CAST(:shown AS text[])) WITH ORDINALITY AS x (t, n)"
            ),
            {"shown": shown},
        ).scalar_one()
    assert [(a, b, search_form(a)) for a, b in zip(shown, folded, strict=True) if b != search_form(a)] == []


def test_saints_are_found_however_either_side_writes_them(engine: Engine) -> None:
    seed_practitioner(engine, 1, family_name="ST GERMAINTEST", given_name="Agnès")
    seed_practitioner(engine, 2, family_name="Sainte-Brume", given_name="Ste Fictive")
    for asked in ("saint germaintest", "st germaintest", "SAINT-GERMAIN", "saintgermaint", "stgermain"):
        assert found(engine, asked) == [rpps(1)], asked
    for asked in ("ste brume", "sainte brume", "sainte fictive", "ste fict"):
        assert found(engine, asked) == [rpps(2)], asked


def test_a_title_before_the_name_is_no_part_of_it(engine: Engine) -> None:
    seed_practitioner(engine, 1, family_name="BRUMETEST", given_name="Agnès")
    seed_practitioner(engine, 2, family_name="DRAPTEST", given_name="Zoé")
    for asked in ("dr agnes", "Docteur Brumetest", "Pr. agnes brumetest", "mme agnès"):
        assert found(engine, asked) == [rpps(1)], asked
    assert found(engine, "dr") == [rpps(2)], "alone it begins a name"


def test_words_around_an_apostrophe_are_found_together_and_apart(engine: Engine) -> None:
    seed_organisation(engine, "750990012", name="EHPAD N'DIARRAME")
    run(engine, "UPDATE organisation SET long_name = :name", name="RESIDENCE DE L\u2019AUBE")
    seed_practitioner(engine, 1, finess="750990012")
    run(engine, "UPDATE practice SET structure_name = 'EHPAD N''DIARRAME'")
    for asked in ("ndiarrame", "n'diarrame", "n diarrame", "ehpad diarrame"):
        assert found(engine, organisation=asked) == [rpps(1)], asked
        assert places(engine, name=asked) == ["750990012"], asked
    assert places(engine, name="laube") == places(engine, name="aube") == ["750990012"]


def test_a_number_asked_as_a_name_finds_whose_it_is(engine: Engine) -> None:
    someone = seed_practitioner(engine, 1)
    seed_practitioner(engine, 2)
    number = someone.national_id
    grouped = f"{number[:1]} {number[1:6]} {number[6:]}"
    dashed = f"{number[:1]}\u2011{number[1:6]}-{number[6:]}"
    for asked in (number, number[1:], grouped, f"{number[1:3]}\u00a0{number[3:]}", dashed):
        assert found(engine, asked) == [number], asked
    assert found(engine, number, department="13") == []
    place = "750990012"
    seed_organisation(engine, place)
    for asked in (place, f"1{place}", "750-990-012", "750 990 \u2013 012"):
        assert places(engine, name=asked) == [place], asked


def test_a_place_is_found_by_its_legal_entity_and_by_siret(engine: Engine) -> None:
    one, two = "750990012", "250990033"
    for number in (one, two):
        seed_organisation(engine, number)
    run(engine, "UPDATE organisation SET legal_finess = '750990020'")
    run(engine, "UPDATE organisation SET siret = '73282932000074' WHERE finess = :one", one=one)
    seed_practitioner(engine, 1, finess=one)
    seed_practitioner(engine, 2, finess=two)

    def practising_at(number: str) -> list[str]:
        with transaction(engine, read_only=True) as connection:
            sites = sites_of(connection, number)
        return list(page(engine, people_question(organisation=number, sites=sites)).keys)

    assert practising_at("750990020") == [rpps(1), rpps(2)]
    assert practising_at("732 829 320 00074") == practising_at(f"1{one}") == [rpps(1)]
    assert practising_at("250990041") == [], "FINESS does not know it"

    def named(number: str, **criteria: str) -> list[str]:
        with transaction(engine, read_only=True) as connection:
            sites = sites_of(connection, number)
        return list(page(engine, places_question(name=number, sites=sites, **criteria), PLACES).keys)

    assert sorted(named("750990020")) == sorted(named("1 750 990 020")) == sorted((one, two))
    assert named("732 829 320 00074") == named(one) == [one]
    assert named("750990020", department="13") == named("250990041") == []


HELD_BACK = (
    "1 85 05 78 006 084",
    "185052A006084",
    "1/85/05/78/006/084",
    "1\u200b85\u200b05\u200b78\u200b006\u200b084",
    "1, 85, 05, 78, 006, 084",
    "\uff11\uff18\uff15\uff10\uff15\uff17\uff18\uff10\uff10\uff16\uff10\uff18\uff14",
    "12/05/1985",
    "12 - 05 - 1985",
    "12\u201105\u20111985",
    "1985.5.12",
    "1 5 1985",
    "12051985",
    "19850512",
    "12\u202805\u20281985",
    "3 mai 1985",
    "1er ao\u00fbt 1985",
    "3 fe\u0301v. 1985",
    "3 d\u00e9c 1985",
    "n\u00e9 le 3",
    "ne\u0301e le 3",
    "n\u00e9(e)\u00a0le 3",
    "N\u00c9\u00b7E LE 3",
    "camille@mail.gmail.com",
    "c\uff20free.fr",
)
AROUND = (
    "",
    " ",
    "ZYGOTE",
    "DU",
    "de ",
    "l\u2019",
    "\u0416",
    "\u0416du ",
    "9",
    "\u200b",
    "(",
    ".",
    "\u0301",
    "8 MAI 1945 ",
)
ORDINARY = (
    "CABINET DU 8 MAI 1945",
    "PHARMACIE 8 MAI 1945",
    "CLINIQUE 11 NOVEMBRE 1918",
    "CENTRE DU 4 SEPTEMBRE",
    "CABINET 750990012",
    "DR 810000000019",
    "LABO 75001 PARIS",
    "MADELEINE LE 3",
    "SERVICE @HOME",
    "EHPAD N\u00b0 3",
    "75001 PARIS CEDEX 01",
    "TEL 01 23 45 67 89",
    "D'\u00c9PINAY",
    "ESPACE 3.0",
    "APPARTEMENT 12, 13 ET 14",
)


def searched(engine: Engine, texts: list[str]) -> list[str]:
    query = (
        "SELECT sceau_searched(t) FROM unnest(CAST(:texts AS text[])) WITH ORDINALITY AS x (t, n) ORDER BY n"
    )
    with engine.connect() as connection:
        return list(connection.execute(text(query), {"texts": texts}).scalars())


def test_whatever_is_held_back_is_left_out_of_the_search_and_ordinary_names_are_not(engine: Engine) -> None:
    chance = random.Random(11)
    around = [(chance.choice(AROUND), chance.choice(AROUND)) for _ in range(150)]
    tried = [f"{before}{each}{after}" for each in HELD_BACK for before, after in [("", ""), *around]]
    held_back = [each for each in tried if secrets_in(each)]
    assert len(held_back) > len(tried) / 2
    assert [each for each in HELD_BACK if not secrets_in(each)] == []
    left = searched(engine, held_back)
    assert [each for each, found in zip(held_back, left, strict=True) if found] == []
    assert searched(engine, list(ORDINARY)) == list(ORDINARY)


def test_no_word_of_what_is_held_back_finds_sorts_or_counts(engine: Engine) -> None:
    number = "1 85 05 78 006 084"
    seed_organisation(engine, "750990012", name=f"CABINET ZYGOTE {number}")
    seed_organisation(engine, "750990020", name="ZYGOTE 3")
    seed_practitioner(engine, 1, family_name="ZYGOMATIX", given_name=f"JEAN N{number} K1985")
    seed_practitioner(engine, 2, family_name=f"ZYGOMA {number}", given_name="Luc")
    seed_practitioner(engine, 3, family_name="AUTRE", given_name="Zoé")
    for column in ("structure_name", "town"):
        update = f"UPDATE practice SET {column} = :v WHERE national_id = :i"
        run(engine, update, v=f"ZYGOTE {number}", i=rpps(3))
    for asked in ("zygote 006 084", "zygote 78 006", f"zygote {number}", "zygote 1", "cabinet", "084"):
        assert places(engine, name=asked) == [], asked
    assert places(engine, name="zygote") == places(engine, name="zygote 3") == ["750990020"]
    assert places(engine, name="750990012") == ["750990012"]
    for asked in ("zygomatix k1985", "zygomatix k198", "zygomatix n1", "jean", "zygoma 1", "luc 084", "084"):
        assert found(engine, asked) == [], asked
    assert found(engine, "zygom") == found(engine, "zygomatix") == [rpps(1)]
    assert found(engine, "luc") == found(engine, rpps(2)) == [rpps(2)]
    for asked in ("zygote", "zygote 006", "zygote 084"):
        assert found(engine, organisation=asked) == found(engine, town=asked) == [], asked
    with engine.connect() as connection:
        assert total(connection, PLACES, places_question(name="zygote")) == Total(1, more=False)
        assert total(connection, PEOPLE, people_question(name="zygom")) == Total(1, more=False)
        sorted_by = connection.execute(
            text("SELECT sort_name FROM search_person UNION ALL SELECT sort_name FROM search_place")
        ).scalars()
        assert not [name for name in sorted_by if "006" in name]
