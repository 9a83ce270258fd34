"""Checks answered later are carried out whole or not at all, whatever dies in between."""

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text

from api.jobs import recipient_checks
from api.jobs.table import run_job
from api.wiring import Container
from directory.base.db import transaction
from directory.base.errors import Refusal
from pki.verdict import check_files, checks_store
from pki.verdict.check_files import AskedFor
from tests.factories import seed_token

ADDRESSES = [f"person-{number}@one.example" for number in range(7)]
PART = 3


class Killed(BaseException):
    """The process ends here: nothing after it is done."""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_files, "PART", PART)


@pytest.fixture
def token_id(engine: Engine) -> int:
    return seed_token(engine, "operator", role="operator")


@pytest.fixture
def ask(container: Container, token_id: int) -> Callable[[], UUID]:
    """Take a check, as REST does."""

    def asked() -> UUID:
        check_id = uuid4()
        check_files.make_folder(container.settings.checks)
        check_files.keep_asked(container.settings.checks, check_id, AskedFor(None, None), ADDRESSES)
        with transaction(container.engine) as connection:
            checks_store.add(
                connection, len(ADDRESSES), check_id=check_id, token_id=token_id, included="",
                now=container.clock(),
            )  # fmt: skip
        return check_id

    return asked


def row(engine: Engine, check_id: UUID) -> Any:
    with engine.connect() as connection:
        return connection.execute(
            text("SELECT * FROM recipient_check WHERE id = :id"), {"id": check_id}
        ).one_or_none()


def addresses(container: Container, check_id: UUID) -> list[str]:
    content = check_files.result_path(container.settings.checks, check_id).read_bytes()
    return [json.loads(line)["address"] for line in gzip.decompress(content).splitlines()]


# At each of these the worker is killed: before it, or after it has done what it does. The number is of the
# call; `decided` is what the check shows until it begins again.
FAULTS = [
    (checks_store, "take", 1, "before", 0),
    (checks_store, "take", 1, "after", 0),
    (recipient_checks, "gather", 1, "before", 0),
    (recipient_checks, "gather", 2, "after", 3),
    (checks_store, "progress", 1, "before", 0),
    (recipient_checks, "_note", 1, "after", 3),
    (recipient_checks, "_note", 3, "after", 7),
    (check_files, "onto_disk", 1, "before", 7),
    (check_files, "measured", 1, "after", 7),
    (checks_store, "finish", 1, "before", 7),
    (checks_store, "finish", 1, "after", 7),
]


