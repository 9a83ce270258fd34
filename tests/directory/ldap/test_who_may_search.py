"""Who may search LDAP and how much: a token over TLS, while it lives, as far as its quota goes."""

import socket
import time
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, create_engine, text

from api.ldap import gate as ldap_gate
from api.ldap.gate import Gate
from api.rest import practitioners
from api.wiring import Container
from directory import access
from directory.base.audit import Actor
from directory.base.tlv import tlv
from directory.ldap.entry import AuthorityEntry, CrlEntry
from directory.ldap.publish import Publisher
from directory.reading_quotas import Reading, scopes_of
from tests.directory.ldap.conftest import SUFFIX, Guarded, Pki, certificate, large_crl, make_token
from tests.factories import rpps, seed_practitioner

ADDRESS = "person-1@one.example"
PREFIX, EXACT = "(sn=mart*)", f"(mail={ADDRESS})"


@pytest.fixture
def shown(engine: Engine, guarded: Guarded, publisher: Publisher, now: datetime) -> Guarded:
    """One mailbox, and a token to find it with."""
    seed_practitioner(engine)
    publisher.publish_once(now)
    return guarded


def revoke(engine: Engine, token: access.Token, now: datetime) -> None:
    with engine.begin() as connection:
        access.revoke_token(connection, now=now, actor=Actor("test:someone"), token_id=token.id)


def test_a_token_finds_by_beginnings(shown: Guarded) -> None:
    for base in (SUFFIX, "", f"ou=mailboxes,{SUFFIX}"):
        found = shown.search("-b", base, PREFIX, "mail")
        assert (found.returncode, found.stdout.count("dn: ")) == (0, 1)


def test_a_person_is_found_by_the_number_with_and_without_the_digit_of_its_type(shown: Guarded) -> None:
    for number in (rpps(1), rpps(1)[1:]):
        found = shown.search("-b", SUFFIX, f"(uid={number})", "mail")
        assert (found.returncode, found.stdout.count("dn: ")) == (0, 1), number
        assert f"mail: {ADDRESS}\n" in found.stdout
    assert "dn: " not in shown.search("-b", SUFFIX, f"(uid={rpps(2)[1:]})", "mail").stdout


def test_without_a_token_there_is_nothing(shown: Guarded) -> None:
    for asked in (PREFIX, EXACT, "(objectClass=*)"):
        for base, scope in ((SUFFIX, "sub"), (f"mail={ADDRESS},ou=mailboxes,{SUFFIX}", "base")):
            found = shown.run("ldapsearch", "-LLL", "-b", base, "-s", scope, asked)
            assert (found.returncode, found.stdout) == (50, "")


@pytest.mark.parametrize("bound", [False, True])
def test_comparing_does_not_tell_who_is_there_since_it_is_not_counted(shown: Guarded, *, bound: bool) -> None:
    bind = ("-D", shown.name, "-w", shown.secret) if bound else ()
    there, away = (
        shown.run("ldapcompare", *bind, f"mail={address},ou=mailboxes,{SUFFIX}", "sn:MARTIN")
        for address in (ADDRESS, "nobody@one.example")
    )
    assert (there.returncode, there.stdout, there.stderr) == (away.returncode, away.stdout, away.stderr)
    assert "No such object" in there.stderr + there.stdout
    assert "Matched" not in there.stderr + there.stdout


def test_a_filter_longer_than_any_program_writes_is_refused(shown: Guarded) -> None:
    # Thousands of terms keep a thread of slapd busy for seconds, which no time limit ends. It looks at the
    # clock between entries, not between terms. A few such searches at once, and nobody else is answered.
    asked = f"(|{'(cn=*abc*)' * (ldap_gate.LONGEST_FILTER // 10)})"
    assert len(asked) > ldap_gate.LONGEST_FILTER
    found = shown.search("-b", SUFFIX, asked)
    assert (found.returncode, found.stdout) == (11, "")
    assert "shorter" in found.stderr
    one_less = f"(|{'(cn=*abc*)' * (ldap_gate.LONGEST_FILTER // 10 - 1)})"
    assert shown.search("-b", SUFFIX, one_less).returncode == 0


