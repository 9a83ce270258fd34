"""LDAP comes in step with the record: quickly, exactly, whatever breaks, whoever else publishes."""

import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from api.embedded.slapd import EmbeddedSlapd
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.feed.changes import START as BEGINNING
from directory.feed.changes import Entity
from directory.feed.readers import lag_seconds, load_cursor
from directory.ldap.client import LdapClient
from directory.ldap.entry import AuthorityEntry, CrlEntry
from directory.ldap.plan import Add, Delete, Modify
from directory.ldap.publish import BATCH, CONSUMER, Publisher, PublishReport
from tests.directory.ldap.conftest import (
    Pki,
    PublisherOf,
    Server,
    certificate,
    crl,
    issue,
    large_crl,
    revoke,
)
from tests.factories import seed_organisation, seed_practitioner
from tests.statements import heard

CERTIFICATE = "userCertificate;binary"


def person_dn(number: int = 1) -> str:
    return f"mail=person-{number}@one.example,ou=mailboxes,o=sceau,c=fr"


def certificates(publisher: Publisher, dn: str) -> tuple[bytes, ...]:
    entry = publisher.client.read(dn)
    assert entry is not None
    return entry.attributes.get(CERTIFICATE, ())


def write(engine: Engine, statement: str, **values: object) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement), values)


def publish_all(publisher: Publisher, now: datetime) -> PublishReport:
    """Passes until nothing is waiting."""
    total = PublishReport()
    while (done := publisher.publish_once(now)).changes:
        total += done
    return total


def test_a_listed_mailbox_appears_with_its_holder_and_certificate(
    engine: Engine, publisher: Publisher, now: datetime
) -> None:
    person = seed_practitioner(engine, family_name="D'ALEMBERT", given_name="Zoé")
    issue(engine, person.mailbox)
    publish_all(publisher, now)
    entry = publisher.client.read(person_dn())
    assert entry is not None
    told = entry.attributes
    assert told["cn"] == ("Zoé D'ALEMBERT".encode(),)
    assert told["uid"] == (person.national_id[1:].encode(), person.national_id.encode())
    assert told["hcProfession"] == (b"10",)
    assert told["sceauDepartment"] == told["st"] == (b"75",)
    assert len(told[CERTIFICATE]) == 1


def test_a_revocation_removes_exactly_that_certificate(
    engine: Engine, publisher: Publisher, now: datetime
) -> None:
    person = seed_practitioner(engine)
    first, second = issue(engine, person.mailbox), issue(engine, person.mailbox)
    publish_all(publisher, now)
    before = certificates(publisher, person_dn())
    revoke(engine, first)
    report = publish_all(publisher, now)
    after = certificates(publisher, person_dn())
    assert report.modified == 1
    assert len(before) == 2
    assert set(after) < set(before)
    assert bytes.fromhex(second) in after[0]


@pytest.mark.parametrize(
    "withdrawal",
    ["UPDATE mailbox SET listed = false", "UPDATE mailbox SET departed_at = now()",
     "UPDATE practitioner SET departed_at = now()", "DELETE FROM practice",
     "UPDATE trusted_domain SET departed_at = now()", "UPDATE operator SET suspended_at = now()"],
)  # fmt: skip
def test_what_may_no_longer_be_found_is_removed(
    engine: Engine, publisher: Publisher, now: datetime, withdrawal: str
) -> None:
    person = seed_practitioner(engine)
    publish_all(publisher, now)
    assert publisher.client.read(person_dn()) is not None
    write(engine, withdrawal)
    publish_all(publisher, now)
    assert publisher.client.read(person_dn()) is None, person


def test_establishments_have_entries_of_their_own(
    engine: Engine, publisher: Publisher, now: datetime
) -> None:
    address = seed_organisation(engine, service="CARDIOLOGIE")
    publish_all(publisher, now)
    place = publisher.client.read("uid=750990012,ou=organizations,o=sceau,c=fr")
    mailbox = publisher.client.read(f"mail={address},ou=mailboxes,o=sceau,c=fr")
    assert place is not None
    assert mailbox is not None
    assert place.attributes["o"] == mailbox.attributes["sn"] == (b"CLINIQUE DES LILAS",)
    assert mailbox.attributes["cn"] == (b"CLINIQUE DES LILAS CARDIOLOGIE",)
    write(engine, "UPDATE organisation SET departed_at = now()")
    publish_all(publisher, now)
    assert publisher.client.read(place.dn) is None
    assert publisher.client.read(mailbox.dn) is None


