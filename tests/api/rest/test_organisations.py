"""Searching establishments over REST, with the mailboxes of their own."""

import pytest
from sqlalchemy import Engine, text

from tests.api.conftest import Caller
from tests.factories import seed_organisation, seed_practitioner

PATH = "/v1/organisations"


def test_an_establishment_is_found_by_words_of_its_name_with_its_own_mailboxes(
    operator: Caller, engine: Engine
) -> None:
    address = seed_organisation(engine, "250990033", name="CHI FICTIF", service="URGENCES")
    seed_organisation(engine, "750990012")
    seed_practitioner(engine, finess="250990033")
    answer = operator.get(PATH, name="fictif chi", total="true").get_json()
    (item,) = answer["items"]
    assert (item["finess"], item["name"], item["department"]) == ("250990033", "CHI FICTIF", "75")
    assert [mailbox["address"] for mailbox in item["mailboxes"]] == [address]
    assert (answer["next"], answer["total"]) == (None, {"count": 1, "more": False})


def test_pages_of_establishments_follow_one_another(operator: Caller, engine: Engine) -> None:
    for finess in ("750990012", "250990033", "970990012"):
        seed_organisation(engine, finess)
    first = operator.get(PATH, department="75", limit=2).get_json()
    rest = operator.get(PATH, department="75", limit=2, after=first["next"]).get_json()
    assert [item["finess"] for page in (first, rest) for item in page["items"]] == [
        "250990033", "750990012", "970990012",
    ]  # fmt: skip
    assert rest["next"] is None


def test_the_places_of_a_number_are_pages_like_others(operator: Caller, engine: Engine) -> None:
    places = ("750990012", "250990033", "970990012")
    for finess in places:
        seed_organisation(engine, finess)
    seed_organisation(engine, "690990015")
    with engine.begin() as connection:
        entity = "UPDATE organisation SET legal_finess = '750990020' WHERE finess <> '690990015'"
        connection.execute(text(entity))
        siret = "UPDATE organisation SET siret = '12345678200010' WHERE finess = '250990033'"
        connection.execute(text(siret))
    first = operator.get(PATH, name="1 750990020", limit=2, total="true").get_json()
    assert first["total"] == {"count": 3, "more": False}
    rest = operator.get(PATH, name="750990020", limit=2, after=first["next"]).get_json()
    assert [len(page["items"]) for page in (first, rest)] == [2, 1]
    assert {item["finess"] for page in (first, rest) for item in page["items"]} == set(places)
    assert rest["next"] is None
    (item,) = operator.get(PATH, name="123 456 782 00010").get_json()["items"]
    assert item["finess"] == "250990033"


def test_one_establishment_is_given_by_its_number_departed_or_not(operator: Caller, engine: Engine) -> None:
    seed_organisation(engine, "250990033", name="CHI FICTIF")
    assert operator.get(f"{PATH}/250990033").get_json()["departed_at"] is None
    with engine.begin() as connection:
        connection.execute(text("UPDATE organisation SET departed_at = '2026-09-01T00:00:00Z'"))
    answer = operator.get(f"{PATH}/250990033").get_json()
    assert (answer["departed_at"], answer["mailboxes"]) == ("2026-09-01T00:00:00Z", [])
    assert operator.get(PATH).get_json()["items"] == []


@pytest.mark.parametrize(
    ("finess", "status", "code"),
    [
        ("750990012", 404, "unknown-organisation"),
        ("750990013", 400, "finess-check-digit"),
        ("CHI", 400, "malformed-finess"),
    ],
)
def test_a_number_that_leads_to_nothing_is_told_apart_from_one_that_cannot(
    finess: str, status: int, code: str, operator: Caller
) -> None:
    answer = operator.get(f"{PATH}/{finess}")
    assert (answer.status_code, answer.get_json()["code"]) == (status, code)


def test_a_place_is_found_by_its_siret_its_legal_entity_and_with_the_digit_of_its_type(
    operator: Caller, engine: Engine
) -> None:
    one, two = "750990012", "250990033"
    for number in (one, two):
        seed_organisation(engine, number)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE organisation SET siret = '73282932000074' WHERE finess = :one"), {"one": one}
        )
        connection.execute(
            text("UPDATE organisation SET legal_finess = '750990020' WHERE finess = :one"), {"one": one}
        )
    for asked in ("732 829 320 00074", "750990020", f"1{one}"):
        assert operator.get(f"/v1/organisations/{asked}").get_json()["finess"] == one, asked
    with engine.begin() as connection:
        connection.execute(text("UPDATE organisation SET legal_finess = '750990020'"))
    several = operator.get("/v1/organisations/750990020")
    assert (several.status_code, several.get_json()["code"]) == (404, "several-places")
    assert several.get_json()["places"] == [two, one]
    unknown = operator.get("/v1/organisations/250990041").get_json()
    assert (unknown["code"], "as we have it" in unknown["detail"]) == ("unknown-organisation", True)