def killing(real: Callable[..., Any], call: int, when: str) -> Callable[..., Any]:
    """The same function, which is the end of the process at its `call`th call."""
    calls = 0

    def killed(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and when == "before":
            raise Killed
        done = real(*arguments, **named)
        if calls == call:
            raise Killed
        return done

    return killed


def test_killed_at_any_step_it_begins_again_and_shows_nothing_half_done(
    container: Container, engine: Engine, ask: Callable[[], UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, call, when, decided in FAULTS:
        fault, check_id = f"{name}, call {call}, {when}", ask()
        with monkeypatch.context() as patched:
            patched.setattr(module, name, killing(getattr(module, name), call, when))
            with pytest.raises(Killed):
                recipient_checks.carry_out(container)
        cut = row(engine, check_id)
        assert cut.state in {"waiting", "running"}, fault
        assert (cut.decided, cut.size, cut.sha256) == (decided, None, None), fault
        assert recipient_checks.carry_out(container) == "1 checks ended", fault
        done = row(engine, check_id)
        assert (done.state, done.decided) == ("done", len(ADDRESSES)), fault
        assert addresses(container, check_id) == ADDRESSES, fault
        assert [path.name for path in container.settings.checks.glob(f"{check_id}*")] == [
            f"{check_id}.ndjson.gz"
        ], fault


def test_a_draft_that_a_killed_worker_left_is_written_anew(
    container: Container, ask: Callable[[], UUID]
) -> None:
    check_id = ask()
    draft = check_files.result_path(container.settings.checks, check_id)
    draft.with_name(draft.name + check_files.DRAFT).write_bytes(b"half " * 1000)
    recipient_checks.carry_out(container)
    assert addresses(container, check_id) == ADDRESSES
    assert len(list(container.settings.checks.iterdir())) == 1


def test_a_check_over_which_the_worker_dies_again_and_again_holds_up_no_other(
    container: Container, engine: Engine, ask: Callable[[], UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object, **__: object) -> None:
        raise Killed

    check_id = ask()
    with monkeypatch.context() as patched:
        patched.setattr(recipient_checks, "gather", dies)
        for _ in range(checks_store.MOST_ATTEMPTS):
            with pytest.raises(Killed):
                recipient_checks.carry_out(container)
    other = ask()
    assert recipient_checks.carry_out(container) == "1 checks ended"
    assert (row(engine, check_id).state, row(engine, other).state) == ("failed", "done")


def cut_short(content: bytes) -> bytes:
    """The same without its last lines."""
    return gzip.compress(gzip.decompress(content)[:-40].rpartition(b"\n")[0])


def test_what_was_asked_being_gone_or_damaged_it_has_failed(
    container: Container, engine: Engine, ask: Callable[[], UUID]
) -> None:
    for damage in (None, lambda _: b"", lambda _: b"no gzip", lambda content: content[:-9], cut_short):
        check_id = ask()
        path = check_files.asked_path(container.settings.checks, check_id)
        if damage is None:
            path.unlink()
        else:
            path.write_bytes(damage(path.read_bytes()))
        recipient_checks.carry_out(container)
        assert row(engine, check_id).state == "failed"
        assert not check_files.result_path(container.settings.checks, check_id).exists()
    other = ask()
    recipient_checks.carry_out(container)
    assert row(engine, other).state == "done"


def test_it_waits_while_nothing_good_may_be_said_or_written(
    container: Container, engine: Engine, ask: Callable[[], UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_id = ask()
    with monkeypatch.context() as patched:
        patched.setattr(check_files, "ROOM", 1 << 60)
        for _ in range(checks_store.MOST_ATTEMPTS + 1):
            with pytest.raises(Refusal, match="leave"):
                recipient_checks.carry_out(container)
    with monkeypatch.context() as patched:
        patched.setattr(container.watch, "lacks", lambda: ["a checkpoint"])
        assert run_job(container, "recipient-checks") is None
        patched.setattr(container.watch, "look", lambda: ["a checkpoint"])
        with pytest.raises(Refusal) as refused:
            recipient_checks.carry_out(container)
        assert refused.value.code == "record-behind"
    with monkeypatch.context() as patched:
        patched.setattr(container.writing, "wrong", lambda: "")
        with pytest.raises(Refusal) as refused:
            recipient_checks.carry_out(container)
    assert refused.value.code == "record-not-written"
    waits = row(engine, check_id)
    assert (waits.state, waits.decided, waits.attempts) == ("waiting", 0, 0)
    recipient_checks.carry_out(container)
    assert row(engine, check_id).state == "done"


def test_deleted_while_it_is_carried_out_it_stops(
    container: Container, engine: Engine, ask: Callable[[], UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    both, real, parts = {ask(), ask()}, recipient_checks.gather, 0

    def gathers(*arguments: Any, **named: Any) -> Any:
        nonlocal parts
        parts += 1
        if parts == 2:
            with transaction(engine) as connection:
                running = text("SELECT id FROM recipient_check WHERE state = 'running'")
                checks_store.remove(connection, connection.execute(running).scalar_one())
        return real(*arguments, **named)

    monkeypatch.setattr(recipient_checks, "gather", gathers)
    recipient_checks.carry_out(container)
    assert parts == 2 + 3
    (left,) = [check_id for check_id in both if row(engine, check_id) is not None]
    assert [path.name for path in container.settings.checks.iterdir()] == [f"{left}.ndjson.gz"]


def test_each_part_has_an_instant_of_its_own_and_half_of_the_time_is_for_others(
    container: Container, ask: Callable[[], UUID], now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(recipient_checks.time, "sleep", slept.append)
    instants = iter([now.replace(second=second) for second in range(20, 60)])
    check_id = ask()
    recipient_checks.carry_out(replace(container, clock=lambda: next(instants)))
    content = check_files.result_path(container.settings.checks, check_id).read_bytes()
    as_of = [json.loads(line)["as_of"] for line in gzip.decompress(content).splitlines()]
    parts = [as_of[start : start + PART] for start in range(0, len(as_of), PART)]
    assert [len(set(part)) for part in parts] == [1, 1, 1]
    assert len({part[0] for part in parts}) == 3
    assert len(slept) == 3
    assert min(slept) > 0