def test_whoever_takes_no_answer_is_hung_up_on(
    engine: Engine, guarded: Guarded, publisher: Publisher, pki: Pki, now: datetime
) -> None:
    # His search waits in one of sixteen threads. Sixteen such, for half a minute each, were the end of
    # the server: it gave no sign of work.
    pki.authorities, whole = [AuthorityEntry("persons-1", certificate("CA"))], large_crl()
    pki.crls = [CrlEntry("persons-1", 0, whole)]
    write = "INSERT INTO change (entity, key) VALUES ('authority', 'persons-1'), ('crl', 'persons-1/0')"
    with engine.begin() as connection:
        connection.execute(text(write))
    publisher.publish_once(now)
    named = f"cn=0,cn=persons-1,ou=pki,{SUFFIX}".encode()
    base = tlv(0x04, named), tlv(0x0A, b"\0"), tlv(0x0A, b"\0"), tlv(0x02, b"\0"), tlv(0x02, b"\0")
    asked = tlv(0x63, *base, tlv(0x01, b"\0"), tlv(0x87, b"objectClass"), tlv(0x30))
    times, got = 4, 0
    with guarded.connected() as reader:
        reader.socket.sendall(b"".join(tlv(0x30, tlv(0x02, bytes([9 + n])), asked) for n in range(times)))
        # Longer than it waits, and far shorter than it waited.
        time.sleep(9)
        with suppress(OSError):
            while part := reader.socket.recv(1 << 20):
                got += len(part)
                if got > times * len(whole):
                    break
        assert 0 < got < times * len(whole)
        reader.socket.close()
        reader.closed = True


def test_another_secret_is_refused(shown: Guarded) -> None:
    for secret in ("sceau_wrong", "x", "é\n\nmethod: 128\n\n", "x" * 9_000):
        assert shown.search("-b", SUFFIX, PREFIX, secret=secret).returncode == 49


def test_a_token_opens_under_its_own_name_alone(engine: Engine, shown: Guarded, now: datetime) -> None:
    other, _ = make_token(engine, now)
    number = shown.token.id
    names = ("cn=999999,ou=tokens,", "cn=publisher,", "cn=x,ou=tokens,", "ou=tokens,", "",
             f"cn={number},ou=mailboxes,", f"cn={number},cn=1,ou=tokens,",
             f"cn=0{number},ou=tokens,", f"cn={other.id},ou=tokens,")  # fmt: skip
    for name in names:
        told = name + SUFFIX
        found = shown.run("ldapsearch", "-D", told, "-w", shown.secret, "-b", SUFFIX, PREFIX)
        assert (found.returncode, found.stdout) == (49, "")


def test_the_roles_that_search_over_rest_search_here(engine: Engine, shown: Guarded, now: datetime) -> None:
    assert set(practitioners.MAY_SEARCH) == ldap_gate.MAY_SEARCH
    admin = replace(
        shown, **dict(zip(("token", "secret"), make_token(engine, now, access.Role.ADMIN), strict=True))
    )
    found = admin.search("-b", SUFFIX, PREFIX)
    assert (found.returncode, found.stdout) == (50, "")


def test_a_revoked_token_reads_no_longer_on_a_connection_it_has(
    engine: Engine, shown: Guarded, now: datetime
) -> None:
    with shown.connected() as connection:
        assert connection.search(SUFFIX, PREFIX)
        revoke(engine, shown.token, now)
        time.sleep(ldap_gate.HOLDS_SECONDS)
        assert not connection.search(SUFFIX, PREFIX)
        assert connection.result["result"] == 49
    assert ldap_gate.HOLDS_SECONDS < 1
    assert shown.search("-b", SUFFIX, PREFIX).returncode == 49


def test_an_expired_token_is_refused(engine: Engine, shown: Guarded, now: datetime) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE api_token SET created_at = :at"), {"at": now - timedelta(days=2)})
        connection.execute(text("UPDATE api_token SET expires_at = :at"), {"at": now - timedelta(days=1)})
    assert shown.search("-b", SUFFIX, PREFIX).returncode == 49


def spend(shown: Guarded, reading: Reading, but: int) -> None:
    """Leave the token so many of its quota, as REST would have."""
    readers = shown.container.readers
    scopes = scopes_of(shown.token, "127.0.0.1", readers.quotas)
    number = min(readers.quotas.of(reading, scope) for scope in scopes) - but
    assert isinstance(readers.charge(shown.token, scopes, reading, number), list)


