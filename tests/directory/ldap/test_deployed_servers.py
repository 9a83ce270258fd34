"""The configuration files under deploy/slapd make a provider and a replica that work together as promised."""

import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import Engine

from api.embedded.slapd_readers import GuardedSlapd, OpenSlapd
from api.jobs import ldap as ldap_job
from api.ldap import gate as ldap_gate
from api.settings import Settings
from api.wiring import Container
from directory import access
from directory.base.audit import Actor
from directory.base.errors import Refusal
from directory.ldap.client import ClientTls, LdapClient
from directory.ldap.entry import base_entries
from directory.ldap.plan import Add, Modify
from directory.ldap.publish import Publisher
from pki.signing.client import SignerClient
from tests.conftest import ROOT
from tests.directory.ldap.conftest import SUFFIX, make_token
from tests.factories import seed_practitioner
from tests.ports import free_port

DEPLOY = ROOT / "deploy" / "slapd"
SCHEMA = ROOT / "directory" / "ldap" / "sceau.ldif"
PEOPLE = {"objectClass": (b"organizationalUnit",), "ou": (b"mailboxes",), "description": (b"first",)}


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@dataclass(frozen=True)
class Names:
    """A CA and the certificates it gave to each of the parties."""

    folder: Path

    @property
    def authority(self) -> Path:
        return self.folder / "ca.pem"

    def make(self) -> None:
        self._request("ca", "-x509", "-addext", "keyUsage=keyCertSign")
        for name in ("provider", "publisher", "replica-1", "stranger"):
            self._request(name, "-CA", str(self.authority), "-CAkey", str(self.folder / "ca.key"))

    def tls(self, name: str) -> ClientTls:
        return ClientTls(self.authority, self.folder / f"{name}.pem", self.folder / f"{name}.key")

    def _request(self, name: str, *how: str) -> None:
        address = () if name == "ca" else ("-addext", "subjectAltName=IP:127.0.0.1",
                                           "-addext", "basicConstraints=critical,CA:FALSE")  # fmt: skip
        openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650",
            "-subj", f"/CN={name}.sceau.example", "-keyout", str(self.folder / f"{name}.key"),
            "-out", str(self.folder / f"{name}.pem"), *address, *(part for part in how if part != "-x509"),
        )  # fmt: skip


def start(stack: ExitStack, folder: Path, kind: str, names: Names, provider_port: int) -> int:
    """A server from its deployed file, in a folder of its own; gives its LDAPS port."""
    port, own = provider_port if kind == "provider" else free_port(), folder / kind
    (own / "data").mkdir(parents=True)
    (own / "config").mkdir()
    party = "provider" if kind == "provider" else "replica-1"  # An open one is another replica.
    text = (DEPLOY / f"{kind}.ldif").read_text()
    for deployed, here in {
        "/etc/sceau/slapd/ca.pem": names.authority,
        "/etc/sceau/slapd/server.pem": names.folder / f"{party}.pem",
        "/etc/sceau/slapd/server.key": names.folder / f"{party}.key",
        "/etc/sceau/slapd/sceau.ldif": SCHEMA,
        "/var/lib/sceau-ldap": own / "data",
        "/run/sceau/ldap-gate": folder / "gate",
        "ldaps://provider.sceau.example:636": f"ldaps://127.0.0.1:{provider_port}",
    }.items():
        text = text.replace(deployed, str(here))
    (own / "config.ldif").write_text(text)
    add = ["/usr/sbin/slapadd", "-n", "0", "-F", str(own / "config"), "-l", str(own / "config.ldif")]
    subprocess.run(add, check=True, capture_output=True)
    scheme = "ldap" if kind == "open" else "ldaps"
    listeners = f"{scheme}://127.0.0.1:{port} ldapi://{quote(str(own / 'ldapi'), safe='')}"
    serve = ["/usr/sbin/slapd", "-F", str(own / "config"), "-h", listeners, "-d", "0"]
    process = subprocess.Popen(serve)
    stack.callback(process.wait, 20)
    stack.callback(process.terminate)
    return port


