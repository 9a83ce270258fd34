"""One slapd for the whole run, wiped before each test that asks; servers apart for tests that kill them.

Certificates are real ones, kept in the tables where `pki` keeps them, whose triggers feed the publisher.
"""

import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Any, Generic, TypeVar

import ldap3
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import Connection, Engine, text

from api.embedded.slapd import EmbeddedSlapd, Slapd, TlsFiles
from api.embedded.slapd_readers import GuardedSlapd, OpenSlapd
from api.ldap import gate as ldap_gate
from api.settings import Settings
from api.wiring import Container
from directory import access
from directory.base.audit import Actor
from directory.ldap.client import LdapClient
from directory.ldap.entry import AuthorityEntry, CrlEntry, key_of
from directory.ldap.plan import Delete
from directory.ldap.publish import Publisher
from pki.certificates import der as encoding
from pki.signing.client import SignerClient
from tests.ports import free_port

SUFFIX = "o=sceau,c=fr"
Kind = TypeVar("Kind", bound=Slapd)
KEY = ec.generate_private_key(ec.SECP256R1())
ISSUER = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")])
START = datetime(2026, 1, 1, tzinfo=UTC)
RUNS_OUT = START + timedelta(days=730)


def certificate(subject: str, serial: int = 0) -> bytes:
    """A certificate in DER, real enough for slapd, which looks inside."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(ISSUER)
        .public_key(KEY.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(START)
        .not_valid_after(RUNS_OUT)
    )
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def crl(number: int) -> bytes:
    """A CRL in DER, the n-th hour's."""
    issued = START + timedelta(hours=number)
    builder = x509.CertificateRevocationListBuilder(ISSUER, issued, issued + timedelta(days=3))
    builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def large_crl() -> bytes:
    """A CRL of some five megabytes, as a hundred thousand entries with their reasons make it."""
    algorithm, start = encoding.sequence(encoding.oid("1.2.840.10045.4.3.2")), encoding.time(START)
    entries = encoding.sequence(encoding.integer(1 << 150), start) * 130_000
    tbs = (encoding.integer(1), algorithm, ISSUER.public_bytes(), start, start, encoding.tlv(0x30, entries))
    return encoding.sequence(encoding.sequence(*tbs), algorithm, encoding.bit_string(b""))


RESERVE = """INSERT INTO reservation (serial, authority_id, profile, shard, mailbox, spki_sha256,
    tbs, tbs_sha256, lints, requested_by, reserved_at)
VALUES (:serial, 'persons-1', 'practitioner-smime', 0, :address, :hash, '', :hash, '{}', 'test', :at)"""
STORE = """INSERT INTO certificate (serial, authority_id, profile, shard, mailbox, subject, spki_sha256,
    der, sha256, not_before, not_after, issued_at)
VALUES (:serial, 'persons-1', 'practitioner-smime', 0, :address, 'CN=x', :hash,
    :der, :hash, :at, :until, :at)"""
REVOKE = """INSERT INTO revocation (serial, authority_id, shard, action, reason, actor, revoked_at,
    not_after, entry)
VALUES (:serial, 'persons-1', 0, 'revoke', 'keyCompromise', 'test', :at, :until, '')"""


def issue(engine: Engine, address: str) -> str:
    """Put a live certificate for `address` where `pki` would; gives its serial."""
    number = x509.random_serial_number()
    der, serial = certificate(address, number), f"{number:040x}"
    row = {"serial": serial, "address": address, "der": der, "hash": sha256(der).digest(), "at": START,
           "until": RUNS_OUT}  # fmt: skip
    with engine.begin() as connection:
        connection.execute(text(RESERVE), row)
        connection.execute(text(STORE), row)
    return serial


def revoke(engine: Engine, serial: str) -> None:
    """What a revocation writes."""
    row = {"serial": serial, "at": START, "until": RUNS_OUT}
    with engine.begin() as connection:
        connection.execute(text(REVOKE), row)


def certificates_of(connection: Connection, addresses: Sequence[str]) -> dict[str, list[bytes]]:
    """Live certificates, from the same tables as `pki` reads."""
    rows = connection.execute(
        text(
            "SELECT mailbox, der FROM certificate c WHERE mailbox = ANY(:addresses)"
            " AND NOT EXISTS (SELECT FROM revocation r WHERE r.serial = c.serial)"
        ),
        {"addresses": list(addresses)},
    )
    held: dict[str, list[bytes]] = {}
    for mailbox, der in rows:
        held.setdefault(mailbox, []).append(der)
    return held


@dataclass
class Pki:
    """CAs and CRLs to hand to a publisher; a test changes them and tells the feed."""

    authorities: list[AuthorityEntry] = field(default_factory=list)
    crls: list[CrlEntry] = field(default_factory=list)

    def authorities_of(self, _: Connection) -> list[AuthorityEntry]:
        return self.authorities

    def crls_of(self, _: Connection, keys: Sequence[str] | None) -> list[CrlEntry]:
        return [c for c in self.crls if keys is None or f"{c.authority_id}/{c.shard}" in keys]


@dataclass
class Running(Generic[Kind]):
    """A slapd and its process: started, stopped, killed."""

    slapd: Kind
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.slapd.make()
        self.process = subprocess.Popen(self.slapd.command())
        self.slapd.wait_ready()

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=20)
            self.process = None

    def lose_everything(self: "Running[EmbeddedSlapd]") -> None:
        self.stop()
        shutil.rmtree(self.slapd.data)
        self.start()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=20)
        self.process = None


Server = Running[EmbeddedSlapd]


