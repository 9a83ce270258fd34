"""The feed over HTTP: what shows, what vanished, in which form; how one waits, and who comes too late."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Engine, text

from api.jobs import feed as feed_job
from api.status.listener import Listener
from api.wiring import Container
from directory.base.db import transaction
from directory.feed import readers as feed
from directory.feed.changes import START
from directory.red_list import opaque_key, secret_of_keys
from tests.api.certificates import certify, take_back
from tests.api.conftest import Caller
from tests.factories import depart, seed_practitioner

MEASURE = (
    "INSERT INTO measure (national_id, kind, authority, reason, starts_at, recorded_by, recorded_at)"
    " VALUES (:id, 'struck-off', 'CNOM', 'a reason', :at, 'token:1', :at)"
)


def page(
    caller: Caller, cursor: str | None = None, **query: Any
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The lines of one page, and its ending."""
    asked = query if cursor is None else query | {"cursor": cursor}
    answer = caller.get("/v1/changes", **asked)
    assert answer.status_code == 200, answer.text
    assert answer.content_type == "application/x-ndjson"
    *lines, ending = [json.loads(line) for line in answer.text.splitlines()]
    assert "next" in ending
    return lines, ending


def now_at(caller: Caller) -> str:
    """A cursor behind all there is."""
    _, ending = page(caller, limit=5000)
    while ending["more"]:
        _, ending = page(caller, ending["next"], limit=5000)
    return str(ending["next"])


def acts(lines: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    return {(line["entity"], line["key"]): line["act"] for line in lines}


def do(engine: Engine, statement: str, **values: Any) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement), values)


def test_a_line_says_what_shows_under_its_key_now(operator: Caller, engine: Engine, now: datetime) -> None:
    someone = seed_practitioner(engine)
    certify(engine, someone.mailbox, now - timedelta(days=1))
    lines, ending = page(operator)
    told = {line["entity"]: line for line in lines}
    assert set(told) == {"practitioner", "mailbox"}
    opaque = {line["key"] for line in page(operator, keys="opaque")[0] if line["entity"] == "mailbox"}
    assert opaque == {told["mailbox"]["value"]["opaque_key"]}
    assert told["mailbox"]["value"] == {
        "opaque_key": next(iter(opaque)),
        "address": someone.mailbox, "kind": "PER", "holder": someone.national_id, "structure_type": "",
        "structure_id": "", "structure_name": "", "service": "", "certificates": ["Y2VydGlmaWNhdGUgMQ=="],
        "certificate_purposes": [["encryption", "signature"]],
        "corrected": [],
    }  # fmt: skip
    assert told["practitioner"]["value"]["family_name"] == "MARTIN"
    assert told["practitioner"]["value"]["practices"][0]["department"] == "75"
    assert set(ending["sources"]) == {"rpps", "finess", "mailboxes", "trusted-domains"}
    assert ending["more"] is False
    assert page(operator, ending["next"])[0] == []


def test_each_key_comes_once_a_page_however_often_it_changed(operator: Caller, engine: Engine) -> None:
    someone = seed_practitioner(engine)
    cursor = now_at(operator)
    for name in ("A", "B", "C"):
        do(engine, "UPDATE practitioner SET given_name = :name WHERE national_id = :id", name=name,
           id=someone.national_id)  # fmt: skip
    lines, _ = page(operator, cursor)
    assert acts(lines) == {("practitioner", someone.national_id): "put", ("mailbox", someone.mailbox): "put"}
    assert len(lines) == 2
    assert next(one for one in lines if one["entity"] == "practitioner")["value"]["given_name"] == "C"


def test_unlisted_departed_and_never_known_look_the_same(operator: Caller, engine: Engine) -> None:
    unlisted, closed, suspended = (
        seed_practitioner(engine, n, address=f"{n}@d{n}.example") for n in (1, 2, 3)
    )
    cursor = now_at(operator)
    do(engine, "UPDATE mailbox SET listed = false WHERE address = :a", a=unlisted.mailbox)
    do(engine, "UPDATE mailbox SET departed_at = now() WHERE address = :a", a=closed.mailbox)
    do(engine, "UPDATE trusted_domain SET suspended_at = now() WHERE name = 'd3.example'")
    do(engine, "INSERT INTO change (entity, key) VALUES ('mailbox', 'nobody@one.example')")
    lines, _ = page(operator, cursor, keys="opaque")
    with engine.connect() as connection:
        secret = secret_of_keys(connection)
    assert {line["key"]: sorted(line) for line in lines} == {
        opaque_key(secret, address): ["act", "at", "cursor", "entity", "key"]
        for address in (unlisted.mailbox, closed.mailbox, suspended.mailbox, "nobody@one.example")
    }
    assert {line["act"] for line in lines} == {"remove"}


