"""Documents that cannot rot: links exist, settings, commands, jobs and audit events are described, help is as frozen."""

import re
from dataclasses import fields
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from api.cli.main import main
from api.jobs import JOBS
from api.settings import Settings
from directory.base.audit import Event

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "help"
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def commands(group: click.Command = main, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(group, click.Group):
        return [words]
    return [
        words,
        *(found for name in group.commands for found in commands(group.commands[name], (*words, name))),
    ]


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


def test_every_setting_is_described() -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    named = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert named == {field.name for field in fields(Settings)}


def test_every_command_is_described() -> None:
    page = (ROOT / "docs" / "reference" / "commands.md").read_text()
    described = set(re.findall(r"^## `sceau ([^`]+)`", page, re.MULTILINE))
    assert described == {" ".join(words) for words in commands() if words}


def test_every_job_is_described() -> None:
    page = (ROOT / "docs" / "reference" / "jobs.md").read_text()
    assert set(re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE)) == set(JOBS)


def test_every_audit_event_is_described() -> None:
    page = (ROOT / "docs" / "explanation" / "audit.md").read_text()
    assert [event.value for event in Event if f"`{event.value}`" not in page] == []


@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(words) or "sceau")
def test_help_is_as_frozen(words: tuple[str, ...]) -> None:
    """People paste these commands into scripts: an option that goes or changes its meaning breaks them at night.

    To accept a change: delete the file below tests/golden/help and run the suite once.
    """
    shown = CliRunner().invoke(main, [*words, "--help"], prog_name="sceau").output
    path = GOLDEN / f"{'-'.join(('sceau', *words))}.txt"
    if not path.exists():
        path.write_text(shown)
        pytest.fail(f"{path.name} was written: look at it and commit it")
    assert shown == path.read_text()