@dataclass
class Pair:
    """A running provider and replica, and how to speak to each under a name."""

    names: Names
    provider: int
    container: Container
    token: access.Token
    secret: str
    replica: int = 0
    clients: list[LdapClient] = field(default_factory=list)

    def client(self, port: int, name: str) -> LdapClient:
        made = LdapClient(f"ldaps://127.0.0.1:{port}", tls=self.names.tls(name), seconds=5)
        self.clients.append(made)
        return made


@pytest.fixture
def pair(tmp_path: Path, engine: Engine, now: datetime) -> Iterator[Pair]:
    names = Names(tmp_path)
    names.make()
    container = Container(Settings(state=tmp_path), engine, SignerClient(tmp_path / "none"), lambda: now)
    with ExitStack() as stack:
        listener = ldap_gate.serve(ldap_gate.Gate(container), tmp_path / "gate", 0o660)
        stack.callback(listener.close)
        stack.callback(listener.shutdown, socket.SHUT_RDWR)
        provider = start(stack, tmp_path, "provider", names, free_port())
        made = Pair(names, provider, container, *make_token(engine, now))
        plant(made.client(made.provider, "publisher"))
        made.replica = start(stack, tmp_path, "replica", names, made.provider)
        yield made
        for client in made.clients:
            client.close()


def read_from_replica(pair: Pair, dn: str, *, bound: bool = True) -> str:
    """What ldapsearch gets from the replica, with the token or without a name."""
    bind = ("-D", ldap_gate.name_of(pair.token, SUFFIX), "-w", pair.secret) if bound else ()
    asked = ("ldapsearch", "-x", "-LLL", "-H", f"ldaps://127.0.0.1:{pair.replica}", *bind, "-b", dn,
             "-s", "base", "*", "+")  # fmt: skip
    environment = {"LDAPTLS_CACERT": str(pair.names.authority)}
    return subprocess.run(asked, capture_output=True, text=True, check=False, env=environment).stdout


def wait_for(pair: Pair, dn: str, words: str) -> str:
    deadline = time.monotonic() + 20
    while words not in (found := read_from_replica(pair, dn)):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def plant(publisher: LdapClient) -> None:
    """The topmost entry, as soon as the server answers."""
    top = base_entries(SUFFIX)[0]
    deadline = time.monotonic() + 10
    while True:
        try:
            publisher.apply(Add(top.dn, top.attributes))
        except Refusal:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def test_the_publisher_writes_to_the_provider_and_the_replica_follows(pair: Pair) -> None:
    publisher, dn = pair.client(pair.provider, "publisher"), f"ou=mailboxes,{SUFFIX}"
    publisher.apply(Add(dn, PEOPLE))
    wait_for(pair, dn, "description: first")
    assert read_from_replica(pair, dn, bound=False) == ""
    publisher.apply(Modify(dn, {"description": ((b"first",), (b"second",))}))
    assert "description: first" not in wait_for(pair, dn, "description: second")


def test_nobody_but_its_publisher_and_replicas_reads_the_provider(pair: Pair) -> None:
    for name in ("publisher", "replica-1"):
        assert pair.client(pair.provider, name).read(SUFFIX) is not None
    assert pair.client(pair.provider, "stranger").read(SUFFIX) is None
    asked = ("ldapsearch", "-x", "-LLL", "-H", f"ldaps://127.0.0.1:{pair.provider}", "-b", SUFFIX)
    environment = {"LDAPTLS_CACERT": str(pair.names.authority)}
    told = subprocess.run(asked, capture_output=True, text=True, check=False, env=environment)
    assert (told.returncode, told.stdout) == (32, "")


