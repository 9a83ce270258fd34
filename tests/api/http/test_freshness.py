"""Every answer says how old what it rests on is, and a register that grows too old is told everywhere."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from flask import Flask
from sqlalchemy import Engine

from api.app import create_app
from api.jobs.table import run_job
from api.settings import Settings, load_settings
from api.wiring import Container
from directory.base.errors import Refusal
from tests.api.conftest import Caller
from tests.api.health.test_health import Pinged, figures_of, ready
from tests.api.runs import seed_run
from tests.factories import rpps, seed_practitioner
from tests.statements import heard

HEADER = "Sceau-Registers"


def line_of(made: datetime, register: str = "rpps") -> str:
    others = {"rpps": "none", "finess": "none", "mailboxes": "none", "trusted-domains": "none"}
    told = {**others, register: f"{made:%Y-%m-%dT%H:%M:%SZ}"}
    return ", ".join(f"{name}={value}" for name, value in told.items())


@pytest.fixture
def asked(engine: Engine) -> Iterator[list[str]]:
    """The statements about runs that were sent, in order."""
    seen: list[str] = []

    def note(statement: str) -> None:
        if "register_run" in statement:
            seen.append(statement)

    with heard(engine, note):
        yield seen


def test_answers_and_refusals_carry_the_generation_time_of_each_register(
    operator: Caller, caller: Callable[..., Caller], engine: Engine, now: datetime
) -> None:
    made = now - timedelta(hours=6)
    seed_run(engine, "rpps", made)
    mailbox = seed_practitioner(engine).mailbox
    registrar = caller("registrar")
    for answer, status in (
        (operator.get(f"/v1/recipients/{mailbox}"), 200),
        (operator.post("/v1/recipients/check", {"addresses": [mailbox]}), 200),
        (operator.get("/v1/practitioners", name="martin"), 200),
        (operator.get(f"/v1/practitioners/{rpps(1)}"), 200),
        (operator.get(f"/v1/practitioners/{rpps(2)}"), 404),
        (operator.get("/v1/certificates/2a"), 404),
        (registrar.get("/v1/enrolments"), 200),
        (registrar.post("/v1/certificates/2a/revocation", {"reason": "keyCompromise"}), 404),
    ):
        assert (answer.status_code, answer.headers.get(HEADER)) == (status, line_of(made))


def test_an_answer_about_the_past_names_the_registers_of_then(
    operator: Caller, engine: Engine, now: datetime
) -> None:
    old, new = now - timedelta(days=3), now - timedelta(hours=6)
    seed_run(engine, "rpps", old)
    seed_run(engine, "rpps", new)
    mailbox = seed_practitioner(engine).mailbox
    then = operator.get(f"/v1/recipients/{mailbox}", at=f"{now - timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}")
    assert then.headers[HEADER] == line_of(old)
    assert then.get_json()["sources"]["rpps"] == f"{old:%Y-%m-%dT%H:%M:%SZ}"
    assert operator.get(f"/v1/recipients/{mailbox}").headers[HEADER] == line_of(new)


def test_who_was_refused_before_anything_was_read_is_told_of_no_register(
    anybody: Caller, operator: Caller
) -> None:
    for answer in (anybody.get("/v1/practitioners"), operator.get("/v1/practitioners", nmae="x")):
        assert answer.status_code in (401, 422)
        assert HEADER not in answer.headers
    assert HEADER not in anybody.get("/healthz").headers


def test_a_verdict_pays_for_its_header_nothing(operator: Caller, engine: Engine, asked: list[str]) -> None:
    mailbox = seed_practitioner(engine).mailbox
    assert operator.get(f"/v1/recipients/{mailbox}").headers[HEADER]
    assert len(asked) == 1


def test_a_night_that_commits_during_an_answer_shows_in_neither_its_rows_nor_its_header(
    operator: Caller, engine: Engine, now: datetime
) -> None:
    old, new = now - timedelta(days=1), now - timedelta(hours=6)
    seed_run(engine, "rpps", old)
    seed_practitioner(engine)
    came: list[int] = []

    def commit_another_night(statement: str) -> None:
        if "FROM api_token" in statement and not came:
            came.append(0)
            came.append(seed_run(engine, "rpps", new))

    with heard(engine, after=commit_another_night):
        assert operator.get(f"/v1/practitioners/{rpps(1)}").headers[HEADER] == line_of(old)
    assert len(came) == 2
    assert operator.get(f"/v1/practitioners/{rpps(1)}").headers[HEADER] == line_of(new)


@pytest.mark.parametrize(("hours", "state"), [(47, "ok"), (48, "ok"), (49, "degraded")])
def test_ready_but_degraded_once_a_register_is_older_than_its_limit(
    hours: int, state: str, container: Container, engine: Engine, now: datetime
) -> None:
    seed_run(engine, "mailboxes", now - timedelta(hours=hours), started_at=now - timedelta(hours=1))
    status, told = ready(container, engine)
    assert (status, told["state"]) == (200, state)
    assert told["checks"]["registers"].get("reason") == (None if state == "ok" else "late: mailboxes")
    assert told["checks"]["registers"]["age_seconds"] == {"mailboxes": hours * 3600}


def test_a_register_late_on_purpose_has_a_limit_of_its_own_and_its_age_is_still_told(
    container: Container, engine: Engine, now: datetime
) -> None:
    seed_run(engine, "finess", now - timedelta(days=100), started_at=now - timedelta(days=2))
    settings = replace(container.settings, freshness_hours="48, finess=4320")
    patient = Container(settings, engine, Pinged(), container.clock)  # type: ignore[arg-type]
    told = create_app(patient).test_client().get("/readyz").get_json()
    assert told["checks"]["registers"] == {"state": "ok", "age_seconds": {"finess": 100 * 86400.0}}


@pytest.mark.parametrize(
    "words", ["", "soon", "0", "-1", "48, finess", "48, poems=3", "finess=3", "1234567", "48,"]
)
def test_a_limit_that_means_nothing_refuses_to_start(words: str, container: Container) -> None:
    with pytest.raises(Refusal, match="freshness_hours"):
        Settings(state=container.settings.state, freshness_hours=words)


def test_limits_come_from_the_settings_file_as_a_number_or_as_text(container: Container) -> None:
    folder = container.settings.state
    (folder / "settings.toml").write_text("freshness_hours = 24\n")
    assert set(load_settings(folder, {}).freshness.values()) == {timedelta(hours=24)}
    given = load_settings(folder, {"SCEAU_FRESHNESS_HOURS": "36,rpps=12"}).freshness
    assert (given["rpps"], given["finess"]) == (timedelta(hours=12), timedelta(hours=36))


def test_monitors_see_age_alarm_last_run_and_what_waits(
    container: Container, engine: Engine, now: datetime
) -> None:
    seed_run(engine, "rpps", now - timedelta(hours=60), lines=1000)
    seed_run(engine, "rpps", now - timedelta(hours=3), state="held", needed=2, lines=400)
    seed_run(engine, "rpps", now - timedelta(hours=2), state="planned")
    found = figures_of(create_app(container).test_client().get("/metrics").text)
    assert found["sceau_register_age_seconds", "rpps"] == 60 * 3600
    assert found["sceau_register_late", "rpps"] == 1
    assert found["sceau_register_late", "finess"] == 0
    assert found["sceau_register_held", "rpps"] == 1
    assert found["sceau_register_run_state", "rpps/held"] == 1
    assert found["sceau_register_run_state", "rpps/applied"] == 0
    assert found["sceau_register_run_duration_seconds", "rpps"] == 60
    assert found["sceau_register_run_counted", "rpps/lines"] == 400
    assert ("sceau_register_age_seconds", "finess") not in found


def test_a_held_run_that_a_newer_file_has_overtaken_waits_for_nobody(
    container: Container, engine: Engine, now: datetime
) -> None:
    seed_run(engine, "rpps", now - timedelta(hours=30), state="held", needed=1)
    seed_run(engine, "rpps", now - timedelta(hours=6))
    found = figures_of(create_app(container).test_client().get("/metrics").text)
    assert found["sceau_register_held", "rpps"] == 0


def test_each_change_of_freshness_is_one_line_in_the_log_whoever_looks(
    container: Container, engine: Engine, now: datetime, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sceau.registers")

    def look(at: datetime) -> list[tuple[str, str]]:
        caplog.clear()
        # A second worker, or one begun again, has no memory of its own.
        assert run_job(replace(container, clock=lambda: at), "freshness", forced=True) == ""
        return [(line.levelname, line.getMessage().partition(":")[0]) for line in caplog.records]

    made = now - timedelta(hours=47)
    seed_run(engine, "rpps", made)
    assert look(now) == []
    late = now + timedelta(hours=2)
    assert look(late) == [("WARNING", "register rpps is late")]
    assert look(late + timedelta(minutes=1)) == []
    seed_run(engine, "rpps", late - timedelta(hours=3), started_at=late + timedelta(minutes=1))
    assert look(late + timedelta(minutes=3)) == [("INFO", "register rpps is late no more")]
    assert look(late + timedelta(minutes=4)) == []


def test_the_first_look_of_all_tells_what_is_late_already(
    container: Container, engine: Engine, now: datetime, caplog: pytest.LogCaptureFixture
) -> None:
    seed_run(engine, "finess", now - timedelta(days=30))
    seed_run(engine, "rpps", now - timedelta(hours=4))
    run_job(container, "freshness")
    assert [line.getMessage().split(":")[0] for line in caplog.records if line.name == "sceau.registers"] == [
        "register finess is late"
    ]


def test_the_document_promises_the_header(app: Flask) -> None:
    document = app.test_client().get("/openapi.json").get_json()
    for path, methods in document["paths"].items():
        for method in {"get", "post"} & set(methods):
            # What is published to all rests on no register, and comes from caches.
            if not methods[method]["security"]:
                continue
            answers = methods[method]["responses"]
            good = next(answers[status] for status in answers if status.startswith("2"))
            assert good["headers"][HEADER]["required"], path
