"""Delta CRLs as relying parties combine them: judged by openssl, pkilint and our gate on real rows."""

import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Engine, text

from directory.base.db import transaction
from directory.base.errors import Refusal
from pki.crl import publish as crl
from pki.crl import store as crl_store
from pki.model import RevocationReason, Serial, serial_of
from pki.publication import store as published
from tests.status_ca import BASE, ISSUING, ROOT, Issued, StatusCa

HOLD = RevocationReason.CERTIFICATE_HOLD
REMOVED = x509.ReasonFlags.remove_from_crl
Crl = x509.CertificateRevocationList


@pytest.fixture
def ca(engine: Engine, now: datetime) -> StatusCa:
    """Both kinds of each shard are published."""
    made = StatusCa(engine, now).establish()
    made.settle()
    return made


def later(ca: StatusCa, seconds: int = 5) -> StatusCa:
    ca.now += timedelta(seconds=seconds)
    return ca


def delta(ca: StatusCa, shard: int = 0) -> Crl:
    return later(ca).publish(shard, delta=True)


def complete(ca: StatusCa, shard: int = 0) -> Crl:
    return later(ca).publish(shard)


def reasons(listed: Crl) -> dict[Serial, x509.ReasonFlags]:
    return {
        serial_of(entry.serial_number): entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
        for entry in listed
    }


def number(listed: Crl) -> int:
    return listed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def base(listed: Crl) -> int:
    found = listed.extensions.get_extension_for_class(x509.DeltaCRLIndicator)
    assert found.critical
    return found.value.crl_number


def judged_by_openssl(ca: StatusCa, leaf: Issued, folder: Path, *lists: Crl) -> str:
    """`openssl verify` with these lists of the shard: 'OK' or what it holds against the certificate."""
    pem = {
        "root": ca.certificates[ROOT].public_bytes(Encoding.PEM),
        "issuing": ca.certificates[ISSUING].public_bytes(Encoding.PEM),
        "leaf": leaf.pem,
        "lists": b"".join(one.public_bytes(Encoding.PEM) for one in (*lists, ca.publish(0, ROOT))),
    }
    for name, written in pem.items():
        (folder / name).write_bytes(written)
    found = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-crl_check_all", "-extended_crl", "-use_deltas",
         "-attime", str(int(ca.now.timestamp())), "-CAfile", "root", "-untrusted", "issuing",
         "-CRLfile", "lists", "leaf"],
        cwd=folder, capture_output=True, text=True, check=False, timeout=20,
    )  # fmt: skip
    return "OK" if found.returncode == 0 else found.stderr


def test_openssl_refuses_what_only_the_delta_lists(ca: StatusCa, tmp_path: Path) -> None:
    leaf, other = ca.issue(), ca.issue()
    whole = complete(ca)
    ca.revoke(leaf)
    fresh = delta(ca)
    assert judged_by_openssl(ca, leaf, tmp_path, whole) == "OK"
    assert "certificate revoked" in judged_by_openssl(ca, leaf, tmp_path, whole, fresh)
    assert judged_by_openssl(ca, other, tmp_path, whole, fresh) == "OK"


def test_openssl_sees_a_hold_come_and_go(ca: StatusCa, tmp_path: Path) -> None:
    leaf = ca.issue()
    ca.revoke(leaf, HOLD, action="hold")
    held = complete(ca)
    assert "certificate revoked" in judged_by_openssl(ca, leaf, tmp_path, held)
    ca.revoke(leaf, HOLD, action="release", at=later(ca).now)
    fresh = delta(ca)
    assert reasons(fresh) == {leaf.serial: REMOVED}
    assert judged_by_openssl(ca, leaf, tmp_path, held, fresh) == "OK"
    assert judged_by_openssl(ca, leaf, tmp_path, complete(ca)) == "OK"


