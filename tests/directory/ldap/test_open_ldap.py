"""The open LDAP tells one thing: what stands under an exact address. A crawler learns nothing from it."""

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime

import pytest
from sqlalchemy import Engine, text

from api.embedded.slapd_readers import OPEN_FILES, OpenSlapd
from directory.base.tlv import tlv
from directory.ldap.publish import Publisher
from tests.directory.ldap.conftest import SUFFIX, issue
from tests.factories import seed_practitioner

ADDRESS = "person-1@one.example"
MAILBOXES = f"ou=mailboxes,{SUFFIX}"
DN = f"mail={ADDRESS},{MAILBOXES}"
# Without an exact address, each in its own way: by beginning, by part, by presence, by absence, by likeness,
# by order. Then by another attribute, by other rules (RFC 4511 4.5.1.7.7), by the parts of names, by
# everything.
CRAWLING = (
    "(mail=p*)", f"(mail={ADDRESS}*)", "(mail=*@one.example)", "(mail=*erson*)", "(mail=*)",
    "(objectClass=*)",
    "(!(mail=nobody@one.example))", f"(mail~={ADDRESS})", "(mail>=a)", "(mail<=z)", "(cn=*)", "(sn=MARTIN)",
    "(sn=m*)", "(uid=*)", f"(mail:caseExactIA5Match:={ADDRESS})", f"(:dn:mail:={ADDRESS})",
    f"(mail:dn:={ADDRESS})", "(ou:dn:=mailboxes)", "(mail:caseIgnoreIA5SubstringsMatch:=*p*)",
    "(objectClass:dn:=inetOrgPerson)", f"(entryDN={DN})", f"(entryDN:dnSubtreeMatch:={MAILBOXES})",
    "(objectClass=sceauMailbox)", "(objectClass=inetOrgPerson)", "(structuralObjectClass=*)", "(&)", "(|)",
    "(userCertificate=*)", "(userCertificate;binary=*)", "(hasSubordinates=FALSE)", "(entryCSN>=0)",
    "(|(mail=nobody@one.example)(mail=p*))", f"(|(mail={ADDRESS})(objectClass=*))",
    "(&(mail=p*)(objectClass=*))", "(sceauMailboxKind=PER)", "(hcIdentifier=*)",
)  # fmt: skip


@pytest.fixture
def shown(engine: Engine, open_slapd: OpenSlapd, publisher: Publisher, now: datetime) -> OpenSlapd:
    """The open one, over a tree of six mailboxes, the first of them certified."""
    for number in range(1, 7):
        seed_practitioner(engine, number)
    issue(engine, ADDRESS)
    while publisher.publish_once(now).changes:
        pass
    return open_slapd


def search(slapd: OpenSlapd, *rest: str) -> subprocess.CompletedProcess[str]:
    asked = ("ldapsearch", "-x", "-LLL", "-o", "ldif-wrap=no", "-H", slapd.public_urls[0], *rest)
    return subprocess.run(asked, capture_output=True, text=True, check=False, timeout=30)


def test_an_exact_address_is_answered(shown: OpenSlapd) -> None:
    certified = f"(&(mail={ADDRESS})(|(userCertificate;binary=*)(userCertificate=*)))"
    for asked in (f"(mail={ADDRESS})", f"(mail={ADDRESS.upper()})", certified):
        for base in (SUFFIX, "", MAILBOXES):
            found = search(shown, "-b", base, asked)
            assert found.returncode == 0
            assert f"dn: {DN}\n" in found.stdout
            assert "userCertificate;binary:: " in found.stdout
            assert found.stdout.count("dn: ") == 1


def test_a_crawler_learns_nothing(shown: OpenSlapd) -> None:
    told = {asked: search(shown, "-b", SUFFIX, asked).stdout for asked in CRAWLING}
    assert {asked: answer for asked, answer in told.items() if "dn:" in answer} == {}


def test_no_password_can_be_tried(shown: OpenSlapd) -> None:
    root = search(shown, "-b", "", "-s", "base", "supportedSASLMechanisms", "namingContexts").stdout
    assert f"namingContexts: {SUFFIX}" in root
    assert set(re.findall(r"^supportedSASLMechanisms: (.*)$", root, re.MULTILINE)) <= {"EXTERNAL"}


def test_no_entry_is_where_a_search_begins(shown: OpenSlapd) -> None:
    places = [(DN, "base"), (DN, "sub"), (DN, "one"), (MAILBOXES, "base"), (MAILBOXES, "one"),
              (SUFFIX, "base"), (SUFFIX, "one"), (f"ou=pki,{SUFFIX}", "sub"), ("cn=config", "sub"),
              ("cn=Monitor", "sub"),
              ("cn=Subschema", "base")]  # fmt: skip
    for base, scope in places:
        for asked in ("(objectClass=*)", "(userCertificate=*)", "(mail=*)"):
            assert "dn:" not in search(shown, "-b", base, "-s", scope, asked, "*", "+").stdout


