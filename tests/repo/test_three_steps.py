"""The table of `docs/architecture.md` leads to folders, files and functions that exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_TABLE = re.compile(r"^## Three steps .*?^\|---\|---\|---\|\n(.*?)\n\n", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"[\w/]+\.(?:py|toml|ldif)")


def rows() -> list[list[str]]:
    found = _TABLE.search((ROOT / "docs/architecture.md").read_text())
    assert found
    return [line.strip("| ").split(" | ") for line in found[1].split("\n")]


def named(folder: str, cell: str) -> Iterator[tuple[Path, str]]:
    """Each file of a cell with each function said to stand in it, or with ''."""
    file = ROOT / folder
    for word in re.findall(r"`([^`]+)`", cell):
        if _FILE.fullmatch(word):
            file = (ROOT if "/" in word else ROOT / folder) / word
            yield file, ""
        else:
            yield file, word


def test_the_questions_of_a_newcomer_are_there() -> None:
    questions = " ".join(question for question, *_ in rows())
    for words in (
        "why is a request refused", "how is a CRL numbered", "`good`", "a column of RPPS",
        "which job publishes CRLs", "a restored backup", "suspended because its holder left", "429",
    ):  # fmt: skip
        assert words in questions


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_each_step_leads_somewhere(row: list[str]) -> None:
    _, folder, cell = row
    assert (ROOT / folder.strip("`")).is_dir()
    for file, function in named(folder.strip("`"), cell):
        assert file.is_file(), file
        pattern = rf"^(def|class) {re.escape(function)}\b"
        assert not function or re.search(pattern, file.read_text(), re.MULTILINE), f"{file}: {function}"
