"""Under the real server: a plain question is answered before the framework, and as by the framework.

Nothing that this host committed before the question is missing from its answer, and nothing that another did
a second before.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psutil
import psycopg
import pytest
from sqlalchemy import Engine, text

from api.embedded.postgres import EmbeddedPostgres
from api.process.gathering import VOUCHED_SECONDS
from directory.base import commits
from directory.base.db import libpq
from tests.api.certificates import certify, take_back
from tests.api.serving import Reply, exchange, head_of, web_server
from tests.conftest import fresh_engine
from tests.factories import depart, rpps, seed_practitioner, seed_token

TOKEN = "sceau_operator"
NOW_AND_THEN = {"decided_at", "as_of", "valid_until"}


@pytest.fixture(scope="module")
def engine(postgres: EmbeddedPostgres) -> Iterator[Engine]:
    with fresh_engine(postgres) as made:
        yield made


@pytest.fixture(scope="module")
def port(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    seed_token(engine, "operator", role="operator")
    state = tmp_path_factory.mktemp("web") / "state"
    with web_server(state, engine.url.render_as_string(hide_password=False), trial_addresses=True) as free:
        # What acts here is a process of the same host.
        commits.tell_at(state / "run" / "commits")
        yield free
        commits.tell_nowhere()


@pytest.fixture(scope="module")
def people(engine: Engine) -> dict[str, str]:
    """One against whom nothing stands, one without a certificate, one who left."""
    since = datetime.now(UTC) - timedelta(days=1)
    made = {
        name: seed_practitioner(engine, number).mailbox
        for number, name in enumerate(("good", "bare", "gone"), 1)
    }
    certify(engine, made["good"], since, number=1)
    certify(engine, made["gone"], since, number=2)
    depart(engine, rpps(3), datetime.now(UTC))
    return made


def ask(port: int, path: str, token: str = TOKEN) -> Reply:
    return exchange(port, head_of("GET", f"/v1/recipients/{path}", token))


def quick_statements(engine: Engine) -> int:
    """How many looks were taken for those who ask together."""
    with engine.connect() as connection:
        return connection.execute(
            text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sceau-verdicts'")
        ).scalar_one()


def test_it_says_what_the_framework_says(port: int, engine: Engine, people: dict[str, str]) -> None:
    good = people["good"]
    for address in (*people.values(), "nobody@one.example", "x@elsewhere.example"):
        for sender in ("", f"?sender={good}", "?sender=nobody%40one.example", f"?sender={people['bare']}"):
            # A slash at the end is none of the address, and not plain.
            quick, usual = ask(port, address + sender), ask(port, f"{address}/{sender}")
            assert (quick.status, usual.status) == (200, 200)
            assert quick.headers.keys() == usual.headers.keys()
            for name in quick.headers.keys() - {"date", "ratelimit", "content-length"}:
                assert quick.headers[name] == usual.headers[name], name
            told, expected = quick.document, usual.document
            assert {told.pop(name)[:10] for name in NOW_AND_THEN} >= {
                expected.pop(name)[:10] for name in NOW_AND_THEN
            }
            assert told == expected
    assert ask(port, good).document["verdict"] == "allowed"
    assert quick_statements(engine) == 1


def test_what_is_not_plain_is_answered_all_the_same(port: int, people: dict[str, str]) -> None:
    good = people["good"]
    past = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert ask(port, "nonsense").status == 400
    assert ask(port, f"{good}?at={past}").document["as_of"] == past
    assert ask(port, f"{good}?unknown=1").status == 422
    assert ask(port, f"{good}?sender={good}&sender={good}").status == 422
    assert ask(port, "certificate-revoked@reasons.test").document["reasons"] == ["certificate-revoked"]
    assert ask(port, good, "sceau_nobody").document["code"] == "bad-token"
    assert ask(port, good, "").document["code"] == "no-token"
    assert ask(port, good.upper()).document["verdict"] == "allowed"


def test_what_was_committed_before_the_question_is_in_the_answer(port: int, engine: Engine) -> None:
    since = datetime.now(UTC) - timedelta(days=1)
    for number in range(10, 40):
        mailbox = seed_practitioner(engine, number).mailbox
        serial = certify(engine, mailbox, since, number=number)
        assert [ask(port, mailbox).document["verdict"] for _ in range(3)] == ["allowed"] * 3
        take_back(engine, serial, datetime.now(UTC))
        assert ask(port, mailbox).document["reasons"] == ["certificate-revoked"]
        assert ask(port, f"{mailbox}?sender={mailbox}").document["verdict"] == "refused"


def last_look(engine: Engine) -> datetime | None:
    """When the process that answers last asked the record."""
    asked = "SELECT query_start FROM pg_stat_activity WHERE application_name = 'sceau-verdicts'"
    with engine.connect() as connection:
        return connection.execute(text(asked)).scalar_one_or_none()


def test_while_nothing_is_committed_one_look_answers_many(
    port: int, engine: Engine, people: dict[str, str]
) -> None:
    begun, answers, looks = time.monotonic(), 0, set()
    while time.monotonic() - begun < 10 * VOUCHED_SECONDS:
        assert ask(port, people["good"]).document["verdict"] == "allowed"
        answers += 1
        looks.add(last_look(engine))
    assert answers > len(looks) > 2


def test_what_another_host_committed_counts_within_a_second(port: int, engine: Engine) -> None:
    since = datetime.now(UTC) - timedelta(days=1)
    with psycopg.connect(libpq(engine.url), autocommit=True) as elsewhere:
        for number in range(50, 56):
            mailbox = seed_practitioner(engine, number).mailbox
            certify(engine, mailbox, since, number=number)
            assert ask(port, mailbox).document["verdict"] == "allowed"
            elsewhere.execute("UPDATE mailbox SET departed_at = now() WHERE address = %s", [mailbox])
            begun = time.monotonic()
            while ask(port, mailbox).document["verdict"] == "allowed":
                assert time.monotonic() - begun < 1.0
            assert ask(port, mailbox).document["reasons"] == ["mailbox-closed"]


def test_a_look_that_hangs_vouches_for_nothing(port: int, engine: Engine) -> None:
    mailbox = seed_practitioner(engine, 60).mailbox
    certify(engine, mailbox, datetime.now(UTC) - timedelta(days=1), number=60)
    assert ask(port, mailbox).document["verdict"] == "allowed"
    asks = "SELECT pid FROM pg_stat_activity WHERE application_name = 'sceau-verdicts'"
    with psycopg.connect(libpq(engine.url), autocommit=True) as elsewhere:
        hung = [psutil.Process(pid) for (pid,) in elsewhere.execute(asks).fetchall()]
        for backend in hung:
            backend.suspend()
        try:
            elsewhere.execute("UPDATE mailbox SET departed_at = now() WHERE address = %s", [mailbox])
            time.sleep(1.0)
            assert ask(port, mailbox).document.get("reasons", ["mailbox-closed"]) == ["mailbox-closed"]
        finally:
            for backend in hung:
                backend.resume()


def test_a_revoked_token_stops_at_its_next_request(port: int, engine: Engine, people: dict[str, str]) -> None:
    seed_token(engine, "leaves", role="operator")
    assert ask(port, people["good"], "sceau_leaves").status == 200
    with engine.begin() as connection:
        connection.execute(text("UPDATE api_token SET revoked_at = now() WHERE name = 'leaves'"))
    assert ask(port, people["good"], "sceau_leaves").status == 401


def test_a_connection_that_was_cut_is_made_anew(port: int, engine: Engine, people: dict[str, str]) -> None:
    assert ask(port, people["good"]).document["verdict"] == "allowed"
    with engine.begin() as connection:
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'sceau-%'"
        connection.execute(text(cut))
    for path in (people["good"], f"{people['good']}/"):
        deadline = time.monotonic() + 20
        while (told := ask(port, path)).status != 200:
            assert told.status == 503
            assert time.monotonic() < deadline
        assert told.document["verdict"] == "allowed"