def test_a_name_that_exists_is_answered_as_one_that_does_not(shown: OpenSlapd) -> None:
    answers = {
        search(shown, "-b", f"mail={address},{MAILBOXES}", "-s", "base", f"(mail={address})").stderr
        for address in (ADDRESS, "person-1x@one.example")
    }
    assert answers == {"No such object (32)\n"}


def test_no_control_opens_more(shown: OpenSlapd) -> None:
    for control in ("pr=1/noprompt", "sync=ro", "!sync=ro", "!vlv=0/9/1/0", "!sss=mail"):
        for asked in (f"(mail={ADDRESS})", "(mail=p*)", "(objectClass=*)"):
            found = search(shown, "-b", SUFFIX, "-E", control, asked, "mail").stdout
            exact = asked == f"(mail={ADDRESS})"
            assert found.count("dn: ") == found.count(f"dn: {DN}\n") <= exact


def test_nothing_is_compared(shown: OpenSlapd) -> None:
    asked = ("ldapcompare", "-x", "-H", shown.public_urls[0], DN, "sn:MARTIN")
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert "TRUE" not in found.stdout
    assert found.returncode not in (5, 6)


def test_one_entry_is_all_that_several_addresses_get(shown: OpenSlapd) -> None:
    few = "(|(mail=person-1@one.example)(mail=person-2@one.example))"
    found = search(shown, "-b", SUFFIX, few, "mail")
    assert (found.returncode, found.stdout.count("dn: ")) == (4, 1)
    many = "".join(f"(mail=person-{number}@one.example)" for number in range(1, 7))
    found = search(shown, "-b", SUFFIX, f"(|{many})", "mail")
    assert (found.returncode, found.stdout) == (11, "")


def test_no_long_list_of_guesses_is_read(shown: OpenSlapd) -> None:
    guesses = "".join(f"(mail=guess-{number}@one.example)" for number in range(100))
    found = search(shown, "-b", SUFFIX, f"(|(mail={ADDRESS}){guesses})", "mail")
    assert (found.returncode, found.stdout) == (255, "")


def test_what_is_ours_alone_is_not_shown(shown: OpenSlapd) -> None:
    found = search(shown, "-b", SUFFIX, f"(mail={ADDRESS})", "*", "+").stdout
    assert "sn: " in found
    for hidden in ("sceauVersion", "sceauDigest", "sceauPlace", "entryUUID", "entryCSN", "Timestamp",
                   "creatorsName", "modifiersName", "structuralObjectClass"):  # fmt: skip
        assert hidden not in found


def test_no_secret_is_taken_in_clear(shown: OpenSlapd) -> None:
    name = f"cn=1,ou=tokens,{SUFFIX}"
    found = search(shown, "-D", name, "-w", "sceau_x", "-b", SUFFIX, f"(mail={ADDRESS})")
    assert (found.returncode, found.stdout) == (53, "")


def test_there_is_no_tls_to_open_more(shown: OpenSlapd) -> None:
    assert search(shown, "-ZZ", "-b", SUFFIX, f"(mail={ADDRESS})").stdout == ""


def test_a_red_listed_mailbox_is_not_there(
    engine: Engine, shown: OpenSlapd, publisher: Publisher, now: datetime
) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE mailbox SET listed = false WHERE address = :a"), {"a": ADDRESS})
    publisher.publish_once(now)
    assert "dn:" not in search(shown, "-b", SUFFIX, f"(mail={ADDRESS})").stdout


def test_what_is_withdrawn_is_gone_at_once(
    engine: Engine, shown: OpenSlapd, publisher: Publisher, now: datetime
) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE mailbox SET departed_at = now() WHERE address = :a"), {"a": ADDRESS})
    publisher.publish_once(now)
    assert "dn:" not in search(shown, "-b", SUFFIX, f"(mail={ADDRESS})").stdout


def connections(slapd: OpenSlapd, stack: ExitStack) -> Iterator[bool]:
    """Whether slapd answers a search of the root entry, on one connection after the other, all kept open."""
    base = tlv(0x04), tlv(0x0A, b"\0"), tlv(0x0A, b"\0"), tlv(0x02, b"\0"), tlv(0x02, b"\0"), tlv(0x01, b"\0")
    search = tlv(0x63, *base, tlv(0x87, b"objectClass"), tlv(0x30))
    request = tlv(0x30, tlv(0x02, b"\1"), search)
    while True:
        link = stack.enter_context(socket.create_connection(("127.0.0.1", slapd.port), timeout=2))
        link.sendall(request)
        try:
            yield bool(link.recv(16))
        except OSError:
            yield False


def test_connections_are_few_and_their_end_makes_room(shown: OpenSlapd) -> None:
    with ExitStack() as stack:
        each = connections(shown, stack)
        answered = 0
        while next(each):
            answered += 1
            assert answered < OPEN_FILES
        assert answered > OPEN_FILES / 2
    assert f"dn: {DN}\n" in search(shown, "-b", SUFFIX, f"(mail={ADDRESS})").stdout
