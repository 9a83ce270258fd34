"""Each way a CRL has gone wrong at some CA is stopped before the signature, and solely for that."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Engine, text

from directory.base.db import transaction
from directory.base.errors import Refusal
from pki.certificates import der
from pki.crl import checks, distribution_points, encoding
from pki.crl import store as crl_store
from pki.crl.store import Entries
from pki.model import RevocationReason
from pki.record import authorities
from tests.status_ca import BASE, ISSUING, ROOT, StatusCa

POINTS = distribution_points.Points(f"{BASE}/crl/{ISSUING}/0.crl", f"{BASE}/crl/{ISSUING}/0-delta.crl")


@pytest.fixture
def ca(engine: Engine, now: datetime) -> StatusCa:
    """One revoked certificate, one published CRL that lists it."""
    made = StatusCa(engine, now).establish()
    made.revoke(made.issue())
    made.publish()
    return made


def reserve(ca: StatusCa, *, events: int | None = None, **wrong: Any) -> int:
    """Reserve the shard's next CRL, right but for what is given."""
    with transaction(ca.engine) as connection:
        authority = authorities.load_authority(connection, ISSUING)
        assert authority is not None
        number = crl_store.take_number(connection, ISSUING, 0, 0)
        seen = crl_store.mark_events_listed(connection, ISSUING, 0, number)
        _, joined = crl_store.entries(connection, ISSUING, 0, None)
        values = {"authority": authority, "points": POINTS, "number": number, "joined": joined,
                  "this_update": ca.now, "next_update": ca.now + timedelta(hours=72)} | wrong  # fmt: skip
        tbs = encoding.tbs_der(**values)
        counted = wrong.get("joined", joined)
        listed = Entries(seen if events is None else events, len(list(der.elements(counted))), counted)
        crl_store.reserve(
            connection, ISSUING, 0, number, tbs=tbs, listed=listed, this_update=ca.now,
            next_update=ca.now + timedelta(hours=72),
        )  # fmt: skip
    return number


def refused(ca: StatusCa, number: int) -> str:
    with pytest.raises(Refusal) as caught:
        ca.sign_crl(ISSUING, 0, number)
    return caught.value.code


def test_a_right_one_passes(ca: StatusCa) -> None:
    assert ca.sign_crl(ISSUING, 0, reserve(ca))


def of_the_root(ca: StatusCa) -> dict[str, Any]:
    with transaction(ca.engine) as connection:
        return {"authority": authorities.load_authority(connection, ROOT)}


def same_name_other_key(ca: StatusCa) -> dict[str, Any]:
    other = StatusCa(ca.engine, ca.now)
    other.keys = {ROOT: ca.keys[ROOT], ISSUING: ca.keys[ROOT]}
    with transaction(ca.engine) as connection:
        authority = authorities.load_authority(connection, ISSUING)
    assert authority is not None
    return {"authority": replace(authority, der=other._authority(ISSUING).public_bytes(Encoding.DER))}


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (of_the_root, "crl-issuer"),
        (same_name_other_key, "crl-issuer-key"),
        (lambda _: {"points": replace(POINTS, scope=f"{BASE}/crl/{ISSUING}/1.crl")}, "crl-url"),
        (lambda _: {"points": replace(POINTS, scope=None)}, "crl-url"),
        (lambda _: {"points": replace(POINTS, delta=None)}, "crl-url"),
        (lambda _: {"points": replace(POINTS, delta=f"{BASE}/crl/{ISSUING}/1-delta.crl")}, "crl-url"),
        (lambda _: {"number": 77}, "crl-number"),
        (lambda ca: {"this_update": ca.now + timedelta(minutes=5)}, "crl-time"),
        (lambda ca: {"this_update": ca.now - timedelta(hours=1)}, "crl-time"),
        (lambda ca: {"next_update": ca.now + timedelta(days=11)}, "crl-time"),
        (lambda ca: {"next_update": ca.now - timedelta(seconds=1)}, "crl-time"),
        (lambda _: {"joined": b""}, "crl-vanished"),
        (lambda _: {"joined": b"\x30\x03\x02\x01\x01"}, "crl-malformed"),
        (lambda _: {"events": 0}, "crl-stale"),
    ],
)
def test_a_wrong_one_is_stopped(ca: StatusCa, wrong: Callable[[StatusCa], dict[str, Any]], code: str) -> None:
    assert refused(ca, reserve(ca, **wrong(ca))) == code


def test_a_serial_listed_twice_is_stopped(ca: StatusCa) -> None:
    with transaction(ca.engine) as connection:
        _, entry = crl_store.entries(connection, ISSUING, 0, None)
    assert refused(ca, reserve(ca, joined=entry + entry)) == "crl-duplicate"


def test_bytes_other_than_those_reserved_are_stopped(ca: StatusCa, now: datetime) -> None:
    number = reserve(ca)
    with transaction(ca.engine) as connection:
        authority = authorities.load_authority(connection, ISSUING)
        assert authority is not None
        with pytest.raises(Refusal, match="No CRL"):
            checks.check_crl(connection, authority, 0, number, b"\x30\x00", now)


def test_a_count_other_than_that_of_the_entries_is_stopped(ca: StatusCa) -> None:
    with transaction(ca.engine) as connection:
        connection.execute(text("ALTER TABLE crl DISABLE TRIGGER USER"))
    number = reserve(ca)
    with transaction(ca.engine) as connection:
        connection.execute(text("UPDATE crl SET entries = 2 WHERE number = :number"), {"number": number})
    assert refused(ca, number) == "crl-miscounted"


def test_one_overtaken_by_a_later_one_is_stopped(ca: StatusCa) -> None:
    overtaken = reserve(ca)
    ca.publish()
    assert refused(ca, overtaken) == "crl-number"


def test_an_expired_entry_may_go_and_a_released_one_too(ca: StatusCa) -> None:
    short, held = ca.issue(days=1), ca.issue()
    ca.revoke(short)
    ca.revoke(held, RevocationReason.CERTIFICATE_HOLD, action="hold")
    ca.now += timedelta(days=1, hours=2)
    ca.publish()
    ca.revoke(held, RevocationReason.CERTIFICATE_HOLD, action="release")
    with transaction(ca.engine) as connection:
        count, kept = crl_store.entries(connection, ISSUING, 0, ca.now, previous=2)
    assert count == 1
    assert ca.sign_crl(ISSUING, 0, reserve(ca, joined=kept))


def test_what_comes_back_from_the_signer_is_verified(ca: StatusCa) -> None:
    number = reserve(ca)
    signed = ca.sign_crl(ISSUING, 0, number)
    with transaction(ca.engine) as connection:
        authority = authorities.load_authority(connection, ISSUING)
        waiting = crl_store.bytes_of(connection, ISSUING, 0, number)
    assert authority is not None
    assert waiting is not None
    reserved, _ = waiting
    checks.check_signed(signed, reserved, authority)
    forged = der.sequence(reserved, encoding.signature_algorithm(authority.der), der.bit_string(b"\x30\x00"))
    another = encoding.tbs_der(authority, POINTS, 1, this_update=ca.now, next_update=ca.now, joined=b"")
    for whole, tbs in ((forged, reserved), (signed, another)):
        with pytest.raises(Refusal) as caught:
            checks.check_signed(whole, tbs, authority)
        assert caught.value.code == "crl-signature"
