"""A CA of the plain form: one complete CRL, without what GnuPG, NSS and old validators refuse."""

import asyncio
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from asn1crypto import cms
from asn1crypto import crl as asn1_crl
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import ExtensionOID
from pyhanko.sign.validation.generic_cms import async_validate_detached_cms
from pyhanko.sign.validation.settings import KeyUsageConstraints
from pyhanko_certvalidator import CertificateValidator, ValidationContext
from pyhanko_certvalidator.errors import RevokedError
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from api.status.wsgi import StatusApplication
from directory.attention import matters_noted
from directory.base.audit import Actor
from directory.base.clock import utc_now
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from pki.ceremony import perform
from pki.crl import distribution_points, encoding
from pki.crl import publish as crl
from pki.crl import store as crl_store
from pki.crl.store import Entries
from pki.model import CrlForm, RevocationReason, serial_of
from pki.publication import store as published
from pki.record import authorities
from tests.pki.hierarchies import generation, plan, ring
from tests.status_ca import ISSUING, ROOT, Issued, StatusCa
from tests.wsgi_client import request

ACTOR = Actor("test:ceremony")
HOLD = RevocationReason.CERTIFICATE_HOLD


@pytest.fixture
def ca(engine: Engine, now: datetime) -> StatusCa:
    return StatusCa(engine, now, crl_form=CrlForm.PLAIN).establish()


def serials(listed: x509.CertificateRevocationList) -> set[str]:
    return {serial_of(entry.serial_number) for entry in listed}


def due(ca: StatusCa) -> list[list[tuple[str, int]]]:
    with transaction(ca.engine) as connection:
        return [crl.due(connection, ca.now, delta=delta) for delta in (False, True)]


def test_it_is_complete_and_carries_nothing_that_old_readers_refuse(ca: StatusCa) -> None:
    issued = [ca.issue() for _ in range(3)]
    for one in issued:
        ca.revoke(one)
    listed = ca.publish()
    assert serials(listed) == {one.serial for one in issued}
    assert {one.oid for one in listed.extensions} == {
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER, ExtensionOID.CRL_NUMBER,
    }  # fmt: skip
    assert not any(one.critical for one in listed.extensions)


def test_it_has_no_deltas_on_any_road(ca: StatusCa) -> None:
    ca.settle()
    ca.revoke(ca.issue())
    # At once, as of any CA: no delta goes before it.
    assert due(ca) == [[(ISSUING, 0)], []]
    assert ca.publish_due() == 1
    assert due(ca) == [[], []]
    with pytest.raises(Refusal) as refused:
        ca.publish(delta=True)
    assert (refused.value.kind, refused.value.code) == (Kind.CONFLICT, "crl-without-deltas")
    with ca.engine.connect() as connection:
        ((_, shard, listed, delta),) = [
            one for one in published.crls_in_force(connection, None) if one[0] == ISSUING
        ]
    assert (shard, delta) == (0, None)
    assert serials(x509.load_der_x509_crl(listed))


def test_over_http_there_is_one_list_and_nothing_beside_it(ca: StatusCa, tmp_path: Path) -> None:
    ca.settle()
    ca.revoke(ca.issue())
    ca.settle()
    web = StatusApplication(ca.engine, keys_folder=tmp_path, passphrase=b"", hours=8)
    told = {name: request(web, "GET", f"/crl/{ISSUING}/{name}.crl")[0][:3] for name in ("0", "0-delta", "1")}
    assert told == {"0": "200", "0-delta": "404", "1": "404"}


def test_the_gate_signs_no_delta_of_it(ca: StatusCa) -> None:
    """Whoever writes one into the record gets no signature."""
    ca.publish()
    with transaction(ca.engine) as connection:
        authority = authorities.load_authority(connection, ISSUING)
        assert authority
        number = crl_store.take_number(connection, ISSUING, 0, 0)
        span = {"this_update": ca.now, "next_update": ca.now + timedelta(hours=1)}
        tbs = encoding.tbs_der(
            authority, distribution_points.Points(None, None), number, joined=b"", base=1, **span
        )
        crl_store.reserve(connection, ISSUING, 0, number, tbs=tbs, listed=Entries(0, 0, b""), base=1, **span)
    with pytest.raises(Refusal) as refused:
        ca.sign_crl(ISSUING, 0, number)
    assert refused.value.code == "crl-form"


