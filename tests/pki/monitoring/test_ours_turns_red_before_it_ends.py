"""Nothing of ours runs out unseen: each kind turns yellow, then red, with its own lead."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from directory.base.db import transaction
from pki.monitoring import service_expiry
from pki.monitoring.service_expiry import Condition, Kind, Lifetime
from tests.pki.conftest import Established

DAY = timedelta(days=1)
# Kind, life, first day of yellow and of red counted from the end.
LEADS = (
    (Kind.ROOT, 9125 * DAY, 4380 * DAY, 1825 * DAY),
    (Kind.ISSUING, 4380 * DAY, 824 * DAY, 365 * DAY),
    (Kind.OCSP_SIGNER, 30 * DAY, 15 * DAY, 13.5 * DAY),
    (Kind.LIST_SIGNER, 30 * DAY, 15 * DAY, 10.5 * DAY),
    (Kind.SERVICE_TLS, 199 * DAY, 59 * DAY, 29.85 * DAY),
    (Kind.CRL, 3 * DAY, 1.8 * DAY, 1.5 * DAY),
    (Kind.CRL, 365 * DAY, 60 * DAY, 30 * DAY),
)


@pytest.mark.parametrize(("kind", "life", "soon", "due"), LEADS)
def test_each_kind_has_its_lead(
    kind: Kind, life: timedelta, soon: timedelta, due: timedelta, now: datetime
) -> None:
    one, moment = Lifetime(kind, "x", now, now + life), timedelta(seconds=1)
    told = [one.condition(one.ends - left) for left in (life, soon, soon - moment, due, due - moment)]
    assert told == [Condition.OK, Condition.OK, Condition.SOON, Condition.SOON, Condition.DUE]
    assert one.condition(one.ends + DAY) is Condition.DUE


@pytest.fixture
def seen(engine: Engine, authority: Established) -> Iterator[object]:
    del authority

    def look(at: datetime) -> dict[str, Condition]:
        with transaction(engine) as connection:
            return {one.label: one.condition(at) for one in service_expiry.ours(connection, at)}

    return look


def test_every_ca_is_watched_until_another_generation_issues(
    engine: Engine, seen: object, authority: Established, now: datetime
) -> None:
    assert callable(seen)
    assert seen(now) == dict.fromkeys(
        ("issuing-ca:organisations-1", "issuing-ca:persons-1", "issuing-ca:servers-1", "root:root-1"),
        Condition.OK,
    )
    late = authority.issuing.not_after - 300 * DAY
    assert seen(late)["issuing-ca:persons-1"] is Condition.DUE
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO authority (id, kind, issuer_id, subject, key_name, shards, der, sha256,"
                " not_before, not_after, created_at, role, generation, state)"
                " SELECT 'persons-2', kind, issuer_id, subject, 'persons-2', shards, der, sha256('2'),"
                " not_before, not_after + interval '9 years', created_at, role, 2, 'active'"
                " FROM authority WHERE id = 'persons-1'"
            )
        )
    told = seen(late)
    assert "issuing-ca:persons-1" not in told
    assert told["issuing-ca:persons-2"] is Condition.OK


def test_the_shard_whose_list_ends_first_stands_for_its_ca(
    engine: Engine, seen: object, now: datetime
) -> None:
    assert callable(seen)
    with engine.begin() as connection:
        for shard, hours in ((0, 72), (1, 30)):
            connection.execute(
                text(
                    "INSERT INTO crl (authority_id, shard, number, this_update, next_update, entries,"
                    " watermark, tbs, tbs_sha256, der, sha256) VALUES"
                    " ('persons-1', :shard, 1, :at, :ends, 0, 0, 'x', sha256('x'), 'x', sha256('x'))"
                ),
                {"shard": shard, "at": now, "ends": now + timedelta(hours=hours)},
            )
    assert seen(now)["crl:persons-1/1"] is Condition.OK
    assert seen(now + timedelta(hours=16))["crl:persons-1/1"] is Condition.DUE
