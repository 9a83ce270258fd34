"""Servers and clients have a CA of their own: how it comes about, and that what was before lives on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as library
from cryptography.x509.oid import ExtendedKeyUsageOID
from sqlalchemy import Engine, text

from directory.access import Token
from directory.attention import matters_noted
from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from pki.ceremony import intake, offline, perform, rollover
from pki.ceremony import plan as planned
from pki.ceremony import store as ceremony_store
from pki.ceremony.plan import Place
from pki.certificates.builder import NO_REV_AVAIL
from pki.certificates.profiles import (
    LIST_SIGNER,
    MAIL_APART_FROM,
    OPERATOR_CLIENT,
    OPERATOR_CLIENT_SHORT,
    OPERATOR_SERVER,
    OPERATOR_SERVER_SHORT,
    SERVICE_TLS,
    Profile,
    ServiceNames,
)
from pki.crl import publish as crl
from pki.crl import store as crl_store
from pki.impediments.causes import GRACES, WithdrawalCause
from pki.issuance import for_operator, for_service, pipeline
from pki.model import AuthorityState, CrlForm, IssuedCertificate, RevocationReason, serial_of
from pki.monitoring import expiry_notices
from pki.ocsp import responders
from pki.ocsp import response as ocsp
from pki.ocsp import store as ocsp_store
from pki.ocsp.request import Request
from pki.record import authorities
from pki.revocation import blocked_keys, requests
from pki.service_keys import servers_authority
from pki.signing.inprocess import InProcessSigner
from pki.signing.journal import Journal
from pki.withdrawal import operators as withdrawal_operators
from tests.factories import seed_practitioner
from tests.pki.conftest import new_key, request_for
from tests.pki.hierarchies import BASE_URL, EVERY, PASSPHRASE, generation, plan, ring
from tests.pki.issuance.test_operators_certify_their_own_domains import token_of

ACTOR = Actor("test:roll-over")
MAIL = ("persons", "organisations")
HOST = "mx.one.example"


@dataclass
class Installation:
    """An installation with the CAs of some roles, and an operator of one.example."""

    engine: Engine
    folder: Path
    now: datetime
    signer: InProcessSigner
    tokens: list[Token] = field(default_factory=list)

    def hold_as_before(self, *roles: str, national: Sequence[str] = ()) -> perform.Outcome:
        """As the release before made CAs, whose certificates do not say that they are for mail alone."""
        with pytest.MonkeyPatch.context() as earlier:
            earlier.setattr(planned, "PURPOSES_OF_MAIL_CAS", ())
            return self.hold(*roles, national=national)

    def hold(self, *roles: str, national: Sequence[str] = ()) -> perform.Outcome:
        """A ceremony over a root and these, whose CRLs are plain but for those named."""
        tables = generation(1, roles=tuple(roles), form="plain")
        for role in national:
            head, found, rest = tables.partition(f'id = "{role}-1"')
            tables = head + found + rest.replace('crl = "plain"', "shards = 16", 1)
        return perform.perform(
            self.engine, plan(tables), ring(self.folder / "keys"), now=self.now, actor=ACTOR
        )

    def publish(self) -> None:
        crl.publish_due(self.engine, self.signer, self.now, timedelta(hours=72))

    def responder(self, authority_id: str) -> None:
        for_service.ensure_responder(
            self.engine, self.signer, authority_id=authority_id, keys_folder=self.folder / "web",
            passphrase=PASSPHRASE, base_url=BASE_URL, now=self.now,
        )  # fmt: skip

    def activate(self, name: str = "servers-1") -> None:
        with transaction(self.engine) as connection:
            rollover.activate(connection, name, now=self.now, actor=ACTOR)

    def certify(self, profile: Profile = OPERATOR_SERVER, *hosts: str) -> IssuedCertificate:
        if not self.tokens:
            seed_practitioner(self.engine)
            self.tokens.append(token_of(self.engine, self.now))
        wanted = hosts or ((HOST,) if profile.family == OPERATOR_SERVER.name else ())
        return for_operator.issue(
            self.engine, self.signer, now=self.now, token=self.tokens[0], profile=profile.name,
            csr=request_for(new_key()), hosts=wanted, base_url=BASE_URL,
        )  # fmt: skip

    def revoke(self, issued: IssuedCertificate) -> None:
        with transaction(self.engine) as connection:
            requests.revoke(
                connection, now=self.now, actor=ACTOR, serial=issued.serial,
                reason=RevocationReason.SUPERSEDED,
            )  # fmt: skip

    def listed(self, authority_id: str) -> set[str]:
        with self.engine.connect() as connection:
            latest = crl_store.latest(connection, authority_id, 0)
        assert latest
        return {serial_of(entry.serial_number) for entry in x509.load_der_x509_crl(latest.der)}

    def asked(self, issued: IssuedCertificate) -> str:
        """What OCSP says of it."""
        with transaction(self.engine) as connection:
            known = responders.load_responders(connection, self.folder / "web", PASSPHRASE, self.now)
            standing, _ = ocsp_store.standing(connection, issued.authority_id, issued.serial, "sha256")
        issuer, responder = known.issuer(issued.authority_id), known.by_authority[issued.authority_id]
        question = Request((ocsp.question_about(issuer, "sha256", issued.serial),))
        found = ocsp.find(question, issuer, {issued.serial: standing})
        made = ocsp.sign(responder, issuer, found, now=self.now, lifetime=timedelta(hours=8))
        return library.load_der_ocsp_response(made).certificate_status.name

    def missing(self) -> list[str]:
        with transaction(self.engine) as connection:
            servers_authority.note_missing(connection, self.now)
            noted = matters_noted(
                connection, authority=None, kind="servers-authority-missing", closed=False, after=None,
                limit=9,
            )  # fmt: skip
        return [one.detail["from"] for one in noted]


def refused(act: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        act()
    return caught.value


@pytest.fixture
def place(engine: Engine, tmp_path: Path, now: datetime) -> Iterator[Installation]:
    journal = Journal(tmp_path / "journal.jsonl")
    keys = ring(tmp_path / "keys").places[Place.FILE]
    made = Installation(engine, tmp_path, now, InProcessSigner(engine, keys, journal, clock=lambda: made.now))
    yield made
    journal.close()


def purposes(issued: IssuedCertificate) -> list[x509.ObjectIdentifier]:
    extensions = x509.load_der_x509_certificate(issued.der).extensions
    return list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_in_a_first_hierarchy_it_certifies_at_once(place: Installation) -> None:
    place.hold(*EVERY)
    for profile, purpose in (
        (OPERATOR_SERVER, ExtendedKeyUsageOID.SERVER_AUTH),
        (OPERATOR_CLIENT, ExtendedKeyUsageOID.CLIENT_AUTH),
        (OPERATOR_SERVER_SHORT, ExtendedKeyUsageOID.SERVER_AUTH),
        (OPERATOR_CLIENT_SHORT, ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        issued = place.certify(profile)
        assert (issued.authority_id, purposes(issued)) == ("servers-1", [purpose])
    assert place.missing() == []


def test_the_roll_over_from_an_installation_without_one(place: Installation) -> None:
    # 1. As it was: the CA of organisations, with a CRL and a responder.
    place.hold_as_before(*MAIL)
    place.publish()
    place.responder("organisations-1")
    before, lost = place.certify(), place.certify(OPERATOR_CLIENT)
    assert before.authority_id == "organisations-1"
    assert place.missing() == ["2027-07-01"]
    # 2. The ceremony adds the new one, which stands by: nothing changes for operators.
    assert place.hold(*EVERY).made == ("servers-1",)
    assert place.certify().authority_id == "organisations-1"
    lacking = refused(place.activate).details["lacking"]
    assert lacking == ["1 of its 1 CRL shards are not published", "it has no OCSP responder"]
    place.publish()
    place.responder("servers-1")
    place.activate()
    # 3. New ones come from it, and old ones live on: good, revocable, on the CRL of their own CA.
    new = place.certify()
    assert (new.authority_id, place.missing()) == ("servers-1", [])
    assert [place.asked(one) for one in (before, lost, new)] == ["GOOD"] * 3
    place.now += timedelta(minutes=1)
    place.revoke(lost)
    place.publish()
    assert [place.asked(one) for one in (before, lost, new)] == ["GOOD", "REVOKED", "GOOD"]
    assert place.listed("organisations-1") == {lost.serial}
    assert place.listed("servers-1") == set()


def test_an_upgraded_first_run_makes_it_by_itself_and_keeps_what_is(
    place: Installation, engine: Engine, tmp_path: Path
) -> None:
    place.hold_as_before(*MAIL, national=MAIL)
    issued = place.certify()
    for _ in range(2):
        perform.establish(
            engine, ring(tmp_path / "keys").places[Place.FILE], base_url="http://elsewhere.example",
            now=place.now, actor=ACTOR, crl_form=CrlForm.PLAIN,
        )  # fmt: skip
    with engine.connect() as connection:
        known = {one.id: (one.crl_form.value, one.state.value) for one in authorities.authorities(connection)}
    assert known == {
        "root-1": ("plain", "active"), "persons-1": ("national", "active"),
        "organisations-1": ("national", "active"), "servers-1": ("plain", "standby"),
    }  # fmt: skip
    assert issued.authority_id == "organisations-1"


@pytest.mark.parametrize(
    ("profile", "code"),
    [
        (OPERATOR_SERVER, "servers-authority-missing"),
        (OPERATOR_SERVER_SHORT, "servers-authority-missing"),
        (SERVICE_TLS, "servers-authority-missing"),
        (LIST_SIGNER, "servers-authority-missing"),
        (OPERATOR_CLIENT, None),
    ],
)
def test_from_the_day_of_the_rule_a_mail_ca_certifies_no_server(
    place: Installation, profile: Profile, code: str | None
) -> None:
    place.hold_as_before(*MAIL)
    moment = timedelta(seconds=1)

    def issuing(at: datetime) -> str:
        with transaction(place.engine) as connection:
            return servers_authority.issuing(connection, profile, "organisations", at).id

    assert issuing(MAIL_APART_FROM - moment) == "organisations-1"
    if code is None:
        assert issuing(MAIL_APART_FROM) == "organisations-1"
        return
    found = refused(lambda: issuing(MAIL_APART_FROM))
    assert (found.kind, found.code) == (Kind.UNAVAILABLE, code)


def test_a_ca_made_for_mail_alone_certifies_no_server_before_that_day_either(place: Installation) -> None:
    """A second generation for mail, and none for servers: openssl would refuse what it certified."""
    place.hold(*MAIL)
    assert refused(place.certify).code == "servers-authority-missing"
    client = place.certify(OPERATOR_CLIENT)
    assert client.authority_id == "organisations-1"
    with transaction(place.engine) as connection:
        known = {one.id: one.der for one in authorities.authorities(connection)}
    for name, der in known.items():
        extensions = x509.load_der_x509_certificate(der).extensions
        found = [one.value for one in extensions if isinstance(one.value, x509.ExtendedKeyUsage)]
        mail = [[ExtendedKeyUsageOID.EMAIL_PROTECTION, ExtendedKeyUsageOID.CLIENT_AUTH]]
        assert [list(one) for one in found] == ([] if name == "root-1" else mail)


def test_a_ca_for_mail_alone_takes_over_once_there_is_one_for_servers(place: Installation) -> None:
    """Or the roll-over of mail would leave operators without a CA."""
    place.hold(*MAIL)
    place.publish()
    for name in MAIL:
        place.responder(f"{name}-1")
    without = "no CA for servers issues, and this one is for mail alone"
    for name in MAIL:
        with transaction(place.engine) as connection:
            ceremony_store.set_state(connection, f"{name}-1", AuthorityState.STANDBY)
        assert refused(lambda name=name: place.activate(f"{name}-1")).details["lacking"] == [without]
    place.hold(*EVERY)
    for name in MAIL:
        place.activate(f"{name}-1")


@pytest.mark.parametrize("alone", [False, True], ids=["made before", "for mail alone"])
def test_whoever_takes_the_mail_ca_all_the_same_gets_no_signature(
    place: Installation, *, alone: bool
) -> None:
    """The rule is a lint, which the signer runs again over what it reads in the database."""
    (place.hold if alone else place.hold_as_before)(*MAIL)

    def prepare(at: datetime) -> object:
        with transaction(place.engine) as connection:
            return pipeline.prepare(
                connection, now=at, actor=ACTOR, authority="organisations-1", profile=SERVICE_TLS,
                key=blocked_keys.check(connection, new_key().public_key()),
                names=ServiceNames(("ldap.one.example",)),
                base_url=BASE_URL,
            )  # fmt: skip

    if not alone:
        assert prepare(MAIL_APART_FROM - timedelta(days=1))
    found = refused(lambda: prepare(place.now if alone else MAIL_APART_FROM + timedelta(days=1)))
    assert (found.code, "purposes-apart" in found.text) == ("lint-failed", True)


def test_one_that_was_revoked_is_not_followed_by_the_ca_before(place: Installation) -> None:
    place.hold(*EVERY)
    place.certify()
    with transaction(place.engine) as connection:
        query = "SELECT c.serial FROM certificate c JOIN authority a ON a.sha256 = c.sha256"
        serial = connection.execute(text(f"{query} WHERE a.id = 'servers-1'")).scalar_one()
        requests.revoke(
            connection, now=place.now, actor=ACTOR, serial=serial, reason=RevocationReason.CA_COMPROMISE
        )
    assert refused(place.certify).code == "unknown-authority"


# Short-lived ones.


def test_a_short_lived_one_has_seven_days_and_no_pointers(place: Installation) -> None:
    place.hold(*EVERY)
    issued = place.certify(OPERATOR_SERVER_SHORT)
    assert issued.not_after - issued.not_before + timedelta(seconds=1) <= timedelta(days=7)
    extensions = x509.load_der_x509_certificate(issued.der).extensions
    (marked,) = [one for one in extensions if one.oid == NO_REV_AVAIL]
    assert (marked.critical, marked.value.public_bytes()) == (False, b"\x05\x00")
    assert not {"2.5.29.31", "2.5.29.46"} & {one.oid.dotted_string for one in extensions}
    access = extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    assert [one.access_location.value for one in access] == [f"{BASE_URL}/ca/servers-1.cer"]
    # Nobody is told weekly of what a machine renews.
    with transaction(place.engine) as connection:
        assert expiry_notices.counts(connection, place.now) == {}


def test_what_is_doubted_is_not_certified_anew_for_a_week(place: Installation) -> None:
    """An auditor's hold on the lasting one holds for its variant: it is the same server."""
    place.hold(*EVERY)
    lasting = place.certify()
    with transaction(place.engine) as connection:
        requests.revoke(
            connection, now=place.now, actor=Actor("token:999"), serial=lasting.serial,
            reason=RevocationReason.CERTIFICATE_HOLD,
        )  # fmt: skip
    assert refused(lambda: place.certify(OPERATOR_SERVER_SHORT)).code == "reason-stands"


