"""A generation of CAs follows another: readers with either root alone go on verifying what both issue."""

import asyncio
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import pytest
from asn1crypto import x509 as asn1
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from pyhanko_certvalidator import CertificateValidator, ValidationContext
from sqlalchemy import Engine

from api.status.wsgi import StatusApplication
from directory.base.audit import Actor
from directory.base.clock import utc_now
from directory.base.db import transaction
from directory.base.errors import Refusal
from directory.feed.changes import Entity
from pki.ceremony import intake, offline, perform, rollover
from pki.ceremony.plan import Place
from pki.crl import publish as crl
from pki.crl import store as crl_store
from pki.issuance import for_enrolment, for_service
from pki.model import AuthorityState, IssuedCertificate, RevocationReason, serial_of
from pki.monitoring import service_expiry
from pki.ocsp import store as ocsp_store
from pki.publication import store as published
from pki.publication.values import public_values
from pki.record import authorities as authority_rows
from pki.revocation import requests
from pki.signing.inprocess import InProcessSigner
from pki.signing.journal import Journal
from tests.factories import seed_practitioner
from tests.pki.conftest import enrol, new_key, request_for
from tests.pki.hierarchies import BASE_URL, BRIDGES, EVERY, PASSPHRASE, generation, plan, ring

ACTOR = Actor("test:roll-over")


@dataclass
class Authorities:
    """Two generations of CAs with their signer; the second stands by."""

    engine: Engine
    folder: Path
    now: datetime
    signer: InProcessSigner

    def hold(self, *tables: str) -> perform.Outcome:
        keys = ring(self.folder / "keys")
        return perform.perform(self.engine, plan(*tables), keys, now=self.now, actor=ACTOR)

    def publish(self) -> None:
        crl.publish_due(self.engine, self.signer, self.now, timedelta(hours=72))

    def responder(self, authority_id: str) -> None:
        for_service.ensure_responder(
            self.engine, self.signer, authority_id=authority_id, keys_folder=self.folder / "web",
            passphrase=PASSPHRASE, base_url=BASE_URL, now=self.now,
        )  # fmt: skip

    def turn(self, act: object, authority_id: str) -> None:
        with transaction(self.engine) as connection:
            act(connection, authority_id, now=self.now, actor=ACTOR)  # type: ignore[operator]

    def activate(self, authority_id: str) -> None:
        self.turn(rollover.activate, authority_id)

    def refused(self, act: object, authority_id: str) -> Refusal:
        with pytest.raises(Refusal) as refused:
            self.turn(act, authority_id)
        return refused.value

    def issue(self, number: int) -> IssuedCertificate:
        who = enrol(self.engine, self.now, seed_practitioner(self.engine, number))
        return for_enrolment.issue_for_enrolment(
            self.engine, self.signer, now=self.now, token=who.first, enrolment_id=who.id,
            csr=request_for(new_key()), base_url=BASE_URL,
        )  # fmt: skip

    def state(self, authority_id: str) -> AuthorityState:
        with self.engine.connect() as connection:
            found = authority_rows.load_authority(connection, authority_id)
        assert found
        return found.state


@pytest.fixture
def now() -> datetime:
    # certtool knows no other day than today.
    return utc_now().replace(microsecond=0)


@pytest.fixture
def authorities(engine: Engine, tmp_path: Path, now: datetime) -> Iterator[Authorities]:
    journal = Journal(tmp_path / "journal.jsonl")
    keys = ring(tmp_path / "keys").places[Place.FILE]
    made = Authorities(engine, tmp_path, now, InProcessSigner(engine, keys, journal, clock=lambda: made.now))
    made.hold(generation(1, roles=EVERY))
    yield made
    journal.close()


@pytest.fixture
def both(authorities: Authorities) -> Authorities:
    authorities.hold(generation(1, roles=EVERY), generation(2, roles=EVERY), BRIDGES)
    return authorities


def fetched(engine: Engine, url: str) -> list[x509.Certificate]:
    """What somebody gets who follows a caIssuers URL of ours."""
    application = StatusApplication(engine, keys_folder=Path(), passphrase=PASSPHRASE, hours=8)
    environ: dict[str, object] = {"PATH_INFO": url.removeprefix(BASE_URL)}
    setup_testing_defaults(environ)
    told: list[str] = []
    body = b"".join(
        application(environ, lambda status, headers: told.extend([status, dict(headers)["Content-Type"]]))
    )
    assert told[0] == "200 OK"
    if url.endswith(".p7c"):
        assert told[1] == "application/pkcs7-mime"
        return pkcs7.load_der_pkcs7_certificates(body)
    return [x509.load_der_x509_certificate(body)]


def followed(engine: Engine, leaf: x509.Certificate) -> list[x509.Certificate]:
    """Every certificate that caIssuers URLs lead to from this one: nothing else is known to the reader.

    Self-signed ones are left out, as OpenSSL's -untrusted wants it.
    """
    found: list[x509.Certificate] = []
    waiting = [leaf]
    while waiting:
        try:
            access = waiting.pop().extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
        except x509.ExtensionNotFound:
            continue
        urls = [str(one.access_location.value) for one in access]
        for url in urls:
            if "/ca/" in url:
                new = [one for one in fetched(engine, url) if one not in found]
                found += [one for one in new if one.subject != one.issuer]
                waiting += new
    return found


