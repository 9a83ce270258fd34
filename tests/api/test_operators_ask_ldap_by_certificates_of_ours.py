"""An `operator-client` certificate of our CA opens LDAPS as its operator; nothing else of that CA does.

Real slapds and a real gate, as `sceau up` sets them up. The tree is empty: who may search is told that there
is no such object (32), who may not that he has no accredited certificate (49).
"""

import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from sqlalchemy import Engine, text

from api import ldap_gate, ldaps_renewal, service_tls
from api.embedded.slapd_readers import GuardedSlapd
from api.embedded.sockets import make_folder
from api.first_run import guarded_slapd_of, slapd_of
from api.settings import Settings
from api.wiring import Container
from directory.access import Token
from directory.base.audit import Actor
from directory.base.clock import utc_now
from directory.base.db import transaction
from directory.base.errors import Refusal
from pki import crl, operators, releasing, renewal, roll_over, store, use_cases
from pki.ceremony import making
from pki.ceremony import plan as planned
from pki.client_certificates import operator_shown
from pki.model import Authority, IssuedCertificate, RevocationReason
from pki.profiles import (
    OPERATOR_CLIENT,
    OPERATOR_CLIENT_SHORT,
    OPERATOR_SERVER,
    OPERATOR_SERVER_SHORT,
    Profile,
)
from pki.signing.file import FileKeys
from pki.signing.inprocess import InProcessSigner
from pki.signing.journal import Journal
from tests.directory.ldap.conftest import Running, free_port
from tests.directory.ldap.test_client_certificates import given, made
from tests.factories import OPERATOR, seed_practitioner
from tests.pki.conftest import new_key, request_for
from tests.pki.hierarchies import BASE_URL, BRIDGES, EVERY, PASSPHRASE, generation, plan, ring
from tests.pki.test_operators_certify_their_own_domains import token_of

PEM = serialization.Encoding.PEM
ACTOR = Actor("test:someone")
OTHER = "CN=other,O=Other operator,C=FR"
LET_IN, REFUSED = 32, 49


@dataclass
class Machine:
    """One machine with CAs, LDAPS and its gate; `at` is what the gate's clock says, TLS has the real one."""

    settings: Settings
    engine: Engine
    signer: InProcessSigner
    at: datetime
    server: Running[GuardedSlapd] = field(init=False)
    gate: ldap_gate.Gate = field(init=False)
    tokens: dict[str, Token] = field(default_factory=dict)

    @property
    def container(self) -> Container:
        return Container(self.settings, self.engine, self.signer, lambda: self.at)

    def start(self) -> None:
        service_tls.ensure(self.container, ACTOR)
        slapd_of(self.settings).make()
        self.server = Running(guarded_slapd_of(self.settings))
        self.server.start()

    def certify(
        self, name: str, profile: Profile = OPERATOR_CLIENT, *hosts: str, dn: str = OPERATOR
    ) -> IssuedCertificate:
        """A certificate for the operator of that name on the list, and its key, in files named `name`."""
        key = new_key()
        self.tokens[name] = token_of(self.engine, self.at, dn, name)
        issued = operators.issue(
            self.engine, self.signer, now=self.at, token=self.tokens[name],
            profile=profile.name, csr=request_for(key), hosts=hosts, base_url=BASE_URL,
        )  # fmt: skip
        self.write(name, issued.pem.encode(), key)
        return issued

    def write(self, name: str, shown: bytes, key: Any) -> None:
        self.file(name, "pem").write_bytes(shown)
        secret = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        self.file(name, "key").write_bytes(secret)

    def forge(self, name: str, like: IssuedCertificate, authority: Authority, signed_by: Any) -> None:
        """One of the same subject, which says that this CA made it; shown with that CA's own."""
        key, of = new_key(), x509.load_der_x509_certificate(authority.der)
        points = of.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        named = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(points)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.load_der_x509_certificate(like.der).subject)
            .issuer_name(of.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.at - timedelta(hours=1))
            .not_valid_after(self.at + timedelta(days=1))
            .add_extension(named, critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        )
        certificate = builder.sign(signed_by, hashes.SHA256())
        self.write(name, certificate.public_bytes(PEM) + of.public_bytes(PEM), key)

    def revoke(self, name: str, issued: IssuedCertificate, reason: RevocationReason) -> None:
        with transaction(self.engine) as connection:
            use_cases.revoke_as(
                connection, now=self.at, token=self.tokens[name], serial=issued.serial, reason=reason
            )

    def search(self, name: str) -> int:
        """What ldapsearch ends with when it shows the certificate of that name."""
        files = {"CERT": self.file(name, "pem"), "KEY": self.file(name, "key")}
        files["CACERT"] = service_tls.files(self.settings.state).authority
        environment = {**os.environ, **{f"LDAPTLS_{key}": str(file) for key, file in files.items()}}
        url = f"ldaps://127.0.0.1:{self.settings.ldaps_port}"
        asked = ("ldapsearch", "-Q", "-Y", "EXTERNAL", "-H", url, "-b", self.settings.suffix, "(mail=a@b.c)")
        # The gate holds what it was told for half a second.
        self.gate._live.clear()
        return subprocess.run(asked, capture_output=True, check=False, env=environment).returncode

    def file(self, name: str, kind: str) -> Path:
        return self.settings.state.parent / f"{name}.{kind}"

    def known(self) -> list[Token]:
        """Whom the gate knows by now."""
        return [token for token, _ in self.gate._live.values()]


