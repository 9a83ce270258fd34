"""No channel tells a number of social security, a birth date or a home address; people stay where they were.

The channels are those of the red list, asked by the same questions; and registrars are told what to correct.
"""

import base64
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import text

from api.app import create_app
from api.jobs import exports, housekeeping
from api.jobs.table import run_job
from api.wiring import Container
from directory.base.db import transaction
from tests.api.conftest import Caller
from tests.api.rest.test_measures import CHECKED
from tests.api.signing import request_for
from tests.factories import seed_practitioner
from tests.stories.api.test_a_red_listed_mailbox_is_unseen import HOSPITAL, Country

NUMBER, SPACED, CORSICAN = "185057800608491", "1 85 05 78 006 084 91", "185052A006084"
BORN, ISO = "12/05/1985", "1985-05-12"
ADDRESS = "jean.12051985@d1.example"
SECRETS = (NUMBER, SPACED, CORSICAN, CORSICAN.lower(), BORN, ISO, "12051985", "CHEZ MME", "home@orange.fr")


@pytest.fixture
def container(issuing: Container) -> Container:
    return issuing


@pytest.fixture
def app(container: Container) -> Flask:
    return create_app(container)


@pytest.fixture
def country(operator: Caller, container: Container) -> Country:
    made = Country(operator, container, container.clock())
    made.settle()
    return made


def spoil(country: Country) -> None:
    """Registers that carry what nobody outside may read, a field each; and a mailbox that is called by it."""
    one, two, three, four, five = country.people
    person = "UPDATE practitioner SET {} = :v WHERE national_id = :i"
    for someone, column, value in (
        (one, "given_name", f"Camille {SPACED}"), (two, "family_name", f"MARTIN {NUMBER}"),
        (three, "title", f"DR né le {BORN}"),
    ):  # fmt: skip
        country.do(person.format(column), v=value, i=someone.national_id)
    practice = "UPDATE practice SET {} = :v WHERE national_id = :i"
    for column, value in (("street", "CHEZ MME MARTIN"), ("structure_name", f"CABINET {CORSICAN}")):
        country.do(practice.format(column), v=value, i=four.national_id)
    country.do("UPDATE mailbox SET service = :v WHERE holder = :i", v=f"urgences {ISO}", i=five.national_id)
    country.do(
        "UPDATE organisation SET name = :v, long_name = :w", v=f"CLINIQUE {NUMBER}", w="home@orange.fr"
    )
    hidden = seed_practitioner(country.container.engine, 9, address=ADDRESS)
    country.people.append(hidden)
    # What an earlier release certified: nothing of it is shown any more.
    serial = country.serials[one.mailbox]
    with country.container.engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        query = text("UPDATE certificate SET subject = :s WHERE serial = :n")
        connection.execute(query, {"s": f"CN=Camille {NUMBER},serialNumber=8100", "n": serial})


def test_no_channel_tells_it_and_everybody_is_still_there(country: Country) -> None:
    country.mark()
    spoil(country)
    country.export()
    hidden = country.people[-1]
    for channel, said in country.told():
        # Who asks for an address is answered by it.
        told = said.replace(hidden.mailbox, "") if channel.startswith("verdicts") else said
        found = [secret for secret in SECRETS if secret in told]
        assert not found, channel
    everything = "".join(said for _, said in country.told())
    for someone in country.people[:-1]:
        assert everything.count(someone.mailbox) > 5, "the field is held back, never the person"
    verdict = country.operator.get(f"/v1/recipients/{hidden.mailbox}").get_json()
    assert "mailbox-unknown" not in verdict["reasons"], "who has the address was given it"


def test_no_search_reads_it_out_piece_by_piece(country: Country) -> None:
    spoil(country)
    country.do("UPDATE organisation SET name = :v, long_name = ''", v=f"CABINET ZYGOTE {SPACED}")
    one, two, _, four, *_ = country.people
    get = country.operator.get
    for asked in (NUMBER, SPACED, "185", "12", "1985", "camille 1", "78 006", "006 084"):
        found = get("/v1/practitioners", name=f"martin {asked}", department="75", total=True).get_json()
        assert (found["items"], found["total"]["count"]) == ([], 0), asked
        found = get("/v1/organisations", name=f"zygote {asked}", total=True).get_json()
        assert (found["items"], found["total"]["count"]) == ([], 0), asked
    assert get("/v1/organisations", name="zygote").get_json()["items"] == []
    (place,) = get("/v1/organisations", name=HOSPITAL).get_json()["items"]
    assert place["name"] == HOSPITAL
    for someone in (one, two, four):
        (shown,) = get("/v1/practitioners", name=someone.national_id).get_json()["items"]
        assert shown["national_id"] == someone.national_id
    assert get("/v1/practitioners", organisation="cabinet 185052").get_json()["items"] == []
    page, cursors = get("/v1/practitioners", limit=1).get_json(), []
    while page["next"]:
        cursors.append(base64.urlsafe_b64decode(page["next"] + "=="))
        page = get("/v1/practitioners", limit=1, after=page["next"]).get_json()
    assert len(cursors) == len(country.people) - 1, "nobody is left out of a list"
    assert not [cursor for cursor in cursors if b"1850" in cursor or b"006" in cursor.split(b",")[1]]