def test_openssl_does_not_take_the_delta_of_another_shard(ca: StatusCa, tmp_path: Path) -> None:
    leaf = ca.issue(shard=1)
    whole = complete(ca, 1)
    ca.revoke(leaf)
    assert judged_by_openssl(ca, leaf, tmp_path, whole, delta(ca, 0)) == "OK"
    assert "certificate revoked" in judged_by_openssl(ca, leaf, tmp_path, whole, delta(ca, 1))


def test_pkilint_finds_nothing_against_a_delta(ca: StatusCa) -> None:
    from pkilint import loader, pkix, report, validation
    from pkilint.pkix import crl as crl_lint
    from pkilint.pkix import extension, name

    for reason in RevocationReason:
        ca.revoke(ca.issue(), reason, action="hold" if reason is HOLD else "revoke")
    gone = ca.issue()
    for action in ("hold", "release"):
        ca.revoke(gone, HOLD, action=action)
    container = crl_lint.create_pkix_crl_validator_container(
        [
            pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
            pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
        ],
        [
            crl_lint.create_issuer_validator_container([]),
            crl_lint.create_validity_validator_container([]),
            crl_lint.create_extensions_validator_container([]),
        ],
    )
    for listed in (delta(ca), complete(ca)):
        document = loader.RFC5280CertificateListDocumentLoader().load_der_document(
            listed.public_bytes(Encoding.DER), "list"
        )
        results = container.validate(document.root)
        notice = validation.ValidationFindingSeverity.NOTICE
        told = report.ReportGeneratorPlaintext(results, notice).generate()
        assert not report.get_findings_count(results, notice), told


def test_a_delta_has_the_scope_of_its_base_and_names_no_fresher_one(ca: StatusCa) -> None:
    whole, fresh = complete(ca), delta(ca)
    scopes = [one.extensions.get_extension_for_class(x509.IssuingDistributionPoint) for one in (whole, fresh)]
    assert scopes[0] == scopes[1]
    assert scopes[0].critical
    (point,) = whole.extensions.get_extension_for_class(x509.FreshestCRL).value
    assert [name.value for name in point.full_name or ()] == [f"{BASE}/crl/{ISSUING}/0-delta.crl"]
    with pytest.raises(x509.ExtensionNotFound):
        fresh.extensions.get_extension_for_class(x509.FreshestCRL)


def test_both_kinds_count_in_one_sequence_and_never_in_one_second(ca: StatusCa) -> None:
    numbers = [number(one) for one in (delta(ca), complete(ca), delta(ca))]
    assert numbers == [numbers[0], numbers[0] + 1, numbers[0] + 2]
    ca.revoke(ca.issue())
    later(ca)
    # RFC 5280 5.2.3: issued at the same time they would have to share a number.
    assert [ca.publish_due(), ca.publish_due()] == [1, 0]
    assert later(ca).publish_due() == 1
    assert later(ca).publish_due() == 0


def test_a_complete_crl_is_made_though_every_run_has_something_for_a_delta(ca: StatusCa) -> None:
    before = number(complete(ca))
    later(ca, 3600)
    for _ in range(4):
        ca.revoke(ca.issue())
        later(ca).publish_due()
    with ca.engine.connect() as connection:
        assert (crl_store.latest_number(connection, ISSUING, 0) or 0) > before


def test_deltas_go_on_while_an_overdue_complete_crl_fails(ca: StatusCa) -> None:
    later(ca, 3600)
    made = []
    for _ in range(4):
        ca.revoke(ca.issue())
        # The complete one is due in each of these runs, and nobody makes it.
        with later(ca, 15).engine.connect() as connection:
            made.append((ISSUING, 0) in crl.due(connection, ca.now, delta=True))
        if made[-1]:
            ca.publish(0, delta=True)
    assert made == [True, False, True, False]


def test_the_base_is_the_oldest_that_holds_so_that_every_reader_can_use_the_delta(ca: StatusCa) -> None:
    first = complete(ca)
    early = ca.issue()
    ca.revoke(early)
    second = complete(ca)
    fresh = delta(ca)
    assert base(fresh) <= number(first)
    assert early.serial in reasons(fresh)
    ca.now = second.next_update_utc - timedelta(seconds=2)
    complete(ca)
    fresh = delta(ca)
    assert base(fresh) > number(second)
    assert reasons(fresh) == {}