@pytest.fixture
def roles() -> tuple[str, ...]:
    return EVERY


@pytest.fixture
def machine(engine: Engine, tmp_path: Path, roles: tuple[str, ...]) -> Iterator[Machine]:
    settings = Settings(
        state=tmp_path / "state", public_url=BASE_URL, ldap_port=free_port(), ldaps_port=free_port()
    )
    now = utc_now().replace(microsecond=0)
    with pytest.MonkeyPatch.context() as earlier:
        if "servers" not in roles:
            # As the release before made CAs, whose certificates do not say that they are for mail alone.
            earlier.setattr(planned, "PURPOSES_OF_MAIL_CAS", ())
        first = plan(generation(1, roles=roles))
        making.perform(engine, first, ring(settings.state / "ca"), now=now, actor=ACTOR)
    seed_practitioner(engine)
    seed_practitioner(engine, 2, address="b@other.example", operator=OTHER)
    journal = Journal(settings.state / "journal.jsonl")
    signer = InProcessSigner(engine, FileKeys(settings.state / "ca", PASSPHRASE), journal, clock=lambda: now)
    machine = Machine(settings, engine, signer, now)
    machine.start()
    make_folder(settings.ldap_gate.parent, settings.state)
    machine.gate = ldap_gate.Gate(machine.container)
    listener = ldap_gate.serve(machine.gate, settings.ldap_gate)
    yield machine
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    machine.server.stop()
    journal.close()


@pytest.mark.parametrize("profile", [OPERATOR_CLIENT, OPERATOR_CLIENT_SHORT], ids=lambda one: one.name)
def test_an_operator_binds_while_his_certificate_holds(machine: Machine, profile: Profile) -> None:
    issued = machine.certify("client", profile)
    assert machine.search("client") == LET_IN
    machine.at = issued.not_after
    assert machine.search("client") == REFUSED


def test_one_that_was_taken_back_shuts_out_all_of_its_name_until_it_runs_out(
    machine: Machine, engine: Engine
) -> None:
    stolen = machine.certify("stolen", OPERATOR_CLIENT_SHORT)
    machine.revoke("stolen", stolen, RevocationReason.CERTIFICATE_HOLD)
    assert machine.search("stolen") == REFUSED
    with transaction(engine) as connection:
        releasing.release_as(connection, now=machine.at, token=machine.tokens["stolen"], serial=stolen.serial)
    assert machine.search("stolen") == LET_IN
    machine.certify("next")
    assert machine.search("next") == LET_IN
    machine.revoke("stolen", stolen, RevocationReason.KEY_COMPROMISE)
    # One subject: slapd cannot tell the thief's from the operator's.
    assert [machine.search(name) for name in ("stolen", "next")] == [REFUSED, REFUSED]
    # Of another operator nothing was stolen.
    machine.certify("other", dn=OTHER)
    assert machine.search("other") == LET_IN
    machine.at = stolen.not_after
    assert machine.search("next") == LET_IN