def test_a_hold_comes_and_goes_with_the_next_list(ca: StatusCa) -> None:
    held, lost = ca.issue(), ca.issue()
    ca.revoke(held, HOLD, action="hold")
    ca.revoke(lost)
    assert serials(ca.publish()) == {held.serial, lost.serial}
    ca.now += timedelta(minutes=1)
    ca.revoke(held, HOLD, action="release")
    assert ca.publish_due() >= 1
    assert serials(ca.publish()) == {lost.serial}


def test_what_one_list_has_seen_is_forgotten_and_what_failed_is_not(ca: StatusCa) -> None:
    """Only deltas ask when an event was new: ten years of them would lie there for nobody."""

    class Broken:
        def ping(self) -> str:
            return ca.ping()

        def sign_crl(self, *_: object) -> bytes:
            raise Refusal(Kind.UNAVAILABLE, "signer-unavailable", "Not today.")

    first, second = ca.issue(), ca.issue()
    ca.revoke(first)
    ca.settle()
    ca.revoke(second)
    with pytest.raises(ExceptionGroup):
        crl.publish_due(ca.engine, Broken(), ca.now, timedelta(hours=72))
    assert due(ca)[0] == [(ISSUING, 0)]
    ca.settle()
    for _ in range(3):
        ca.now += timedelta(hours=1)
        assert serials(ca.publish()) == {first.serial, second.serial}
    with ca.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM crl_event")).scalar_one() == 0


def test_an_expired_entry_stays_on_one_more_list(ca: StatusCa) -> None:
    issued = ca.issue(days=2)
    ca.revoke(issued)
    ca.publish()
    ca.now = issued.not_after + timedelta(minutes=30)
    assert serials(ca.publish()) == {issued.serial}
    ca.now += timedelta(hours=1)
    ca.publish()
    ca.now += timedelta(hours=1)
    assert serials(ca.publish()) == set()


def matters(ca: StatusCa) -> list[tuple[str, dict[str, object]]]:
    with transaction(ca.engine) as connection:
        noted = matters_noted(
            connection, authority=None, kind="plain-crl-large", closed=False, after=None, limit=9
        )
    return [(one.subject, dict(one.detail)) for one in noted]


def test_half_of_what_it_is_made_for_is_told_and_no_number_stops_it(
    ca: StatusCa, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crl, "MOST_IN_PLAIN", 4)
    issued = [ca.issue(days=days) for days in (300, 2, 2, 2, 2)]
    ca.revoke(issued[0])
    ca.publish()
    assert matters(ca) == []
    ca.revoke(issued[1])
    ca.publish()
    assert matters(ca) == [(ISSUING, {"entries": 2, "most": 4})]
    for one in issued[2:]:
        ca.revoke(one)
    # More than it is made for, and all of them are listed.
    assert len(list(ca.publish())) == 5
    assert matters(ca) == [(ISSUING, {"entries": 5, "most": 4})]
    ca.now = issued[1].not_after + timedelta(hours=2)
    ca.publish()
    ca.now += timedelta(hours=2)
    ca.publish()
    assert matters(ca) == []


