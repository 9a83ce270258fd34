"""The root's key on a machine without a network: requests out, certificates and CRLs in, looked at whole."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Engine

from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.errors import Refusal
from pki.ceremony import intake, offline, perform, rollover
from pki.ceremony.perform import Outcome
from pki.ceremony.plan import Place, Plan
from pki.certificates.profiles import BACKDATING
from pki.crl import publish as crl
from pki.crl import store as crl_store
from pki.model import RevocationReason, Serial, serial_of
from pki.record import authorities
from pki.revocation import requests
from pki.rollback import high_water
from pki.signing.inprocess import InProcessSigner
from pki.signing.journal import Journal
from tests.pki.hierarchies import generation, plan, ring

ACTOR = Actor("test:ceremony")
Change = Callable[[x509.CertificateBuilder], x509.CertificateBuilder]


@dataclass
class Machines:
    """The one with the record, the one with the root's key, and the folder that is carried between them."""

    engine: Engine
    folder: Path
    now: datetime
    plan: Plan = field(default_factory=lambda: plan(generation(1, place="offline")))

    @property
    def carried(self) -> Path:
        made = self.folder / "carried"
        made.mkdir(exist_ok=True)
        return made

    def hold(self) -> Outcome:
        keys = ring(self.folder / "online")
        done = perform.perform(self.engine, self.plan, keys, now=self.now, actor=ACTOR)
        for name, request in done.requests.items():
            (self.carried / f"{name}.csr").write_bytes(request)
        return done

    def sign(self) -> offline.Signed:
        return offline.sign_all(self.plan, self.away, self.carried, self.now)

    @property
    def away(self) -> object:
        return ring(self.folder / "offline", Place.OFFLINE)

    def take(self, content: bytes, fingerprint: str | None = None) -> str:
        """As a person would who typed the digest from the paper beside this very certificate."""
        if fingerprint is None and content.startswith(b"-----"):
            fingerprint = x509.load_pem_x509_certificate(content).fingerprint(hashes.SHA256()).hex()
        return intake.take_certificate(
            self.engine, self.plan, ring(self.folder / "online"), content, now=self.now, actor=ACTOR,
            fingerprint=fingerprint,
        )  # fmt: skip

    def take_all(self) -> "Machines":
        for name in ("root-1", "persons-1", "organisations-1"):
            self.take((self.carried / f"{name}.cer").read_bytes())
        return self

    def crl(self, revoked: dict[Serial, RevocationReason] | None = None, days: int = 365) -> bytes:
        return offline.root_crl(
            self.plan, "root-1", self.away, self.carried, revoked=revoked or {}, days=days, now=self.now
        )

    def take_crl(self, content: bytes) -> int:
        path = self.folder / "floor.json"
        return intake.take_list(self.engine, content, floor_file=path, now=self.now, actor=ACTOR)[1]

    def code(self, act: Callable[[bytes], object], content: bytes) -> str:
        with pytest.raises(Refusal) as refused:
            act(content)
        return refused.value.code

    def forged(self, change: Change, *, key: object = None) -> bytes:
        """A certificate for persons-1 as the root would sign it, but for one thing."""
        good = x509.load_pem_x509_certificate((self.carried / "persons-1.cer").read_bytes())
        root = self.plan.authority("root-1")
        builder = (
            x509.CertificateBuilder()
            .subject_name(good.subject)
            .issuer_name(good.issuer)
            .public_key(good.public_key())
            .serial_number(good.serial_number)
            .not_valid_before(good.not_valid_before_utc)
            .not_valid_after(good.not_valid_after_utc)
        )
        for extension in good.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        signing = key or self.away.held(root)  # type: ignore[attr-defined]
        return change(builder).sign(signing, hashes.SHA384()).public_bytes(Encoding.DER)  # type: ignore[arg-type]


@pytest.fixture
def machines(engine: Engine, tmp_path: Path, now: datetime) -> Machines:
    return Machines(engine, tmp_path, now)


@pytest.fixture
def signed(machines: Machines) -> Machines:
    machines.hold()
    machines.sign()
    return machines


