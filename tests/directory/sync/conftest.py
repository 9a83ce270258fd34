"""One way to run any register file, to look at the rows, and to invent registers."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy import Engine, text

from directory.base.audit import Actor
from directory.base.db import transaction
from directory.sync.run import RunReport, run_register
from tests.directory.sync.files import Rows, Run
from tests.directory.sync.sources import Authority, Server, authority, serving


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