def pem(folder: Path, name: str, certificates: list[x509.Certificate]) -> Path:
    path = folder / name
    path.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in certificates))
    return path


@pytest.mark.parametrize("root", ["root-1", "root-2"])
def test_a_reader_with_one_root_alone_verifies_certificates_of_both_generations(
    both: Authorities, root: str, tmp_path: Path
) -> None:
    old = both.issue(1)
    both.publish()
    both.responder("persons-2")
    both.activate("persons-2")
    new = both.issue(2)
    assert (old.authority_id, new.authority_id) == ("persons-1", "persons-2")
    anchor = fetched(both.engine, f"{BASE_URL}/ca/{root}.cer")
    at = both.now + timedelta(minutes=1)
    for issued in (old, new):
        leaf = x509.load_der_x509_certificate(issued.der)
        others = [one for one in followed(both.engine, leaf) if one not in anchor]
        files = (
            pem(tmp_path, "anchor.pem", anchor),
            pem(tmp_path, "others.pem", others),
            pem(tmp_path, "leaf.pem", [leaf]),
            lists(both, tmp_path),
        )
        assert_openssl_verifies(*files, at)
        assert_pyhanko_verifies(anchor, others, leaf, at)


def lists(both: Authorities, folder: Path) -> Path:
    """Every complete CRL there is, in PEM."""
    made = b""
    with both.engine.connect() as connection:
        for one in authority_rows.authorities(connection):
            for shard in range(one.shards):
                found = crl_store.latest(connection, one.id, shard)
                if found is not None:
                    made += x509.load_der_x509_crl(found.der).public_bytes(Encoding.PEM)
    path = folder / "lists.pem"
    path.write_bytes(made)
    return path


def assert_openssl_verifies(anchor: Path, others: Path, leaf: Path, crls: Path, at: datetime) -> None:
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-crl_check_all", "-extended_crl", "-attime",
         str(int(at.timestamp())), "-CAfile", str(anchor), "-untrusted", str(others), "-CRLfile", str(crls),
         str(leaf)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == f"{leaf}: OK\n", done.stderr


