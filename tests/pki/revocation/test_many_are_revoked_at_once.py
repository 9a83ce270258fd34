"""Revocations of many: what a selection finds, who must agree, batches that resume, what is skipped."""

import os
import time
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
from sqlalchemy import Engine, text

from directory.access import Role, Token
from directory.base import failpoints
from directory.base.db import transaction
from directory.base.errors import Refusal
from pki.model import RevocationReason, Serial
from pki.revocation import bulk, requests
from pki.revocation.bulk import Preview
from pki.revocation.bulk_store import Bulk, Selection
from tests.api.certificates import certify
from tests.factories import seed_organisation, seed_practitioner, seed_token

WHY = "incident 2026-31"
SUPERSEDED = RevocationReason.SUPERSEDED


def admin(engine: Engine, name: str, role: Role = Role.ADMIN) -> Token:
    expires = datetime.fromisoformat("2027-01-01T00:00:00+00:00")
    return Token(seed_token(engine, name, role=role.value, authority=""), name, role, "", expires)


@pytest.fixture
def first(engine: Engine) -> Token:
    return admin(engine, "first")


def certified(engine: Engine, now: datetime, count: int) -> list[Serial]:
    mailbox = seed_practitioner(engine).mailbox
    return [Serial(certify(engine, mailbox, now, number=number)) for number in range(1, count + 1)]


def preview(engine: Engine, now: datetime, token: Token, **criteria: Any) -> Preview:
    with transaction(engine) as connection:
        return bulk.preview(connection, now=now, token=token, selection=Selection(**criteria))


def plan(
    engine: Engine, now: datetime, token: Token, *, reason: RevocationReason = SUPERSEDED, **criteria: Any
) -> Bulk:
    with transaction(engine) as connection:
        return bulk.plan(
            connection, now=now, token=token, selection=Selection(**criteria), reason=reason, comment=WHY
        )


def agree(engine: Engine, now: datetime, token: Token, made: Bulk, digest: bytes | None = None) -> Bulk:
    with transaction(engine) as connection:
        return bulk.approve(
            connection, now=now, token=token, number=made.id, digest=digest or made.digest, comment="seen"
        )


def step(engine: Engine, now: datetime, limit: int) -> Bulk | None:
    with transaction(engine) as connection:
        found = bulk.waiting(connection)
        return None if found is None else bulk.step(connection, found, now, limit)


