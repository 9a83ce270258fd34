"""A comparison of everything finds what was planted, mends it, and stops before a mass deletion."""

import threading
from collections.abc import Iterable
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from directory.base.audit import Actor
from directory.base.errors import Refusal
from directory.ldap.entry import Entry, digest
from directory.ldap.plan import Add, Delete, Modify, in_step
from directory.ldap.publish import Publisher
from directory.ldap.rebuild import ldif, rebuild
from directory.ldap.reconcile import reconcile
from tests.directory.ldap.conftest import PublisherOf, Server, issue, revoke
from tests.directory.ldap.test_publication import certificates, person_dn, publish_all
from tests.factories import seed_organisation, seed_practitioner


@pytest.fixture
def filled(engine: Engine, publisher: Publisher, now: datetime) -> Publisher:
    """A publisher whose tree holds thirty people with certificates and an establishment."""
    fill(engine, publisher, now)
    return publisher


def fill(engine: Engine, publisher: Publisher, now: datetime) -> None:
    for number in range(1, 31):
        issue(engine, seed_practitioner(engine, number).mailbox)
    seed_organisation(engine)
    publish_all(publisher, now)


def stranger(number: int) -> Add:
    address = f"stranger-{number}@one.example".encode()
    told = {"objectClass": (b"inetOrgPerson", b"sceauMailbox"), "mail": (address,), "cn": (b"X",),
            "sn": (b"X",), "sceauMailboxKind": (b"PER",), "sceauVersion": (b"1",)}  # fmt: skip
    return Add(f"mail={address.decode()},ou=mailboxes,o=sceau,c=fr", told)


def test_a_tree_in_step_has_nothing_to_mend(filled: Publisher, now: datetime) -> None:
    report = reconcile(filled, now=now, apply=False)
    assert report.agrees
    assert report.compared == 32


def test_planted_differences_are_found_then_mended(filled: Publisher, now: datetime) -> None:
    client = filled.client
    client.apply(Delete(person_dn(1)))
    client.apply(Modify(person_dn(2), {"sn": ((b"MARTIN",), (b"HACKED",))}))
    client.apply(Modify(person_dn(3), {"userCertificate;binary": (certificates(filled, person_dn(3)), ())}))
    client.apply(stranger(1))
    client.apply(
        Add("cn=foreign,o=sceau,c=fr", {"objectClass": (b"applicationProcess",), "cn": (b"foreign",)})
    )
    looked = reconcile(filled, now=now, apply=False)
    assert (looked.missing, looked.extra, looked.different, looked.repaired) == (1, 2, 2, 0)
    assert f"missing {person_dn(1)}" in looked.examples
    mended = reconcile(filled, now=now, apply=True)
    assert mended.repaired == 5
    assert reconcile(filled, now=now, apply=False).agrees
    assert len(certificates(filled, person_dn(3))) == 1


def test_a_certificate_the_feed_did_not_tell_of_goes_with_the_comparison(
    engine: Engine, filled: Publisher, now: datetime
) -> None:
    # An update of a certificate, which nothing does, writes no change row.
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE certificate DISABLE TRIGGER append_only"))
        connection.execute(
            text("UPDATE certificate SET mailbox = NULL WHERE mailbox = 'person-4@one.example'")
        )
    report = reconcile(filled, now=now + timedelta(days=1), apply=True)
    assert report.different == report.repaired == 1
    assert certificates(filled, person_dn(4)) == ()


def test_a_change_on_its_way_is_not_taken_for_damage(
    engine: Engine, filled: Publisher, now: datetime
) -> None:
    seed_practitioner(engine, 99)
    report = reconcile(filled, now=now, apply=False)
    assert report.agrees
    assert filled.client.read(person_dn(99)) is not None


def test_deleting_much_stops_before_the_first_and_goes_on_when_forced(
    filled: Publisher, now: datetime
) -> None:
    for number in range(21):
        filled.client.apply(stranger(number))
    with pytest.raises(Refusal) as refused:
        reconcile(filled, now=now, apply=True)
    assert refused.value.code == "too-many-deletions"
    assert filled.client.read(stranger(0).dn) is not None
    assert reconcile(filled, now=now, apply=True, force=True).repaired == 21
    assert reconcile(filled, now=now, apply=False).agrees


