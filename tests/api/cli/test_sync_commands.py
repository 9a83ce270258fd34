"""From a terminal: what the nights did, why one waits, and the word of a named person that lets it go on."""

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine, text

from api.cli.main import main
from api.cli.nights import sparkline
from api.jobs.table import run_job
from api.settings import load_settings
from api.wiring import build
from directory.base.clock import utc_now
from directory.base.db import transaction
from directory.sync.runs import history
from tests.api.commands import Sceau, token, told
from tests.api.runs import FINDING, seed_rejection, seed_run
from tests.directory.sync.files import VECTORS


def test_history_is_a_table_and_a_line_for_each_register(sceau: Sceau, engine: Engine) -> None:
    now = utc_now()
    for day in range(5, 0, -1):
        refused = {"state": "refused", "reason": "truncated"} if day == 3 else {}
        seed_run(engine, "rpps", now - timedelta(days=day), created=day * 10, changed=0, removed=0, **refused)
    seed_run(engine, "rpps", now, state="held", needed=1)
    seed_run(engine, "finess", now, created=0, changed=0, removed=0)
    shown = sceau("sync", "history").stdout
    lines = shown.splitlines()
    assert re.match(r"run +register +state +of", lines[0])
    assert [line.split()[1] for line in lines[1:4]] == ["finess", "rpps", "rpps"]
    assert lines[-2:] == ["rpps            █▇✕▄▂◆", "finess          ·"]
    listed = told(sceau("sync", "history", "--register", "rpps", "--limit", "2", "--json"))["runs"]
    assert [one["state"] for one in listed] == ["held", "applied"]
    assert listed[1]["counts"]["created"] == 10


def test_one_night_above_all_others_is_cut_and_hides_none(engine: Engine) -> None:
    now = utc_now()
    for day in range(20, 0, -1):
        seed_run(engine, "rpps", now - timedelta(days=day), created=1950000 if day == 20 else 300)
    with transaction(engine) as connection:
        runs = history.runs(connection, limit=90)
    assert sparkline(runs[::-1]) == "█" + 19 * "▅"


def test_a_run_is_shown_with_its_bounds_steps_and_rejected_lines(sceau: Sceau, engine: Engine) -> None:
    now = utc_now()
    seed_run(engine, "rpps", now - timedelta(days=1), lines=1234567)
    run = seed_run(engine, "rpps", now, state="held", needed=2, findings=[FINDING])
    seed_rejection(engine, run, 7, excerpt="8|[red]MARTIN[/red]")
    shown = sceau("sync", "show", str(run)).stdout
    for words in (
        "1,234,567",
        FINDING["sentence"],
        "0 of 2",
        "rejected rpps-check-digit",
        "8|[red]MARTIN[/red]",
    ):
        assert str(words) in shown
    whole = told(sceau("sync", "show", str(run), "--json"))
    assert (whole["state"], whole["before"]["counts"]["lines"]) == ("held", 1234567)
    assert whole["rejections"][0]["samples"][0]["line_number"] == 7
    missing = sceau("sync", "show", "99")
    assert (missing.exit_code, "unknown-run" in missing.stderr) == (1, True)


