"""Searching the register over REST: nothing cut off silently, nobody shown who may not be."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from api.http.paging import MOST_ON_A_PAGE
from tests.api.certificates import certify, take_back
from tests.api.conftest import Caller
from tests.factories import depart, rpps, seed_organisation, seed_practitioner

PATH = "/v1/practitioners"


def names(answer: dict[str, list[dict[str, str]]]) -> list[str]:
    return [item["national_id"] for item in answer["items"]]


def test_a_person_is_found_whatever_the_accents_case_and_order(operator: Caller, engine: Engine) -> None:
    seeded = seed_practitioner(engine, family_name="LE GOFF", given_name="HELENE")
    seed_practitioner(engine, 2)
    for name in ("hélène le goff", "LE GOFF", "goff hel"):
        assert names(operator.get(PATH, name=name).get_json()) == [seeded.national_id], name


def test_criteria_must_all_hold(operator: Caller, engine: Engine) -> None:
    doctor = seed_practitioner(engine)
    nurse = seed_practitioner(engine, 2, professions=[("60", "C")])
    assert names(operator.get(PATH, profession="60").get_json()) == [nurse.national_id]
    assert names(operator.get(PATH, profession="10", department="75").get_json()) == [doctor.national_id]
    assert names(operator.get(PATH, profession="10", department="13").get_json()) == []


def test_pages_follow_one_another_until_next_is_null(operator: Caller, engine: Engine) -> None:
    everyone = [seed_practitioner(engine, number).national_id for number in range(1, 8)]
    seen: list[str] = []
    query: dict[str, str] = {"limit": "3"}
    pages = 0
    while True:
        page = operator.get(PATH, **query).get_json()
        seen += names(page)
        pages += 1
        if page["next"] is None:
            break
        query["after"] = page["next"]
    assert pages == 3
    assert sorted(seen) == sorted(everyone)
    assert len(set(seen)) == len(seen)


def test_a_page_that_is_just_full_says_that_it_is_the_last(operator: Caller, engine: Engine) -> None:
    for number in range(1, 4):
        seed_practitioner(engine, number)
    assert operator.get(PATH, limit=3).get_json()["next"] is None


@pytest.mark.parametrize(
    ("criterion", "value", "example"), [("department", "99", "2A"), ("profession", "doctor!", "10")]
)
def test_a_criterion_that_is_no_code_is_refused_with_one_that_is(
    criterion: str, value: str, example: str, operator: Caller
) -> None:
    answer = operator.get("/v1/practitioners", **{criterion: value})
    assert answer.status_code == 422
    (error,) = answer.get_json()["errors"]
    assert error["field"] == criterion
    assert example in error["message"]


@pytest.mark.parametrize("limit", [0, MOST_ON_A_PAGE + 1, -1, "many", 10**30])
def test_a_limit_out_of_bounds_is_refused_rather_than_trimmed(limit: object, operator: Caller) -> None:
    assert operator.get(PATH, limit=limit).status_code == 422


def test_a_cursor_leads_on_in_its_own_question_only(operator: Caller, engine: Engine) -> None:
    for number in range(1, 4):
        seed_practitioner(engine, number)
    cursor = operator.get(PATH, name="martin", limit=1).get_json()["next"]
    assert operator.get(PATH, name="MARTÍN", limit=2, after=cursor).get_json()["next"] is None
    for other in ({"name": "martine"}, {"name": "martin", "department": "75"}, {}):
        answer = operator.get(PATH, after=cursor, **other)
        assert (answer.status_code, answer.get_json()["code"]) == (400, "bad-cursor"), other


def test_people_are_counted_when_asked(operator: Caller, engine: Engine) -> None:
    for number in range(1, 4):
        seed_practitioner(engine, number)
    assert operator.get(PATH, name="martin", limit=1).get_json()["total"] is None
    assert operator.get(PATH, name="martin", limit=1, total="true").get_json()["total"] == {
        "count": 3, "more": False,
    }  # fmt: skip


def test_too_little_to_search_by_is_refused(operator: Caller) -> None:
    answer = operator.get(PATH, name="m")
    assert (answer.status_code, answer.get_json()["code"]) == (400, "too-little-to-search")


@pytest.mark.parametrize(
    "cursor", ["é", "!!!", "AAAA", "ODEwMDk5MDAwMDE5IG9yIDE9MQ", "x" * 100, "WyJhIiwxLDJd"]
)
def test_a_cursor_that_no_search_gave_is_refused(cursor: str, operator: Caller) -> None:
    answer = operator.get(PATH, after=cursor)
    assert (answer.status_code, answer.get_json()["code"]) == (400, "bad-cursor")


def test_mailboxes_show_the_usable_first_and_the_red_listed_never(
    operator: Caller, engine: Engine, now: datetime
) -> None:
    seeded = seed_practitioner(engine, address="b@one.example")
    with engine.begin() as connection:
        for address, listed in (("a@one.example", True), ("hidden@one.example", False)):
            connection.exec_driver_sql(
                "INSERT INTO mailbox (address, kind, holder, listed, row_hash)"
                " VALUES (%s, 'PER', %s, %s, '')",
                (address, seeded.national_id, listed),
            )
    serial = certify(engine, "b@one.example", now - timedelta(days=1))
    certify(engine, "hidden@one.example", now - timedelta(days=1), number=2)
    item = operator.get(PATH).get_json()["items"][0]
    assert item["mailboxes"] == [
        {"address": "b@one.example", "verdict": "allowed", "certificates": [serial], "corrected": []},
        {"address": "a@one.example", "verdict": "refused", "certificates": [], "corrected": []},
    ]


def test_a_revoked_certificate_is_not_offered(operator: Caller, engine: Engine, now: datetime) -> None:
    seeded = seed_practitioner(engine)
    take_back(engine, certify(engine, seeded.mailbox, now - timedelta(days=1)), now)
    (mailbox,) = operator.get(f"{PATH}/{seeded.national_id}").get_json()["mailboxes"]
    assert mailbox == {"address": seeded.mailbox, "verdict": "refused", "certificates": [], "corrected": []}


def test_one_person_is_given_whole(operator: Caller, engine: Engine) -> None:
    seeded = seed_practitioner(engine, finess="750990012")
    person = operator.get(f"{PATH}/{seeded.national_id}").get_json()
    assert (person["family_name"], person["given_name"], person["title"]) == ("MARTIN", "Camille", "DR")
    assert person["professions"] == [{"code": "10", "category": "C"}]
    assert person["practices"][0]["finess"] == "750990012"
    assert (person["suspended"], person["struck_off"], person["departed_at"]) == (False, False, None)


def test_who_left_is_given_by_number_with_the_date_and_found_by_no_search(
    operator: Caller, engine: Engine, now: datetime
) -> None:
    seeded = seed_practitioner(engine)
    depart(engine, seeded.national_id, now)
    person = operator.get(f"{PATH}/{seeded.national_id}").get_json()
    assert (person["departed_at"], person["mailboxes"]) == ("2026-09-01T12:00:00Z", [])
    assert operator.get(PATH).get_json()["items"] == []


def test_a_person_of_two_names_is_shown_with_both(operator: Caller, engine: Engine) -> None:
    seeded = seed_practitioner(engine, family_name="DURAND-TEST", given_name="ALICE")
    alone = seed_practitioner(engine, 2)
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO professional_name VALUES (:id, '60', 'C', 'ZABEL', 'ALIX', now())"),
            {"id": seeded.national_id},
        )
    both = [{"family_name": "ZABEL", "given_name": "ALIX"}]
    assert operator.get(f"{PATH}/{seeded.national_id}").get_json()["other_names"] == both
    shown = {item["national_id"]: item["other_names"] for item in operator.get(PATH).get_json()["items"]}
    assert shown == {seeded.national_id: both, alone.national_id: []}


def test_who_practises_at_a_place_is_found_by_every_number_of_the_place(
    operator: Caller, engine: Engine
) -> None:
    one, two = "750990012", "250990033"
    for number, place in enumerate((one, two), start=1):
        seed_organisation(engine, place)
        seed_practitioner(engine, number, finess=place)
    with engine.begin() as connection:
        connection.execute(text("UPDATE organisation SET legal_finess = '750990020'"))
        siret = "UPDATE organisation SET siret = '73282932000074' WHERE finess = :one"
        connection.execute(text(siret), {"one": one})
    found = {
        asked: names(operator.get(PATH, organisation=asked).get_json())
        for asked in ("750990020", "1750990020", "732 829 320 00074", f"1{one}", f"1 {two}")
    }
    both = [rpps(1), rpps(2)]
    assert found == {
        "750990020": both, "1750990020": both, "732 829 320 00074": both[:1], f"1{one}": both[:1],
        f"1 {two}": both[1:],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("national_id", "status", "code"),
    [
        (rpps(7), 404, "unknown-practitioner"),
        ("810099000018", 400, "rpps-check-digit"),
        ("nobody", 400, "malformed-national-id"),
        ("8%00", 400, "malformed-rpps"),
    ],
)
def test_a_number_that_leads_to_nobody_is_told_apart_from_one_that_cannot(
    national_id: str, status: int, code: str, operator: Caller
) -> None:
    answer = operator.get(f"{PATH}/{national_id}")
    assert (answer.status_code, answer.get_json()["code"]) == (status, code)


def test_an_auditor_and_a_registrar_may_search_too(caller: Callable[..., Caller]) -> None:
    assert caller("auditor").get(PATH).status_code == caller("registrar").get(PATH).status_code == 200


def test_a_name_with_a_no_break_space_is_found_as_it_was_shown(operator: Caller, engine: Engine) -> None:
    seed_practitioner(engine, family_name="DE\u00a0BRUMETEST")
    shown = operator.get(PATH, name="brumetest").get_json()["items"][0]["family_name"]
    assert operator.get(PATH, name=shown).get_json()["items"] != []


@pytest.mark.parametrize("path", [PATH, "/v1/organisations"])
@pytest.mark.parametrize(("asked", "insee"), [("9E", "975"), ("9a", "971"), ("9j", "986"), ("975", "975"),
                                              ("980", "980")])  # fmt: skip
def test_a_department_overseas_is_asked_by_either_of_its_codes(
    path: str, asked: str, insee: str, operator: Caller, engine: Engine
) -> None:
    place = seed_organisation(engine).partition("@")[0].removeprefix("contact-")
    seed_practitioner(engine, finess=place)
    with engine.begin() as connection:
        for table in ("practice", "organisation"):
            connection.execute(text(f"UPDATE {table} SET department = :insee"), {"insee": insee})
    assert len(operator.get(path, department=asked).get_json()["items"]) == 1
    assert operator.get(path, department="75").get_json()["items"] == []


def test_numbers_and_codes_are_read_as_people_write_them(operator: Caller, engine: Engine) -> None:
    someone = seed_practitioner(engine, professions=(("10", "C"),))
    with engine.begin() as connection:
        connection.execute(text("UPDATE practice SET department = '2A'"))
    number = someone.national_id
    for asked in (number[1:], f"{number[0]} {number[1:6]} {number[6:]}"):
        assert operator.get(f"{PATH}/{asked}").get_json()["national_id"] == number
        assert [one["national_id"] for one in operator.get(PATH, name=asked).get_json()["items"]] == [number]
    assert len(operator.get(PATH, department="2a").get_json()["items"]) == 1
    assert operator.get(PATH, department="1", name="martin").status_code == 200
    assert operator.get(PATH, skill="sm04", name="martin").status_code == 200
    assert operator.get(PATH, skill="\u017fm04", name="martin").status_code == 422, "a long s is no S"
    wrong = operator.get(f"{PATH}/1009900001").get_json()
    assert wrong["code"] == "malformed-national-id"
    assert "8 before the eleven digits of RPPS" in wrong["detail"]


@pytest.mark.parametrize("octets", ["%ff%fe", "%ed%a0%80", "dupont%e9"])
def test_a_question_that_is_no_utf_8_is_not_another_question(octets: str, operator: Caller) -> None:
    answer = operator.client.get(f"{PATH}?name={octets}", headers=operator.headers)
    assert (answer.status_code, answer.get_json()["code"]) == (400, "malformed-request")
