"""Who may read what from LDAP, and that nobody but the publisher writes; asked with ldap-utils."""

import os
import shutil
import ssl
import subprocess
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from api.embedded.slapd import EmbeddedSlapd
from directory.base.errors import Refusal
from directory.ldap.client import ClientTls, LdapClient
from directory.ldap.publish import Publisher
from tests.directory.ldap.conftest import SUFFIX, Server, free_port, issue, make_tls
from tests.factories import seed_practitioner

DN = "mail=person-1@one.example,ou=mailboxes,o=sceau,c=fr"
CHANGE = f"dn: {DN}\nchangetype: modify\nreplace: sn\nsn: HACKED\n"


def run(
    *command: str, given: str = "", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **(environment or {})}
    return subprocess.run(command, input=given, capture_output=True, text=True, check=False, env=env)


def search(slapd: EmbeddedSlapd, *rest: str) -> subprocess.CompletedProcess[str]:
    return run("ldapsearch", "-x", "-LLL", "-o", "ldif-wrap=no", "-H", slapd.public_urls[0], *rest)


def test_anybody_finds_a_mailbox_and_gets_a_certificate_openssl_can_read(
    engine: Engine, slapd: EmbeddedSlapd, publisher: Publisher, now: datetime, tmp_path: Path
) -> None:
    person = seed_practitioner(engine)
    issue(engine, person.mailbox)
    publisher.publish_once(now)
    found = search(
        slapd, "-t", "-T", str(tmp_path), "-b", SUFFIX, f"(mail={person.mailbox})", "userCertificate;binary"
    )
    assert "userCertificate;binary:< file://" in found.stdout
    (file,) = (path for path in tmp_path.iterdir() if "userCertificate" in path.name)
    shown = run("openssl", "x509", "-inform", "DER", "-in", str(file), "-noout", "-subject")
    assert person.mailbox in shown.stdout


def test_the_filter_of_direct_clients_finds_it_too(
    engine: Engine, slapd: EmbeddedSlapd, publisher: Publisher, now: datetime
) -> None:
    person = seed_practitioner(engine)
    issue(engine, person.mailbox)
    publisher.publish_once(now)
    root = search(slapd, "-b", "", "-s", "base", "namingContexts")
    assert "namingContexts: o=sceau,c=fr" in root.stdout
    asked = f"(&(mail={person.mailbox})(|(userCertificate;binary=*)(userCertificate=*)))"
    assert f"dn: {DN}" in search(slapd, "-b", SUFFIX, asked, "mail").stdout


def test_the_version_is_nobodys_business(
    engine: Engine, slapd: EmbeddedSlapd, publisher: Publisher, now: datetime
) -> None:
    seed_practitioner(engine)
    publisher.publish_once(now)
    found = search(slapd, "-b", SUFFIX, "(mail=person-1@one.example)", "*", "+")
    assert "entryCSN" in found.stdout
    assert "sceauVersion" not in found.stdout


def test_nobody_gets_more_than_a_hundred_entries_even_page_by_page(
    engine: Engine, slapd: EmbeddedSlapd, publisher: Publisher, now: datetime
) -> None:
    for number in range(1, 121):
        seed_practitioner(engine, number)
    while publisher.publish_once(now).changes:
        pass
    whole = search(slapd, "-b", SUFFIX, "(hcProfession=10)", "mail")
    paged = search(slapd, "-E", "pr=50/noprompt", "-b", SUFFIX, "(hcProfession=10)", "mail")
    asking_for_more = search(slapd, "-z", "1000", "-b", SUFFIX, "(hcProfession=10)", "mail")
    for answer in (whole, paged, asking_for_more):
        assert answer.returncode == 4
        assert 0 < answer.stdout.count("dn: ") <= 100


def test_a_publisher_reads_everything(engine: Engine, publisher: Publisher, now: datetime) -> None:
    for number in range(1, 121):
        seed_practitioner(engine, number)
    while publisher.publish_once(now).changes:
        pass
    assert sum(len(page) for page in publisher.client.walk(SUFFIX, 50)) == 4 + 120


