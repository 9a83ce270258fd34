"""A mailbox under the number of a legal entity, or a SIRET, is judged by the places FINESS knows under it.

From the verdict over the certificate to what follows when the last of these places closes.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from sqlalchemy import Engine, text

from api.installation import bring_up
from directory.access import Allowance, Role, Token
from directory.base.db import transaction
from directory.base.errors import Refusal
from directory.corrections import correct
from directory.feed.changes import START, Entity
from directory.feed.readers import read_changes
from directory.feed.retention import tell_of_time
from directory.ldap.entry import mailbox_entry
from directory.store import addresses_at, mailbox_facts
from pki.impediments.causes import GRACES
from pki.issuance.batch import BatchItem, issue_all
from pki.publication.store import live_certificates
from pki.verdict.answer import verdicts
from pki.verdict.model import Verdict
from pki.withdrawal.reconcile import Follower
from pki.withdrawal.void_enrolments import void_of
from tests.factories import Seeded, seed_organisation, seed_practitioner, seed_token
from tests.pki.conftest import BASE_URL, Established, enrol, new_key, request_for
from tests.stories.pki.test_what_the_release_before_writes_counts import downgrade

ENTITY, SIRET = "750990020", "12345678200010"
SITE, OTHER = "750990012", "250990033"
ADDRESS = "direction@two.example"
NUMBERS = {"legal entity": ("1", ENTITY, f"FI:FR-{ENTITY}"), "SIRET": ("3", SIRET, f"NTRFR-{SIRET}")}


def run(engine: Engine, sql: str, **values: object) -> None:
    with engine.begin() as connection:
        connection.execute(text(sql), values)


def move(engine: Engine, kind: str, number: str) -> None:
    """The mailbox as the national list now has it."""
    run(
        engine,
        "UPDATE mailbox SET structure_type = :kind, structure_id = :number WHERE address = :address",
        kind=kind, number=number, address=ADDRESS,
    )  # fmt: skip


def close(engine: Engine, site: str, sql: str = "closed_on = '2026-01-01'") -> None:
    run(engine, f"UPDATE organisation SET {sql} WHERE finess = :site", site=site)


def reasons(engine: Engine, now: datetime, at: datetime | None = None) -> tuple[str, ...]:
    return verdict(engine, now, at).reasons


def verdict(engine: Engine, now: datetime, at: datetime | None = None) -> Verdict:
    with transaction(engine, read_only=True) as connection:
        (found,) = verdicts(
            connection, [ADDRESS], sender=None, at=at, now=now, lifetime=timedelta(minutes=15)
        )
    return found


def clock(engine: Engine) -> datetime:
    with engine.connect() as connection:
        return connection.execute(text("SELECT clock_timestamp()")).scalar_one().astimezone(UTC)


@pytest.fixture
def places(engine: Engine) -> None:
    """Two places of one legal entity and one SIRET, and the mailbox of whatever it is moved to."""
    for site in (SITE, OTHER):
        seed_organisation(engine, site, name=f"SITE {site}")
    run(engine, "UPDATE organisation SET legal_finess = :entity, siret = :siret", entity=ENTITY, siret=SIRET)
    seed_organisation(engine, SITE, name="GROUPE FICTIF", address=ADDRESS)


@pytest.fixture(params=NUMBERS.values(), ids=NUMBERS)
def numbered(engine: Engine, request: pytest.FixtureRequest) -> tuple[str, str, str]:
    """The mailbox under one of the two kinds of number; with what a certificate calls it."""
    request.getfixturevalue("places")
    kind, number, identifier = request.param
    move(engine, kind, number)
    return kind, number, identifier


@pytest.fixture
def certified(engine: Engine, authority: Established, numbered: tuple[str, str, str], now: datetime) -> bytes:
    """The certificate of that mailbox, which somebody of one of the places answers for."""
    someone = seed_practitioner(engine, 7, finess=OTHER)
    answering = enrol(engine, now, Seeded(someone.national_id, ADDRESS))
    _, (item,) = issue_all(
        engine, authority.signer, now=now, token=answering.first,
        asked=[BatchItem(answering.id, request_for(new_key()))], base_url=BASE_URL,
    )  # fmt: skip
    assert item.certificate is not None, (numbered, item.refusal)
    return item.certificate.der


def test_it_is_allowed_and_certified_under_its_number_and_the_lists_name(
    engine: Engine, certified: bytes, numbered: tuple[str, str, str], now: datetime
) -> None:
    subject = x509.load_der_x509_certificate(certified).subject
    assert [str(one.value) for one in subject if one.oid != NameOID.COUNTRY_NAME] == [
        "GROUPE FICTIF", numbered[2], "GROUPE FICTIF",
    ]  # fmt: skip
    found = verdict(engine, now)
    assert (found.reasons, [one.der for one in found.certificates]) == ((), [certified])
    with transaction(engine, read_only=True) as connection:
        assert live_certificates(connection, [ADDRESS], now) == {ADDRESS: [certified]}
    with engine.connect() as connection:
        asked = text("SELECT detail -> 'practises_there' FROM audit_pending WHERE detail ->> 'mailbox' = :it")
        assert connection.execute(asked, {"it": ADDRESS}).scalars().first() is True


@pytest.mark.usefixtures("certified")
def test_the_certificate_does_not_pass_to_another_establishment(engine: Engine, now: datetime) -> None:
    move(engine, "1", SITE)
    assert verdict(engine, now).certificates == ()
    with transaction(engine, read_only=True) as connection:
        assert live_certificates(connection, [ADDRESS], now) == {}


@pytest.mark.usefixtures("numbered")
def test_it_stands_while_one_place_is_open_and_closes_with_the_last_and_the_past_is_unharmed(
    engine: Engine,
) -> None:
    close(engine, SITE)
    between = clock(engine)
    assert "organisation-closed" not in reasons(engine, between)
    close(engine, OTHER, "departed_at = now()")
    after = clock(engine)
    assert reasons(engine, after)[0] == "organisation-closed"
    assert reasons(engine, after, at=after)[0] == "organisation-closed"
    assert "organisation-closed" not in reasons(engine, after, at=between)


@pytest.mark.usefixtures("places")
@pytest.mark.parametrize(
    ("kind", "number"),
    [("1", "910990012"), ("3", "55555555500013"), ("2", "123456782"), ("4", "1009900001201")],
    ids=["FINESS", "SIRET", "SIREN", "RPPS and rank"],
)
def test_a_number_that_finess_does_not_hold_is_not_known_to_us(
    engine: Engine, now: datetime, kind: str, number: str
) -> None:
    move(engine, kind, number)
    assert reasons(engine, now)[0] == "organisation-unknown"
    someone = seed_practitioner(engine)
    with pytest.raises(Refusal) as refused:
        enrol(engine, now, Seeded(someone.national_id, ADDRESS))
    assert refused.value.code == "organisation-unknown"


@pytest.mark.usefixtures("numbered")
def test_an_entity_whose_places_came_under_another_is_not_known_any_more(
    engine: Engine, now: datetime
) -> None:
    before = clock(engine)
    run(engine, "UPDATE organisation SET legal_finess = '910990012', siret = '55555555500013'")
    assert reasons(engine, now)[0] == "organisation-unknown"
    assert "organisation-unknown" not in reasons(engine, clock(engine), at=before)


def last(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT coalesce(max(id), 0) FROM change")).scalar_one())


def told_since(engine: Engine, place: int) -> set[tuple[str, bool]]:
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT key, urgent FROM change WHERE entity = 'mailbox' AND id > :place"), {"place": place}
        )
        return {(row.key, row.urgent) for row in rows}


@pytest.mark.usefixtures("numbered")
@pytest.mark.parametrize(
    ("sql", "urgent"),
    [
        ("closed_on = '2026-01-01'", False),
        ("departed_at = now()", True),
        ("legal_finess = '910990012', siret = '55555555500013'", True),
    ],
    ids=["closing day", "departed", "under another number"],
)
def test_the_feed_tells_of_it_when_one_of_its_places_changes(
    engine: Engine, sql: str, *, urgent: bool
) -> None:
    place = last(engine)
    close(engine, OTHER, sql)
    assert (ADDRESS, urgent) in told_since(engine, place)


@pytest.mark.usefixtures("numbered")
def test_the_feed_tells_of_it_when_time_closes_one_of_its_places(engine: Engine) -> None:
    with transaction(engine) as connection:
        tell_of_time(connection, datetime(2099, 1, 1, 12, tzinfo=UTC))
    close(engine, OTHER, "closed_on = '2099-01-03'")
    place = last(engine)
    with transaction(engine) as connection:
        tell_of_time(connection, datetime(2099, 1, 3, 12, tzinfo=UTC))
    assert (ADDRESS, True) in told_since(engine, place)


@pytest.mark.usefixtures("certified")
def test_what_it_has_is_taken_back_when_its_last_place_closes(engine: Engine, now: datetime) -> None:
    follower = Follower(engine, GRACES)
    close(engine, SITE)
    while follower.step(now).changes:
        pass
    assert reasons(engine, now) == ()
    close(engine, OTHER)
    while follower.step(now).changes:
        pass
    assert "certificate-revoked" in reasons(engine, now)


@pytest.fixture
def say(engine: Engine, now: datetime) -> Callable[[str, str], None]:
    """One administrator, who may take two, gives a place its closing day."""
    token = Token(
        seed_token(engine, "a", role="admin"), "a", Role.ADMIN, "", now + timedelta(days=1),
        allowance=Allowance(2, 9),
    )  # fmt: skip

    def act(site: str, day: str) -> None:
        with transaction(engine) as connection:
            correct(
                connection, now=now, token=token, entity=Entity.ORGANISATION, key=site, field="closed_on",
                value=day, reason="list", void_of=void_of,
            )  # fmt: skip

    return act


@pytest.mark.usefixtures("numbered")
@pytest.mark.parametrize("first", ["2026-01-01", "2026-01-02", "2099-01-01"])
def test_a_closing_day_is_charged_for_it_unless_another_place_stays(
    say: Callable[[str, str], None], first: str
) -> None:
    """Each place has a mailbox of its own beside it: one is charged for the first, two for the last."""
    say(SITE, first)
    with pytest.raises(Refusal, match="take trust from 2 within an hour"):
        say(OTHER, "2026-01-01")


@pytest.mark.usefixtures("numbered")
def test_two_closing_days_at_once_do_not_count_on_one_another(say: Callable[[str, str], None]) -> None:
    with ThreadPoolExecutor(2) as pool:
        told = [pool.submit(say, site, "2026-01-01") for site in (SITE, OTHER)]
    assert sorted(type(one.exception()) is Refusal for one in told) == [False, True]


@pytest.mark.usefixtures("numbered")
def test_a_place_shows_the_mailboxes_of_its_numbers(engine: Engine) -> None:
    with engine.connect() as connection:
        assert addresses_at(connection, [SITE, OTHER]) == {
            SITE: (f"contact-{SITE}@two.example", ADDRESS), OTHER: (f"contact-{OTHER}@two.example", ADDRESS),
        }  # fmt: skip


def test_ldap_shows_its_number_and_no_place_of_several(
    engine: Engine, numbered: tuple[str, str, str], now: datetime
) -> None:
    with engine.connect() as connection:
        facts = mailbox_facts(connection, [ADDRESS])[ADDRESS]
    entry = mailbox_entry(facts, (), "o=sceau,c=fr", now)
    assert entry is not None
    kind, number, _ = numbered
    assert entry.attributes["uid"] == (number.encode(),)
    assert entry.attributes["hcIdentifier"] == (f"1.2.250.1.71.4.2.2:IDNST:{kind}{number}:Active".encode(),)
    assert entry.attributes["o"] == (b"GROUPE FICTIF",)
    assert "street" not in entry.attributes


def test_a_place_with_the_number_itself_goes_before_those_under_it(
    engine: Engine, numbered: tuple[str, str, str]
) -> None:
    if numbered[0] != "1":
        return
    seed_organisation(engine, ENTITY, name="SIEGE", address="siege@two.example")
    with engine.connect() as connection:
        facts = mailbox_facts(connection, [ADDRESS])[ADDRESS]
        assert facts.place is not None
        assert facts.place.name == "SIEGE"
        assert ADDRESS not in addresses_at(connection, [SITE])[SITE]


@pytest.mark.parametrize(
    ("kind", "number", "told"),
    [("1", ENTITY, {ADDRESS}), ("3", SIRET, {ADDRESS}), ("1", SITE, set()), ("3", "55555555500013", set())],
)
@pytest.mark.usefixtures("places")
def test_an_upgrade_tells_the_feed_which_mailboxes_come_to_be_seen(
    engine: Engine, database_url: str, kind: str, number: str, told: set[str]
) -> None:
    """Those of places, of people, and of numbers that FINESS does not know are judged as before."""
    seed_practitioner(engine)
    move(engine, kind, number)
    downgrade(engine, "0034")
    run(engine, "DELETE FROM change")
    bring_up.migrate(database_url)
    with transaction(engine) as connection:
        found = read_changes(connection, START, 100)
    assert [(one.entity, one.key, one.urgent) for one in found] == [
        (Entity.MAILBOX, address, False) for address in told
    ]
