"""CRLs as relying parties see them: judged by openssl, GnuTLS and pkilint on real rows."""

import subprocess
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from directory.base.clock import utc_now
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.base.tlv import tlv
from pki.certificates import der
from pki.certificates.profiles import BACKDATING
from pki.crl import encoding
from pki.crl import publish as crl
from pki.crl import store as crl_store
from pki.model import RevocationReason, serial_of
from pki.rollback import high_water
from tests.status_ca import BASE, ISSUING, ROOT, Issued, StatusCa

LIFETIME = timedelta(hours=72)
# On both sides of 2050, where RFC 5280 changes the way a time is written.
INSTANTS = st.floats(631152000, 4070908800).map(lambda seconds: datetime.fromtimestamp(int(seconds), UTC))


@pytest.fixture
def ca(engine: Engine, now: datetime) -> StatusCa:
    return StatusCa(engine, now).establish()


def serials(listed: x509.CertificateRevocationList) -> set[str]:
    return {serial_of(entry.serial_number) for entry in listed}


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, timeout=20
    )


def verified_by_openssl(ca: StatusCa, leaf: Issued, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "root.pem").write_bytes(ca.certificates[ROOT].public_bytes(Encoding.PEM))
    (folder / "issuing.pem").write_bytes(ca.certificates[ISSUING].public_bytes(Encoding.PEM))
    (folder / "leaf.pem").write_bytes(leaf.pem)
    lists = ca.publish(leaf.shard), ca.publish(0, ROOT)
    (folder / "lists.pem").write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in lists))
    return run(
        "openssl", "verify", "-x509_strict", "-crl_check_all", "-attime", int(ca.now.timestamp()).__str__(),
        "-CAfile", folder / "root.pem", "-untrusted", folder / "issuing.pem",
        "-CRLfile", folder / "lists.pem", folder / "leaf.pem",
    )  # fmt: skip


def test_openssl_accepts_a_certificate_that_no_crl_lists(ca: StatusCa, tmp_path: Path) -> None:
    judged = verified_by_openssl(ca, ca.issue(), tmp_path)
    assert judged.returncode == 0, judged.stderr


def test_openssl_refuses_a_revoked_certificate(ca: StatusCa, tmp_path: Path) -> None:
    leaf = ca.issue()
    ca.revoke(leaf)
    judged = verified_by_openssl(ca, leaf, tmp_path)
    assert judged.returncode != 0
    assert "certificate revoked" in judged.stderr


def test_a_crl_of_another_shard_does_not_serve(ca: StatusCa, tmp_path: Path) -> None:
    leaf = ca.issue(shard=1)
    judged = verified_by_openssl(ca, replace(leaf, shard=0), tmp_path)
    assert "different CRL scope" in judged.stderr


@pytest.mark.parametrize("revoked", [0, 3])
def test_gnutls_and_openssl_verify_a_crl_empty_or_not(engine: Engine, tmp_path: Path, revoked: int) -> None:
    # certtool knows no other day than today.
    ca = StatusCa(engine, utc_now()).establish()
    for _ in range(revoked):
        ca.revoke(ca.issue())
    written, roots = tmp_path / "list.pem", tmp_path / "ca.pem"
    written.write_bytes(ca.publish().public_bytes(Encoding.PEM))
    roots.write_bytes(ca.pem())
    judged = run("certtool", "--verify-crl", "--load-ca-certificate", roots, "--infile", written)
    shown = run("openssl", "crl", "-in", written, "-noout", "-text", "-CAfile", roots, "-verify")
    assert "Verification output: Verified" in judged.stdout
    assert "verify OK" in shown.stderr
    assert shown.stdout.count("Serial Number:") == revoked
    assert ("No Revoked Certificates" in shown.stdout) is (revoked == 0)