def test_writing_without_a_name_is_refused(
    engine: Engine, slapd: EmbeddedSlapd, publisher: Publisher, now: datetime
) -> None:
    seed_practitioner(engine)
    publisher.publish_once(now)
    changed = run("ldapmodify", "-x", "-H", slapd.public_urls[0], given=CHANGE)
    assert changed.returncode != 0
    entry = publisher.client.read(DN)
    assert entry is not None
    assert entry.attributes["sn"] == (b"MARTIN",)


@pytest.mark.parametrize("password", ["", "secret"])
def test_the_publishers_name_alone_opens_nothing(slapd: EmbeddedSlapd, password: str) -> None:
    bound = run(
        "ldapmodify",
        "-x",
        "-H",
        slapd.public_urls[0],
        "-D",
        f"cn=publisher,{SUFFIX}",
        "-w",
        password,
        given=CHANGE,
    )
    assert bound.returncode != 0
    assert "bind" in bound.stderr.lower()


@pytest.mark.skipif(os.geteuid() != 0, reason="another account can only be taken by root")
def test_another_account_of_the_machine_is_not_the_publisher() -> None:
    # A folder that others may enter, which ours never is.
    folder = Path("/tmp") / f"sceau-test-{os.getpid()}"
    server = Server(EmbeddedSlapd(folder, SUFFIX, port=free_port()))
    try:
        server.start()
        for each in (folder, server.slapd.socket.parent):
            each.chmod(0o755)
        as_nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
        base = f"dn: {SUFFIX}\nobjectClass: organization\no: sceau\n"
        own = run(*as_nobody, "ldapwhoami", "-Q", "-Y", "EXTERNAL", "-H", server.slapd.url)
        added = run(*as_nobody, "ldapadd", "-Q", "-Y", "EXTERNAL", "-H", server.slapd.url, given=base)
        ours = run("ldapadd", "-Q", "-Y", "EXTERNAL", "-H", server.slapd.url, given=base)
    finally:
        server.stop()
        shutil.rmtree(folder)
    assert "cn=peercred" in own.stdout
    assert added.returncode == 50
    assert ours.returncode == 0


def test_the_configuration_is_closed_to_everyone(slapd: EmbeddedSlapd) -> None:
    for bind in (("-x",), ("-Q", "-Y", "EXTERNAL")):
        found = run("ldapsearch", *bind, "-LLL", "-H", slapd.url, "-b", "cn=config")
        assert "dn: " not in found.stdout


def test_ldaps_answers_with_its_certificate_and_only_to_who_trusts_it(slapd: EmbeddedSlapd) -> None:
    assert slapd.tls is not None
    asked = (
        "ldapsearch",
        "-x",
        "-LLL",
        "-H",
        slapd.public_urls[1],
        "-b",
        "",
        "-s",
        "base",
    )
    trusted = run(*asked, environment={"LDAPTLS_CACERT": str(slapd.tls.authority)})
    stranger = run(*asked, environment={"LDAPTLS_CACERT": ssl.get_default_verify_paths().openssl_cafile})
    assert trusted.returncode == 0, trusted.stderr
    assert stranger.returncode != 0


def test_our_client_refuses_a_server_it_cannot_verify(slapd: EmbeddedSlapd, tmp_path: Path) -> None:
    assert slapd.tls is not None
    other = make_tls(tmp_path, "stranger").authority
    client = LdapClient(slapd.public_urls[1], tls=ClientTls(other, slapd.tls.certificate, slapd.tls.key))
    with pytest.raises(Refusal) as refused:
        client.check()
    assert refused.value.code == "ldap-unavailable"
    assert "certificate" in refused.value.text.lower()


def test_our_client_speaks_tls_to_nobody_it_has_no_ca_for(slapd: EmbeddedSlapd) -> None:
    with pytest.raises(Refusal) as refused:
        LdapClient(slapd.public_urls[1])
    assert refused.value.code == "ldap-without-certificate"


def test_a_feed_that_nobody_reads_is_not_what_readers_see(engine: Engine, slapd: EmbeddedSlapd) -> None:
    seed_practitioner(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM change")).scalar_one() > 0
    assert "dn: mail" not in search(slapd, "-b", SUFFIX, "(mail=*)").stdout