def test_a_departure_takes_the_person_and_his_mailbox_away_and_a_revocation_the_certificate(
    operator: Caller, engine: Engine, now: datetime
) -> None:
    gone, stays = seed_practitioner(engine, 1), seed_practitioner(engine, 2)
    serial = certify(engine, stays.mailbox, now - timedelta(days=1))
    cursor = now_at(operator)
    depart(engine, gone.national_id, now)
    take_back(engine, serial, now)
    lines, _ = page(operator, cursor)
    assert acts(lines) == {
        ("practitioner", gone.national_id): "remove",
        ("mailbox", gone.mailbox): "remove",
        ("mailbox", stays.mailbox): "put",
    }
    assert next(one for one in lines if one["act"] == "put")["value"]["certificates"] == []


def test_a_number_that_takes_another_s_place_and_gives_it_back_moves_the_certificate_in_every_copy(
    operator: Caller, engine: Engine, now: datetime
) -> None:
    """The mailbox file had given the address to the new number before: nobody's own row changes."""
    old, new = seed_practitioner(engine, 1), seed_practitioner(engine, 2)
    certify(engine, new.mailbox, now - timedelta(days=1), holder=old.national_id)
    do(engine, "INSERT INTO register_run (register, file_name, file_sha256, generated_at, started_at, state)"
               " VALUES ('rpps', 'f', sha256('f'), :at, :at, 'running')", at=now)  # fmt: skip
    cursor = now_at(operator)
    do(engine, "INSERT INTO succession (national_id, successor, run_id, linked_at)"
               " SELECT :old, :new, id, :at FROM register_run",
       old=old.national_id, new=new.national_id, at=now)  # fmt: skip
    lines, ending = page(operator, cursor)
    # The successor is told of too, as he was.
    assert acts(lines) == {("mailbox", new.mailbox): "put", ("practitioner", new.national_id): "put"}
    (linked,) = (one for one in lines if one["entity"] == "mailbox")
    assert len(linked["value"]["certificates"]) == 1
    do(engine, "DELETE FROM succession")
    lines, _ = page(operator, ending["next"])
    (given_back,) = (one for one in lines if one["entity"] == "mailbox")
    assert (given_back["key"], given_back["value"]["certificates"]) == (new.mailbox, [])


def test_crls_and_measures_are_nobody_s_copy(operator: Caller, engine: Engine, now: datetime) -> None:
    someone = seed_practitioner(engine)
    cursor = now_at(operator)
    do(engine, "INSERT INTO change (entity, key) VALUES ('crl', 'persons-1/3')")
    do(engine, MEASURE, id=someone.national_id, at=now)
    answer = operator.get("/v1/changes", cursor=cursor).text
    assert "persons-1/3" not in answer
    assert "reason" not in answer
    assert "struck" not in answer
    assert f'"key":"{someone.mailbox}","act":"remove"' in answer


def test_pages_follow_one_another_from_any_line(operator: Caller, engine: Engine) -> None:
    for number in range(1, 6):
        seed_practitioner(engine, number)
    whole = acts(page(operator, limit=5000)[0])
    first, _ = page(operator, limit=4)
    for line in first:
        found = acts(first[: first.index(line) + 1])
        cursor, more = line["cursor"], True
        while more:
            lines, ending = page(operator, cursor, limit=3)
            found |= acts(lines)
            cursor, more = ending["next"], ending["more"]
        found |= acts(page(operator, cursor)[0])
        assert found == whole


@pytest.mark.parametrize("cursor", ["x", "not-a-cursor", "MTIz", "é", "%00", "A" * 7000])
def test_a_cursor_that_never_was_one_is_a_bad_request(cursor: str, operator: Caller) -> None:
    answer = operator.get("/v1/changes", cursor=cursor)
    assert (answer.status_code, answer.get_json()["code"]) == (400, "bad-cursor")


def test_who_comes_too_late_is_told_from_which_export_to_begin(
    operator: Caller, engine: Engine, container: Container
) -> None:
    cursor = now_at(operator)
    seed_practitioner(engine)
    do(engine, "DELETE FROM change")
    folder = container.settings.exports / "20260901T040000Z"
    for asked in ({"cursor": cursor}, {}):
        answer = operator.get("/v1/changes", **asked)
        assert (answer.status_code, answer.get_json()["code"]) == (410, "cursor-expired")
    assert answer.get_json()["export"] is None
    folder.mkdir(parents=True)
    made = {"format": 3, "made_at": "2026-09-01T04:00:00Z", "cursor": cursor}
    (folder / "manifest.json").write_text(json.dumps(made))
    assert operator.get("/v1/changes").get_json()["export"] == "/v1/exports/20260901T040000Z"


