"""Night after night: only what changed is written, nobody is forgotten, and the past stays readable."""

from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy import Engine, text

from directory.base.db import transaction
from tests.directory.sync.files import Rows, Run

ALL = {"rpps", "finess", "mailboxes", "trusted-domains"}
SMALL = {"practitioners": 300, "organisations": 40, "mailboxes": 200, "seed": 7}


def make(maker: ModuleType, folder: Path, **more: object) -> dict[str, Path]:
    made: dict[str, Path] = maker.make(folder, maker.Plan(**(SMALL | more)))
    return made


def load(run: Run, files: dict[str, Path]) -> None:
    for register, path in files.items():
        report = run(register, path)
        assert report.state == "applied", report
        counts = report.counts
        assert counts["accepted"] + counts["rejected"] + counts["unchanged"] == counts["lines"]


def test_invented_registers_load_whole_and_hang_together(
    maker: ModuleType, tmp_path: Path, run: Run, rows: Rows
) -> None:
    files = make(maker, tmp_path)
    assert set(files) == ALL
    load(run, files)
    assert rows("SELECT count(*) FROM practitioner") == [(300,)]
    assert rows("SELECT count(*) FROM organisation") == [(40,)]
    assert rows("SELECT count(*) FROM mailbox") == [(200,)]
    no_holder = "SELECT count(*) FROM mailbox m LEFT JOIN practitioner p ON p.national_id = m.holder"
    assert rows(no_holder + " WHERE m.kind = 'PER' AND p IS NULL") == [(0,)]
    no_place = "SELECT count(*) FROM mailbox m LEFT JOIN organisation o USING (finess)"
    assert rows(no_place + " WHERE m.finess <> '' AND o IS NULL") == [(0,)]
    assert rows("SELECT count(*) FROM mailbox m WHERE domain NOT IN (SELECT name FROM trusted_domain)") == [
        (0,)
    ]
    worlds = "SELECT count(DISTINCT split_part(domain, '.', 2)) FROM mailbox WHERE kind = 'PER'"
    assert rows(worlds)[0][0] == 3  # ordre, hopital, mssante (of medico-social.mssante.invalid)
    ordres = {row[0] for row in rows("SELECT code FROM profession")}
    assert {"10", "21", "40", "50", "60", "70", "80"} <= ordres


def test_the_same_seed_gives_the_same_bytes(maker: ModuleType, tmp_path: Path) -> None:
    one, two, other = (
        make(maker, tmp_path / name, **more) for name, more in (("a", {}), ("b", {}), ("c", {"seed": 8}))
    )
    for register in ALL:
        assert one[register].read_bytes() == two[register].read_bytes()
    assert one["rpps"].read_bytes() != other["rpps"].read_bytes()


def test_a_register_of_52_columns_gives_the_same_people(maker: ModuleType, tmp_path: Path, run: Run) -> None:
    files = make(maker, tmp_path, columns=52)
    report = run("rpps", files["rpps"])
    assert (report.layout, report.counts["created"]) == ("rpps-52", 300)


def test_a_second_run_of_the_same_file_changes_nothing(
    maker: ModuleType, tmp_path: Path, run: Run, rows: Rows
) -> None:
    files = make(maker, tmp_path)
    load(run, files)
    changes = rows("SELECT count(*) FROM change")
    load(run, files)
    assert rows("SELECT count(*) FROM change") == changes
    assert rows("SELECT count(*) FROM practitioner_history") == [(0,)]


def test_a_plan_counts_what_apply_then_does_and_changes_nothing(
    maker: ModuleType, tmp_path: Path, run: Run, rows: Rows, fingerprint: object
) -> None:
    assert callable(fingerprint)
    load(run, make(maker, tmp_path / "1"))
    before = fingerprint()
    files = make(maker, tmp_path / "2", next_day=True, departures=0.03, moves=0.05, arrivals=0.02)
    plans = {register: run(register, path, apply=False) for register, path in files.items()}
    assert fingerprint() == before
    assert {report.state for report in plans.values()} == {"planned"}
    for register, path in files.items():
        assert run(register, path).counts == plans[register].counts
    counts = plans["rpps"].counts
    assert counts["created"] == 6
    assert counts["removed"] > 0
    assert counts["changed"] > 0
    assert rows("SELECT count(*) FROM practitioner WHERE departed_at IS NULL") == [(306 - counts["removed"],)]
    assert rows("SELECT count(*) FROM practitioner_history") == [(counts["removed"] + counts["changed"],)]