def test_a_hold_that_came_and_went_between_two_complete_crls_is_removed_too(ca: StatusCa) -> None:
    """RFC 5280 5.2.4: a reader may have combined the delta that showed it."""
    leaf = ca.issue()
    ca.revoke(leaf, HOLD, action="hold")
    assert reasons(delta(ca)) == {leaf.serial: x509.ReasonFlags.certificate_hold}
    ca.revoke(leaf, HOLD, action="release")
    assert reasons(delta(ca)) == {leaf.serial: REMOVED}
    ca.revoke(leaf, RevocationReason.SUPERSEDED)
    assert reasons(delta(ca)) == {leaf.serial: x509.ReasonFlags.superseded}


def test_base_and_delta_together_are_the_complete_crl(ca: StatusCa) -> None:
    """I11, over an hour of every kind of event."""
    leaves = [ca.issue() for _ in range(6)]
    ca.revoke(leaves[0])
    ca.revoke(leaves[1], HOLD, action="hold")
    ca.revoke(leaves[2], HOLD, action="hold")
    start = complete(ca)
    ca.revoke(leaves[1], HOLD, action="release")
    ca.revoke(leaves[2], RevocationReason.KEY_COMPROMISE)
    ca.revoke(leaves[3])
    ca.revoke(leaves[4], HOLD, action="hold")
    combined = reasons(start) | reasons(delta(ca))
    assert {serial: why for serial, why in combined.items() if why is not REMOVED} == reasons(complete(ca))


def test_an_entry_that_expires_stays_until_a_complete_crl_has_had_it(ca: StatusCa) -> None:
    short = ca.issue(days=1)
    ca.revoke(short)
    shown: dict[str, list[bool]] = {"delta": [], "complete": []}
    for _ in range(76):
        ca.now += timedelta(hours=1)
        shown["delta"].append(short.serial in reasons(delta(ca)))
        shown["complete"].append(short.serial in reasons(complete(ca)))
    for kind, seen in shown.items():
        # Listed from the first on, past the end of the certificate by a scheduled one, then never again.
        assert seen[:25] == [True] * 25, kind
        assert True not in seen[seen.index(False) :], kind
    assert shown["complete"].index(False) == 25
    # The delta keeps it while a complete CRL without it holds: the last is 72 hours old by then.
    assert shown["delta"].index(False) == 71


def test_what_is_revoked_after_its_end_is_on_one_complete_crl(ca: StatusCa) -> None:
    short = ca.issue(days=1)
    ca.now += timedelta(days=2)
    complete(ca)
    ca.revoke(short)
    assert short.serial in reasons(delta(ca))
    assert short.serial in reasons(complete(ca))
    assert short.serial not in reasons(complete(ca))


def test_a_hold_is_released_although_the_delta_fails(ca: StatusCa) -> None:
    """Each kind has a state of its own: one failing once kept holds from being released."""
    leaf = ca.issue()
    ca.revoke(leaf, HOLD, action="hold")
    ca.settle()
    ca.revoke(leaf, HOLD, action="release")

    class NoDeltas:
        ping = staticmethod(ca.ping)

        @staticmethod
        def sign_crl(authority_id: str, shard: int, number: int) -> bytes:
            with ca.engine.connect() as connection:
                waiting = crl_store.reserved(connection, authority_id, shard, number)
            if waiting is None or waiting.base is not None:
                raise Refusal(crl.Kind.UNAVAILABLE, "signer-unavailable", "Not this one.")
            return ca.sign_crl(authority_id, shard, number)

    later(ca)
    with pytest.raises(ExceptionGroup, match="1 of 2"):
        crl.publish_due(ca.engine, NoDeltas(), ca.now, timedelta(hours=72))
    with transaction(ca.engine) as connection:
        served = crl_store.latest(connection, ISSUING, 0)
        assert served is not None
        assert reasons(x509.load_der_x509_crl(served.der)) == {}
        later(ca)
        assert crl.due(connection, ca.now, delta=False) == []
        assert crl.due(connection, ca.now, delta=True) == [(ISSUING, 0)]
    assert reasons(delta(ca)) == {leaf.serial: REMOVED}


