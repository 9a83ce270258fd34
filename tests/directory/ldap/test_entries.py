"""What an entry says, and that slapd takes it whatever a register wrote."""

import subprocess
from datetime import date, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.embedded.slapd import EmbeddedSlapd
from directory.ldap.client import LdapClient
from directory.ldap.entry import (
    base_entries,
    mailbox_entry,
    organisation_entry,
)
from directory.ldap.names import split
from directory.ldap.plan import Add, Delete, base_plan, plan
from directory.model import (
    Mailbox,
    MailboxFacts,
    MailboxKind,
    Organisation,
    Practice,
    Practitioner,
    Trust,
)
from directory.rules import visible
from tests.conftest import NOON
from tests.directory.ldap.conftest import SUFFIX, certificate
from tests.examples import examples

TRUSTED = (Trust("CN=op", "op"),)


def practice(**told: str) -> Practice:
    return Practice("10", "C", **told)


def person(family_name: str = "MARTIN", given_name: str = "Camille", **told: object) -> Practitioner:
    made: dict[str, object] = {
        "title": "DR", "professions": (("10", "C"),), "skills": ("SM26",), "practices": (practice(),), **told
    }  # fmt: skip
    return Practitioner("810099000019", family_name=family_name, given_name=given_name, **made)  # type: ignore[arg-type]


def facts(
    address: str = "a@one.example", *, listed: bool = True, holder: Practitioner | None = None
) -> MailboxFacts:
    mailbox = Mailbox(address, MailboxKind.PERSON, "810099000019", "", "", "", "", listed)
    return MailboxFacts(address, well_formed=True, trusts=TRUSTED, mailbox=mailbox, holder=holder or person())


def test_a_person_is_found_under_all_that_clients_search_by() -> None:
    places = (
        practice(
            structure_name="CABINET A", street="1 RUE X", postal_code="75011", town="PARIS", department="75"
        ),
        practice(
            structure_name="CABINET B", street="2 RUE Y", postal_code="2A004", town="AJACCIO", department="2A"
        ),
    )
    entry = mailbox_entry(facts(holder=person(practices=places)), [b"c2", b"c1", b"c1"], SUFFIX, NOON)
    assert entry is not None
    assert entry.dn == "mail=a@one.example,ou=mailboxes,o=sceau,c=fr"
    assert entry.attributes == {
        "objectClass": (b"inetOrgPerson", b"sceauMailbox"),
        "mail": (b"a@one.example",),
        "cn": (b"Camille MARTIN",),
        "sn": (b"MARTIN",),
        "givenName": (b"Camille",),
        "displayName": (b"DR Camille MARTIN",),
        "title": (b"DR",),
        "uid": (b"10099000019", b"810099000019"),
        "o": (b"CABINET A", b"CABINET B"),
        "street": (b"1 RUE X", b"2 RUE Y"),
        "postalCode": (b"2A004", b"75011"),
        "l": (b"AJACCIO", b"PARIS"),
        "st": (b"2A", b"75"),
        "sceauDepartment": (b"2A", b"75"),
        "hcIdentifier": (b"1.2.250.1.71.4.2.1:IDNPS:810099000019:Active",),
        "hcProfession": (b"10",),
        "hcSpecialisation": (b"SM26",),
        "sceauMailboxKind": (b"PER",),
        "userCertificate;binary": (b"c2", b"c1"),
    }


@pytest.mark.parametrize(
    "hidden", [facts(listed=False), facts(holder=person(practices=())), MailboxFacts("x", well_formed=True)]
)
def test_what_may_not_be_found_has_no_entry(hidden: MailboxFacts) -> None:
    assert not visible(hidden, NOON)
    assert mailbox_entry(hidden, [], SUFFIX, NOON) is None


def test_an_establishment_shows_until_the_day_it_closes() -> None:
    place = Organisation(
        "2A0000014", "CH A", "CENTRE HOSPITALIER A", "355", "CH", "RUE Z", "2A004 AJACCIO", "2A"
    )
    entry = organisation_entry(place, SUFFIX, NOON)
    assert entry is not None
    assert entry.dn == "uid=2A0000014,ou=organizations,o=sceau,c=fr"
    assert entry.attributes["postalCode"] == (b"2A004",)
    assert entry.attributes["l"] == (b"AJACCIO",)
    assert entry.attributes["hcRegisteredName"] == (b"CENTRE HOSPITALIER A", b"CH A")
    closed = Organisation("2A0000014", "CH A", closed_on=date(2026, 9, 1))
    assert organisation_entry(closed, SUFFIX, NOON) is None


@pytest.mark.parametrize(
    "suffix", ["o=sceau,c=fr", "dc=sante,dc=example", "ou=x,o=y", "c=fr", "l=Paris,c=fr"]
)
def test_the_base_has_a_class_for_each_kind_of_suffix(suffix: str) -> None:
    top = base_entries(suffix)[0]
    attribute = split(suffix)[0][0]
    assert top.dn == suffix
    assert attribute in top.attributes


ODD = [
    "a+b@one.example",
    "a=b@one.example",
    "a#b@one.example",
    "#a@one.example",
    "o'neil@one.example",
    "a/b@one.example",
]


@pytest.mark.parametrize("address", ODD)
def test_ldapsearch_finds_addresses_with_odd_characters(slapd: EmbeddedSlapd, address: str) -> None:
    holder = person("O\"NEIL, née D'ÉTÉ + CO", "Zoé \\ (*)")
    client = planted(slapd)
    entry = mailbox_entry(facts(address, holder=holder), [certificate(address)], SUFFIX, NOON)
    assert entry is not None
    assert client.apply(Add(entry.dn, {**entry.attributes, "sceauVersion": (b"1",)}))
    client.close()
    search = [
        "ldapsearch",
        "-Q",
        "-Y",
        "EXTERNAL",
        "-LLL",
        "-o",
        "ldif-wrap=no",
        "-H",
        slapd.url,
        "-b",
        SUFFIX,
        f"(mail={address})",
        "mail",
    ]
    found = subprocess.run(search, capture_output=True, text=True, check=True).stdout
    assert f"mail: {address}" in found


@settings(
    max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20),
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8), max_size=5
    ),
)
def test_whatever_a_register_wrote_slapd_takes_it_and_gives_it_back(
    slapd: EmbeddedSlapd, name: str, towns: list[str]
) -> None:
    holder = person(
        "X" + name,
        name,
        practices=tuple(practice(town=town, street=town.upper()) for town in towns) or (practice(),),
    )
    client = planted(slapd)
    entry = mailbox_entry(facts(holder=holder), [], SUFFIX, NOON)
    assert entry is not None
    client.apply(Delete(entry.dn))
    operation = plan(entry, None, 1)
    assert operation is not None
    assert client.apply(operation)
    assert plan(entry, client.read(entry.dn), 2) is None
    client.close()


def planted(slapd: EmbeddedSlapd) -> LdapClient:
    client = LdapClient(slapd.url)
    for entry in base_entries(SUFFIX):
        if (operation := base_plan(entry, client.read(entry.dn))) is not None:
            client.apply(operation)
    return client


def test_the_day_is_a_french_one(now: datetime) -> None:
    closing = Organisation("750990012", "C", closed_on=date(2026, 9, 2))
    assert organisation_entry(closing, SUFFIX, now) is not None
    assert organisation_entry(closing, SUFFIX, datetime.fromisoformat("2026-09-01T22:30:00+00:00")) is None
