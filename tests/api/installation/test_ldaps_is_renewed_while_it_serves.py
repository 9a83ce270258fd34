"""The LDAPS certificate is renewed under a running slapd: nobody is cut off, no crash leaves half a pair."""

import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from sqlalchemy import Engine

from api.embedded.slapd_readers import GuardedSlapd
from api.installation import ldaps_certificate as service_tls
from api.installation.bring_up import guarded_slapd_of, slapd_of
from api.jobs import ldaps_certificate
from api.settings import Settings
from api.wiring import Container
from directory.base import failpoints
from directory.base.audit import Actor
from directory.base.clock import utc_now
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from pki.ceremony import perform, rollover
from pki.crl import publish as crl
from pki.issuance import for_service
from pki.model import RevocationReason, serial_of
from pki.record import reservations
from pki.revocation import requests
from pki.signing.file import FileKeys
from pki.signing.inprocess import InProcessSigner
from pki.signing.journal import Journal
from tests.directory.ldap.conftest import Running
from tests.pki.hierarchies import BASE_URL, BRIDGES, EVERY, PASSPHRASE, generation, plan, ring
from tests.ports import free_port

ACTOR = Actor("test:someone")
DAY = timedelta(days=1)
# An anonymous bind, then "who am I?" (RFC 4511 4.2, RFC 4532): messages 1 and 2.
BIND = bytes.fromhex("300c020101600702010304008000")
WHO_AM_I = bytes.fromhex("301e020102771980") + b"\x17" + b"1.3.6.1.4.1.4203.1.11.3"


@dataclass
class Machine:
    """One machine with CA and slapd; `at` is what its clock says."""

    settings: Settings
    engine: Engine
    at: datetime
    server: Running[GuardedSlapd]

    def renew(self) -> str:
        """One run of the job, as a worker that has just started."""
        with self.worker() as container:
            return ldaps_certificate.renew(container)

    def start(self) -> None:
        """What `sceau up` does until LDAP serves."""
        with self.worker() as container:
            service_tls.ensure(container, Actor("command:up"))
        slapd_of(self.settings).make()
        self.server.slapd = guarded_slapd_of(self.settings)
        self.server.start()

    def restart_slapd(self) -> None:
        """Killed and started again by the supervisor, with the configuration it had."""
        self.server.kill()
        self.server.process = subprocess.Popen(self.server.slapd.command())
        self.server.slapd.wait_ready()

    def worker(self) -> "Worker":
        return Worker(self)

    def shown(self, *named: str) -> str:
        """The serial that a stranger is shown, after `openssl` has verified the chain to the root."""
        port = str(self.settings.ldaps_port)
        roots = service_tls.files(self.settings.state).authority
        at = str(int(self.at.timestamp()))
        asked = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", str(roots),
                 "-verify_return_error", *(named or ("-verify_ip", "127.0.0.1")), "-attime", at]  # fmt: skip
        told = subprocess.run(asked, capture_output=True, text=True, check=False, input="")
        assert told.returncode == 0, told.stderr + told.stdout
        return serial_of(x509.load_pem_x509_certificate(told.stdout.encode()).serial_number)

    @property
    def kept(self) -> str:
        """The serial that is on disk, after a look whether its key fits."""
        paths = service_tls.files(self.settings.state)
        certificate = x509.load_pem_x509_certificate(paths.certificate.read_bytes())
        assert load_pem_private_key(paths.key.read_bytes(), None).public_key() == certificate.public_key()
        return serial_of(certificate.serial_number)

    @property
    def folders(self) -> set[str]:
        return {one.name for one in service_tls.folder_of(self.settings.state).iterdir()}


@dataclass
class Worker:
    """The container of one process: a journal is held by one at a time."""

    machine: Machine
    journal: Journal | None = None

    def __enter__(self) -> Container:
        one = self.machine
        self.journal = Journal(one.settings.state / "journal.jsonl")
        keys = FileKeys(one.settings.state / "ca", PASSPHRASE)
        signer = InProcessSigner(one.engine, keys, self.journal, clock=lambda: one.at)
        return Container(one.settings, one.engine, signer, lambda: one.at)

    def __exit__(self, *_: object) -> None:
        assert self.journal
        self.journal.close()