def make_tls(folder: Path, name: str = "localhost") -> TlsFiles:
    """A self-signed certificate for this machine, which is its own CA."""
    made = TlsFiles(folder / f"{name}.pem", folder / f"{name}.key", folder / f"{name}.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
               "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
               "-days", "3650", "-keyout", str(made.key), "-out", str(made.certificate)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return made


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(EmbeddedSlapd(tmp_path_factory.mktemp("slapd") / "state", SUFFIX))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def shared_open_server(shared_server: Server) -> Iterator[Running[OpenSlapd]]:
    holder = shared_server.slapd
    server = Running(OpenSlapd(holder.folder.parent / "open", SUFFIX, data=holder.data, port=free_port()))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def shared_guarded_server(shared_server: Server) -> Iterator[Running[GuardedSlapd]]:
    holder, folder = shared_server.slapd, shared_server.slapd.folder.parent
    server = Running(
        GuardedSlapd(
            folder / "guarded",
            SUFFIX,
            data=holder.data,
            gate=folder / "gate",
            tls=make_tls(folder),
            port=free_port(),
        )
    )
    server.start()
    yield server
    server.stop()


@pytest.fixture
def open_slapd(slapd: EmbeddedSlapd, shared_open_server: Running[OpenSlapd]) -> OpenSlapd:
    """Answers anybody from the tree of `slapd`."""
    del slapd
    return shared_open_server.slapd


@dataclass
class Guarded:
    """A slapd that asks a gate, and a token to show it."""

    slapd: GuardedSlapd
    container: Container
    token: access.Token
    secret: str

    @property
    def name(self) -> str:
        """The name to bind under."""
        return ldap_gate.name_of(self.token, SUFFIX)

    @property
    def trust(self) -> dict[str, str]:
        """By what ldap-utils know the server."""
        return {"LDAPTLS_CACERT": str(self.slapd.tls.authority)}

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """One of ldap-utils, told where to ask and which CA to trust."""
        environment = {**os.environ, **self.trust}
        told = (command[0], "-x", "-H", self.slapd.public_urls[0], *command[1:])
        return subprocess.run(told, capture_output=True, text=True, check=False, env=environment)

    def search(self, *rest: str, secret: str | None = None) -> subprocess.CompletedProcess[str]:
        """What ldapsearch gets with the token, or with another secret."""
        bind = ("-D", self.name, "-w", self.secret if secret is None else secret)
        return self.run("ldapsearch", "-LLL", "-o", "ldif-wrap=no", *bind, *rest)

    @contextmanager
    def connected(self, *, bind: bool = True) -> Iterator[ldap3.Connection]:
        """A connection of a client that stays."""
        tls = ldap3.Tls(
            validate=ssl.CERT_REQUIRED,
            ca_certs_file=str(self.slapd.tls.authority),
            # From Python 3.12 on ldap3 compares names by itself, and knows no addresses.
            valid_names=["localhost"],
        )
        server = ldap3.Server(self.slapd.public_urls[0], tls=tls, get_info=ldap3.NONE)
        told = (self.name, self.secret) if bind else ()
        with ldap3.Connection(server, *told, receive_timeout=10) as connection:
            yield connection


def make_token(
    engine: Engine, now: datetime, role: access.Role = access.Role.OPERATOR, **told: Any
) -> tuple[access.Token, str]:
    with engine.begin() as connection:
        return access.create_token(
            connection, now=now, actor=Actor("test:someone"), name=f"ldap {token_hex(4)}", role=role,
            lifetime=timedelta(days=30), **told,
        )  # fmt: skip


@pytest.fixture
def guarded(
    engine: Engine,
    slapd: EmbeddedSlapd,
    shared_guarded_server: Running[GuardedSlapd],
    now: datetime,
    tmp_path: Path,
) -> Iterator[Guarded]:
    """Answers from the tree of `slapd` whom its gate lets in, by the test's database."""
    del slapd
    settings = Settings(state=tmp_path, suffix=SUFFIX)
    container = Container(settings, engine, SignerClient(tmp_path / "none"), lambda: now)
    server = shared_guarded_server.slapd
    listener = ldap_gate.serve(ldap_gate.Gate(container), server.gate)
    yield Guarded(server, container, *make_token(engine, now))
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def slapd(shared_server: Server) -> EmbeddedSlapd:
    """A running slapd with at most base entries in its tree (nobody may delete the topmost)."""
    client = LdapClient(shared_server.slapd.url)
    entries = [entry for page in client.walk(SUFFIX) for entry in page]
    for entry in sorted(entries, key=lambda entry: -len(entry.name)):
        if key_of(entry.name, SUFFIX) is not None:
            client.apply(Delete(entry.dn))
    client.close()
    return shared_server.slapd


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A running slapd that the test may stop, kill and rebuild."""
    server = Server(EmbeddedSlapd(tmp_path / "ldap", SUFFIX))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def pki() -> Pki:
    return Pki()


PublisherOf = Callable[[EmbeddedSlapd], Publisher]


@pytest.fixture
def publisher_of(engine: Engine, pki: Pki) -> Iterator[PublisherOf]:
    """Makes a publisher from the test's database to a server."""
    clients = []

    def make(slapd: EmbeddedSlapd) -> Publisher:
        client = LdapClient(slapd.url, seconds=5)
        lanes = [client.another(), client.another()]
        clients.extend((client, *lanes))
        return Publisher(
            engine,
            client,
            SUFFIX,
            certificates_of=certificates_of,
            authorities_of=pki.authorities_of,
            crls_of=pki.crls_of,
            lanes=lanes,
        )

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def publisher(slapd: EmbeddedSlapd, publisher_of: PublisherOf) -> Publisher:
    return publisher_of(slapd)