def test_pkilint_finds_nothing_against_a_crl(ca: StatusCa) -> None:
    from pkilint import loader, pkix, report, validation
    from pkilint.cabf import cabf_crl
    from pkilint.pkix import crl as crl_lint
    from pkilint.pkix import extension, name

    for reason in RevocationReason:
        ca.revoke(
            ca.issue(), reason, action="hold" if reason is RevocationReason.CERTIFICATE_HOLD else "revoke"
        )
    kind = crl_lint.CertificateRevocationListType.CRL
    container = crl_lint.create_pkix_crl_validator_container(
        [
            pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
            pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
        ],
        [
            crl_lint.create_issuer_validator_container([]),
            crl_lint.create_validity_validator_container([cabf_crl.create_validity_period_validator(kind)]),
            crl_lint.create_extensions_validator_container([]),
        ],
    )
    document = loader.RFC5280CertificateListDocumentLoader().load_der_document(
        ca.publish().public_bytes(Encoding.DER), "list"
    )
    results = container.validate(document.root)
    findings = report.get_findings_count(results, validation.ValidationFindingSeverity.NOTICE)
    assert not findings, report.ReportGeneratorPlaintext(
        results, validation.ValidationFindingSeverity.NOTICE
    ).generate()


def test_each_shard_lists_its_own_under_its_own_url(ca: StatusCa) -> None:
    mine, other = ca.issue(shard=0), ca.issue(shard=1)
    ca.revoke(mine)
    ca.revoke(other)
    for shard, issued in ((0, mine), (1, other)):
        listed = ca.publish(shard)
        point = listed.extensions.get_extension_for_class(x509.IssuingDistributionPoint)
        assert serials(listed) == {issued.serial}
        assert point.critical
        assert [name.value for name in point.value.full_name or ()] == [f"{BASE}/crl/{ISSUING}/{shard}.crl"]


def test_reason_and_time_are_those_of_the_revocation(ca: StatusCa, now: datetime) -> None:
    at = now - timedelta(hours=3)
    ca.revoke(ca.issue(), RevocationReason.PRIVILEGE_WITHDRAWN, at=at)
    (entry,) = ca.publish()
    reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    assert (entry.revocation_date_utc, reason) == (at, x509.ReasonFlags.privilege_withdrawn)


def test_a_released_hold_leaves_the_list_and_a_hold_made_final_stays(ca: StatusCa) -> None:
    released, kept = ca.issue(), ca.issue()
    for issued in (released, kept):
        ca.revoke(issued, RevocationReason.CERTIFICATE_HOLD, action="hold")
    assert serials(ca.publish()) == {released.serial, kept.serial}
    ca.revoke(released, RevocationReason.CERTIFICATE_HOLD, action="release")
    ca.revoke(kept, RevocationReason.KEY_COMPROMISE)
    (entry,) = ca.publish()
    assert serial_of(entry.serial_number) == kept.serial
    assert (
        entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
        is x509.ReasonFlags.key_compromise
    )


def test_an_entry_stays_on_one_scheduled_crl_after_its_certificate_ended(ca: StatusCa) -> None:
    issued = ca.issue(days=2)
    ca.revoke(issued)
    ca.publish()
    ca.now = issued.not_after + timedelta(minutes=1)
    assert serials(ca.publish()) == {issued.serial}, "made for a revocation just after the end"
    ca.now += timedelta(hours=1)
    assert serials(ca.publish()) == {issued.serial}, "the scheduled one"
    ca.now += timedelta(hours=1)
    ca.publish()
    ca.now += timedelta(hours=1)
    assert serials(ca.publish()) == set()


def test_numbers_rise_and_a_signer_that_fails_only_burns_one(ca: StatusCa) -> None:
    first = ca.publish()

    class Silent:
        def sign_crl(self, *_: object) -> bytes:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        crl.publish(ca.engine, Silent(), authority_id=ISSUING, shard=0, now=ca.now, lifetime=LIFETIME)
    with transaction(ca.engine) as connection:
        served = crl_store.latest(connection, ISSUING, 0)
    assert served is not None
    assert served.der == first.public_bytes(Encoding.DER), "the last good one goes on being served"
    numbers = [
        one.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        for one in (first, ca.publish())
    ]
    assert numbers == [1, 3]