def test_a_ca_its_newest_crl_and_delta_stand_below_pki(
    engine: Engine, publisher: Publisher, pki: Pki, now: datetime
) -> None:
    pki.authorities = [AuthorityEntry("persons-1", certificate("CA"))]
    pki.crls = [CrlEntry("persons-1", 3, crl(1))]
    tell = "INSERT INTO change (entity, key) VALUES ('crl', 'persons-1/3')"
    write(engine, tell)
    publish_all(publisher, now)
    pki.crls = [CrlEntry("persons-1", 3, crl(2), crl(3))]
    write(engine, tell)
    publish_all(publisher, now)
    authority = publisher.client.read("cn=persons-1,ou=pki,o=sceau,c=fr")
    shard = publisher.client.read("cn=3,cn=persons-1,ou=pki,o=sceau,c=fr")
    assert authority is not None
    assert shard is not None
    assert authority.attributes["cACertificate;binary"] == (pki.authorities[0].certificate,)
    assert shard.attributes["certificateRevocationList;binary"] == (pki.crls[0].crl,)
    assert shard.attributes["deltaRevocationList;binary"] == (pki.crls[0].delta,)


def test_a_crl_of_a_hundred_thousand_entries_fits(
    engine: Engine, publisher: Publisher, pki: Pki, now: datetime
) -> None:
    """Five megabytes in one value, which nothing on the way may cut."""
    pki.authorities = [AuthorityEntry("persons-1", certificate("CA"))]
    whole = large_crl()
    pki.crls = [CrlEntry("persons-1", 3, whole)]
    write(
        engine, "INSERT INTO change (entity, key) VALUES ('authority', 'persons-1'), ('crl', 'persons-1/3')"
    )
    publish_all(publisher, now)
    shard = publisher.client.read("cn=3,cn=persons-1,ou=pki,o=sceau,c=fr")
    assert shard is not None
    assert shard.attributes["certificateRevocationList;binary"] == (whole,)


def test_publishing_again_writes_nothing(engine: Engine, publisher: Publisher, now: datetime) -> None:
    person = seed_practitioner(engine)
    issue(engine, person.mailbox)
    seed_organisation(engine)
    publish_all(publisher, now)
    write(engine, "DELETE FROM feed_cursor")
    again = publish_all(publisher, now)
    assert again.changes > 0
    assert again.written == 0


def test_a_server_that_is_down_loses_no_change_and_holds_nobody_up(
    engine: Engine, own_server: Server, publisher_of: PublisherOf, now: datetime
) -> None:
    publisher = publisher_of(own_server.slapd)
    own_server.stop()
    person = seed_practitioner(engine)
    serial = issue(engine, person.mailbox)
    revoke(engine, serial)
    with pytest.raises(Refusal) as refused:
        publisher.publish_once(now)
    assert refused.value.kind is Kind.UNAVAILABLE
    with transaction(engine) as connection:
        assert load_cursor(connection, CONSUMER) == BEGINNING
        assert lag_seconds(connection, CONSUMER, datetime.now(UTC) + timedelta(hours=1)) > 3500
    own_server.start()
    publish_all(publisher, now)
    assert certificates(publisher, person_dn()) == ()


def test_a_server_killed_again_and_again_converges_in_the_end(
    engine: Engine, own_server: Server, publisher_of: PublisherOf, now: datetime
) -> None:
    publisher = publisher_of(own_server.slapd)
    for number in range(1, 121):
        seed_practitioner(engine, number)
    for _ in range(3):
        killer = threading.Timer(0.05, own_server.kill)
        killer.start()
        until(lambda: not answers(publisher, now))
        killer.join()
        own_server.start()
    publish_all(publisher, now)
    found = [e for page in publisher.client.walk("ou=mailboxes,o=sceau,c=fr") for e in page]
    assert len(found) == 1 + 120


def test_two_publishers_at_once_do_each_thing_once(
    engine: Engine, slapd: EmbeddedSlapd, publisher_of: PublisherOf, now: datetime
) -> None:
    publishers = [publisher_of(slapd), publisher_of(slapd)]
    for number in range(1, 41):
        seed_practitioner(engine, number)
    stop = threading.Event()

    def run(publisher: Publisher) -> int:
        added = 0
        while not stop.is_set():
            added += publisher.publish_once(now).added
        return added

    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(run, publisher) for publisher in publishers]
        time.sleep(1.5)
        stop.set()
        added = sum(run.result() for run in runs)
    assert added == 40