@pytest.mark.parametrize("root", ["root-1", "root-2"])
def test_gnutls_verifies_both_generations_with_one_root_alone(
    both: Authorities, root: str, tmp_path: Path
) -> None:
    anchor = fetched(both.engine, f"{BASE_URL}/ca/{root}.cer")
    for name in ("persons-1", "persons-2"):
        both.responder(name)
        with both.engine.connect() as connection:
            known = ocsp_store.responders(connection, both.now)
        (leaf,) = [x509.load_der_x509_certificate(one.der) for one in known if one.authority_id == name]
        chain = [leaf, *ordered(leaf, followed(both.engine, leaf), anchor)]
        done = subprocess.run(
            ["certtool", "--verify", "--load-ca-certificate", str(pem(tmp_path, "ca.pem", anchor)),
             "--infile", str(pem(tmp_path, "chain.pem", chain))],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "Chain verification output: Verified" in done.stdout, done.stdout + done.stderr


def ordered(
    leaf: x509.Certificate, others: list[x509.Certificate], anchor: list[x509.Certificate]
) -> list[x509.Certificate]:
    """The path that certtool wants in order: it does not search."""
    path, last = [], leaf
    while last.issuer != anchor[0].subject:
        above = [one for one in others if one.subject == last.issuer and one.issuer != one.subject]
        last = above[0]
        path.append(last)
    return path


def assert_pyhanko_verifies(
    anchor: list[x509.Certificate], others: list[x509.Certificate], leaf: x509.Certificate, at: datetime
) -> None:
    def theirs(one: x509.Certificate) -> asn1.Certificate:
        return asn1.Certificate.load(one.public_bytes(Encoding.DER))

    context = ValidationContext(
        trust_roots=[theirs(one) for one in anchor], other_certs=[theirs(one) for one in others], moment=at,
        allow_fetching=False,
    )  # fmt: skip
    validator = CertificateValidator(theirs(leaf), validation_context=context)
    path = asyncio.run(validator.async_validate_usage(set()))
    assert path.leaf.sha256 == theirs(leaf).sha256


def test_without_the_bridge_a_reader_of_the_old_root_would_be_cut_off(
    authorities: Authorities, tmp_path: Path
) -> None:
    """The test above could pass for another reason than the bridge: here is none."""
    authorities.hold(generation(1, roles=EVERY), generation(2, roles=EVERY))
    authorities.publish()
    authorities.responder("persons-2")
    refused = authorities.refused(rollover.activate, "persons-2")
    assert refused.code == "not-ready"
    assert refused.details["lacking"] == ["root-1 and root-2 have not certified each other"]
    anchor = fetched(authorities.engine, f"{BASE_URL}/ca/root-1.cer")
    (leaf,) = fetched(authorities.engine, f"{BASE_URL}/ca/persons-2.cer")
    done = subprocess.run(
        ["openssl", "verify", "-CAfile", str(pem(tmp_path, "anchor.pem", anchor)), "-untrusted",
         str(pem(tmp_path, "others.pem", followed(authorities.engine, leaf))),
         str(pem(tmp_path, "leaf.pem", [leaf]))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0


def test_a_next_generation_stands_by_until_everything_about_it_is_published(both: Authorities) -> None:
    assert both.state("persons-2") is AuthorityState.STANDBY
    assert both.issue(1).authority_id == "persons-1"
    lacking = both.refused(rollover.activate, "persons-2").details["lacking"]
    assert lacking == [
        "16 of its 16 CRL shards are not published",
        "it has no OCSP responder",
        "the CRL of root-2 is not published",
    ]
    both.publish()
    both.responder("persons-2")
    both.activate("persons-2")
    assert both.issue(2).authority_id == "persons-2"


def test_a_retired_ca_issues_no_more_and_its_lists_and_answers_go_on(both: Authorities) -> None:
    issued = both.issue(1)
    both.publish()
    both.responder("persons-2")
    both.activate("persons-2")
    both.turn(rollover.retire, "persons-1")
    assert both.state("persons-1") is AuthorityState.RETIRED
    with both.engine.connect() as connection:
        before = crl_store.latest(connection, "persons-1", issued.shard)
    # A shard's delta goes first, the whole of it with the next run.
    for later in (timedelta(hours=2), timedelta(minutes=1)):
        both.now += later
        both.publish()
    both.responder("persons-1")
    with both.engine.connect() as connection:
        after = crl_store.latest(connection, "persons-1", issued.shard)
    assert before
    assert after
    assert after.number > before.number


def test_the_last_of_its_role_does_not_retire(both: Authorities) -> None:
    assert both.refused(rollover.retire, "persons-1").code == "last-of-its-role"
    both.turn(rollover.retire, "persons-2")
    assert both.refused(rollover.retire, "persons-2").code == "already-retired"


def test_activating_what_is_active_a_root_or_nothing_is_refused(both: Authorities) -> None:
    for name, code in (
        ("persons-1", "already-active"),
        ("root-1", "not-an-issuing-authority"),
        ("persons-9", "unknown-authority"),
    ):
        assert both.refused(rollover.activate, name).code == code


def test_both_generations_and_the_bridges_are_told_and_shown(both: Authorities) -> None:
    names = [
        "root-1", "root-2", "persons-1", "persons-2", "organisations-2", "root-1-by-root-2",
        "root-2-by-root-1",
    ]  # fmt: skip
    with both.engine.connect() as connection:
        shown = public_values(connection, [(Entity.AUTHORITY, name) for name in names], both.now)
        told = connection.exec_driver_sql("SELECT DISTINCT key FROM change WHERE entity = 'authority'")
        assert set(names) <= set(told.scalars())
        in_ldap = {name for name, _ in published.authorities(connection)}
    assert len(shown) == len(names)
    assert set(names) <= in_ldap


def test_a_bridge_ends_with_either_root_at_the_latest(authorities: Authorities) -> None:
    with authorities.engine.connect() as connection:
        root = authority_rows.load_authority(connection, "root-1")
    assert root
    authorities.now = root.not_after - timedelta(days=3000)
    with pytest.raises(Refusal) as refused:
        authorities.hold(generation(1, roles=EVERY), generation(2, roles=EVERY), BRIDGES)
    assert refused.value.code == "beyond-issuer"


def test_a_revoked_ca_issues_no_more(both: Authorities) -> None:
    (der,) = [one.public_bytes(Encoding.DER) for one in fetched(both.engine, f"{BASE_URL}/ca/persons-1.cer")]
    serial = serial_of(x509.load_der_x509_certificate(der).serial_number)
    with transaction(both.engine) as connection:
        requests.revoke(
            connection, now=both.now, actor=ACTOR, serial=serial, reason=RevocationReason.CA_COMPROMISE
        )
    with pytest.raises(Refusal) as refused:
        both.issue(1)
    assert refused.value.code == "unknown-authority"


def test_an_offline_root_without_its_crl_turns_health_red(engine: Engine, tmp_path: Path) -> None:
    at = utc_now().replace(microsecond=0)
    wanted = plan(generation(1, place="offline", roots_only=True))
    away = ring(tmp_path / "offline", Place.OFFLINE)
    offline.sign_all(wanted, away, tmp_path, at)
    content = (tmp_path / "root-1.cer").read_bytes()
    intake.take_certificate(
        engine, wanted, ring(tmp_path / "here"), content, now=at, actor=ACTOR,
        fingerprint=x509.load_pem_x509_certificate(content).fingerprint(hashes.SHA256()).hex(),
    )  # fmt: skip
    with engine.connect() as connection:
        (missing,) = [one for one in service_expiry.ours(connection, at) if one.name == "root-1/0"]
        assert rollover.root_crl_ends(connection) == missing.ends
    assert missing.condition(at) is service_expiry.Condition.DUE