def test_what_a_revoked_ca_certified_opens_nothing(machine: Machine, engine: Engine) -> None:
    machine.certify("client")
    assert machine.search("client") == LET_IN
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO revocation (serial, authority_id, shard, action, reason, actor, revoked_at,"
                " not_after, entry) SELECT c.serial, c.authority_id, c.shard, 'revoke', 'cACompromise',"
                " 'test', :at, c.not_after, '' FROM certificate c JOIN authority a ON a.sha256 = c.sha256"
                " WHERE a.id = 'servers-1'"
            ),
            {"at": machine.at},
        )
    assert machine.search("client") == REFUSED


def test_the_operator_is_neither_suspended_nor_off_the_list(machine: Machine, engine: Engine) -> None:
    machine.certify("client")
    for change, back in (
        ("UPDATE operator SET suspended_at = :at", "UPDATE operator SET suspended_at = NULL"),
        ("UPDATE trusted_domain SET departed_at = :at", "UPDATE trusted_domain SET departed_at = NULL"),
    ):
        with engine.begin() as connection:
            connection.execute(text(change), {"at": machine.at})
        assert machine.search("client") == REFUSED
        with engine.begin() as connection:
            connection.execute(text(back))
        assert machine.search("client") == LET_IN


def test_each_is_counted_as_its_own_operator(machine: Machine, engine: Engine) -> None:
    shown = {}
    for name, dn in (("one", OPERATOR), ("two", OTHER)):
        machine.certify(name, dn=dn)
        assert machine.search(name) == LET_IN
        (token,) = machine.known()
        shown[dn] = token.operator_id
    with engine.connect() as connection:
        listed = connection.execute(text("SELECT certificate_dn, id FROM operator")).all()
    assert shown == {dn: number for dn, number in listed if dn in shown}
    assert len(shown) == 2


@pytest.mark.parametrize("profile", [OPERATOR_SERVER, OPERATOR_SERVER_SHORT], ids=lambda one: one.name)
def test_a_servers_certificate_opens_nothing(machine: Machine, engine: Engine, profile: Profile) -> None:
    machine.certify("client")
    machine.certify("server", profile, "mx.one.example")
    assert machine.search("server") == REFUSED
    # Nor where the trusted list calls an operator so.
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE operator SET certificate_dn = 'cn=MX.one.example' WHERE certificate_dn = :dn"),
            {"dn": OTHER},
        )
    assert machine.search("server") == REFUSED


def test_another_ca_certifies_that_subject_in_vain(machine: Machine) -> None:
    issued, keys = machine.certify("client"), FileKeys(machine.settings.state / "ca", PASSPHRASE)
    with transaction(machine.engine) as connection:
        mail, servers = (store.load_authority(connection, name) for name in ("persons-1", "servers-1"))
    assert mail
    assert servers
    # That subject is made here as it is: by the CA itself it would open.
    machine.forge("made alike", issued, servers, keys.load(servers.key_name))
    assert machine.search("made alike") == LET_IN
    machine.forge("of mail", issued, mail, keys.load(mail.key_name))
    machine.forge("of a thief", issued, servers, new_key())
    for name in ("of mail", "of a thief"):
        assert machine.search(name) not in {LET_IN, 0}, name