def test_the_ceremony_makes_requests_and_waits_for_the_root(machines: Machines) -> None:
    done = machines.hold()
    assert done.made == ()
    assert sorted(done.waiting) == ["organisations-1", "persons-1", "root-1"]
    for name in ("persons-1", "organisations-1"):
        verified = subprocess.run(
            ["openssl", "req", "-in", str(machines.carried / f"{name}.csr"), "-noout", "-verify", "-subject"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "verify OK" in verified.stdout + verified.stderr
        assert f"{name.partition('-')[0].title()} CA 1" in verified.stdout


def test_what_the_offline_machine_signs_is_taken_in_and_issues(signed: Machines) -> None:
    signed.take_all()
    with signed.engine.connect() as connection:
        found = {one.id: one for one in authorities.authorities(connection)}
        assert found["root-1"].offline
        assert authorities.issuing_authority(connection, "persons", signed.now).id == "persons-1"
    for name in ("persons-1", "organisations-1"):
        verified = subprocess.run(
            ["openssl", "verify", "-CAfile", "root-1.cer", "-x509_strict", f"{name}.cer"],
            cwd=signed.carried, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert verified.stdout == f"{name}.cer: OK\n", verified.stderr


def test_the_offline_machine_signs_once_and_says_what_it_lacks(machines: Machines) -> None:
    assert machines.sign().missing == ("persons-1", "organisations-1")
    machines.hold()
    assert machines.sign().made == ("persons-1", "organisations-1")
    again = machines.sign()
    assert (again.made, again.missing, again.transcript) == ((), (), "")


def test_a_request_of_another_name_is_not_signed(machines: Machines) -> None:
    machines.hold()
    (machines.carried / "persons-1.csr").write_bytes((machines.carried / "organisations-1.csr").read_bytes())
    with pytest.raises(Refusal) as refused:
        machines.sign()
    assert refused.value.code == "request-unfit"


def test_the_same_certificate_twice_changes_nothing(signed: Machines) -> None:
    signed.take_all().take_all()
    with signed.engine.connect() as connection:
        assert len(authorities.authorities(connection)) == 3


def test_an_issuing_ca_waits_for_its_root(signed: Machines) -> None:
    content = (signed.carried / "persons-1.cer").read_bytes()
    assert signed.code(signed.take, content) == "issuer-missing"


def swapped(builder: x509.CertificateBuilder, value: x509.ExtensionType) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        builder._issuer_name, builder._subject_name, builder._public_key, builder._serial_number,
        builder._not_valid_before, builder._not_valid_after,
        [
            x509.Extension(one.oid, one.critical, value if one.oid == value.oid else one.value)
            for one in builder._extensions
        ],
    )  # fmt: skip


DEEPER = x509.BasicConstraints(ca=True, path_length=1)
ELSEWHERE = x509.CRLDistributionPoints(
    [
        x509.DistributionPoint(
            [x509.UniformResourceIdentifier("http://evil.example/crl/root-1/0.crl")], None, None, None
        )
    ]
)
EXTRA = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.OCSP_SIGNING])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda b: swapped(b, DEEPER), "the extension 2.5.29.19 is not the file's"),
        (lambda b: swapped(b, ELSEWHERE), "another base_url"),
        (lambda b: swapped(b, EXTRA), "the extension 2.5.29.37 is not the file's"),
        (lambda b: _until(b, timedelta(days=-1)), "another days"),
        (lambda b: _with_key(b, ec.generate_private_key(ec.SECP256R1())), "its key is not the one held here"),
        (lambda b: _with_key(b, ec.generate_private_key(ec.SECP384R1())), "another curve"),
    ],
    ids=["path length", "crl url", "purpose", "shorter", "another key", "another curve"],
)
def test_a_certificate_that_is_not_the_reviewed_one_is_refused_by_name(
    signed: Machines, change: Change, reason: str
) -> None:
    signed.take((signed.carried / "root-1.cer").read_bytes())
    with pytest.raises(Refusal) as refused:
        signed.take(signed.forged(change))
    assert refused.value.code == "certificate-unfit"
    assert reason in refused.value.details["reasons"]


def _until(builder: x509.CertificateBuilder, by: timedelta) -> x509.CertificateBuilder:
    builder._not_valid_after += by
    return builder


