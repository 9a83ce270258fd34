"""While an upgrade goes on, the release before serves on the schema of this one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from api.embedded.postgres import EmbeddedPostgres
from directory.base.db import connect_engine
from tests.conftest import ROOT
from tests.releases.records import BEFORE, UNREAD, loaded

# In one process, by its own functions: who enrols, certifies, revokes, publishes and asks.
REVOCATION = "tests/pki/revocation/test_revocation.py"
ROAD = (
    "tests/pki/registration/test_enrolment.py",
    REVOCATION,
    "tests/pki/verdict/test_exchange.py",
    "tests/pki/crl/test_crls_list_what_is_revoked.py",
)
COLUMNS = text("""
    SELECT table_name || '.' || column_name, data_type, is_nullable = 'NO', column_default IS NOT NULL
        OR is_identity = 'YES' OR is_generated = 'ALWAYS'
    FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'
""")
FUNCTIONS = text("""
    SELECT p.oid::regprocedure::text, pg_get_function_result(p.oid)
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'public'
""")
Column = tuple[str, bool, bool]


def columns(engine: Engine) -> dict[str, Column]:
    """Type, whether a value is wanted, and whether the database gives one by itself."""
    with engine.connect() as connection:
        return {name: (kind, wanted, given) for name, kind, wanted, given in connection.execute(COLUMNS)}


def functions(engine: Engine) -> dict[str, str]:
    with engine.connect() as connection:
        return {str(row[0]): str(row[1]) for row in connection.execute(FUNCTIONS)}


def test_what_the_release_before_reads_and_writes_is_there(
    engine: Engine, postgres: EmbeddedPostgres
) -> None:
    """Needs no history: its schema is kept. A column goes one release after the last that reads it."""
    with loaded(postgres, BEFORE) as url:
        former = connect_engine(url)
        before, called = columns(former), functions(former)
        former.dispose()
    now = columns(engine)
    read = {name: column for name, column in before.items() if name not in UNREAD[BEFORE.version]}
    assert {
        name: kind for name, (kind, _, _) in read.items() if name not in now or now[name][0] != kind
    } == {}
    # What it leaves out when it writes.
    tables = {name.partition(".")[0] for name in before}
    unknown = {name: column for name, column in now.items() if name.partition(".")[0] in tables}
    assert [
        name for name, (_, wanted, given) in unknown.items() if name not in before and wanted and not given
    ] == []
    assert [name for name in read if now[name][1] and not read[name][1] and not now[name][2]] == []
    assert called.items() - functions(engine).items() == set()


def git(*words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=False)


@pytest.fixture(scope="module")
def release_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of the release before, over the migrations of this one."""
    if git("cat-file", "-e", f"{BEFORE.commit}^{{commit}}").returncode:
        whole = git("rev-parse", "--is-shallow-repository").stdout.strip() == b"false"
        assert not whole, f"The history has no {BEFORE.commit}: tests/releases/records.py names another."
        pytest.skip(
            "This copy of the repository lacks the history; the kept schema is compared all the same."
        )
    folder = tmp_path_factory.mktemp("before")
    archive = folder / "before.zip"
    assert git("archive", f"--output={archive}", BEFORE.commit).returncode == 0
    shutil.unpack_archive(archive, folder / "tree")
    shutil.rmtree(folder / "tree" / "migrations")
    shutil.copytree(ROOT / "migrations", folder / "tree" / "migrations")
    return folder / "tree"


def outcome(tree: Path, *words: str) -> str:
    """What pytest says of tests of that tree, by its own code; the last lines."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *words],
        cwd=tree, capture_output=True, text=True, check=False, env={**variables, "PYTHONPATH": str(tree)},
    )  # fmt: skip
    return (done.stdout + done.stderr)[-3000:] if done.returncode else done.stdout.splitlines()[-1]


def test_the_code_that_is_asked_is_that_of_the_release_before(release_before: Path) -> None:
    asked = [sys.executable, "-c", "import pki.model; print(pki.model.__file__)"]
    done = subprocess.run(
        asked, cwd=release_before, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(release_before)},
    )  # fmt: skip
    assert Path(done.stdout.strip()) == release_before / "pki" / "model.py"


def test_the_release_before_certifies_and_revokes(release_before: Path) -> None:
    # Its tests stand where its own tree has them.
    said = outcome(release_before, REVOCATION)
    assert " passed" in said, said
    assert " failed" not in said, said


@pytest.mark.long
def test_the_release_before_passes_its_tests(release_before: Path) -> None:
    said = outcome(release_before, *ROAD, "tests/directory", "-n", "2")
    assert " passed" in said, said
    assert " failed" not in said, said