def test_the_job_has_a_moved_feed_begin_anew_and_older_cursors_expire(
    operator: Caller, engine: Engine, container: Container
) -> None:
    someone = seed_practitioner(engine)
    cursor = now_at(operator)
    assert feed_job.due_changes(container) == ""
    do(engine, "UPDATE feed_floor SET cluster = 7")
    assert "begins anew" in feed_job.due_changes(container)
    for asked in ({"cursor": cursor}, {}):
        assert operator.get("/v1/changes", **asked).status_code == 410
    with transaction(engine) as connection:
        assert someone.mailbox in {change.key for change in feed.read_changes(connection, START)}


@pytest.fixture
def ringing(container: Container, database_url: str) -> Any:
    """The listener of a web process, which rings this container's bell."""
    listener = Listener(database_url.replace("postgresql+psycopg", "postgresql"), (), container.bell.ring)
    listener.start()
    yield
    listener.stop()


def connections(engine: Engine) -> list[str]:
    """States of what this process holds open on the record, but the listener and this question."""
    with engine.connect() as connection:
        return list(
            connection.execute(
                text(
                    "SELECT state FROM pg_stat_activity WHERE datname = current_database()"
                    " AND application_name = 'sceau' AND pid <> pg_backend_pid()"
                )
            ).scalars()
        )


@pytest.mark.usefixtures("ringing")
def test_who_waits_holds_nothing_of_the_database_and_is_woken_within_a_second(
    operator: Caller, engine: Engine, container: Container
) -> None:
    seed_practitioner(engine)
    cursor = now_at(operator)
    woken: list[float] = []

    def wait() -> list[dict[str, Any]]:
        lines, _ = page(operator, cursor, wait=20)
        woken.append(time.monotonic())
        return lines

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait)
        time.sleep(0.7)
        assert container.waiting.taken == 1
        assert set(connections(engine)) <= {"idle"}
        do(engine, "UPDATE practitioner SET given_name = 'Other'")
        committed = time.monotonic()
        lines = waiting.result(20)
    assert len(lines) == 2
    assert woken[0] - committed < 1
    assert container.waiting.taken == 0


@pytest.mark.usefixtures("ringing")
def test_what_nobody_copies_wakes_nobody_for_good(operator: Caller, engine: Engine) -> None:
    cursor = now_at(operator)
    started = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(page, operator, cursor, wait=2)
        time.sleep(0.5)
        do(engine, "INSERT INTO change (entity, key) VALUES ('crl', 'persons-1/3')")
        lines, ending = waiting.result(20)
    assert time.monotonic() - started >= 2
    assert lines == []
    assert ending["next"] != cursor, "yet it is behind him"


def test_beyond_the_seats_one_is_answered_at_once_and_told_when_to_ask_again(
    app: Flask, container: Container, operator: Caller
) -> None:
    cursor = now_at(operator)
    ready = threading.Semaphore(0)

    def wait() -> int:
        ready.release()
        return Caller(app.test_client(), operator.token).get("/v1/changes", cursor=cursor, wait=3).status_code

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(wait) for _ in range(4)]
        deadline = time.monotonic() + 5
        while container.waiting.taken < 4 and time.monotonic() < deadline:
            time.sleep(0.02)
        fifth = operator.get("/v1/changes", cursor=cursor, wait=3)
        assert not any(one.done() for one in waiting), "it waited with them"
        assert (fifth.status_code, fifth.headers["Retry-After"]) == (200, "5")
        assert [one.result(10) for one in waiting] == [200] * 4
    assert container.waiting.taken == 0


def test_a_wait_that_is_refused_gives_its_seat_back(operator: Caller, container: Container) -> None:
    assert operator.get("/v1/changes", cursor="x", wait=1).status_code == 400
    assert container.waiting.taken == 0


@pytest.mark.parametrize(
    ("query", "status"), [("wait=31", 422), ("limit=0", 422), ("limit=5001", 422), ("since=1", 422)]
)
def test_what_is_out_of_bounds_is_refused(query: str, status: int, operator: Caller) -> None:
    assert operator.client.get(f"/v1/changes?{query}", headers=operator.headers).status_code == status
