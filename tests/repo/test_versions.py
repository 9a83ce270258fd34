"""The versions that several files speak of agree."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_least_python_is_the_same_everywhere() -> None:
    wanted = re.fullmatch(r">=(3\.\d+)", PROJECT["project"]["requires-python"])
    assert wanted is not None
    least = wanted[1]
    assert PROJECT["tool"]["mypy"]["python_version"] == least
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{least.replace('.', '')}"
    assert f"Python {least} or later" in (ROOT / "README.md").read_text()
    assert f"Python {least} or later" in (ROOT / "scripts" / "setup.sh").read_text()
    assert f"< (3, {least.split('.')[1]})" in (ROOT / "scripts" / "setup.sh").read_text()


def test_what_is_installed_is_what_the_lock_pins_and_the_project_asks_for() -> None:
    lock = dict(
        re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    )
    for asked in PROJECT["project"]["dependencies"]:
        name = re.match(r"[a-z0-9.-]+", asked)
        assert name is not None
        if "python_version <" not in asked or sys.version_info < (3, 14):
            # A lock spells names as PEP 503 has them.
            assert lock[name[0].replace(".", "-")] == version(name[0])


def test_continuous_integration_runs_what_a_developer_runs() -> None:
    assert "scripts/test.sh" in (ROOT / ".ci" / "run").read_text()
    assert "scripts/test.sh" in (ROOT / "README.md").read_text()


def test_bare_machines_run_both_scripts_and_are_named_where_one_looks() -> None:
    shown = (ROOT / "scripts" / "bare-machines.sh").read_text()
    assert all(f"scripts/{script}.sh" in shown for script in ("quickstart", "test"))
    for page in ("README.md", "CONTRIBUTING.md"):
        assert "scripts/bare-machines.sh" in (ROOT / page).read_text()


def test_the_scripts_are_shell_that_can_be_read() -> None:
    for script in (ROOT / "scripts").glob("*.sh"):
        assert subprocess.run(["bash", "-n", script], check=False).returncode == 0, script.name


def test_the_version_is_the_last_of_the_changelog_and_has_a_date() -> None:
    first = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first is not None
    assert re.fullmatch(rf"{re.escape(PROJECT['project']['version'])} — \d{{4}}-\d\d-\d\d", first[1])