def test_searches_count_under_the_quota_of_rest(engine: Engine, shown: Guarded) -> None:
    spend(shown, Reading.SEARCHES, but=2)
    answers = [shown.search("-b", SUFFIX, PREFIX, "mail") for _ in range(3)]
    assert [found.returncode for found in answers] == [0, 0, 51]
    assert answers[-1].stdout == ""
    assert "1000 pages of searches" in answers[-1].stderr
    # An exact address is another quota, and is left.
    assert shown.search("-b", SUFFIX, EXACT).returncode == 0
    with engine.connect() as connection:
        told = connection.execute(
            text("SELECT subject FROM audit_pending WHERE event = 'reading-quota.reached'")
        )
        assert told.scalars().all() == [shown.token.actor.name]


def test_exact_addresses_count_as_checked_ones(shown: Guarded) -> None:
    spend(shown, Reading.ADDRESSES, but=1)
    assert [shown.search("-b", SUFFIX, EXACT).returncode for _ in range(2)] == [0, 51]


def test_a_refused_filter_is_counted_too(shown: Guarded) -> None:
    gate, too_long = Gate(shown.container), f"(|{'(cn=*abc*)' * ldap_gate.LONGEST_FILTER})"
    spend(shown, Reading.SEARCHES, but=1)
    codes = [gate.answer(searching(shown.token, too_long)).split(b"\n")[1] for _ in range(2)]
    assert codes == [b"code: 11", b"code: 51"]


def test_what_names_no_address_is_a_search(shown: Guarded) -> None:
    gate = Gate(shown.container)
    spend(shown, Reading.SEARCHES, but=0)
    for asked in ("(mail=a@b.example)", "(&(mail=a@b.example)(objectClass=*))"):
        assert gate.answer(searching(shown.token, asked)) == b"CONTINUE\n"
    for asked in ("(mail=a*)", "(|(mail=a@b.example)(mail=c@b.example))", "(!(mail=a@b.example))", "(cn=a)",
                  "(&(|(mail=a@b.example)(sn=a*))(cn=b*))", "(objectClass=*)"):  # fmt: skip
        assert b"code: 51\n" in gate.answer(searching(shown.token, asked))


def test_nobody_gets_more_than_a_hundred_even_page_by_page(
    engine: Engine, guarded: Guarded, publisher: Publisher, now: datetime
) -> None:
    for number in range(1, 121):
        seed_practitioner(engine, number)
    while publisher.publish_once(now).changes:
        pass
    whole = guarded.search("-b", SUFFIX, "(hcProfession=10)", "mail")
    paged = guarded.search("-E", "pr=50/noprompt", "-b", SUFFIX, "(hcProfession=10)", "mail")
    asking_for_more = guarded.search("-z", "1000", "-b", SUFFIX, "(hcProfession=10)", "mail")
    for answer in (whole, paged, asking_for_more):
        assert answer.returncode == 4
        assert 0 < answer.stdout.count("dn: ") <= 100


def test_the_port_speaks_tls_alone(shown: Guarded) -> None:
    plain = shown.slapd.public_urls[0].replace("ldaps:", "ldap:")
    found = shown.run("ldapsearch", "-H", plain, "-D", shown.name, "-w", shown.secret, "-b", SUFFIX)
    assert "dn: " not in found.stdout
    assert found.returncode != 0


def test_without_the_gate_nobody_reads(shown: Guarded) -> None:
    with shown.connected() as connection:
        shown.slapd.gate.unlink()
        connection.search(SUFFIX, PREFIX)
        assert (connection.result["result"], connection.entries) == (80, [])
    assert "dn: " not in shown.search("-b", SUFFIX, PREFIX).stdout


def cut_off(shown: Guarded) -> Container:
    """Without the record."""
    nowhere = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    made = replace(shown.container, engine=nowhere)
    made.__dict__["readers"] = shown.container.readers
    return made


def test_without_the_record_nobody_reads(shown: Guarded) -> None:
    gate = Gate(cut_off(shown))
    assert b"code: 52\n" in gate.answer(searching(shown.token))
    assert b"code: 52\n" in gate.answer(binding(shown.token, shown.secret))