def test_who_disappears_departs_with_all_that_rested_on_the_register(
    engine: Engine, maker: ModuleType, tmp_path: Path, run: Run, rows: Rows
) -> None:
    load(run, make(maker, tmp_path / "1"))
    gone = str(
        rows("SELECT national_id FROM practice JOIN skill USING (national_id) ORDER BY 1 LIMIT 1")[0][0]
    )
    practices = rows(f"SELECT count(*) FROM practice WHERE national_id = '{gone}'")
    then = rows("SELECT now()")[0][0]
    same = {"next_day": True, "arrivals": 0, "moves": 0, "departures": 0}
    report = run("rpps", make(maker, tmp_path / "2", without=frozenset({gone}), **same)["rpps"])
    assert (report.counts["removed"], report.counts["changed"], report.counts["created"]) == (1, 0, 0)
    assert rows(f"SELECT departed_at IS NOT NULL FROM practitioner WHERE national_id = '{gone}'") == [(True,)]
    for table in ("practice", "profession", "skill"):
        assert rows(f"SELECT count(*) FROM {table} WHERE national_id = '{gone}'") == [(0,)]
    with transaction(engine, read_only=True) as connection:
        past = text("SELECT count(*) FROM practice_at(:then) WHERE national_id = :gone")
        seen = connection.execute(past, {"then": then, "gone": gone}).scalar_one()
        known = text("SELECT departed_at FROM practitioner_at(:then) WHERE national_id = :gone")
        assert connection.execute(known, {"then": then, "gone": gone}).scalar_one() is None
    assert [(seen,)] == practices
    urgent = f"SELECT count(*) > 0 FROM change WHERE entity = 'practitioner' AND key = '{gone}' AND urgent"
    assert rows(urgent) == [(True,)]


def test_who_returns_is_back_with_everything(maker: ModuleType, tmp_path: Path, run: Run, rows: Rows) -> None:
    load(run, make(maker, tmp_path / "1"))
    gone = str(rows("SELECT min(national_id) FROM practice")[0][0])
    tables = ("practice", "profession", "skill")
    sql = [f"SELECT * FROM {table} WHERE national_id = '{gone}'" for table in tables]
    before = [[row[:-1] for row in rows(statement)] for statement in sql]
    same = {"next_day": True, "arrivals": 0, "moves": 0, "departures": 0}
    run("rpps", make(maker, tmp_path / "2", without=frozenset({gone}), **same)["rpps"])
    report = run("rpps", make(maker, tmp_path / "3", **same)["rpps"])
    assert (report.state, report.counts["changed"]) == ("applied", 1)
    assert rows(f"SELECT departed_at FROM practitioner WHERE national_id = '{gone}'") == [(None,)]
    assert [[row[:-1] for row in rows(statement)] for statement in sql] == before


@pytest.mark.parametrize(
    ("register", "table", "key"),
    [
        ("finess", "organisation", "finess"),
        ("mailboxes", "mailbox", "address"),
        ("trusted-domains", "trusted_domain", "name"),
    ],
)
def test_what_leaves_the_other_registers_is_kept_as_departed(
    register: str, table: str, key: str, *, maker: ModuleType, tmp_path: Path, run: Run, rows: Rows
) -> None:
    load(run, make(maker, tmp_path / "1"))
    (before,) = rows(f"SELECT count(*) FROM {table}")
    smaller = (
        {"organisations": 38, "mailboxes": 190} if register != "trusted-domains" else {"organisations": 4}
    )
    files = make(maker, tmp_path / "2", next_day=True, arrivals=0, departures=0, **smaller)
    report = run(register, files[register])
    assert report.state == "applied"
    assert report.counts["removed"] > 0
    departed = f"SELECT count(*), count(DISTINCT {key}) > 0 FROM {table} WHERE departed_at IS NOT NULL"
    assert rows(departed) == [(report.counts["removed"], True)]
    assert rows(f"SELECT count(*) FROM {table}") == [(before[0] + report.counts["created"],)]
    back = make(maker, tmp_path / "3", next_day=True, arrivals=0, departures=0)
    assert run(register, back[register]).counts["changed"] >= report.counts["removed"]


def test_a_doctor_who_moves_keeps_one_history_of_practices(
    maker: ModuleType, tmp_path: Path, run: Run, rows: Rows
) -> None:
    load(run, make(maker, tmp_path / "1"))
    report = run(
        "rpps", make(maker, tmp_path / "2", next_day=True, moves=0.2, departures=0, arrivals=0)["rpps"]
    )
    assert report.counts["changed"] > 20
    assert rows("SELECT count(*) FROM practitioner_history") == [(report.counts["changed"],)]
    stayed = "national_id NOT IN (SELECT national_id FROM practitioner_history)"
    assert rows(f"SELECT count(*) FROM practice_history WHERE {stayed}") == [(0,)]