@pytest.fixture
def machine(engine: Engine, tmp_path: Path) -> Iterator[Machine]:
    # With a space and an accent, as folders have.
    settings = Settings(
        state=tmp_path / "un état", public_url=BASE_URL, ldap_port=free_port(), ldaps_port=free_port()
    )
    now = utc_now().replace(microsecond=0)
    first = plan(generation(1, roles=EVERY))
    perform.perform(engine, first, ring(settings.state / "ca"), now=now, actor=ACTOR)
    made = Machine(settings, engine, now, Running(guarded_slapd_of(settings)))
    made.start()
    yield made
    made.server.stop()


def connected(machine: Machine) -> ssl.SSLSocket:
    """An LDAPS connection that has been used."""
    trusting = ssl.create_default_context(cafile=str(service_tls.files(machine.settings.state).authority))
    # As Python asks by itself from 3.13 on.
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT
    plain = socket.create_connection(("127.0.0.1", machine.settings.ldaps_port), timeout=10)
    made = trusting.wrap_socket(plain, server_hostname="127.0.0.1")
    made.sendall(BIND)
    assert made.recv(100).hex() == "300c02010161070a010004000400"
    return made


@pytest.mark.parametrize("name", ["localhost", "sceau.localhost"])
def test_clients_of_this_machine_may_write_localhost(machine: Machine, name: str) -> None:
    machine.shown("-verify_hostname", name)


def test_with_time_left_nothing_is_done(machine: Machine) -> None:
    before = machine.shown()
    machine.at += 138 * DAY
    assert machine.renew() == ""
    assert machine.shown() == machine.kept == before


def test_a_new_handshake_shows_the_new_one_and_an_open_connection_lives(machine: Machine) -> None:
    before, process = machine.shown(), machine.server.process
    assert process
    # Where an earlier release kept its one pair.
    for name in ("certificate.pem", "key.pem"):
        (service_tls.folder_of(machine.settings.state) / name).write_text("of an earlier release")
    with connected(machine) as held:
        machine.at += 140 * DAY
        assert "LDAPS shows a new certificate" in machine.renew()
        held.sendall(WHO_AM_I)
        # Success to message 2, and the name of nobody.
        # Success to message 2 (RFC 4511 4.12), and an empty name: nobody.
        assert held.recv(100).hex() == "300e02010278090a0100040004008b00"
    assert machine.shown() == machine.kept != before
    assert process.poll() is None
    assert machine.renew() == ""
    assert machine.folders == {"current", "root.pem", machine.kept}
    machine.restart_slapd()
    assert machine.shown() == machine.kept


@pytest.mark.parametrize("place", ["ldaps.issued", "ldaps.key", "ldaps.pair", "ldaps.switched", "ldaps.told"])
def test_whoever_dies_on_the_way_leaves_a_pair_that_slapd_can_start_with(
    machine: Machine, place: str
) -> None:
    before = machine.shown()
    machine.at += 140 * DAY
    machine.engine.dispose()
    child = os.fork()
    if child == 0:
        failpoints.arm(f"{place}=kill")
        machine.renew()
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == 9
    after = machine.kept
    assert (after != before) == (place in {"ldaps.switched", "ldaps.told"})
    assert machine.shown() == (after if place == "ldaps.told" else before)
    machine.restart_slapd()
    assert machine.shown() == (after if place == "ldaps.told" else before)
    machine.renew()
    assert machine.shown() == machine.kept != before
    assert machine.renew() == ""
    assert machine.folders == {"current", "root.pem", machine.kept}


def test_a_machine_that_lost_power_after_the_switch_starts_with_the_new_one(machine: Machine) -> None:
    before = machine.shown()
    machine.at += 140 * DAY
    failpoints.arm("ldaps.switched=raise")
    with pytest.raises(RuntimeError):
        machine.renew()
    failpoints.arm("")
    machine.server.kill()
    machine.start()
    assert machine.shown() == machine.kept != before


def test_while_slapd_is_down_the_job_says_so_and_makes_no_second_one(machine: Machine) -> None:
    before = machine.shown()
    machine.at += 140 * DAY
    machine.server.kill()
    for _ in range(2):
        with pytest.raises(Refusal) as refused:
            machine.renew()
        assert (refused.value.kind, refused.value.code) == (Kind.UNAVAILABLE, "ldap-unavailable")
    assert machine.folders == {"current", "root.pem", before, machine.kept}
    # The supervisor's restart: what slapd had been told, until it is told anew.
    machine.server.process = subprocess.Popen(machine.server.slapd.command())
    machine.server.slapd.wait_ready()
    assert machine.shown() == before
    assert machine.renew() == "LDAPS shows a new certificate"
    assert machine.shown() == machine.kept != before