def test_who_has_outgrown_the_plain_form_is_not_made_in_it_again(
    engine: Engine, tmp_path: Path, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = generation(1, form="plain"), generation(2, form="plain")
    keys = ring(tmp_path / "keys")

    def hold(*tables: str) -> perform.Outcome:
        return perform.perform(engine, plan(*tables), keys, now=now, actor=ACTOR)

    hold(first)
    with engine.begin() as connection:
        listed = (
            "INSERT INTO crl (authority_id, shard, number, this_update, next_update, entries, watermark, tbs,"
            " tbs_sha256)"
            " VALUES ('persons-1', 0, 1, :now, :now + interval '1 day', 5, 5, '\\x00', sha256('\\x00'))"
        )
        connection.execute(text(listed), {"now": now})
        connection.execute(text("UPDATE crl SET der = '\\x00', sha256 = sha256('\\x00'), tbs = ''"))
    monkeypatch.setattr(perform, "MOST_IN_PLAIN", 4)
    with pytest.raises(Refusal) as refused:
        hold(first, second)
    assert refused.value.code == "plain-too-large"
    assert "persons-2 cannot be plain: the CA before it lists 5" in refused.value.text
    # Nothing was made, no key either; in the other form it may be.
    assert not list((tmp_path / "keys").glob("*-2*"))
    made = hold(first, generation(2)).made
    assert set(made) == {"root-2", "persons-2", "organisations-2"}
    with engine.connect() as connection:
        forms = {one.id: (one.crl_form.value, one.shards) for one in authorities.authorities(connection)}
    assert (forms["persons-1"], forms["persons-2"]) == (("plain", 1), ("national", 16))


def test_a_form_is_never_changed(engine: Engine, tmp_path: Path, now: datetime) -> None:
    keys = ring(tmp_path / "keys")
    perform.perform(engine, plan(generation(1, form="plain")), keys, now=now, actor=ACTOR)
    with pytest.raises(Refusal) as refused:
        perform.perform(engine, plan(generation(1)), keys, now=now, actor=ACTOR)
    assert refused.value.code == "ceremony-differs"
    assert refused.value.details["differs"] == ["crl", "shards"]
    with pytest.raises(IntegrityError, match="only its state changes"), engine.begin() as connection:
        connection.execute(text("UPDATE authority SET crl_form = 'national' WHERE id = 'persons-1'"))
    with pytest.raises(IntegrityError, match="check constraint"), engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO authority SELECT (jsonb_populate_record(a, jsonb_build_object('id', 'persons-9',"
                " 'generation', 9, 'sha256', '\\x01', 'shards', 2))).* FROM authority a"
                " WHERE id = 'persons-1'"
            )
        )


def test_the_ceremony_tells_and_logs_the_form(engine: Engine, tmp_path: Path, now: datetime) -> None:
    wanted = plan(generation(1, form="plain"))
    with transaction(engine, read_only=True) as connection:
        assert perform.preview(connection, wanted, now).count("Its CRL: plain\n") == 3
    done = perform.perform(engine, wanted, ring(tmp_path / "keys"), now=now, actor=ACTOR)
    assert done.transcript.count("Its CRL: plain\n") == 3
    with engine.connect() as connection:
        told = connection.execute(
            text("SELECT detail ->> 'crl' FROM audit_pending WHERE event = 'authority.created'")
        ).scalars()
        assert set(told) == {"plain"}


# Judged by others, of both forms.


def lists(ca: StatusCa) -> list[x509.CertificateRevocationList]:
    """All that is published once nothing is due, deltas too."""
    ca.settle()
    with ca.engine.connect() as connection:
        found = published.crls_in_force(connection, None)
    return [x509.load_der_x509_crl(der) for _, _, *both in found for der in both if der is not None]


def context_of(ca: StatusCa, made: list[x509.CertificateRevocationList]) -> ValidationContext:
    """What is published and nothing more; each certificate needs word of its status."""
    return ValidationContext(
        trust_roots=[asn1_x509.Certificate.load(ca.der(ROOT))],
        other_certs=[asn1_x509.Certificate.load(ca.der(ISSUING))],
        crls=[asn1_crl.CertificateList.load(one.public_bytes(Encoding.DER)) for one in made],
        revocation_mode="require", allow_fetching=False, moment=ca.now,
    )  # fmt: skip


def validate(ca: StatusCa, issued: Issued, made: list[x509.CertificateRevocationList]) -> None:
    leaf = asn1_x509.Certificate.load(issued.certificate.public_bytes(Encoding.DER))
    validator = CertificateValidator(leaf, validation_context=context_of(ca, made))
    asyncio.run(validator.async_validate_usage(set()))


@pytest.mark.parametrize("form", list(CrlForm))
def test_certvalidator_takes_either_form(engine: Engine, now: datetime, form: CrlForm) -> None:
    ca = StatusCa(engine, now, crl_form=form).establish()
    good, lost = ca.issue(), ca.issue()
    ca.revoke(lost)
    made = lists(ca)
    assert len(made) == (2 if form is CrlForm.PLAIN else 5)
    validate(ca, good, made)
    with pytest.raises(RevokedError):
        validate(ca, lost, made)


@pytest.mark.parametrize("form", list(CrlForm))
def test_pyhanko_judges_a_signed_letter_by_either_form(engine: Engine, now: datetime, form: CrlForm) -> None:
    ca = StatusCa(engine, now, crl_form=form).establish()
    letter, keys = b"Bonjour", [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    good, lost = (ca.issue(key=key.public_key()) for key in keys)
    ca.revoke(lost)
    made = lists(ca)
    told = []
    for issued, key in zip((good, lost), keys, strict=True):
        signing = pkcs7.PKCS7SignatureBuilder().set_data(letter)
        signing = signing.add_signer(issued.certificate, key, hashes.SHA256())
        options = [pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary]
        signed = cms.ContentInfo.load(signing.sign(Encoding.DER, options))["content"]
        judged = asyncio.run(
            async_validate_detached_cms(
                letter,
                signed,
                signer_validation_context=context_of(ca, made),
                key_usage_settings=KeyUsageConstraints(key_usage=set()),
            )
        )
        told.append((judged.intact and judged.valid, judged.trusted, judged.revoked))
    assert told == [(True, True, False), (True, False, True)]


@pytest.mark.parametrize("form", list(CrlForm))
def test_openssl_and_gnutls_take_either_form(engine: Engine, tmp_path: Path, form: CrlForm) -> None:
    # certtool knows no other day than today.
    ca = StatusCa(engine, utc_now(), crl_form=form).establish()
    good, lost = ca.issue(), ca.issue()
    ca.revoke(lost)
    made = [ca.publish(), ca.publish(0, ROOT)]
    (tmp_path / "ca").write_bytes(ca.pem())
    (tmp_path / "lists").write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in made))
    for issued, words in ((good, ("OK", "Verified")), (lost, ("certificate revoked", "revoked"))):
        (tmp_path / "leaf").write_bytes(issued.pem)
        (tmp_path / "chain").write_bytes(issued.pem + ca.pem())
        tools = (
            ["openssl", "verify", "-crl_check_all", "-CAfile", "ca", "-CRLfile", "lists", "leaf"],
            [
                "certtool",
                "--verify",
                "--load-ca-certificate",
                "ca",
                "--load-crl",
                "lists",
                "--infile",
                "leaf",
            ],
        )
        for tool, word in zip(tools, words, strict=True):
            done = subprocess.run(tool, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert word in done.stdout + done.stderr
            assert (done.returncode == 0) == (issued is good)


@pytest.mark.parametrize(("form", "taken"), [(CrlForm.PLAIN, True), (CrlForm.NATIONAL, False)])
def test_nss_reads_the_plain_form_alone(
    engine: Engine, now: datetime, tmp_path: Path, form: CrlForm, *, taken: bool
) -> None:
    """It knows no IssuingDistributionPoint, which is critical (RFC 5280 5.2.5): docs/divergences.md."""
    ca = StatusCa(engine, now, crl_form=form).establish()
    ca.revoke(ca.issue())
    database = f"sql:{tmp_path}"
    told = []
    subprocess.run(["certutil", "-N", "-d", database, "--empty-password"], check=True)
    for name, trust in ((ROOT, "C,C,C"), (ISSUING, ",,")):
        (tmp_path / name).write_bytes(ca.der(name))
        adding = ["certutil", "-A", "-d", database, "-n", name, "-t", trust, "-i", tmp_path / name]
        subprocess.run(adding, check=True)
        (tmp_path / f"{name}.crl").write_bytes(ca.publish(0, name).public_bytes(Encoding.DER))
        done = subprocess.run(
            ["crlutil", "-I", "-i", tmp_path / f"{name}.crl", "-d", database],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        told.append((done.returncode, "UNKNOWN_CRITICAL_EXTENSION" in done.stderr))
    assert told == [(0, False), (0, False) if taken else (1, True)]