def test_a_rejected_line_of_500_columns_leaves_the_run_before_in_sight(
    sceau: Sceau, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = utc_now()
    before = seed_run(engine, "rpps", now - timedelta(days=1))
    run = seed_run(engine, "rpps", now)
    seed_rejection(engine, run, 7, excerpt="8|" + "x" * 498)
    monkeypatch.setenv("COLUMNS", "100")
    lines = sceau("sync", "show", str(run)).stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert next(line for line in lines if line.startswith("run ")).split() == ["run", str(run), str(before)]
    whole = told(sceau("sync", "show", str(run), "--json"))
    assert whole["rejections"][0]["samples"][0]["excerpt"] == "8|" + "x" * 498


@pytest.fixture
def held(sceau: Sceau, tmp_path: Path, state: Path) -> int:
    """A small register in force, and a file that would do away with most of it, held."""
    bounds = tmp_path / "bounds.toml"
    bounds.write_text(
        "[rpps.too-many-removals]\nfloor = 0\none = 0.01\ntwo = 0.02\nrefuse = 1\n"
        "[every.too-few-rows]\nfloor = 0\none = 0.01\ntwo = 0.02\nrefuse = 1\n"
    )
    with (state / "settings.toml").open("a") as settings:
        settings.write(f'bounds_file = "{bounds}"\n')
    whole = next(VECTORS.glob("PS_LibreAcces_Personne_activite_*"))
    first = tmp_path / "PS_LibreAcces_Personne_activite_202608260200.txt"
    first.write_bytes(whole.read_bytes())
    assert sceau("sync", "run", "rpps", str(first), "--apply").exit_code == 0
    header, *rows = whole.read_bytes().splitlines(keepends=True)
    second = tmp_path / "PS_LibreAcces_Personne_activite_202608270200.txt"
    second.write_bytes(header + rows[0])
    kept = sceau("sync", "run", "rpps", str(second), "--apply", "--json")
    assert (kept.exit_code, told(kept)["state"]) == (1, "held"), kept.output
    second.unlink()
    return int(told(kept)["run"])


def present(engine: Engine) -> int:
    with engine.connect() as connection:
        query = "SELECT count(*) FROM practitioner WHERE departed_at IS NULL"
        return int(connection.execute(text(query)).scalar_one())


def word(sceau: Sceau, run: int, secret: str, folder: Path, name: str) -> Result:
    file = folder / f"{name}.token"
    file.write_text(secret + "\n")
    return sceau("sync", "approve", str(run), "--token-file", str(file), "--comment", "seen", "--json")


def test_two_named_persons_let_a_held_run_go_on_and_it_does_at_once(
    held: int,
    sceau: Sceau,
    engine: Engine,
    tmp_path: Path,
) -> None:
    before = present(engine)
    one, other = (token(sceau, name, "admin", "") for name in ("one", "other"))
    operator = token(sceau, "operator", "operator", "")
    assert "role-lacking" in word(sceau, held, operator, tmp_path, "operator").stderr
    first = word(sceau, held, one, tmp_path, "one")
    assert (first.exit_code, told(first)["approvals"], told(first)["needed"]) == (0, 1, 2)
    again = word(sceau, held, one, tmp_path, "one")
    assert (again.exit_code, told(again)["type"]) == (1, "run-already-approved")
    assert told(sceau("sync", "resume", "--json"))["runs"] == []
    assert present(engine) == before
    second = word(sceau, held, other, tmp_path, "other")
    assert (second.exit_code, told(second)["run"]["state"]) == (0, "applied"), second.output
    assert present(engine) < before


def test_a_run_approved_over_rest_is_taken_up_by_the_worker(
    held: int,
    sceau: Sceau,
    engine: Engine,
    state: Path,
) -> None:
    before = present(engine)
    ids = [
        told(sceau("token", "create", name, "--role", "admin", "--json"))["id"] for name in ("one", "other")
    ]
    container = build(load_settings(state))
    try:
        assert run_job(container, "held-runs", forced=True) == ""
        with engine.begin() as connection:
            for number in ids:
                connection.execute(
                    text("INSERT INTO register_approval VALUES (:run, :token, 'seen', now())"),
                    {"run": held, "token": number},
                )
        assert str(run_job(container, "held-runs", forced=True)).startswith("rpps: applied")
        assert run_job(container, "held-runs", forced=True) == ""
    finally:
        container.engine.dispose()
    assert present(engine) < before
    assert told(sceau("sync", "show", str(held), "--json"))["state"] == "applied"


def test_a_word_needs_a_person_and_a_comment(held: int, sceau: Sceau) -> None:
    nobody = sceau("sync", "approve", str(held), "--comment", "seen")
    assert (nobody.exit_code, "who-acts" in nobody.stderr) == (1, True)
    silent = sceau("sync", "approve", str(held))
    assert (silent.exit_code, "--comment" in silent.stderr) == (2, True)


@pytest.mark.parametrize("command", [("show",), ("approve", "--comment", "seen"), ("resume",)])
def test_a_number_that_no_run_can_have_is_a_wrong_number(command: tuple[str, ...], sceau: Sceau) -> None:
    asked = sceau("sync", *command, str(2**63))
    assert (asked.exit_code, "Invalid value" in asked.stderr) == (2, True)


def test_what_waits_for_persons_is_not_resumed_by_wishing(held: int, sceau: Sceau) -> None:
    wished = sceau("sync", "resume", str(held))
    assert (wished.exit_code, "approvals-missing" in wished.stderr) == (1, True)


def test_status_names_what_waits_and_what_is_late(held: int, sceau: Sceau, state: Path) -> None:
    shown = CliRunner().invoke(main, ["status", "--state", str(state), "--json"])
    known: dict[str, Any] = json.loads(shown.stdout)["registers"]["rpps"]
    assert (known["held"], known["latest"]) == (held, "held")
    assert known["late"] == (known["age_hours"] > 48)
    assert f"run {held} is held" in sceau("status").stdout
