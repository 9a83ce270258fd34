"""One way to run any register file, to look at the rows, and to invent registers."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy import Engine, text

from api.embedded.postgres import EmbeddedPostgres
from directory.base.audit import Actor
from directory.base.db import transaction
from directory.sync.runs.bounds import RegisterBounds, load_bounds
from directory.sync.runs.run import RunReport, run_register
from tests.conftest import fresh_database
from tests.directory.sync.evenings import SOURCES, Evening, Night, make_evening
from tests.directory.sync.files import Rows, Run
from tests.directory.sync.sources import Authority, Server, authority, serving


@pytest.fixture
def source_name() -> str:
    """Of which source the record holds the file of the evening before: of none, or a test's parameter."""
    return ""


@pytest.fixture(scope="session")
def evening_of(
    postgres: EmbeddedPostgres, maker: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Evening]:
    """The evening of a source, made when it is first asked for."""

    @cache
    def of(source: str) -> Evening:
        return make_evening(postgres, maker, source, tmp_path_factory.mktemp(source))

    return of


@pytest.fixture
def database_url(
    postgres: EmbeddedPostgres, source_name: str, evening_of: Callable[[str], Evening]
) -> Iterator[str]:
    """A fresh database, or a copy of the evening's."""
    made = fresh_database(postgres, evening_of(source_name).database if source_name else "template")
    with made as url:
        yield url


@pytest.fixture
def night(source_name: str, evening_of: Callable[[str], Evening], run: Run, tmp_path: Path) -> Night:
    """The night after the evening of `source_name`, for a test with that parameter."""
    evening = evening_of(source_name)
    return Night(source_name, SOURCES[source_name][0], evening.name, evening.text, run, tmp_path)


def at_one_instant() -> dict[str, RegisterBounds]:
    """Our bounds, but that the file of the next day is taken at the instant of the one before."""
    return {
        register: replace(of, bounds=tuple(bound for bound in of.bounds if bound.name != "stamped-ahead"))
        for register, of in load_bounds().items()
    }


@pytest.fixture(autouse=True)
def tomorrow_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without bounds of their own take tomorrow's file; what holds it back has tests of its own."""
    monkeypatch.setattr("directory.sync.runs.run.load_bounds", at_one_instant)


@pytest.fixture
def run(engine: Engine, now: datetime, actor: Actor) -> Run:
    """Run a register on a file, applying unless told otherwise."""

    def go(register: str, path: Path, *, apply: bool = True, strict_rpps: bool = True) -> RunReport:
        return run_register(
            engine, register=register, path=path, now=now, actor=actor, apply=apply, strict_rpps=strict_rpps
        )

    return go


@pytest.fixture
def rows(engine: Engine) -> Rows:
    def query(sql: str) -> list[tuple[object, ...]]:
        with transaction(engine, read_only=True) as connection:
            return [tuple(row) for row in connection.execute(text(sql))]

    return query


@pytest.fixture
def fingerprint(rows: Rows) -> Callable[[], list[tuple[object, ...]]]:
    """All that a register may change, for 'nothing changed'."""
    tables = (
        "practitioner", "profession", "skill", "practice", "organisation", "operator", "trusted_domain",
        "mailbox", "mailbox_attachment", "practitioner_history", "practice_history", "change",
    )  # fmt: skip
    return lambda: [
        (table, rows(f"SELECT count(*), md5(string_agg(t::text, '' ORDER BY t::text)) FROM {table} t"))
        for table in tables
    ]


@pytest.fixture(scope="session")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA made for the tests."""
    return authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def server(ca: Authority) -> Iterator[Server]:
    """A source on this machine that answers as told."""
    yield from serving(ca)


@pytest.fixture(scope="session")
def maker() -> ModuleType:
    """scripts/make_registers.py, which is a program and no package."""
    path = Path(__file__).resolve().parents[3] / "scripts" / "make_registers.py"
    spec = importlib.util.spec_from_file_location("make_registers", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_registers"] = module
    spec.loader.exec_module(module)
    return module
