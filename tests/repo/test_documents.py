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


def headings(page: str) -> set[str]:
    """The fragments of a page's headings; a heading that comes again has a number behind it."""
    anchor = program("number_decisions").anchor
    found = [
        anchor(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading))
        for heading in re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page, flags=re.DOTALL), re.MULTILINE)
    ]
    return {
        name if number == 0 else f"{name}-{number}" for name in found for number in range(found.count(name))
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_fragments_of_links_are_headings(document: Path) -> None:
    page = document.read_text()
    asked = re.findall(r"\]\((?!https?:)([^)#]*\.md|)#([^)]+)\)", page)
    known = {name: headings((document.parent / name).read_text() if name else page) for name in dict(asked)}
    assert [f"{name}#{fragment}" for name, fragment in asked if fragment not in known[name]] == []


def test_decisions_are_numbered_dated_and_in_the_index() -> None:
    """When this fails: scripts/number_decisions.py gives a new decision its number; add its subject first."""
    page = (ROOT / "docs" / "decisions.md").read_text()
    script = program("number_decisions")
    assert page == script.written(page, "today")
    entries = script.decisions(page, "today")
    assert [entry.number for entry in entries] == list(range(1, len(entries) + 1))
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", entry.date) for entry in entries)


def test_decisions_that_code_and_documents_name_exist() -> None:
    page = (ROOT / "docs" / "decisions.md").read_text()
    known = set(re.findall(r"^## (\d+)\. ", page, re.MULTILINE))
    files = [
        *DOCUMENTS,
        *(path for package in ("directory", "pki", "api") for path in (ROOT / package).rglob("*.py")),
    ]
    named = {number for path in files for number in re.findall(r"\bdecision (\d+)\b", path.read_text())}
    assert "124" in named
    assert named - known == set()


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


def test_every_right_in_the_database_is_described_as_it_is() -> None:
    """When this fails: scripts/describe.py writes the page; read what changed."""
    page = (ROOT / "docs" / "reference" / "database-rights.md").read_text()
    assert page == program("describe").rights_page()


def test_every_job_is_described() -> None:
    page = (ROOT / "docs" / "reference" / "jobs.md").read_text()
    assert set(re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE)) == set(JOBS)


def test_every_audit_event_is_described() -> None:
    page = (ROOT / "docs" / "explanation" / "audit.md").read_text()
    assert [event.value for event in Event if f"`{event.value}`" not in page] == []