def revoked(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        query = "SELECT serial FROM revocation WHERE action = 'revoke' ORDER BY serial"
        return list(connection.execute(text(query)).scalars())


def refused(code: str) -> Any:
    return pytest.raises(Refusal, check=lambda refusal: refusal.code == code)


def test_a_preview_counts_shows_and_writes_nothing(engine: Engine, now: datetime, first: Token) -> None:
    serials = certified(engine, now, 30)
    seen = preview(engine, now, first, authority="persons-1")
    assert (seen.total, seen.needed) == (30, 1)
    assert seen.digest == sha256("".join(f"{serial}\n" for serial in serials).encode()).digest()
    assert [one.serial for one in seen.samples] == [*serials[:10], *serials[-10:]]
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM bulk_revocation")).scalar_one() == 0


def test_criteria_add_up(engine: Engine, now: datetime, first: Token) -> None:
    person = seed_practitioner(engine).mailbox
    place = seed_organisation(engine)
    mine, other, old = (
        Serial(certify(engine, person, now, number=1)),
        Serial(certify(engine, place, now, number=2, holder="810099000019")),
        Serial(certify(engine, person, now - timedelta(days=9), number=3)),
    )
    certify(engine, person, now - timedelta(days=400), number=4, lasts=timedelta(days=30))
    with engine.connect() as connection:
        operator = connection.execute(text("SELECT min(id) FROM operator")).scalar_one()
        spki = connection.execute(
            text("SELECT spki_sha256 FROM certificate WHERE serial = :s"), {"s": other}
        ).scalar_one()
    found = {
        "all": {"authority": "persons-1"},
        "serials": {"serials": (old, mine)},
        "establishment": {"establishment": "750990012"},
        "operator": {"operator": operator, "serials": (mine,)},
        "since": {"profile": "practitioner-smime", "issued_from": now - timedelta(days=1)},
        "until": {"authority": "persons-1", "issued_until": now},
        "keys": {"keys": (spki.hex(),)},
    }
    expected = {
        "all": [mine, other, old], "serials": [mine, old], "establishment": [other], "operator": [mine],
        "since": [mine, other], "until": [old], "keys": [other],
    }  # fmt: skip
    assert {
        name: [one.serial for one in preview(engine, now, first, **criteria).samples]
        for name, criteria in found.items()
    } == expected


def test_an_establishment_is_selected_by_any_of_its_numbers(
    engine: Engine, now: datetime, first: Token
) -> None:
    for number, finess in enumerate(("750990012", "250990033"), 1):
        certify(engine, seed_organisation(engine, finess), now, number=number)
    with engine.begin() as connection:
        connection.execute(text("UPDATE organisation SET legal_finess = '750990020'"))
        sql = "UPDATE organisation SET siret = '73282932000074' WHERE finess = '250990033'"
        connection.execute(text(sql))
    one, other = f"{1:040x}", f"{2:040x}"
    expected = {
        "750990012": [one], "1750990012": [one], "750 990\u00a0012": [one],
        "73282932000074": [other], "732 829 320 00074": [other],
        "750990020": [one, other], "1 750990020": [one, other],
    }  # fmt: skip
    assert {
        asked: [one.serial for one in preview(engine, now, first, establishment=asked).samples]
        for asked in expected
    } == expected
    assert plan(engine, now, first, establishment="1750990020").total == 2


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ("CLINIQUE", "malformed-finess"), ("", "malformed-finess"), ("750990013", "finess-check-digit"),
        ("73282932000075", "siret-check-digit"),
    ],
)  # fmt: skip
def test_an_establishment_that_is_no_number_is_refused(
    engine: Engine, now: datetime, first: Token, asked: str, code: str
) -> None:
    certified(engine, now, 1)
    with refused(code):
        preview(engine, now, first, authority="persons-1", establishment=asked)


def test_the_certificates_of_the_service_itself_are_never_selected(
    engine: Engine, now: datetime, first: Token
) -> None:
    certified(engine, now, 1)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE certificate DISABLE TRIGGER append_only"))
        connection.execute(text("UPDATE certificate SET mailbox = NULL, profile = 'ocsp-signer'"))
        connection.execute(text("ALTER TABLE certificate ENABLE TRIGGER append_only"))
    for criteria in ({"authority": "persons-1"}, {"profile": "ocsp-signer"}, {"serials": (f"{1:040x}",)}):
        with refused("nothing-selected"):
            preview(engine, now, first, **criteria)


def test_nothing_said_selects_nothing(engine: Engine, now: datetime, first: Token) -> None:
    with refused("empty-selection"):
        preview(engine, now, first)


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.ADMIN])
def test_only_administrators_revoke_many(engine: Engine, now: datetime, first: Token, role: Role) -> None:
    other = replace(first, role=role)
    for act in (
        lambda: preview(engine, now, other, authority="persons-1"),
        lambda: plan(engine, now, other, authority="persons-1"),
    ):
        with refused("role-lacking"):
            act()


