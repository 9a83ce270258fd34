"""What people may know of a night: how fresh, what changed, why it waits, and the word that lets it go on."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from tests.api.conftest import Caller
from tests.api.runs import FINDING, seed_rejection, seed_run


@pytest.fixture
def admin(caller: Callable[..., Caller]) -> Caller:
    return caller("admin")


def test_each_register_is_told_with_its_age_alarm_and_the_run_that_waits(
    operator: Caller, engine: Engine, now: datetime
) -> None:
    applied = seed_run(engine, "rpps", now - timedelta(hours=50))
    held = seed_run(engine, "rpps", now - timedelta(hours=4), state="held", needed=2)
    working = seed_run(engine, "finess", now - timedelta(hours=1), state="running")
    told = {one["register"]: one for one in operator.get("/v1/registers").get_json()["items"]}
    assert list(told) == ["rpps", "finess", "mailboxes", "trusted-domains"]
    rpps = told["rpps"]
    assert (rpps["late"], rpps["age_seconds"], rpps["limit_seconds"]) == (True, 50 * 3600, 48 * 3600)
    assert (rpps["last"]["id"], rpps["held"]["id"], rpps["latest"]["id"]) == (applied, held, held)
    assert rpps["held"]["approvals_needed"] == 2
    assert (told["finess"]["late"], told["finess"]["last"], told["finess"]["in_hand"]["id"]) == (
        False, None, working,
    )  # fmt: skip
    assert told["mailboxes"]["latest"] is None


def test_runs_come_newest_first_page_by_page_and_none_twice(
    operator: Caller, engine: Engine, now: datetime
) -> None:
    made = [seed_run(engine, "rpps", now - timedelta(days=30 - day)) for day in range(25)]
    seed_run(engine, "finess", now)
    refused = seed_run(engine, "rpps", now, state="refused", reason="truncated")
    seen: list[int] = []
    after: dict[str, Any] = {}
    while True:
        page = operator.get("/v1/registers/runs", register="rpps", limit=10, **after).get_json()
        seen += [one["id"] for one in page["items"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert seen == sorted([*made, refused], reverse=True)
    only = operator.get("/v1/registers/runs", state="refused").get_json()["items"]
    assert [(one["id"], one["reason"]) for one in only] == [(refused, "truncated")]
    assert operator.get("/v1/registers/runs", after=2**70).status_code == 422
    assert operator.get("/v1/registers/runs", register="poems").status_code == 422


def test_a_run_is_told_beside_the_one_before_with_steps_findings_and_who_agreed(
    operator: Caller, admin: Caller, engine: Engine, now: datetime
) -> None:
    before = seed_run(engine, "rpps", now - timedelta(days=1), lines=1000)
    seed_run(engine, "rpps", now - timedelta(hours=20), state="refused", reason="truncated")
    run = seed_run(engine, "rpps", now - timedelta(hours=4), state="held", needed=2, findings=[FINDING],
                   measures={"present": 1950000, "departures": 24000})  # fmt: skip
    with engine.begin() as connection:
        for step, seconds in (("parse", 90), ("diff", 2)):
            connection.execute(
                text("INSERT INTO register_step VALUES (:run, :step, :at, :ended, '{\"rows\": 7}')"),
                {"run": run, "step": step, "at": now + timedelta(seconds=100 - seconds),
                 "ended": now + timedelta(seconds=100)},
            )  # fmt: skip
    given = admin.post(f"/v1/registers/runs/{run}/approvals", {"comment": "Vu avec l'Ordre"})
    assert (given.status_code, given.get_json()) == (201, {"run": run, "approvals": 1, "needed": 2})
    told = operator.get(f"/v1/registers/runs/{run}").get_json()
    assert (told["before"]["id"], told["before"]["counts"]["lines"]) == (before, 1000)
    assert [(one["step"], one["seconds"], one["detail"]) for one in told["steps"]] == [
        ("parse", 90, {"rows": 7}), ("diff", 2, {"rows": 7}),
    ]  # fmt: skip
    (finding,) = told["findings"]
    assert finding["sentence"] == FINDING["sentence"]
    assert finding["french"].replace("\u00a0", " ") == (
        "1,2 % des professionnels quitteraient le registre. Seuil : 0,5 %."
    )
    (agreed,) = told["approvals"]
    assert (agreed["name"], agreed["comment"], agreed["counts"]) == ("admin", "Vu avec l'Ordre", True)
    assert agreed["actor"].startswith("token:")
    assert told["measures"]["departures"] == 24000


def test_lines_are_counted_for_all_and_shown_to_auditors_and_administrators_only(
    caller: Callable[..., Caller], engine: Engine, now: datetime
) -> None:
    run = seed_run(engine, "rpps", now)
    for line in range(2, 7):
        seed_rejection(engine, run, line)
    seed_rejection(engine, run, 9, "no-name", "8|10099000019||")
    path = f"/v1/registers/runs/{run}"
    for role in ("operator", "registrar"):
        answer = caller(role, name=f"{role}-b").get(path)
        assert [(one["reason"], one["count"], one["samples"]) for one in answer.get_json()["rejections"]] == [
            ("rpps-check-digit", 5, None), ("no-name", 1, None),
        ]  # fmt: skip
        assert "MARTIN" not in answer.text
    for role in ("auditor", "admin"):
        first, second = caller(role).get(path).get_json()["rejections"]
        assert [one["line_number"] for one in first["samples"]] == [2, 3, 4]
        assert second["samples"][0]["excerpt"] == "8|10099000019||"


def test_rejected_lines_come_in_the_order_of_the_file_page_by_page(
    caller: Callable[..., Caller], engine: Engine, now: datetime
) -> None:
    auditor = caller("auditor")
    run = seed_run(engine, "rpps", now)
    for line in range(2, 12):
        seed_rejection(engine, run, line)
        seed_rejection(engine, run, line, "no-name")
    path = f"/v1/registers/runs/{run}/rejections"
    seen: list[tuple[int, str]] = []
    after: dict[str, Any] = {}
    while True:
        page = auditor.get(path, limit=3, **after).get_json()
        seen += [(one["line_number"], one["reason"]) for one in page["items"]]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert seen == [(n, reason) for n in range(2, 12) for reason in ("no-name", "rpps-check-digit")]
    assert len(auditor.get(path, reason="no-name", limit=100).get_json()["items"]) == 10
    assert auditor.get(path, after="x").status_code == 422
    assert auditor.get(path, reason="know-how-no-name").get_json()["items"] == []
    refused = auditor.get(path, reason="no-names")
    assert (refused.status_code, refused.get_json()["code"]) == (422, "invalid-request")
    assert "no-name, " in str(refused.get_json()["errors"]), "the reasons are named"


def test_two_persons_are_two_tokens_and_what_waits_for_nobody_takes_no_word(
    caller: Callable[..., Caller], engine: Engine, now: datetime
) -> None:
    one, other, third = (caller("admin", name=name) for name in ("one", "other", "third"))
    run = seed_run(engine, "rpps", now, state="held", needed=2)
    path = f"/v1/registers/runs/{run}/approvals"
    assert one.post(path, {"comment": "vu"}).get_json()["approvals"] == 1
    again = one.post(path, {"comment": "vu encore"})
    assert (again.status_code, again.get_json()["code"]) == (409, "run-already-approved")
    assert other.post(path, {"comment": "vu aussi"}).get_json() == {"run": run, "approvals": 2, "needed": 2}
    assert third.post(path, {"comment": "vu"}).get_json()["code"] == "run-already-approved"
    done = seed_run(engine, "rpps", now)
    assert (
        one.post(f"/v1/registers/runs/{done}/approvals", {"comment": "vu"}).get_json()["code"]
        == "run-not-held"
    )
    for wrong, code in ((10**6, "unknown-run"), (2**70, "no-such-resource")):
        answer = one.post(f"/v1/registers/runs/{wrong}/approvals", {"comment": "vu"})
        assert (answer.status_code, answer.get_json()["code"]) == (404, code)
    for comment in ("", "  ", "x" * 501, "two\nlines"):
        assert one.post(path, {"comment": comment}).status_code == 422


@pytest.mark.parametrize(
    ("wrong", "code"),
    # No number of a run is that large: such a path leads nowhere.
    [(0, "unknown-run"), (99, "unknown-run"), (2**63, "no-such-resource"), (2**70, "no-such-resource")],
)
def test_a_run_that_never_was_is_not_found(wrong: int, code: str, caller: Callable[..., Caller]) -> None:
    auditor = caller("auditor")
    for path in (f"/v1/registers/runs/{wrong}", f"/v1/registers/runs/{wrong}/rejections"):
        answer = auditor.get(path)
        assert (answer.status_code, answer.get_json()["code"]) == (404, code)
