"""What who bound reads from LDAP, and that nobody but the publisher writes; asked with ldap-utils."""

import os
import re
import shutil
import ssl
import subprocess
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from api.embedded.slapd import EmbeddedSlapd
from api.embedded.slapd_readers import OpenSlapd
from directory.base.errors import Refusal
from directory.ldap.client import ClientTls, LdapClient
from directory.ldap.publish import Publisher
from tests.directory.ldap.conftest import SUFFIX, Guarded, Server, issue, make_tls
from tests.factories import seed_practitioner

DN = "mail=person-1@one.example,ou=mailboxes,o=sceau,c=fr"
CHANGE = f"dn: {DN}\nchangetype: modify\nreplace: sn\nsn: HACKED\n"


def run(
    *command: str, given: str = "", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **(environment or {})}
    return subprocess.run(command, input=given, capture_output=True, text=True, check=False, env=env)


def test_who_bound_finds_a_mailbox_and_gets_a_certificate_openssl_can_read(
    engine: Engine, guarded: Guarded, publisher: Publisher, now: datetime, tmp_path: Path
) -> None:
    person = seed_practitioner(engine)
    issue(engine, person.mailbox)
    publisher.publish_once(now)
    found = guarded.search(
        "-t", "-T", str(tmp_path), "-b", SUFFIX, f"(mail={person.mailbox})", "userCertificate;binary"
    )
    assert "userCertificate;binary:< file://" in found.stdout
    (file,) = (path for path in tmp_path.iterdir() if "userCertificate" in path.name)
    shown = run("openssl", "x509", "-inform", "DER", "-in", str(file), "-noout", "-subject")
    assert person.mailbox in shown.stdout


def test_the_filter_of_direct_clients_finds_it_too(
    engine: Engine, guarded: Guarded, publisher: Publisher, now: datetime
) -> None:
    person = seed_practitioner(engine)
    issue(engine, person.mailbox)
    publisher.publish_once(now)
    root = guarded.search("-b", "", "-s", "base", "namingContexts", "supportedSASLMechanisms")
    assert "namingContexts: o=sceau,c=fr" in root.stdout
    assert not re.search("supportedSASLMechanisms: (?!EXTERNAL)", root.stdout), "a password to be tried"
    asked = f"(&(mail={person.mailbox})(|(userCertificate;binary=*)(userCertificate=*)))"
    assert f"dn: {DN}" in guarded.search("-b", SUFFIX, asked, "mail").stdout


def test_the_version_is_nobodys_business(
    engine: Engine, guarded: Guarded, publisher: Publisher, now: datetime
) -> None:
    seed_practitioner(engine)
    publisher.publish_once(now)
    found = guarded.search("-b", SUFFIX, "(mail=person-1@one.example)", "*", "+")
    assert "entryCSN" in found.stdout
    assert "sceauVersion" not in found.stdout


def test_a_publisher_reads_everything(engine: Engine, publisher: Publisher, now: datetime) -> None:
    for number in range(1, 121):
        seed_practitioner(engine, number)
    while publisher.publish_once(now).changes:
        pass
    assert sum(len(page) for page in publisher.client.walk(SUFFIX, 50)) == 4 + 120


def test_writing_is_refused_without_a_name(
    engine: Engine, guarded: Guarded, open_slapd: OpenSlapd, publisher: Publisher, now: datetime
) -> None:
    seed_practitioner(engine)
    publisher.publish_once(now)
    for slapd in (guarded.slapd, open_slapd):
        changed = run("ldapmodify", "-x", "-H", slapd.public_urls[0], given=CHANGE, environment=guarded.trust)
        assert changed.returncode != 0
    entry = publisher.client.read(DN)
    assert entry is not None
    assert entry.attributes["sn"] == (b"MARTIN",)


def test_a_token_writes_nothing(
    engine: Engine, guarded: Guarded, publisher: Publisher, now: datetime
) -> None:
    seed_practitioner(engine)
    publisher.publish_once(now)
    url = guarded.slapd.public_urls[0]
    told = ("ldapmodify", "-x", "-H", url, "-D", guarded.name, "-w", guarded.secret)
    assert run(*told, given=CHANGE, environment=guarded.trust).returncode != 0
    entry = publisher.client.read(DN)
    assert entry is not None
    assert entry.attributes["sn"] == (b"MARTIN",)


@pytest.mark.parametrize("password", ["", "secret"])
def test_the_publishers_name_alone_opens_nothing(guarded: Guarded, password: str) -> None:
    bound = run(
        "ldapmodify",
        "-x",
        "-H",
        guarded.slapd.public_urls[0],
        "-D",
        f"cn=publisher,{SUFFIX}",
        "-w",
        password,
        given=CHANGE,
        environment=guarded.trust,
    )
    assert bound.returncode != 0
    assert "bind" in bound.stderr.lower()


@pytest.mark.skipif(os.geteuid() != 0, reason="another account can only be taken by root")
def test_another_account_of_the_machine_is_not_the_publisher() -> None:
    # A folder that others may enter, which ours never is.
    folder = Path("/tmp") / f"sceau-test-{os.getpid()}"
    server = Server(EmbeddedSlapd(folder, SUFFIX))
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


def test_the_configuration_is_closed_to_everyone(
    slapd: EmbeddedSlapd, open_slapd: OpenSlapd, guarded: Guarded
) -> None:
    for server in (slapd, open_slapd, guarded.slapd):
        for bind in (("-x",), ("-Q", "-Y", "EXTERNAL")):
            for base in ("cn=config", "cn=Monitor"):
                found = run("ldapsearch", *bind, "-LLL", "-H", server.url, "-b", base)
                assert "dn: " not in found.stdout
    assert "dn: " not in guarded.search("-b", "cn=config").stdout


def test_ldaps_answers_with_its_certificate_and_only_to_who_trusts_it(guarded: Guarded) -> None:
    slapd = guarded.slapd
    asked = (
        "ldapsearch",
        "-x",
        "-LLL",
        "-H",
        slapd.public_urls[0],
        "-b",
        "",
        "-s",
        "base",
    )
    trusted = run(*asked, environment={"LDAPTLS_CACERT": str(slapd.tls.authority)})
    stranger = run(*asked, environment={"LDAPTLS_CACERT": ssl.get_default_verify_paths().openssl_cafile})
    assert trusted.returncode == 0, trusted.stderr
    assert stranger.returncode != 0


def test_our_client_refuses_a_server_it_cannot_verify(guarded: Guarded, tmp_path: Path) -> None:
    slapd = guarded.slapd
    other = make_tls(tmp_path, "stranger").authority
    client = LdapClient(slapd.public_urls[0], tls=ClientTls(other, slapd.tls.certificate, slapd.tls.key))
    with pytest.raises(Refusal) as refused:
        client.check()
    assert refused.value.code == "ldap-unavailable"
    assert "certificate" in refused.value.text.lower()


def test_our_client_speaks_tls_to_nobody_it_has_no_ca_for(guarded: Guarded) -> None:
    with pytest.raises(Refusal) as refused:
        LdapClient(guarded.slapd.public_urls[0])
    assert refused.value.code == "ldap-without-certificate"


def test_a_feed_that_nobody_reads_is_not_what_readers_see(engine: Engine, guarded: Guarded) -> None:
    seed_practitioner(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM change")).scalar_one() > 0
    assert "dn: mail" not in guarded.search("-b", SUFFIX, "(mail=*)").stdout