def test_a_revocation_overtakes_a_long_queue(engine: Engine, publisher: Publisher, now: datetime) -> None:
    person = seed_practitioner(engine)
    serial = issue(engine, person.mailbox)
    publish_all(publisher, now)
    write(
        engine,
        "INSERT INTO change (entity, key) SELECT 'mailbox', 'nobody-' || n || '@one.example'"
        " FROM generate_series(1, :many) AS n",
        many=BATCH * 3,
    )
    revoke(engine, serial)
    report = publisher.publish_once(now)
    assert report.more
    assert certificates(publisher, person_dn()) == ()


def test_a_revocation_does_not_wait_for_a_register_import_to_end(
    engine: Engine, publisher: Publisher, now: datetime
) -> None:
    person = seed_practitioner(engine)
    serial = issue(engine, person.mailbox)
    publish_all(publisher, now)
    with engine.connect() as slow, slow.begin() as importing:
        slow.execute(text("INSERT INTO change (entity, key) VALUES ('mailbox', 'x@one.example')"))
        revoke(engine, serial)
        assert publisher.publish_once(now).modified == 1
        assert certificates(publisher, person_dn()) == ()
        # Seen early once, not again and again while the import goes on.
        assert publisher.publish_once(now).changes == 0
        importing.commit()
    assert publisher.publish_once(now).changes == 2


@pytest.mark.parametrize("urgent", [True, False], ids=["many revocations", "much else"])
def test_a_revocation_does_not_wait_for_an_import_however_much_happened_meanwhile(
    engine: Engine, publisher: Publisher, now: datetime, urgent: object
) -> None:
    person = seed_practitioner(engine)
    serial = issue(engine, person.mailbox)
    publish_all(publisher, now)
    with engine.connect() as slow, slow.begin():
        slow.execute(text("INSERT INTO change (entity, key) VALUES ('mailbox', 'x@one.example')"))
        write(
            engine,
            "INSERT INTO change (entity, key, urgent) SELECT 'mailbox', 'nobody-' || n || '@one.example', :u"
            " FROM generate_series(1, :many) AS n",
            many=BATCH * 2,
            u=urgent,
        )
        revoke(engine, serial)
        report = publish_all(publisher, now)
    assert report.changes == BATCH * 2 + 1
    assert certificates(publisher, person_dn()) == ()


def test_a_publisher_with_an_old_picture_overwrites_nothing_newer(
    engine: Engine, publisher: Publisher, now: datetime
) -> None:
    person = seed_practitioner(engine)
    serial = issue(engine, person.mailbox)
    publish_all(publisher, now)
    with transaction(engine, read_only=True) as connection:
        old = publisher.record.wanted(connection, [(Entity.MAILBOX, person.mailbox)], now)
    revoke(engine, serial)
    publish_all(publisher, now)
    with pytest.raises(Refusal) as refused:
        publisher.bring_in_step(old)
    assert refused.value.code == "ldap-newer-than-record"
    assert certificates(publisher, person_dn()) == ()


def test_a_value_ldap_will_not_have_holds_up_nobody_else(
    engine: Engine, publisher: Publisher, pki: Pki, now: datetime
) -> None:
    pki.authorities = [AuthorityEntry("persons-1", b"this is no certificate")]
    write(engine, "INSERT INTO change (entity, key) VALUES ('authority', 'persons-1')")
    seed_practitioner(engine)
    report = publish_all(publisher, now)
    assert [dn for dn, _ in report.refused] == ["cn=persons-1,ou=pki,o=sceau,c=fr"]
    assert publisher.client.read(person_dn()) is not None


def test_an_entry_that_cannot_be_changed_is_written_anew(
    engine: Engine, publisher: Publisher, now: datetime
) -> None:
    person = seed_practitioner(engine)
    publish_all(publisher, now)
    client = publisher.client
    assert isinstance(client, LdapClient)
    # Somebody made it something else altogether; the structural class of an entry cannot be changed.
    client.apply(Delete(person_dn()))
    other = {"objectClass": (b"account", b"sceauMailbox"), "uid": (b"x",), "sceauVersion": (b"1",),
             "mail": (person.mailbox.encode(),), "sceauMailboxKind": (b"PER",)}  # fmt: skip
    client.apply(Add(person_dn(), other))
    write(engine, "UPDATE mailbox SET service = 'X'")
    publish_all(publisher, now)
    entry = client.read(person_dn())
    assert entry is not None
    assert b"inetOrgPerson" in entry.attributes["objectClass"]