def test_a_record_restored_from_a_backup_takes_the_tree_back(
    engine: Engine, filled: Publisher, now: datetime
) -> None:
    entry = filled.client.read(person_dn(1))
    assert entry is not None
    filled.client.apply(Modify(entry.dn, {"sceauVersion": (entry.attributes["sceauVersion"], (b"9" * 18,))}))
    with engine.begin() as connection:
        connection.execute(text("UPDATE mailbox SET service = 'NEW' WHERE address = 'person-1@one.example'"))
    with pytest.raises(Refusal) as refused:
        publish_all(filled, now)
    assert refused.value.code == "ldap-newer-than-record"
    # Another entry agrees but for its version: it is taken back too, or its next change would be refused.
    other = filled.client.read(person_dn(2))
    assert other is not None
    later = Modify(other.dn, {"sceauVersion": (other.attributes["sceauVersion"], (b"9" * 18,))})
    filled.client.apply(later)
    assert reconcile(filled, now=now, apply=True).repaired == 1
    with engine.begin() as connection:
        connection.execute(text("UPDATE mailbox SET service = 'NEWER'"))
    publish_all(filled, now)
    assert reconcile(filled, now=now, apply=False).agrees


def test_a_rebuilt_tree_misses_nothing_committed_meanwhile(
    engine: Engine, own_server: Server, publisher_of: PublisherOf, now: datetime, actor: Actor
) -> None:
    publisher = publisher_of(own_server.slapd)
    fill(engine, publisher, now)
    serial = issue(engine, "person-5@one.example")
    publish_all(publisher, now)
    publisher.client.apply(stranger(1))

    def swap() -> None:
        own_server.stop()
        own_server.slapd.swap()
        own_server.start()

    def load(entries: Iterable[bytes]) -> None:
        own_server.slapd.load(entries)
        # Published into the old tree while the new one was being made.
        revoke(engine, serial)
        publish_all(publisher, now)

    report = rebuild(publisher, now=now, actor=actor, load=load, swap=swap)
    publish_all(publisher, now)
    assert report.entries == 4 + 32
    assert report.seconds_away < 5
    assert publisher.client.read(stranger(1).dn) is None
    assert len(certificates(publisher, person_dn(5))) == 1
    assert reconcile(publisher, now=now, apply=False).agrees
    with engine.connect() as connection:
        events = connection.execute(text("SELECT event FROM audit_pending")).scalars().all()
    assert events == ["ldap.rebuilt"]


def test_a_rebuild_cut_short_after_the_swap_still_learns_of_a_revocation(
    engine: Engine, own_server: Server, publisher_of: PublisherOf, now: datetime, actor: Actor
) -> None:
    publisher = publisher_of(own_server.slapd)
    serial = issue(engine, seed_practitioner(engine).mailbox)
    publish_all(publisher, now)

    def load(entries: Iterable[bytes]) -> None:
        own_server.slapd.load(entries)
        revoke(engine, serial)
        publish_all(publisher, now)

    def swap_and_die() -> None:
        own_server.stop()
        own_server.slapd.swap()
        own_server.start()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rebuild(publisher, now=now, actor=actor, load=load, swap=swap_and_die)
    assert certificates(publisher, person_dn(1))
    publish_all(publisher, now)
    assert not certificates(publisher, person_dn(1))


def test_a_revocation_during_a_rebuild_is_the_first_thing_the_new_tree_learns(
    engine: Engine, own_server: Server, publisher_of: PublisherOf, now: datetime, actor: Actor
) -> None:
    worker, command = publisher_of(own_server.slapd), publisher_of(own_server.slapd)
    serial = issue(engine, seed_practitioner(engine).mailbox)
    publish_all(worker, now)

    def load(entries: Iterable[bytes]) -> None:
        own_server.slapd.load(entries)
        queue = (
            "INSERT INTO change (entity, key) SELECT 'mailbox', n || '@x.example' "
            " FROM generate_series(1, 999) AS n"
        )
        with engine.begin() as connection:
            connection.execute(text(queue))
        revoke(engine, serial)
        publish_all(worker, now)

    def swap() -> None:
        own_server.stop()
        own_server.slapd.swap()
        own_server.start()

    rebuild(command, now=now, actor=actor, load=load, swap=swap)
    assert certificates(worker, person_dn(1))
    assert worker.publish_once(now).more
    assert not certificates(worker, person_dn(1))


