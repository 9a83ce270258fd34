"""`api` carries: what is asked of the record, and in which words, is for `directory` and `pki`.

An import contract cannot tell a connection from a statement, both of SQLAlchemy; this reads the files.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

API = Path(__file__).resolve().parents[2] / "api"
# What a front end needs to open a transaction, to watch a connection and to hear that the record is away.
CARRIED = {"Connection", "Engine", "create_engine", "event"}
MODULES = {"sqlalchemy", "sqlalchemy.exc", "sqlalchemy.pool"}
TABLES = {"directory.tables", "pki.record.tables"}
STATEMENT = re.compile(
    r"\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH|SET|SHOW|LISTEN|CREATE|ALTER|DROP)(\s+[\w*({]| ?$)"
)
# Asks a connection whether it lives, and the record nothing.
ALIVE = "SELECT 1"
# A trial's own server, before there is a record in it.
EXCEPT = {"embedded/postgres.py"}


def sql_in(source: str) -> Iterator[str]:
    """What of a file writes SQL, reads tables, or takes more of SQLAlchemy than carries."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(module=str(module), names=names):
                taken = {name.name for name in names}
                if module in TABLES or TABLES & {f"{module}.{name}" for name in taken}:
                    yield f"tables of {module}"
                if module.split(".")[0] == "sqlalchemy" and module not in MODULES:
                    yield module
                if module == "sqlalchemy":
                    yield from taken - CARRIED
            case ast.Import(names=names):
                yield from (name.name for name in names if name.name.split(".")[0] == "sqlalchemy")
            case ast.Constant(value=str(written)) if written != ALIVE and STATEMENT.match(written):
                yield written


@pytest.mark.parametrize("path", sorted(API.rglob("*.py")), ids=lambda path: str(path.relative_to(API)))
def test_no_file_of_api_asks_the_record_itself(path: Path) -> None:
    if str(path.relative_to(API)) not in EXCEPT:
        assert list(sql_in(path.read_text())) == []


@pytest.mark.parametrize(
    "planted",
    [
        "from sqlalchemy import select",
        "import sqlalchemy as sa",
        "from sqlalchemy.dialects.postgresql import insert",
        "from pki.record import tables",
        "from directory.tables import job_run",
        'QUERY = "SELECT serial FROM certificate"',
        'link.execute(f"LISTEN {channel}")',
        'QUERY = """\n    WITH one AS (SELECT 1)\n"""',
    ],
)
def test_a_planted_statement_is_found(planted: str) -> None:
    assert list(sql_in(planted)) != []


def test_what_is_left_out_has_a_reason_to_be() -> None:
    assert {name for name in EXCEPT if not list(sql_in((API / name).read_text()))} == set()
