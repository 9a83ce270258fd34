"""What monitors see: alive, ready with a reason for what is not, figures that Prometheus can read."""

import json
import os
import socket
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, text

from api.app import create_app
from api.wiring import Container
from directory.base.beats import WORKER, beat
from directory.base.clock import utc_now
from directory.base.db import connect_engine
from directory.base.errors import Kind, Refusal
from directory.base.instant import dated_by_database
from pki.signing.client import SignerClient
from tests.api.certificates import certify, take_back
from tests.factories import seed_practitioner


@dataclass(frozen=True)
class Pinged:
    """A signer of which only the ping is asked."""

    up: bool = True

    def ping(self) -> str:
        if not self.up:
            raise Refusal(Kind.UNAVAILABLE, "signer-unavailable", "The signer does not answer.")
        return "0.1.0"


def note_trouble(state: Path, trouble: str) -> None:
    """As a supervisor whose worker hangs again and again."""
    known = {"pid": 1, "since": 0.0, "restarts": 2, "stop": 15, "ends_within": 0.0, "trouble": trouble}
    (state / "run").mkdir(exist_ok=True)
    (state / "run" / "parts.json").write_text(json.dumps({"supervisor": 1, "parts": {"worker": known}}))


def give_sign(engine: Engine, wrong: str = "") -> None:
    """As a worker does whose jobs get on."""
    with engine.begin() as connection:
        beat(connection, WORKER, wrong)


def ready(
    container: Container, engine: Engine, *, signer: bool = True
) -> tuple[int, dict[str, dict[str, object]]]:
    give_sign(engine)
    app = create_app(Container(container.settings, engine, Pinged(signer), container.clock))  # type: ignore[arg-type]
    answer = app.test_client().get("/readyz")
    return answer.status_code, answer.get_json()


def test_the_process_is_alive_whatever_else_is_not(container: Container) -> None:
    nowhere = connect_engine("postgresql+psycopg://nobody@/nothing?host=/nonexistent")
    app = create_app(Container(container.settings, nowhere, container.signer, container.clock))
    assert app.test_client().get("/healthz").get_json() == {"state": "ok", "process": os.getpid()}


def test_ready_when_all_it_stands_on_is_there(container: Container, engine: Engine) -> None:
    status, told = ready(container, engine)
    assert (status, told["state"]) == (200, "ok")
    assert {name: check["state"] for name, check in told["checks"].items()} == {
        "database": "ok", "migration": "ok", "signer": "ok", "feed": "ok", "registers": "ok",
        "lifetimes": "ok", "record": "ok", "clock": "ok", "writing": "ok", "worker": "ok", "ldap": "ok",
        "parts": "ok",
    }  # fmt: skip


def test_not_ready_without_the_database(container: Container) -> None:
    nowhere = connect_engine("postgresql+psycopg://nobody@/nothing?host=/nonexistent")
    app = create_app(Container(container.settings, nowhere, container.signer, container.clock))
    answer = app.test_client().get("/readyz")
    assert (answer.status_code, answer.get_json()["state"]) == (503, "failed")
    assert answer.get_json()["checks"]["database"]["state"] == "failed"


@pytest.mark.parametrize("reachable", [True, False])
def test_a_part_that_hangs_again_and_again_is_named(
    container: Container, engine: Engine, *, reachable: bool
) -> None:
    nowhere = connect_engine("postgresql+psycopg://nobody@/nothing?host=/nonexistent")
    note_trouble(container.settings.state, "worker hung: look at log/postgres.log.")
    give_sign(engine)
    used = engine if reachable else nowhere
    app = create_app(Container(container.settings, used, Pinged(), container.clock))  # type: ignore[arg-type]
    answer = app.test_client().get("/readyz")
    assert (answer.status_code, answer.get_json()["state"]) == (
        (200, "degraded") if reachable else (503, "failed")
    )
    assert answer.get_json()["checks"]["parts"] == {
        "state": "degraded", "reason": "worker hung: look at log/postgres.log.",
    }  # fmt: skip


def test_red_while_the_worker_gives_no_sign_of_work(container: Container, engine: Engine) -> None:
    app = create_app(Container(container.settings, engine, Pinged(), container.clock))  # type: ignore[arg-type]
    never = app.test_client().get("/readyz")
    assert (never.status_code, never.get_json()["checks"]["worker"]["state"]) == (503, "failed")
    assert ready(container, engine)[0] == 200
    # Fifteen seconds are promised. The last: by a clock that was put back, a sign of long ago would be one of
    # just now.
    for when in ("- interval '11 s'", "- interval '15 s'", "+ interval '15 min'"):
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE beat SET at = clock_timestamp() {when}"))
        lost = app.test_client().get("/readyz")
        assert lost.status_code == 503
        red = {name: one for name, one in lost.get_json()["checks"].items() if one["state"] == "failed"}
        assert list(red) == ["worker"]
        assert red["worker"]["reason"].startswith("no sign of work for ")


def test_red_while_a_worker_that_works_has_no_room(container: Container, engine: Engine) -> None:
    app = create_app(Container(container.settings, engine, Pinged(), container.clock))  # type: ignore[arg-type]
    give_sign(engine, "no room in floor: No space left on device")
    told = app.test_client().get("/readyz")
    assert (told.status_code, told.get_json()["checks"]["worker"]["reason"]) == (
        503,
        "no room in floor: No space left on device",
    )


