"""The import contracts hold, and the guard itself is awake: a planted violation is reported."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [str(program), "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(folder)},
    )


@pytest.mark.waits
def test_the_import_contracts_hold() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.waits
@pytest.mark.parametrize(
    ("module", "planted"),
    [
        ("directory/rules.py", "import pki.registration.eligibility"),
        ("directory/model.py", "import sqlalchemy"),
        ("directory/ldap/publish.py", "import ldap3"),
        ("api/rest/recipients.py", "import api.cli.main"),
        ("pki/certificates/profiles.py", "import flask"),
    ],
)
def test_a_planted_violation_is_reported(tmp_path: Path, module: str, planted: str) -> None:
    for package in ("directory", "pki", "api"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / module
    path.write_text(path.read_text() + f"\n{planted}\n")
    done = lint(tmp_path)
    assert done.returncode == 1
    assert "BROKEN" in done.stdout