def test_an_open_replica_answers_exact_addresses_alone(pair: Pair, engine: Engine, tmp_path: Path) -> None:
    seed_practitioner(engine)
    publisher = Publisher(
        engine,
        pair.client(pair.provider, "publisher"),
        SUFFIX,
        certificates_of=lambda *_: {},
        authorities_of=lambda _: [],
        crls_of=lambda *_: [],
    )
    publisher.publish_once(pair.container.clock())
    with ExitStack() as stack:
        port = start(stack, tmp_path, "open", pair.names, pair.provider)
        asked = ("ldapsearch", "-x", "-LLL", "-H", f"ldap://127.0.0.1:{port}", "-b", "")
        deadline = time.monotonic() + 20
        while "dn: mail=person-1" not in _told(*asked, "(mail=person-1@one.example)"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for crawling in ("(mail=p*)", "(objectClass=*)", "(sn=MARTIN)", "(!(mail=x@one.example))"):
            assert "dn: " not in _told(*asked, crawling)


def test_what_is_deployed_is_what_a_first_run_has() -> None:
    """Indexes, limits and access rules are the same on one machine and on many."""
    here = ROOT / "api" / "embedded"
    indexes = (here / "indexes.ldif").read_text()
    for kind, files in {"provider": [indexes], "replica": [indexes, *_rules(here / "guarded.ldif")],
                        "open": _rules(here / "open.ldif")}.items():  # fmt: skip
        text = (DEPLOY / f"{kind}.ldif").read_text()
        assert [file for file in files if file.strip() not in text] == []
    # Who takes no answer holds a thread: for a second without a name, for five with one.
    for kind, seconds, reader in (("open", 1, OpenSlapd), ("replica", 5, GuardedSlapd)):
        assert f"\nolcWriteTimeout: {seconds}\n" in (DEPLOY / f"{kind}.ldif").read_text()
        assert seconds == reader.WRITE_SECONDS


def _rules(path: Path) -> list[str]:
    """Access rules and limits, one by one, on the suffix of the deployed files."""
    lines = path.read_text().replace("$suffix", SUFFIX).splitlines()
    return [line for line in lines if line.startswith(("olcAccess", "olcLimits"))]


def _told(*asked: str) -> str:
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout


def test_a_certificate_of_the_same_ca_with_another_name_writes_nothing(pair: Pair) -> None:
    for name in ("stranger", "replica-1"):
        with pytest.raises(Refusal) as refused:
            pair.client(pair.provider, name).apply(Add(f"ou=mailboxes,{SUFFIX}", PEOPLE))
        assert "insufficientAccessRights" in refused.value.text


def test_the_worker_writes_to_the_server_its_settings_name_and_does_not_rebuild_it(
    pair: Pair, engine: Engine, now: datetime, actor: Actor, tmp_path: Path
) -> None:
    person = seed_practitioner(engine)
    settings = Settings(
        state=tmp_path, ldap_url=f"ldaps://127.0.0.1:{pair.provider}", ldap_keys=str(pair.names.folder)
    )
    container = Container(settings, engine, SignerClient(tmp_path / "none"), lambda: now)
    client = ldap_job.publisher_of(container).client
    assert isinstance(client, LdapClient)
    pair.clients.append(client)
    ldap_job.publish(container)
    wait_for(pair, f"mail={person.mailbox},ou=mailboxes,{SUFFIX}", f"uid: {person.national_id}")
    with pytest.raises(Refusal) as refused:
        ldap_job.rebuild(container, actor)
    assert refused.value.code == "ldap-elsewhere"


@pytest.mark.skipif(os.geteuid() != 0, reason="the configuration is changed by root")
@pytest.mark.parametrize("kind", ["provider", "replica"])
def test_a_new_certificate_is_shown_without_a_restart(pair: Pair, kind: str, tmp_path: Path) -> None:
    port = pair.provider if kind == "provider" else pair.replica
    publisher, dn = pair.client(pair.provider, "publisher"), f"ou=mailboxes,{SUFFIX}"
    publisher.apply(Add(dn, PEOPLE))
    wait_for(pair, dn, "description: first")
    before = ssl.get_server_certificate(("127.0.0.1", port))
    text = (DEPLOY / "renewed.ldif").read_text()
    for file in ("server.pem", "server.key"):
        here = pair.names.folder / f"stranger{Path(file).suffix}"
        text = text.replace(f"/etc/sceau/slapd/next/{file}", str(here))
    url = f"ldapi://{quote(str(tmp_path / kind / 'ldapi'), safe='')}"
    asked = ["ldapmodify", "-Q", "-Y", "EXTERNAL", "-H", url]
    subprocess.run(asked, input=text, text=True, check=True, capture_output=True)
    after = ssl.get_server_certificate(("127.0.0.1", port))
    assert before != after == (pair.names.folder / "stranger.pem").read_text()
    # The publisher's connection from before, and the replica's.
    publisher.apply(Modify(dn, {"description": ((b"first",), (b"second",))}))
    wait_for(pair, dn, "description: second")