def test_publishers_at_the_same_time_never_share_a_number(ca: StatusCa) -> None:
    numbers: list[int] = []

    def publish() -> None:
        for _ in range(4):
            try:
                numbers.append(
                    crl.publish(ca.engine, ca, authority_id=ISSUING, shard=0, now=ca.now, lifetime=LIFETIME)
                )
            except Refusal as refusal:
                # Overtaken between numbering and signing: burnt, as the gate demands.
                assert refusal.code == "crl-number"  # noqa: PT017 - each thread judges its own

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(numbers)) == len(numbers) > 0


def test_a_number_forgotten_by_a_restored_database_is_not_given_again(ca: StatusCa, tmp_path: Path) -> None:
    path = tmp_path / "floor.json"
    high_water.raise_to(path, f"{ISSUING}/0", 41)
    with pytest.raises(Refusal, match="older than what was published"):
        ca.publish(0, floor_file=path)
    with transaction(ca.engine) as connection:
        crl_store.raise_numbers(connection, high_water.numbers(path))
    listed = ca.publish(0, floor_file=path)
    assert listed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 42
    assert high_water.known(path, f"{ISSUING}/0") == 42
    high_water.raise_to(path, f"{ISSUING}/0", 7)
    assert high_water.known(path, f"{ISSUING}/0") == 42


def test_all_shards_are_due_at_first_and_none_right_after(ca: StatusCa) -> None:
    published = [ca.publish_due()]
    for later in (timedelta(0), timedelta(seconds=5), timedelta(minutes=59), timedelta(seconds=55)):
        ca.now += later
        published.append(ca.publish_due())
    # The root has no delta; of the issuing CA each kind becomes an hour old by itself.
    assert published == [3, 0, 2, 0, 3]


def test_a_revocation_makes_its_shard_due_and_no_other(ca: StatusCa) -> None:
    ca.settle()
    ca.revoke(ca.issue(shard=1))
    with transaction(ca.engine) as connection:
        for delta in (True, False):
            assert crl.due(connection, ca.now, delta=delta) == [(ISSUING, 1)]


def test_a_revocation_that_commits_after_a_later_one_was_published_is_not_missed(ca: StatusCa) -> None:
    """Its id is lower than the last one published: a watermark of ids would pass it over for an hour."""
    late, early = ca.issue(), ca.issue()
    with ca.engine.connect() as slow, slow.begin():
        ca.revoke(late, connection=slow)
        ca.revoke(early)
        crl.publish_due(ca.engine, ca, ca.now, LIFETIME)
    with transaction(ca.engine) as connection:
        assert crl.due(connection, ca.now) == [(ISSUING, 0)]
    assert serials(ca.publish()) == {late.serial, early.serial}


def test_one_shard_that_cannot_be_signed_does_not_hold_up_the_others(ca: StatusCa) -> None:
    class Partial:
        def __init__(self, answer: bytes | None) -> None:
            self.answer = answer

        def ping(self) -> str:
            return ca.ping()

        def sign_crl(self, authority_id: str, shard: int, number: int) -> bytes:
            if (authority_id, shard) != (ISSUING, 0):
                return ca.sign_crl(authority_id, shard, number)
            if self.answer is None:
                raise Refusal(Kind.UNAVAILABLE, "signer-unavailable", "Not today.")
            return self.answer

    for answer in (None, b"no CRL"):
        with pytest.raises(ExceptionGroup, match=r"1 of \d"):
            crl.publish_due(ca.engine, Partial(answer), ca.now, LIFETIME)
        with transaction(ca.engine) as connection:
            assert crl.due(connection, ca.now) == [(ISSUING, 0)]