def searching(
    token: access.Token, asked: str = "(sn=a*)", base: str = SUFFIX, attributes: str = "all"
) -> bytes:
    """A search as slapd puts it."""
    lines = ("SEARCH", "msgid: 2", f"binddn: cn={token.id},ou=tokens,{SUFFIX}",
             "peername: IP=127.0.0.1:40000", "ssf: 256", f"suffix: {SUFFIX}", f"base: {base}", "scope: 2",
             "deref: 0", "sizelimit: 100", "timelimit: 5", f"filter: {asked}", "attrsonly: 0",
             f"attrs: {attributes}")  # fmt: skip
    return "\n".join((*lines, "", "")).encode()


def binding(token: access.Token, secret: str, **other: str) -> bytes:
    """A bind as slapd puts it."""
    told = {"ssf": "256", "method": "128", **other}
    lines = ("BIND", "msgid: 1", "binddn: ", "peername: IP=127.0.0.1:40000", f"ssf: {told['ssf']}",
             f"suffix: {SUFFIX}", f"dn: cn={token.id},ou=tokens,{SUFFIX}", f"method: {told['method']}",
             f"credlen: {len(secret.encode())}", f"cred: {secret}")  # fmt: skip
    return "\n".join((*lines, "", "")).encode()


def test_line_ends_in_what_is_asked_make_it_no_other_question(shown: Guarded) -> None:
    gate = Gate(shown.container)
    assert gate.answer(searching(shown.token)) == b"CONTINUE\n"
    smuggled = "\nfilter: (mail=a@b.example)\nattrsonly: 0\nattrs: all\n"
    for told in (
        {"base": SUFFIX + smuggled},
        {"asked": "(sn=a*)" + smuggled},
        {"attributes": "cn" + smuggled},
    ):
        assert b"code: 2\n" in gate.answer(searching(shown.token, **told))
    for nonsense in (b"", b"\n\n", b"SEARCH\n\n", b"UNBIND\n\n", b"ADD\nmsgid: 1\n\n", b"\xff" * 99):
        assert b"code: 2\n" in gate.answer(nonsense)


def test_a_secret_is_taken_over_tls_by_a_simple_bind_alone(shown: Guarded) -> None:
    gate = Gate(shown.container)
    assert b"code: 0\n" in gate.answer(binding(shown.token, shown.secret))
    assert b"code: 13\n" in gate.answer(binding(shown.token, shown.secret, ssf="0"))
    assert b"code: 7\n" in gate.answer(binding(shown.token, shown.secret, method="163"))


def test_a_gate_says_that_it_is_there(shown: Guarded) -> None:
    assert ldap_gate.answers(shown.slapd.gate)
    with socket.socket(socket.AF_UNIX) as silent:
        path = shown.slapd.gate.with_name("silent")
        silent.bind(str(path))
        assert not ldap_gate.answers(path)
        path.unlink()
    assert not ldap_gate.answers(path)


def test_who_stays_bound_is_not_asked_for_at_each_search(shown: Guarded) -> None:
    gate = Gate(shown.container)
    assert gate.answer(searching(shown.token)) == b"CONTINUE\n"
    gate.container = cut_off(shown)
    assert gate.answer(searching(shown.token)) == b"CONTINUE\n"


def test_a_person_reads_what_is_wrong(shown: Guarded) -> None:
    with shown.connected(bind=False) as connection:
        connection.search(SUFFIX, PREFIX)
        # From the first letter: slapd keeps what stands after the colon, a blank too.
        assert connection.result["message"].startswith("Bind with a token first")


def test_a_question_sent_by_octets_keeps_no_thread(shown: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as there are threads, each never silent for as long as one octet may take."""
    monkeypatch.setattr(ldap_gate, "PATIENCE_SECONDS", 0.3)
    path = shown.slapd.gate.with_name("octets")
    listener = ldap_gate.serve(Gate(shown.container), path)
    slow = [socket.socket(socket.AF_UNIX) for _ in range(ldap_gate.THREADS)]
    try:
        for one in slow:
            one.connect(str(path))
        hung_up_on, until = set(), time.monotonic() + 10
        while len(hung_up_on) < len(slow) and time.monotonic() < until:
            for one in slow:
                try:
                    one.sendall(b"S")
                except OSError:
                    hung_up_on.add(one)
            time.sleep(0.05)
        assert len(hung_up_on) == len(slow)
        assert ldap_gate.answers(path)
    finally:
        for one in slow:
            one.close()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        path.unlink()