def test_it_goes_with_its_domain_and_is_listed_all_the_same(place: Installation) -> None:
    place.hold(*EVERY)
    issued = place.certify(OPERATOR_SERVER_SHORT)
    with place.engine.begin() as connection:
        connection.execute(text("UPDATE trusted_domain SET departed_at = now() WHERE name = 'one.example'"))
    for later in (timedelta(0), GRACES[WithdrawalCause.DOMAIN_WITHDRAWN]):
        with transaction(place.engine) as connection:
            withdrawal_operators.settle(connection, graces=GRACES, now=place.now + later)
    place.now += GRACES[WithdrawalCause.DOMAIN_WITHDRAWN]
    place.publish()
    assert place.listed("servers-1") == {issued.serial}


# Keys that no CA gets.


@pytest.mark.parametrize(("size", "says"), [(3072, "below the 4096"), (4096, "on P-256 or P-384")])
def test_an_rsa_key_is_no_ca_s_on_any_road(place: Installation, tmp_path: Path, size: int, says: str) -> None:
    wanted = plan(generation(1, place="offline", roles=MAIL))
    key = rsa.generate_private_key(public_exponent=65537, key_size=size)
    # 1. A request carried to the offline machine.
    carried, away = tmp_path / "carried", ring(tmp_path / "away", Place.OFFLINE)
    carried.mkdir()
    (carried / "persons-1.csr").write_bytes(request_for(key))
    found = refused(lambda: offline.sign_all(wanted, away, carried, place.now))
    assert (found.kind, found.code, says in found.text) == (Kind.UNACCEPTABLE, "ca-key-unfit", True)
    # 2. A certificate that comes back from it.
    root = x509.load_pem_x509_certificate((carried / "root-1.cer").read_bytes())
    made = (
        x509.CertificateBuilder()
        .subject_name(root.subject).issuer_name(root.subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(root.not_valid_before_utc).not_valid_after(root.not_valid_after_utc)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    found = refused(
        lambda: intake.take_certificate(
            place.engine,
            wanted,
            ring(tmp_path / "keys"),
            made.public_bytes(Encoding.PEM),
            now=place.now,
            actor=ACTOR,
            fingerprint=made.fingerprint(hashes.SHA256()).hex(),
        )
    )
    assert (found.code, says in found.text) == ("ca-key-unfit", True)
