"""Documents that cannot rot.

Links exist; settings, commands, jobs and audit events are described; help is as frozen.
"""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from api.jobs.table import JOBS
from api.rest.recipients import REASONS
from directory.base.audit import Event
from pki.verdict.model import Answer

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def program(name: str) -> ModuleType:
    """A program of scripts/, loaded by path: they are no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_named_in_code_marks_exist(document: Path) -> None:
    named = re.findall(
        r"`((?:directory|pki|api|docs|scripts|tests|migrations|deploy)/[\w./-]+\.\w+)`", document.read_text()
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_setting_is_described_as_it_is() -> None:
    """When this fails: scripts/describe.py writes the page; read what changed."""
    assert (ROOT / "docs" / "reference" / "settings.md").read_text() == program("describe").settings_page()


def test_every_command_is_described_by_its_own_help() -> None:
    """People paste these commands into scripts: an option that goes or changes meaning breaks them at night.

    When this fails: scripts/describe.py writes the page; read what changed.
    """
    assert (ROOT / "docs" / "reference" / "commands.md").read_text() == program("describe").commands_page()


def test_every_verdict_and_reason_has_an_address_to_try_it_with() -> None:
    """When this fails: scripts/describe.py writes the page; read what changed."""
    page = (ROOT / "docs" / "reference" / "trial-addresses.md").read_text()
    assert page == program("describe").trials_page()
    row = r"^\| `[^`]+@reasons\.test` \| `([a-z]+)` \| (?:none|`([a-z-]+)`) \|$"
    told = re.findall(row, page, re.MULTILINE)
    assert {verdict for verdict, _ in told} == {one.value for one in Answer}
    # As the API documents them: a new reason needs an address.
    assert {reason for _, reason in told} == {"", *REASONS}


def test_every_bound_of_the_night_is_described_as_it_is() -> None:
    """When this fails: scripts/describe.py writes the page; read what changed."""
    assert (ROOT / "docs" / "reference" / "bounds.md").read_text() == program("describe").bounds_page()


def test_every_job_is_described() -> None:
    page = (ROOT / "docs" / "reference" / "jobs.md").read_text()
    assert set(re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE)) == set(JOBS)


def test_every_audit_event_is_described() -> None:
    page = (ROOT / "docs" / "explanation" / "audit.md").read_text()
    assert [event.value for event in Event if f"`{event.value}`" not in page] == []