def test_a_few_need_one_word_and_many_need_two(
    engine: Engine, now: datetime, first: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    certified(engine, now, 5)
    made = plan(engine, now, first, authority="persons-1")
    assert (made.needed, made.state, step(engine, now, 10)) == (1, "planned", None)
    assert agree(engine, now, first, made).state == "running"
    monkeypatch.setattr(bulk, "ALONE_UP_TO", 4)
    made = plan(engine, now, first, authority="persons-1")
    assert made.needed == 2
    with refused("digest-differs"):
        agree(engine, now, first, made, b"x" * 32)
    assert agree(engine, now, first, made).state == "planned"
    with refused("self-approval"):
        agree(engine, now, first, made)
    assert agree(engine, now, admin(engine, "second"), made).state == "running"
    with refused("bulk-not-planned"):
        agree(engine, now, first, made)


def test_the_word_of_a_token_revoked_since_counts_no_more(
    engine: Engine, now: datetime, first: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    certified(engine, now, 2)
    monkeypatch.setattr(bulk, "ALONE_UP_TO", 1)
    made = plan(engine, now, first, authority="persons-1")
    agree(engine, now, first, made)
    with engine.begin() as connection:
        connection.execute(text("UPDATE api_token SET revoked_at = now() WHERE id = :id"), {"id": first.id})
    again = agree(engine, now, admin(engine, "second"), made)
    assert (again.state, again.approvals) == ("planned", 1)
    assert agree(engine, now, admin(engine, "third"), made).state == "running"


def test_it_goes_on_batch_by_batch_and_skips_what_others_revoked(
    engine: Engine, now: datetime, first: Token
) -> None:
    serials = certified(engine, now, 7)
    made = plan(engine, now, first, serials=tuple(serials[:6]))
    agree(engine, now, first, made)
    with transaction(engine) as connection:
        requests.revoke_as(connection, now=now, token=first, serial=serials[4], reason=SUPERSEDED)
    reached = [step(engine, now, 4), step(engine, now, 4), step(engine, now, 4)]
    assert [one and (one.state, one.reached, one.revoked, one.skipped) for one in reached] == [
        ("running", 4, 4, 0), ("done", 6, 5, 1), None,
    ]  # fmt: skip
    assert revoked(engine) == serials[:6]
    with engine.connect() as connection:
        query = "SELECT event FROM audit_pending WHERE event LIKE 'bulk%' ORDER BY id"
        assert connection.execute(text(query)).scalars().all() == [
            "bulk-revocation.planned", "bulk-revocation.approved", "bulk-revocation.done",
        ]  # fmt: skip
        query = "SELECT count(*) FROM audit_pending WHERE event = 'certificate.revoked'"
        assert connection.execute(text(query)).scalar_one() == 6


def test_a_worker_killed_in_a_batch_leaves_whole_batches(engine: Engine, now: datetime, first: Token) -> None:
    serials = certified(engine, now, 6)
    agree(engine, now, first, plan(engine, now, first, authority="persons-1"))
    step(engine, now, 2)
    engine.dispose()
    child = os.fork()
    if child == 0:
        failpoints.arm("bulk.batch=kill")
        step(engine, now, 2)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == 9
    assert revoked(engine) == serials[:2]
    # PostgreSQL notices a dead client a moment later, and keeps the act locked until then.
    deadline = time.monotonic() + 10
    while step(engine, now, 2) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    done = step(engine, now, 2)
    assert done is not None
    assert (done.state, done.revoked) == ("done", 6)
    assert revoked(engine) == serials


def test_stopped_it_stays_stopped(engine: Engine, now: datetime, first: Token) -> None:
    serials = certified(engine, now, 4)
    made = agree(engine, now, first, plan(engine, now, first, authority="persons-1"))
    step(engine, now, 2)
    with transaction(engine) as connection:
        done = bulk.stop(connection, now=now, token=first, number=made.id, comment="too wide")
    assert (done.state, step(engine, now, 2), revoked(engine)) == ("stopped", None, serials[:2])
    with refused("bulk-ended"), transaction(engine) as connection:
        bulk.stop(connection, now=now, token=first, number=made.id, comment="again")


def test_two_workers_do_each_batch_once(engine: Engine, now: datetime, first: Token) -> None:
    certified(engine, now, 3)
    agree(engine, now, first, plan(engine, now, first, authority="persons-1"))
    with transaction(engine) as connection:
        assert bulk.waiting(connection) is not None
        with transaction(engine) as other:
            assert bulk.waiting(other) is None


def test_a_lost_key_revoked_among_many_is_blocked_as_well(
    engine: Engine, now: datetime, first: Token
) -> None:
    certified(engine, now, 3)
    made = plan(engine, now, first, reason=RevocationReason.KEY_COMPROMISE, authority="persons-1")
    agree(engine, now, first, made)
    step(engine, now, 10)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM blocked_key")).scalar_one() == 3