def test_a_certificate_that_tells_it_is_not_shown_and_none_is_made(
    country: Country, caller: Callable[..., Caller]
) -> None:
    spoil(country)
    one, two = country.people[0], country.people[1]
    assert country.serials[one.mailbox] not in country.ldap()
    registrar = caller("registrar", name="first")
    for someone, fields in ((one, ["given_name"]), (two, ["family_name"])):
        asked = {"practitioner": someone.national_id, "mailbox": someone.mailbox, "identity_check": CHECKED}
        refused = registrar.post("/v1/enrolments", asked)
        assert (refused.status_code, refused.get_json()["code"]) == (422, "name-withheld")
        assert refused.get_json()["fields"] == fields


def test_an_approval_of_before_certifies_it_no_more(country: Country, caller: Callable[..., Caller]) -> None:
    first, second = caller("registrar", name="first"), caller("registrar", name="second")
    someone = seed_practitioner(country.container.engine, 8)
    asked = {"practitioner": someone.national_id, "mailbox": someone.mailbox, "identity_check": CHECKED}
    path = f"/v1/enrolments/{first.post('/v1/enrolments', asked).get_json()['id']}"
    assert second.post(f"{path}/approval").status_code == 200
    country.do(
        "UPDATE practitioner SET given_name = :v WHERE national_id = :i", v=NUMBER, i=someone.national_id
    )
    refused = first.post(f"{path}/certificates", {"csr": request_for()})
    assert (refused.status_code, refused.get_json()["code"]) == (422, "name-withheld")


def test_registrars_are_told_which_field_and_never_what_is_in_it(
    country: Country, caller: Callable[..., Caller], container: Container
) -> None:
    registrar = caller("registrar", name="first")
    assert run_job(container, "privacy-watch") == "all was looked at, 0 are held back"
    spoil(country)
    with transaction(container.engine) as connection:
        connection.execute(text("DELETE FROM feed_cursor WHERE consumer = 'privacy-watch'"))
        connection.execute(text("DELETE FROM change"))
    later = replace(container, clock=lambda: country.now + timedelta(minutes=1))
    assert run_job(later, "privacy-watch") == "all was looked at, 8 are held back"
    told = registrar.get("/v1/attention", kind="private-data-held-back").get_json()["items"]
    by_subject = {one["subject"]: one["detail"] for one in told}
    one, two, _, four, five, hidden = country.people
    assert by_subject[two.national_id]["fields"] == {"family_name": ["social-security-number"]}
    assert by_subject[four.national_id]["fields"] == {
        "practices.street": ["private-address"], "practices.structure_name": ["social-security-number"],
    }  # fmt: skip
    assert by_subject[five.mailbox]["fields"] == {"service": ["birth-date"]}
    assert by_subject[hidden.mailbox]["fields"] == {"address": ["birth-date"]}
    assert country.red_listed() == {hidden.mailbox}, "copies are told as of any red-listed one"
    assert not [secret for secret in SECRETS if secret in str(list(by_subject.values()))]
    auditor = caller("auditor").get("/v1/attention", kind="private-data-held-back").get_json()["items"]
    assert {HOSPITAL, country.serials[one.mailbox]} <= {each["subject"] for each in auditor}
    with container.engine.connect() as connection:
        told_anew = {tuple(row) for row in connection.execute(text("SELECT entity, key FROM change"))}
    assert {
        ("mailbox", four.mailbox),
        ("practitioner", four.national_id),
        ("organisation", HOSPITAL),
    } <= told_anew
    # What is corrected is told no more.
    country.do("UPDATE practitioner SET family_name = 'MARTIN' WHERE national_id = :i", i=two.national_id)
    much_later = replace(container, clock=lambda: country.now + timedelta(minutes=2))
    assert not run_job(much_later, "privacy-watch")
    left = registrar.get("/v1/attention", kind="private-data-held-back").get_json()["items"]
    assert two.national_id not in {each["subject"] for each in left}
    assert four.national_id in {each["subject"] for each in left}


def test_a_correction_shows_nothing_of_what_the_register_says(
    country: Country, caller: Callable[..., Caller]
) -> None:
    spoil(country)
    two = country.people[1]
    asked = {
        "entity": "practitioner", "key": two.national_id, "field": "family_name", "value": "MARTIN",
        "reason": "numéro dans le nom",
    }  # fmt: skip
    made = caller("registrar", name="first").post("/v1/corrections", asked)
    assert made.status_code == 201, made.get_json()
    shown = country.operator.get(f"/v1/practitioners/{two.national_id}")
    assert shown.get_json()["family_name"] == "MARTIN"
    assert NUMBER not in shown.text


def test_exports_of_an_earlier_release_are_handed_out_no_more(
    country: Country, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pki.publication.export.FORMAT", 2)
    country.export()
    monkeypatch.undo()
    (old,) = country.stamps
    assert country.operator.get(f"/v1/exports/{old}").status_code == 404
    later = replace(container, clock=lambda: country.now + timedelta(minutes=1))
    assert f"withdrew {old}" in exports.replace_withdrawn(later)
    assert housekeeping.watch_privacy(container) is not None