def test_a_tree_that_lost_everything_is_filled_again(
    engine: Engine, own_server: Server, publisher_of: PublisherOf, now: datetime
) -> None:
    publisher = publisher_of(own_server.slapd)
    seed_practitioner(engine, 1)
    publish_all(publisher, now)
    own_server.lose_everything()
    seed_practitioner(engine, 2)
    publish_all(publisher, now)
    assert publisher.client.read(person_dn(1)) is not None
    assert publisher.client.read(person_dn(2)) is not None


def answers(publisher: Publisher, now: datetime) -> bool:
    """Whether a pass came to its end."""
    try:
        publisher.publish_once(now)
    except Refusal:
        return False
    return True


def until(holds: Callable[[], bool], patience: float = 10) -> float:
    """Seconds until it holds; fails when it never does."""
    began = time.monotonic()
    while time.monotonic() - began < patience:
        with suppress(Refusal):
            if holds():
                return time.monotonic() - began
        time.sleep(0.01)
    raise AssertionError("it never came to hold")


def test_idle_feeds_cost_few_queries(engine: Engine, publisher: Publisher, now: datetime) -> None:
    seed_practitioner(engine)
    publish_all(publisher, now)
    statements: list[str] = []
    with heard(engine, statements.append):
        publisher.publish_once(now)
    assert len(statements) <= 8


def test_somebody_who_writes_in_between_is_noticed(
    engine: Engine, publisher: Publisher, now: datetime
) -> None:
    seed_practitioner(engine)
    publish_all(publisher, now)
    client = publisher.client
    entry = client.read(person_dn())
    assert entry is not None
    version = entry.attributes["sceauVersion"]
    assert client.apply(Modify(entry.dn, {"sceauVersion": (version, (b"77",))}))
    assert not client.apply(Modify(entry.dn, {"sceauVersion": (version, (b"78",)), "title": ((), (b"PR",))}))


def test_a_late_pass_never_deletes_what_a_newer_one_wrote(
    engine: Engine, publisher: Publisher, now: datetime
) -> None:
    person = seed_practitioner(engine, listed=False)
    with transaction(engine, read_only=True) as connection:
        old = publisher.record.wanted(connection, [(Entity.MAILBOX, person.mailbox)], now)
    write(engine, "UPDATE mailbox SET listed = true")
    publish_all(publisher, now)
    assert old.targets[0].entry is None
    # The server itself refuses, whoever looked when.
    assert not publisher.client.apply(Delete(person_dn(), old.version))
    with pytest.raises(Refusal) as refused:
        publisher.bring_in_step(old)
    assert refused.value.code == "ldap-newer-than-record"
    assert publisher.client.read(person_dn()) is not None
    assert publisher.client.apply(Delete(person_dn(), old.version + 1_000_000))


def test_many_changes_are_written_over_several_connections_and_all_arrive(
    engine: Engine, publisher: Publisher, pki: Pki, now: datetime
) -> None:
    pki.authorities = [AuthorityEntry(f"persons-{n}", certificate(f"CA {n}")) for n in range(9)]
    pki.crls = [CrlEntry(f"persons-{n}", shard, crl(1)) for n in range(9) for shard in range(4)]
    for number in range(1, 61):
        seed_practitioner(engine, number)
    for each in pki.crls:
        write(
            engine,
            "INSERT INTO change (entity, key) VALUES ('crl', :key)",
            key=f"{each.authority_id}/{each.shard}",
        )
    report = publish_all(publisher, now)
    assert (report.added, report.refused) == (60 + 9 + 36, ())
    write(engine, "UPDATE practitioner SET given_name = 'Zoé'")
    assert publish_all(publisher, now).modified == 60


def test_a_lost_tree_is_noticed_without_any_change(
    engine: Engine, own_server: Server, publisher_of: PublisherOf, now: datetime
) -> None:
    publisher = publisher_of(own_server.slapd)
    for number in range(1, 31):
        seed_practitioner(engine, number)
    publish_all(publisher, now)
    own_server.lose_everything()
    assert publisher.publish_once(now).changes == 0
    assert publisher.client.read(person_dn(30)) is not None