def test_red_while_ldap_shows_what_was_taken_away(container: Container, engine: Engine) -> None:
    seed_practitioner(engine)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO feed_cursor VALUES ('ldap-publisher', '0', 0, now())"))
        connection.execute(text("ALTER TABLE change DISABLE TRIGGER append_only"))
        connection.execute(text("UPDATE change SET at = timestamptz '2026-09-01 11:59:40Z'"))
    assert ready(container, engine)[1]["checks"]["feed"]["state"] == "ok"
    with engine.begin() as connection:
        connection.execute(text("UPDATE change SET urgent = true"))
    told = ready(container, engine)[1]["checks"]["feed"]
    assert (told["state"], told["reason"]) == ("degraded", "LDAP shows for 20 s what was taken away")


def test_not_ready_on_another_release_s_schema(container: Container, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    status, told = ready(container, engine)
    assert (status, told["checks"]["migration"]["revision"]) == (503, "0000")


def test_degraded_but_serving_without_the_signer(container: Container, engine: Engine) -> None:
    status, told = ready(container, engine, signer=False)
    assert (status, told["state"]) == (200, "degraded")
    assert told["checks"]["signer"]["reason"] == "The signer does not answer."


def test_a_signer_that_hangs_is_told_within_seconds(
    container: Container, engine: Engine, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as hung:
        # Stopped, it still has the kernel take connections for it.
        hung.bind(str(tmp_path / "s"))
        hung.listen()
        signer = SignerClient(tmp_path / "s")
        give_sign(engine)
        app = create_app(Container(container.settings, engine, signer, container.clock))
        asked = monotonic()
        answer = app.test_client().get("/readyz")
    assert monotonic() - asked < 5
    assert (answer.status_code, answer.get_json()["checks"]["signer"]["state"]) == (200, "degraded")


def test_the_clock_is_asked_on_no_connection_of_the_views(container: Container, database_url: str) -> None:
    few = dated_by_database(connect_engine(database_url, most=1))
    app = create_app(Container(container.settings, few, Pinged(), utc_now))  # type: ignore[arg-type]
    with few.connect():
        told = app.test_client().get("/readyz").get_json()["checks"]
    few.dispose()
    assert (told["database"]["state"], told["clock"]["state"]) == ("ok", "ok")


def test_no_connection_is_held_while_the_signer_is_waited_for(container: Container, engine: Engine) -> None:
    held: list[int] = []

    class Watching(Pinged):
        def ping(self) -> str:
            held.append(engine.pool.checkedout())  # type: ignore[attr-defined]
            return super().ping()

    give_sign(engine)
    app = create_app(Container(container.settings, engine, Watching(), container.clock))  # type: ignore[arg-type]
    assert app.test_client().get("/readyz").status_code == 200
    assert held == [0]


def test_degraded_when_a_consumer_of_the_feed_lags(container: Container, engine: Engine) -> None:
    seed_practitioner(engine)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO feed_cursor VALUES ('ldap', '0', 0, now())"))
        connection.execute(text("ALTER TABLE change DISABLE TRIGGER append_only"))
        connection.execute(text("UPDATE change SET at = timestamptz '2026-09-01 11:58Z'"))
    status, told = ready(container, engine)
    assert (status, told["state"]) == (200, "degraded")
    assert told["checks"]["feed"]["lag_seconds"] == {"ldap": 120.0}


def figures_of(text_format: str) -> dict[tuple[str, str], float]:
    return {
        (sample.name, "/".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text_format)
        for sample in family.samples
    }


def test_figures_tell_of_jobs_registers_certificates_and_crls(
    container: Container, engine: Engine, now: datetime
) -> None:
    seeded = seed_practitioner(engine)
    take_back(engine, certify(engine, seeded.mailbox, now), now)
    certify(engine, seeded.mailbox, now, number=2)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO job_run (name, last_started, last_success, last_duration)"
                " VALUES ('crl', :at, :at, 0.5)"
            ),
            {"at": now},
        )
        connection.execute(
            text(
                "INSERT INTO register_run (register, file_name, file_sha256, generated_at, started_at,"
                " finished_at, state) VALUES ('rpps', 'f', sha256(''), :made, :at, :at, 'applied')"
            ),
            {"at": now, "made": now - timedelta(hours=6)},
        )
    answer = create_app(container).test_client().get("/metrics")
    assert answer.content_type.startswith("text/plain; version=0.0.4")
    found = figures_of(answer.text)
    assert found["sceau_job_last_success_timestamp_seconds", "crl"] == now.timestamp()
    assert found["sceau_job_last_duration_seconds", "crl"] == 0.5
    assert found["sceau_register_age_seconds", "rpps"] == 6 * 3600
    assert found["sceau_certificates", "practitioner-smime"] == 2
    assert found["sceau_revocation_events", "revoke"] == 1
    assert found["sceau_audit_entries", ""] == 0


def test_figures_name_nobody(container: Container, engine: Engine, now: datetime) -> None:
    seeded = seed_practitioner(engine)
    certify(engine, seeded.mailbox, now)
    told = create_app(container).test_client().get("/metrics").text
    assert seeded.mailbox not in told
    assert seeded.national_id not in told


def test_scraping_again_at_once_costs_the_database_nothing(container: Container, engine: Engine) -> None:
    client = create_app(container).test_client()
    first = client.get("/metrics").data
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE certificate RENAME TO elsewhere"))
    assert client.get("/metrics").data == first
