"""The import contracts hold, each of them is awake, and each package names the ones that hold its law."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("directory", "pki", "api")
CONTRACTS = [
    contract["name"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
]
# For each contract: a module, what it imports against the contract, and the words that tell of it.
PLANTED: Mapping[str, list[tuple[str, str, str]]] = {
    "The data flows one way: api reads pki, pki reads directory": [
        ("directory.precedence", "pki.model", "directory.precedence -> pki.model"),
    ],
    "Inside directory: every wing has its floor": [
        ("directory.identifiers", "directory.search", "directory.identifiers -> directory.search"),
        ("directory.unplaced", "", "directory.unplaced"),
    ],
    "A register line goes one way": [
        (
            "directory.sync.formats.rpps", "directory.sync.runs.bounds",
            "directory.sync.formats.rpps -> directory.sync.runs.bounds",
        ),
        ("directory.sync.unplaced", "", "directory.sync.unplaced"),
    ],
    "Inside pki: every wing has its floor": [
        ("pki.record.doubts", "pki.issuance.quotas", "pki.record.doubts -> pki.issuance.quotas"),
        ("pki.unplaced", "", "pki.unplaced"),
    ],
    "Inside api: every wing has its floor": [
        ("api.wiring", "api.health.health", "api.wiring -> api.health.health"),
        ("api.unplaced", "", "api.unplaced"),
    ],
    "Front ends do not lean on one another": [
        ("api.rest.clock", "api.pages.registers", "api.rest.clock -> api.pages.registers"),
    ],
    "Commands and status know nothing that REST is built on": [
        ("api.cli.token", "api.http.paging", "api.cli.token -> api.http.paging"),
    ],
    "Registers are fetched by their sources alone": [
        ("directory.sync.runs.bounds", "http.client", "directory.sync.runs.bounds -> http"),
    ],
    "Status reaches no framework": [
        ("api.status.cache", "flask", "api.status.cache -> flask"),
    ],
    "The front knows no resource and no rule": [
        ("api.front.shares", "directory.rules", "api.front.shares -> directory.rules"),
    ],
    "Words decide nothing": [
        ("api.words.registers", "directory.store", "api.words.registers -> directory.store"),
    ],
    "Pure code knows no SQL, no network, no framework": [
        ("pki.lint.walk", "sqlalchemy", "pki.lint.walk -> sqlalchemy"),
    ],
    "Only signing reaches the key stores": [
        ("pki.ceremony.plan", "pki.signing.file", "pki.ceremony.plan -> pki.signing.file"),
    ],
    "Trial servers are started by the installation alone": [
        ("api.settings", "api.embedded.slapd", "api.settings -> api.embedded.slapd"),
    ],
    "No circle anywhere": [
        ("pki.crl.checks", "pki.crl.publish", "No cycles are allowed in pki.crl."),
    ],
    "Only api knows HTTP, commands and the scheduler": [
        ("pki.crl.store", "apscheduler", "pki.crl.store -> apscheduler"),
    ],
    "One door to LDAP": [
        ("directory.ldap.publish", "ldap3", "directory.ldap.publish -> ldap3"),
    ],
}  # fmt: skip


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


def test_the_import_contracts_hold() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """What each contract says of a copy in which all are broken: one run, since a run takes seconds."""
    copy = tmp_path_factory.mktemp("broken")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    for module, imported, _ in (plant for plants in PLANTED.values() for plant in plants):
        with (copy / f"{module.replace('.', '/')}.py").open("a") as file:
            file.write(f"\nimport {imported}\n" if imported else "")
    broken = lint(copy).stdout.partition("\nBroken contracts\n")[2]
    parts = re.split(rf"^({'|'.join(map(re.escape, CONTRACTS))})\n-+\n", broken, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_planted_violation_is_reported(told: Mapping[str, str], contract: str) -> None:
    assert contract in PLANTED, "a contract that nobody sees break may be asleep"
    for *_, words in PLANTED[contract]:
        assert words in told.get(contract, ""), told.get(contract)


@pytest.mark.parametrize(
    "opening", sorted(path for one in PACKAGES for path in (ROOT / one).rglob("__init__.py"))
)
def test_each_package_names_the_contracts_that_hold_its_law(opening: Path) -> None:
    named = re.findall(r"^Contract: (.+)\.$", opening.read_text(), flags=re.MULTILINE)
    assert named, "no law without a check"
    assert set(named) <= set(CONTRACTS)