def test_only_the_whole_name_is_the_operators(machine: Machine) -> None:
    issued = x509.load_der_x509_certificate(machine.certify("client").der).subject
    machine.certify("other", dn=OTHER)
    own, other = (machine.tokens[one].operator_id for one in ("client", "other"))
    (name,) = issued.get_attributes_for_oid(NameOID.COMMON_NAME)

    def shown(subject: str) -> int | str | None:
        told = subject.format(name=name.value, id=own, other=other)
        with machine.engine.connect() as connection:
            try:
                return operator_shown(connection, told, machine.at).operator_id
            except Refusal as refusal:
                return refusal.code

    for subject in (
        "CN={name},O={name},C=FR,serialNumber=OP-{id}",
        # As slapd tells it.
        "serialNumber=op-{id},cn={name},o={name},c=fr",
        "2.5.4.5=OP-{id},CN={name},O={name},C=FR",
    ):
        assert shown(subject) == own, subject
    # Two operators of one name have two numbers.
    assert shown("serialNumber=OP-{other},CN={name},O={name},C=FR") == other != own
    for subject in (
        "serialNumber=OP-0{id},CN={name},O={name},C=FR",
        "serialNumber=OP-{id}0,CN={name},O={name},C=FR",
        "serialNumber=OP-{other},serialNumber=OP-{id},CN={name},O={name},C=FR",
        "serialNumber=OP-{id},CN={name},O={name},C=FR,OU=x",
        "serialNumber=OP-{id},CN=Somebody,O={name},C=FR",
        "serialNumber=OP-{id}",
        "serialNumber=OP-9999999999999999999999,CN={name},O={name},C=FR",
        "serialNumber=OP-\\FF,CN={name}",
        "OP-{id}",
        "",
    ):
        assert shown(subject) == "unknown-certificate", subject


def test_the_cas_of_a_setting_are_taken_beside_ours(machine: Machine) -> None:
    folder = machine.settings.state.parent
    made(folder, "ca", "/CN=ca", "-addext", "keyUsage=keyCertSign")
    given(folder, "accredited", "/C=FR/O=Other operator/CN=other")
    machine.certify("client")
    assert machine.search("accredited") not in {LET_IN, 0}
    machine.settings = replace(machine.settings, ldap_client_authorities=str(folder / "ca.pem"))
    machine.server.stop()
    machine.start()
    assert [machine.search(name) for name in ("accredited", "client")] == [LET_IN, LET_IN]
    for wrong in ("none.pem", "ca.key"):
        machine.settings = replace(machine.settings, ldap_client_authorities=str(folder / wrong))
        with pytest.raises(Refusal) as refused:
            service_tls.ensure(machine.container, ACTOR)
        assert refused.value.code == "bad-client-authorities"


def follow(machine: Machine, *tables: str, activated: str) -> None:
    """A ceremony, and the CA of that name put to work."""
    state = machine.settings.state
    making.perform(machine.engine, plan(*tables), ring(state / "ca"), now=machine.at, actor=ACTOR)
    crl.publish_due(machine.engine, machine.signer, machine.at, timedelta(hours=72))
    renewal.ensure_responder(
        machine.engine, machine.signer, authority_id=activated, keys_folder=state / "web",
        passphrase=PASSPHRASE, base_url=BASE_URL, now=machine.at,
    )  # fmt: skip
    with transaction(machine.engine) as connection:
        roll_over.activate(connection, activated, now=machine.at, actor=ACTOR)


def test_the_next_ca_for_servers_is_trusted_once_it_issues(machine: Machine) -> None:
    machine.certify("first")
    follow(machine, generation(1, roles=EVERY), generation(2, roles=EVERY), BRIDGES, activated="servers-2")
    assert machine.certify("second").authority_id == "servers-2"
    assert "servers-2 issues now" in ldaps_renewal.renew(machine.container)
    assert [machine.search(name) for name in ("first", "second")] == [LET_IN, LET_IN]


@pytest.mark.parametrize("roles", [("persons", "organisations")])
def test_without_a_ca_for_servers_none_is_taken_until_there_is_one(machine: Machine) -> None:
    assert service_tls.clients_of(machine.settings.state) is None
    machine.certify("before")
    assert machine.search("before") not in {LET_IN, 0}
    follow(machine, generation(1, roles=EVERY), activated="servers-1")
    machine.certify("after")
    assert "servers-1 issues now" in ldaps_renewal.renew(machine.container)
    assert machine.search("after") == LET_IN
    assert machine.search("before") not in {LET_IN, 0}, "a CA for mail is asked for no client"