def _with_key(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    builder._public_key = key.public_key()
    return builder


def test_a_certificate_that_another_key_signed_is_refused(signed: Machines) -> None:
    signed.take((signed.carried / "root-1.cer").read_bytes())
    content = signed.forged(lambda b: b, key=ec.generate_private_key(ec.SECP384R1()))
    with pytest.raises(Refusal) as refused:
        signed.take(content)
    assert refused.value.details["reasons"] == ["its issuer's key has not signed it"]


def test_a_serial_number_used_before_is_refused(signed: Machines) -> None:
    signed.take((signed.carried / "root-1.cer").read_bytes())
    root = x509.load_pem_x509_certificate((signed.carried / "root-1.cer").read_bytes())

    def same(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
        builder._serial_number = root.serial_number
        return builder

    assert signed.code(signed.take, signed.forged(same)) == "serial-used"


def test_a_root_of_the_same_name_with_another_key_is_not_the_one_of_the_transcript(
    signed: Machines,
) -> None:
    """All the file says of a root, anybody can put into one of his own."""
    own = (signed.carried / "root-1.cer").read_bytes()
    stranger = Machines(signed.engine, signed.folder / "stranger", signed.now)
    stranger.folder.mkdir()
    stranger.sign()
    theirs = (stranger.carried / "root-1.cer").read_bytes()
    told = x509.load_pem_x509_certificate(own).fingerprint(hashes.SHA256()).hex(":").upper()
    keys = ring(signed.folder / "online")

    def take(content: bytes, fingerprint: str | None) -> str:
        return intake.take_certificate(
            signed.engine, signed.plan, keys, content, now=signed.now, actor=ACTOR, fingerprint=fingerprint
        )

    for fingerprint, code in ((None, "fingerprint-missing"), (told, "fingerprint-wrong")):
        with pytest.raises(Refusal) as refused:
            take(theirs, fingerprint)
        assert refused.value.code == code
    assert take(own, told) == "root-1"


def test_what_is_no_certificate_or_not_in_the_file_is_refused(signed: Machines) -> None:
    assert signed.code(signed.take, b"nothing") == "not-a-certificate"
    other = Machines(signed.engine, signed.folder / "other", signed.now, plan(generation(2, place="offline")))
    other.folder.mkdir()
    other.sign()
    assert signed.code(signed.take, (other.carried / "root-2.cer").read_bytes()) == "not-in-ceremony"


# The root's CRL.


def test_a_root_crl_is_published_and_openssl_checks_the_chain_with_it(signed: Machines) -> None:
    signed.take_all()
    made = signed.crl()
    assert signed.take_crl(made) == 1
    with signed.engine.connect() as connection:
        published = crl_store.latest(connection, "root-1", 0)
        assert published is not None
        assert published.der == made
        # Its days count from thisUpdate.
        assert rollover.root_crl_ends(connection) == signed.now - BACKDATING + timedelta(days=365)
    assert high_water.known(signed.folder / "floor.json", "root-1/0") == 1
    (signed.carried / "root.pem").write_bytes(x509.load_der_x509_crl(made).public_bytes(Encoding.PEM))
    # A reader's clock may run late by seconds, as for every other CRL.
    for seconds in (60, -5):
        at = str(int(signed.now.timestamp()) + seconds)
        verified = subprocess.run(
            ["openssl", "verify", "-crl_check", "-attime", at, "-CAfile", "root-1.cer", "-CRLfile",
             "root.pem", "persons-1.cer"],
            cwd=signed.carried, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert verified.stdout == "persons-1.cer: OK\n", verified.stderr


def test_no_root_crl_begins_before_what_it_lists_nor_with_the_one_before(signed: Machines) -> None:
    signed.take_all()
    lists = [x509.load_der_x509_crl(signed.crl()) for _ in range(2)]
    revoked = {serial_of(7): RevocationReason.SUPERSEDED}
    lists.append(x509.load_der_x509_crl(signed.crl(revoked)))
    signed.now += timedelta(hours=1)
    lists.append(x509.load_der_x509_crl(signed.crl(revoked)))
    begins = [one.last_update_utc for one in lists]
    assert begins == sorted(set(begins))
    assert begins[-1] == signed.now - BACKDATING
    for one in lists[2:]:
        assert [entry.revocation_date_utc for entry in one] == [signed.now - timedelta(hours=1)]
        assert one.last_update_utc >= signed.now - timedelta(hours=1)


def test_a_root_crl_made_under_a_clock_set_ahead_bars_no_later_one(signed: Machines) -> None:
    signed.take_all()
    assert signed.take_crl(signed.crl()) == 1
    right = signed.now + timedelta(hours=1)
    signed.now = right + timedelta(days=365)
    ahead = signed.crl()
    signed.now = right
    assert signed.code(signed.take_crl, ahead) == "crl-time"
    made = signed.crl()
    assert x509.load_der_x509_crl(made).last_update_utc == right - BACKDATING
    # Numbers go on growing, whatever the clock said.
    assert signed.take_crl(made) == 3


def test_a_clock_set_back_makes_no_root_crl_that_is_taken_in(signed: Machines) -> None:
    signed.take_all()
    signed.now += timedelta(days=30)
    assert signed.take_crl(signed.crl()) == 1
    right, there = signed.now, (signed.carried / "root-1.crl").read_bytes()
    signed.now = datetime(2000, 1, 1, tzinfo=UTC)
    with pytest.raises(Refusal, match=r"clock says 2000-01-01 00:00 UTC.*set the clock") as refused:
        signed.crl({serial_of(7): RevocationReason.SUPERSEDED})
    assert refused.value.code == "clock-before-root"
    assert (signed.carried / "root-1.crl").read_bytes() == there
    # A day is no matter for the root's own dates: its CRL says so, and is older than the one published.
    signed.now = right - timedelta(days=1)
    late = signed.crl()
    assert x509.load_der_x509_crl(late).last_update_utc == signed.now - BACKDATING
    signed.now = right
    assert signed.code(signed.take_crl, late) == "crl-number"


def test_a_clock_corrected_by_minutes_keeps_the_order_of_root_crls(signed: Machines) -> None:
    signed.take_all()
    signed.now += timedelta(minutes=8)
    first = x509.load_der_x509_crl(signed.crl())
    signed.now -= timedelta(minutes=8)
    made = signed.crl()
    assert x509.load_der_x509_crl(made).last_update_utc == first.last_update_utc + timedelta(seconds=1)
    assert signed.take_crl(made) == 2


def test_without_its_crl_a_root_is_due_at_once(signed: Machines) -> None:
    signed.take_all()
    with signed.engine.connect() as connection:
        ends = rollover.root_crl_ends(connection)
    assert ends is not None
    assert ends <= signed.now


def test_the_job_of_the_crls_leaves_an_offline_root_alone(signed: Machines) -> None:
    signed.take_all()
    with signed.engine.connect() as connection:
        waiting = crl.due(connection, signed.now)
    assert len(waiting) == 32
    assert ("root-1", 0) not in waiting


def revoke(machines: Machines, name: str) -> Serial:
    certificate = x509.load_pem_x509_certificate((machines.carried / f"{name}.cer").read_bytes())
    serial = serial_of(certificate.serial_number)
    with transaction(machines.engine) as connection:
        requests.revoke(
            connection, now=machines.now, actor=ACTOR, serial=serial,
            reason=RevocationReason.CESSATION_OF_OPERATION,
        )  # fmt: skip
    return serial


def test_numbers_rise_and_no_entry_vanishes(signed: Machines) -> None:
    signed.take_all()
    first = signed.crl()
    signed.take_crl(first)
    assert signed.code(signed.take_crl, first) == "crl-number"
    serial = revoke(signed, "persons-1")
    assert signed.code(signed.take_crl, signed.crl()) == "crl-stale"
    listed = signed.crl({serial: RevocationReason.CESSATION_OF_OPERATION})
    assert signed.take_crl(listed) == 3
    forgetful = signed.folder / "forgetful"
    forgetful.mkdir()
    (signed.carried / "root-1.crl").unlink()
    assert signed.code(signed.take_crl, signed.crl()) == "crl-stale"


def test_an_entry_that_the_record_holds_for_good_is_refused(signed: Machines) -> None:
    signed.take_all()
    certificate = x509.load_pem_x509_certificate((signed.carried / "persons-1.cer").read_bytes())
    serial = serial_of(certificate.serial_number)
    made = signed.crl({serial: RevocationReason.CESSATION_OF_OPERATION})
    assert signed.code(signed.take_crl, made) == "crl-unrecorded"


def test_an_entry_unknown_to_the_record_never_vanishes(signed: Machines) -> None:
    signed.take_all()
    signed.take_crl(signed.crl({serial_of(7): RevocationReason.SUPERSEDED}))
    (signed.carried / "root-1.crl").unlink()
    # Made in the same minutes, it would begin before the one that lists.
    signed.now += timedelta(hours=1)
    signed.crl()
    # Its second number, without the entry of the first.
    assert signed.code(signed.take_crl, signed.crl()) == "crl-vanished"


def test_a_crl_under_another_key_or_of_a_root_that_signs_here_is_refused(signed: Machines) -> None:
    signed.take_all()
    made = x509.load_der_x509_crl(signed.crl())
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(made.issuer)
        .last_update(made.last_update_utc)
        .next_update(made.next_update_utc)  # type: ignore[arg-type]
    )
    for extension in made.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    stranger = builder.sign(ec.generate_private_key(ec.SECP384R1()), hashes.SHA384())
    assert signed.code(signed.take_crl, stranger.public_bytes(Encoding.DER)) == "crl-signature"
    assert signed.code(signed.take_crl, b"nothing") == "crl-malformed"


def test_a_root_crl_holds_twelve_months_at_most_and_not_past_its_end(signed: Machines) -> None:
    signed.take_all()
    with pytest.raises(Refusal) as refused:
        signed.crl(days=366)
    assert refused.value.code == "root-crl-too-long"
    made = signed.crl(days=1)
    signed.now += timedelta(days=2)
    assert signed.code(signed.take_crl, made) == "crl-time"


def test_the_signer_goes_on_without_the_root_key(signed: Machines) -> None:
    signed.take_all()
    journal = Journal(signed.folder / "journal.jsonl")
    keys = ring(signed.folder / "online").places[Place.FILE]
    signer = InProcessSigner(signed.engine, keys, journal, clock=lambda: signed.now)
    assert signer.ping()
    assert crl.publish_due(signed.engine, signer, signed.now, timedelta(hours=72)) == 32
    journal.close()