def test_no_number_is_burnt_while_the_signer_is_away(ca: StatusCa) -> None:
    class Away:
        def ping(self) -> str:
            raise Refusal(Kind.UNAVAILABLE, "signer-unavailable", "Not today.")

        def sign_crl(self, *_: object) -> bytes:
            raise AssertionError("nobody is there to ask")

    with pytest.raises(Refusal):
        crl.publish_due(ca.engine, Away(), ca.now, LIFETIME)
    with ca.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM crl")).scalar_one() == 0


@given(
    INSTANTS,
    st.integers(1, 2**159 - 1),
)
def test_any_entry_is_read_back_as_it_was_meant(at: datetime, number: int) -> None:
    entry = encoding.entry_der(serial_of(number), at, RevocationReason.SUPERSEDED)
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")]).public_bytes()
    algorithm = der.sequence(der.oid("1.2.840.10045.4.3.2"))
    tbs = der.sequence(der.integer(1), algorithm, issuer, der.time(at), der.time(at), tlv(0x30, entry))
    (read,) = x509.load_der_x509_crl(der.sequence(tbs, algorithm, der.bit_string(b"")))
    assert (read.serial_number, read.revocation_date_utc) == (number, at.replace(microsecond=0))


def test_a_reader_whose_clock_runs_five_seconds_late_takes_the_crl(ca: StatusCa, tmp_path: Path) -> None:
    leaf, other = ca.issue(), ca.issue()
    ca.publish(leaf.shard)
    ca.now += timedelta(hours=1)
    made = ca.publish(leaf.shard), ca.publish(0, ROOT)
    ca.revoke(other)
    ca.now += timedelta(minutes=10)
    delta = ca.publish(other.shard, delta=True)
    assert delta.last_update_utc == ca.now - BACKDATING
    ca.now -= timedelta(minutes=10)
    (tmp_path / "lists.pem").write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in made))
    for name, certificate in (("root", ca.certificates[ROOT]), ("issuing", ca.certificates[ISSUING])):
        (tmp_path / f"{name}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (tmp_path / "leaf.pem").write_bytes(leaf.pem)
    late = int((ca.now - timedelta(seconds=5)).timestamp())
    judged = run(
        "openssl", "verify", "-x509_strict", "-crl_check_all", "-attime", str(late),
        "-CAfile", tmp_path / "root.pem", "-untrusted", tmp_path / "issuing.pem",
        "-CRLfile", tmp_path / "lists.pem", tmp_path / "leaf.pem",
    )  # fmt: skip
    assert judged.returncode == 0, judged.stderr


def test_no_crl_lists_what_was_revoked_after_its_this_update(ca: StatusCa) -> None:
    leaf, other = ca.issue(shard=0), ca.issue(shard=0)
    ca.publish(0)
    before = ca.now
    for seconds, one in ((3, leaf), (40, other)):
        ca.now = before + timedelta(minutes=20, seconds=seconds)
        ca.revoke(one)
        ca.now += timedelta(seconds=2)
        listed = ca.publish(0)
        dates = [entry.revocation_date_utc for entry in listed]
        assert max(dates) == before + timedelta(minutes=20, seconds=seconds)
        assert max(dates) <= listed.last_update_utc <= ca.now


def test_this_update_rises_from_crl_to_crl_however_fast_they_follow(ca: StatusCa) -> None:
    leaf = ca.issue(shard=0)
    instants = [ca.publish(0).last_update_utc for _ in range(3)]
    ca.now += timedelta(minutes=1)
    ca.revoke(leaf)
    instants += [ca.publish(0).last_update_utc for _ in range(2)]
    assert instants == sorted(set(instants))


def test_an_event_of_a_clock_that_jumped_ahead_dates_no_crl_ahead(ca: StatusCa) -> None:
    leaf = ca.issue(shard=0)
    ca.revoke(leaf, at=ca.now + timedelta(days=2))
    listed = ca.publish(0)
    assert serials(listed) == {leaf.serial}
    assert listed.last_update_utc <= ca.now