def test_two_rebuilds_at_once_are_refused(
    engine: Engine, filled: Publisher, now: datetime, actor: Actor
) -> None:
    def load(_: Iterable[bytes]) -> None:
        rebuild(filled, now=now, actor=actor, load=lambda _: None, swap=lambda: None)

    with pytest.raises(Refusal) as refused:
        rebuild(filled, now=now, actor=actor, load=load, swap=lambda: None)
    assert refused.value.code == "ldap-rebuild-running"
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM audit_pending")).scalar_one() == 0


def test_a_running_server_is_not_swapped(own_server: Server) -> None:
    with pytest.raises(Refusal) as refused:
        own_server.slapd.swap()
    assert refused.value.code == "slapd-running"


def test_the_tree_as_ldif_holds_each_value_safely(engine: Engine, filled: Publisher, now: datetime) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE practitioner SET given_name = :odd"), {"odd": ":é"})
    lines = b"".join(ldif(engine, filled.record, now)).split(b"\n")
    assert lines[:4] == [
        b"dn: o=sceau,c=fr",
        b"objectClass: organization",
        b"objectClass: sceauTree",
        b"o: sceau",
    ]
    assert all(line.isascii() for line in lines)
    assert b"givenName:: OsOp" in lines


def test_publication_goes_on_while_everything_is_compared(
    engine: Engine, filled: Publisher, now: datetime
) -> None:
    stop = threading.Event()
    compared = []

    def compare() -> None:
        while not stop.is_set():
            compared.append(reconcile(filled, now=now, apply=True))

    walker = threading.Thread(target=compare)
    walker.start()
    try:
        for number in range(100, 130):
            seed_practitioner(engine, number)
    finally:
        stop.set()
        walker.join()
    assert compared
    assert all(report.repaired == 0 for report in compared), compared


def test_marks_tell_of_everything_but_what_was_changed_under_the_publishers_own_name(
    filled: Publisher, now: datetime
) -> None:
    client = filled.client
    client.apply(Delete(person_dn(1)))
    entry = client.read(person_dn(2))
    assert entry is not None
    client.apply(Modify(entry.dn, {"sceauDigest": (entry.attributes["sceauDigest"], (b"other",))}))
    client.apply(stranger(1))
    quick = reconcile(filled, now=now, apply=True, quick=True)
    assert (quick.missing, quick.extra, quick.different, quick.repaired) == (1, 1, 1, 3)
    client.apply(Modify(person_dn(3), {"sn": ((b"MARTIN",), (b"HACKED",))}))
    assert reconcile(filled, now=now, apply=False, quick=True).agrees
    assert reconcile(filled, now=now, apply=False).different == 1


def test_another_writers_name_is_looked_into(filled: Publisher) -> None:
    entry = filled.client.read(person_dn(2))
    assert entry is not None
    marks = {"sceauDigest": (digest_of(entry),), "sceauVersion": entry.attributes["sceauVersion"]}
    for writer, fits in ((b"cn=publisher,o=sceau,c=fr", True), (b"cn=admin,o=sceau,c=fr", False)):
        found = Entry(entry.dn, {**marks, "modifiersName": (writer,)})
        assert in_step(bare(entry), found, 1 << 62, "cn=publisher,o=sceau,c=fr") is fits


def bare(entry: Entry) -> Entry:
    """Without what belongs to the act of writing."""
    return Entry(
        entry.dn, {n: v for n, v in entry.attributes.items() if n not in ("sceauVersion", "sceauDigest")}
    )


def digest_of(entry: Entry) -> bytes:
    return digest(bare(entry).attributes)


def test_a_tree_that_misses_a_country_is_left_to_whoever_can_load_it_whole(
    filled: Publisher, now: datetime
) -> None:
    for number in range(1, 31):
        filled.client.apply(Delete(person_dn(number)))
    filled.fills = 10
    report = reconcile(filled, now=now, apply=False)
    assert report.empty
    assert report.missing > 10


def test_a_rebuilt_tree_has_the_marks_of_one_that_was_followed(
    engine: Engine, own_server: Server, publisher_of: PublisherOf, now: datetime, actor: Actor
) -> None:
    publisher = publisher_of(own_server.slapd)
    fill(engine, publisher, now)

    def swap() -> None:
        own_server.stop()
        own_server.slapd.swap()
        own_server.start()

    rebuild(publisher, now=now, actor=actor, load=own_server.slapd.load, swap=swap)
    assert reconcile(publisher, now=now, apply=False, quick=True).agrees
    assert publisher.publish_once(now).written == 0