def test_a_tree_put_back_from_a_copy_learns_what_it_missed(
    engine: Engine, own_server: Server, publisher_of: PublisherOf, now: datetime
) -> None:
    publisher, copy = publisher_of(own_server.slapd), own_server.slapd.folder / "copy"
    first, second = seed_practitioner(engine, 1), seed_practitioner(engine, 2)
    serial = issue(engine, first.mailbox)
    publish_all(publisher, now)
    own_server.stop()
    shutil.copytree(own_server.slapd.data, copy)
    own_server.start()
    revoke(engine, serial)
    write(engine, "UPDATE mailbox SET departed_at = now() WHERE address = :it", it=second.mailbox)
    publish_all(publisher, now)
    own_server.stop()
    shutil.rmtree(own_server.slapd.data)
    copy.rename(own_server.slapd.data)
    own_server.start()
    assert certificates(publisher, person_dn(1))
    publisher_of(own_server.slapd).drain(now)
    assert not certificates(publisher, person_dn(1))
    assert publisher.client.read(person_dn(2)) is None


def test_a_tree_whose_filling_was_cut_short_is_filled_from_the_start_again(
    engine: Engine, own_server: Server, publisher_of: PublisherOf, now: datetime
) -> None:
    publisher, cut = publisher_of(own_server.slapd), publisher_of(own_server.slapd)
    for number in range(1, 31):
        seed_practitioner(engine, number)
    publish_all(publisher, now)
    own_server.lose_everything()
    cut.record = replace(cut.record, certificates_of=interrupted)
    with pytest.raises(KeyboardInterrupt):
        cut.publish_once(now)
    assert publisher.client.read(person_dn(30)) is None
    publisher.publish_once(now)
    assert publisher.client.read(person_dn(30)) is not None


def interrupted(*_: object) -> dict[str, list[bytes]]:
    raise KeyboardInterrupt


def test_a_country_is_left_to_whoever_can_load_it_whole(
    engine: Engine, own_server: Server, publisher_of: PublisherOf, now: datetime
) -> None:
    publisher = publisher_of(own_server.slapd)
    publisher.fills = 100
    person = seed_practitioner(engine)
    many = (
        "INSERT INTO mailbox (address, kind, holder, row_hash) SELECT n || '@one.example', 'PER', :whose, ''"
    )
    write(engine, f"{many} FROM generate_series(1, :many) AS n", many=BATCH, whose=person.national_id)
    report = publisher.publish_once(now)
    assert report.whole
    assert publisher.client.read(person_dn()) is None
    # A tree with mailboxes in it is followed change by change, however many there are.
    publisher.fills = None
    publisher.publish_once(now)
    publisher.fills = 100
    write(engine, "UPDATE mailbox SET service = 'X'")
    assert not publish_all(publisher, now).whole


def test_a_flood_of_what_is_taken_away_is_left_to_whoever_can_load_the_whole(
    engine: Engine, publisher: Publisher, now: datetime
) -> None:
    person = seed_practitioner(engine)
    many = (
        "INSERT INTO mailbox (address, kind, holder, row_hash) SELECT n || '@one.example', 'PER', :whose, ''"
    )
    write(engine, f"{many} FROM generate_series(1, :many) AS n", many=2 * BATCH, whose=person.national_id)
    publish_all(publisher, now)
    publisher.floods = BATCH
    # Not urgent: followed change by change, however many there are.
    write(engine, "UPDATE mailbox SET service = 'X'")
    assert not publish_all(publisher, now).whole
    # Urgent, and fewer than a flood.
    write(engine, "UPDATE mailbox SET listed = false WHERE address < '2'")
    assert not publish_all(publisher, now).whole
    write(engine, "UPDATE mailbox SET listed = false WHERE address >= '2'")
    assert publisher.publish_once(now).whole
    # Who cannot load a whole tree writes them one by one, the same ones.
    publisher.floods = None
    gone = "mail=2@one.example,ou=mailboxes,o=sceau,c=fr"
    assert publisher.client.read(gone) is not None
    assert publish_all(publisher, now).written > BATCH
    assert publisher.client.read(gone) is None


def test_the_tree_says_which_registers_it_rests_on(
    engine: Engine, slapd: EmbeddedSlapd, publisher: Publisher, now: datetime
) -> None:
    applied = (
        "INSERT INTO register_run"
        " (register, file_name, file_sha256, generated_at, started_at, finished_at, state) VALUES"
        " ('rpps', 'x', sha256('x'), :made, :made, now(), 'applied')"
    )
    for made, said in ((now, b"rpps 20260901120000Z"), (now + timedelta(days=1), b"rpps 20260902120000Z")):
        write(engine, applied, made=made)
        publisher.publish_once(now)
        top = publisher.client.read(slapd.suffix)
        assert top is not None
        assert top.attributes["sceauRegister"] == (said,)