def test_no_delta_is_made_before_a_complete_crl(engine: Engine, now: datetime) -> None:
    fresh = StatusCa(engine, now).establish()
    with pytest.raises(Refusal) as caught:
        fresh.publish(delta=True)
    assert caught.value.code == "crl-without-base"
    with transaction(engine) as connection:
        assert crl.due(connection, now, delta=True) == []


def refused(ca: StatusCa, shard: int = 0) -> str:
    with pytest.raises(Refusal) as caught:
        later(ca).publish(shard, delta=True)
    return caught.value.code


def spoil(ca: StatusCa, statement: str) -> None:
    """Change what the gate reads between the reservation and the signature."""
    sign = ca.sign_crl

    def spoiled(authority_id: str, shard: int, number: int) -> bytes:
        with ca.engine.begin() as connection:
            connection.execute(text("ALTER TABLE crl DISABLE TRIGGER USER"))
            connection.execute(text(statement))
        return sign(authority_id, shard, number)

    ca.sign_crl = spoiled  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("UPDATE crl SET base = base + 1 WHERE der IS NULL", "crl-base"),
        ("UPDATE crl SET next_update = this_update + interval '1 s' WHERE base IS NULL", "crl-base"),
        ("UPDATE crl SET watermark = watermark + 9 WHERE der IS NULL", "crl-stale"),
        ("DELETE FROM crl_event", "crl-stale"),
        (
            "ALTER TABLE revocation DISABLE TRIGGER USER; UPDATE revocation SET entry = '\\x3000'",
            "crl-difference",
        ),
        ("UPDATE crl SET entries = entries + 1 WHERE der IS NULL", "crl-miscounted"),
    ],
)
def test_the_gate_stops_a_wrong_delta(ca: StatusCa, statement: str, code: str) -> None:
    ca.revoke(ca.issue())
    delta(ca)
    ca.revoke(ca.issue())
    spoil(ca, statement)
    assert refused(ca) == code


def test_a_delta_overtaken_by_a_complete_crl_is_stopped(ca: StatusCa) -> None:
    ca.revoke(ca.issue())
    sign = ca.sign_crl

    def overtaken(authority_id: str, shard: int, number: int) -> bytes:
        ca.sign_crl = sign  # type: ignore[method-assign]
        ca.publish()
        return sign(authority_id, shard, number)

    ca.sign_crl = overtaken  # type: ignore[method-assign]
    assert refused(ca) == "crl-number"


def test_bytes_are_let_go_and_numbers_and_digests_stay(ca: StatusCa) -> None:
    old = complete(ca)
    ca.now += timedelta(hours=2)
    kept = complete(ca), delta(ca)
    with transaction(ca.engine) as connection:
        assert crl.delete_superseded_bytes(connection, ca.now, timedelta(hours=1)) > 0
        assert crl.delete_superseded_bytes(connection, ca.now, timedelta(hours=1)) == 0
        row = connection.execute(
            text(
                "SELECT der, tbs, sha256 FROM crl WHERE authority_id = :ca AND shard = 0 AND number = :number"
            ),
            {"ca": ISSUING, "number": number(old)},
        ).one()
        in_force = published.crls_in_force(connection, [f"{ISSUING}/0"])
    assert (row.der, row.tbs) == (b"", b"")
    assert len(row.sha256) == 32
    assert in_force == [(ISSUING, 0, *(one.public_bytes(Encoding.DER) for one in kept))]


def test_the_crl_in_service_keeps_its_bytes(ca: StatusCa) -> None:
    with pytest.raises(Exception, match="keeps its bytes"), ca.engine.begin() as connection:
        connection.execute(text("UPDATE crl SET der = '' WHERE base IS NULL"))
