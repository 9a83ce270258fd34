"""Readers who have nothing but what is published are held against the record; differences are told."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from directory.base.db import transaction
from pki.model import CrlForm, RevocationReason, Serial
from pki.monitoring import relying_party_check
from pki.monitoring.relying_party_check import Disagreement
from tests.status_ca import ISSUING, ROOT, Issued, StatusCa

FIRST = Serial("0" * 40)


@pytest.fixture
def crl_form() -> CrlForm:
    return CrlForm.NATIONAL


@pytest.fixture
def ca(engine: Engine, now: datetime, crl_form: CrlForm) -> StatusCa:
    return StatusCa(engine, now, crl_form=crl_form).establish()


def look(engine: Engine, now: datetime) -> tuple[int, list[Disagreement]]:
    with transaction(engine, read_only=True) as connection:
        return relying_party_check.look(connection, now=now, start=FIRST)


def publish_all(ca: StatusCa, *issued: Issued) -> None:
    for shard in {one.shard for one in issued}:
        ca.publish(shard)
    ca.publish(0, ROOT)


@pytest.mark.parametrize("crl_form", list(CrlForm))
def test_what_stands_and_what_was_taken_back_are_seen_alike(engine: Engine, ca: StatusCa) -> None:
    good, revoked, held = ca.issue(), ca.issue(), ca.issue()
    ca.revoke(revoked, RevocationReason.KEY_COMPROMISE)
    ca.revoke(held, RevocationReason.CERTIFICATE_HOLD)
    publish_all(ca, good, revoked, held)
    looked, disagreed = look(engine, ca.now + timedelta(minutes=1))
    assert (looked >= 3, disagreed) == (True, [])


def test_lists_that_have_ended_are_noticed(engine: Engine, ca: StatusCa) -> None:
    good = ca.issue()
    publish_all(ca, good)
    _, disagreed = look(engine, ca.now + timedelta(days=11))
    assert {(one.serial, one.seen, one.recorded) for one in disagreed} >= {
        (good.serial, "path-status-unknown", "trusted")
    }


@pytest.mark.parametrize("crl_form", list(CrlForm))
def test_an_entry_that_a_list_lost_is_noticed(engine: Engine, ca: StatusCa) -> None:
    lost = ca.issue()
    publish_all(ca, lost)
    # As if the revocation had been there when the list was made.
    with transaction(engine) as connection:
        row = {
            "serial": lost.serial,
            "authority": ISSUING,
            "shard": lost.shard,
            "at": ca.now - timedelta(hours=1),
        }
        connection.execute(
            text(
                "INSERT INTO revocation (serial, authority_id, shard, action, reason, actor, revoked_at,"
                " not_after, entry) VALUES (:serial, :authority, :shard, 'revoke', 'superseded', 'test', :at,"
                " now() + interval '1 year', '\\x30')"
            ),
            row,
        )
    _, disagreed = look(engine, ca.now + timedelta(minutes=1))
    assert [(one.serial, one.seen, one.recorded) for one in disagreed] == [
        (lost.serial, "trusted", "revoked")
    ]


def test_what_was_revoked_a_moment_ago_is_no_disagreement(engine: Engine, ca: StatusCa) -> None:
    leaf = ca.issue()
    publish_all(ca, leaf)
    ca.revoke(leaf, RevocationReason.SUPERSEDED)
    assert look(engine, ca.now + timedelta(minutes=1))[1] == []


def test_a_delta_counts_as_much_as_the_list_it_completes(engine: Engine, ca: StatusCa) -> None:
    revoked, released = ca.issue(), ca.issue()
    ca.revoke(released, RevocationReason.CERTIFICATE_HOLD, action="hold")
    publish_all(ca, revoked, released)
    began = ca.now - timedelta(hours=1)
    ca.now += timedelta(minutes=1)
    # At instants before the complete list, so that nothing excuses whoever reads it alone.
    ca.revoke(revoked, at=began)
    ca.revoke(released, RevocationReason.CERTIFICATE_HOLD, action="release", at=began)
    ca.publish(0, delta=True)
    assert look(engine, ca.now)[1] == []


def test_an_entry_that_a_delta_lost_is_noticed(engine: Engine, ca: StatusCa) -> None:
    lost = ca.issue()
    publish_all(ca, lost)
    ca.now += timedelta(minutes=1)
    ca.revoke(lost)
    with transaction(engine) as connection:
        # As if the event had been forgotten before any CRL had seen it, gate and all.
        connection.execute(text("DELETE FROM crl_event"))
        connection.execute(text("ALTER TABLE crl DISABLE TRIGGER USER"))
        connection.execute(text("UPDATE crl SET watermark = watermark + 1"))
        connection.execute(text("ALTER TABLE crl ENABLE TRIGGER USER"))
    ca.now += timedelta(minutes=1)
    ca.publish(0, delta=True)
    _, disagreed = look(engine, ca.now)
    assert [(one.serial, one.seen, one.recorded) for one in disagreed] == [
        (lost.serial, "trusted", "revoked")
    ]