def test_a_signer_that_is_away_burns_no_serial(machine: Machine) -> None:
    machine.at += 140 * DAY
    (machine.settings.state / "ca").rename(machine.settings.state / "away")
    with pytest.raises(Refusal) as refused:
        machine.renew()
    assert refused.value.code == "ca-key-missing"
    with machine.engine.connect() as connection:
        assert reservations.unstored(connection, machine.at - DAY, machine.at + DAY) == []


def test_one_that_was_taken_back_is_replaced_at_once(machine: Machine) -> None:
    before = machine.shown()
    with transaction(machine.engine) as connection:
        requests.revoke(
            connection, now=machine.at, actor=ACTOR, serial=serial_of(int(before, 16)),
            reason=RevocationReason.KEY_COMPROMISE,
        )  # fmt: skip
    assert machine.renew() == "LDAPS shows a new certificate: the last one was revoked"
    assert machine.shown() != before


def test_it_follows_a_roll_over_of_its_ca_and_shows_the_roots_of_both(machine: Machine) -> None:
    state = machine.settings.state
    both = plan(generation(1, roles=EVERY), generation(2, roles=EVERY), BRIDGES)
    perform.perform(machine.engine, both, ring(state / "ca"), now=machine.at, actor=ACTOR)
    assert machine.renew() == ""
    with machine.worker() as container:
        crl.publish_due(machine.engine, container.signer, machine.at, timedelta(hours=72))
        for_service.ensure_responder(
            machine.engine, container.signer, authority_id="servers-2", keys_folder=state / "web",
            passphrase=PASSPHRASE, base_url=BASE_URL, now=machine.at,
        )  # fmt: skip
    with transaction(machine.engine) as connection:
        rollover.activate(connection, "servers-2", now=machine.at, actor=ACTOR)
    assert machine.renew() == "LDAPS shows a new certificate: servers-2 issues now"
    chain = x509.load_pem_x509_certificates(service_tls.files(state).certificate.read_bytes())
    assert [one.subject.rfc4514_string().split(",")[0] for one in chain][1] == "CN=Sceau Servers CA 2"
    assert len(x509.load_pem_x509_certificates(service_tls.files(state).authority.read_bytes())) == 2
    assert machine.shown() == machine.kept


def test_a_key_that_does_not_fit_is_never_told_to_slapd(machine: Machine) -> None:
    before, paths = machine.shown(), service_tls.files(machine.settings.state)
    with machine.worker() as container:
        service_tls._make(container, ACTOR)
    other = service_tls.files(machine.settings.state)
    other.key.write_bytes(paths.key.read_bytes())
    assert machine.renew() == "LDAPS shows a new certificate: there was none"
    assert machine.shown() == machine.kept != before


def test_a_slapd_that_was_told_of_a_pair_that_does_not_fit_shows_ours_after_a_renewal(
    machine: Machine,
) -> None:
    slapd = machine.server.slapd
    with pytest.raises(Refusal):
        replace(slapd, tls=replace(slapd.tls, key=slapd.folder / "nothing")).show_certificate()
    # slapd 2.5 shows none then; a later one goes on with the pair that it had, and needs to be told nothing.
    told = "" if slapd.shows_certificate() else "LDAPS shows a new certificate"
    assert machine.renew() == told
    assert machine.shown() == machine.kept


def test_where_sceau_up_has_made_none_the_worker_makes_none(engine: Engine, tmp_path: Path) -> None:
    settings = Settings(state=tmp_path / "state", public_url=BASE_URL)
    container = Container(settings, engine, None, utc_now)  # type: ignore[arg-type]
    assert ldaps_certificate.renew(container) == ""
    assert not settings.state.exists()


def test_nothing_else_of_the_configuration_can_be_changed(machine: Machine) -> None:
    change = "dn: {}\nchangetype: modify\nreplace: {}\n{}\n"
    for dn, name, value in (
        ("cn=config", "olcIdleTimeout", "olcIdleTimeout: 0"),
        ("cn=config", "olcAuthzRegexp", "olcAuthzRegexp: .* cn=publisher"),
        ("olcDatabase={0}config,cn=config", "olcAccess", "olcAccess: to * by * write"),
    ):
        told = subprocess.run(
            ["ldapmodify", "-Q", "-Y", "EXTERNAL", "-H", machine.server.slapd.url],
            input=change.format(dn, name, value), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert told.returncode == 50, told.stderr
