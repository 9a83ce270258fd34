"""Prose that a newcomer can read: no sentence beyond 30 words, and a glossary one click away."""

from pathlib import Path

import pytest

from tests.repo.sentences import documentation, sentences, words
from tests.repo.test_documents import DOCUMENTS, ROOT

LONGEST, LONGEST_README = 30, 150
GLOSSARY = "glossary.md"
TERMS = (
    "Ordre", "RPPS", "FINESS", "MSSanté", "enrolment", "measure", "shard", "checkpoint", "suspension",
    "certificateHold", "high-water mark", "key compromise",
)  # fmt: skip


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_sentence_is_too_long(document: Path) -> None:
    """A colon, a semicolon and a bracket end none: what they join is read as one."""
    found = [sentence for sentence in sentences(document.read_text()) if words(sentence) > LONGEST]
    assert found == []


@pytest.mark.parametrize("place", ["api", "directory", "migrations", "pki", "scripts"])
def test_no_sentence_in_code_is_too_long(place: str) -> None:
    found = [
        (str(path.relative_to(ROOT)), sentence)
        for path in sorted((ROOT / place).rglob("*.py"))
        for text in documentation(path.read_text())
        for sentence in sentences(text)
        if words(sentence) > LONGEST
    ]
    assert found == []


def test_a_long_sentence_of_code_is_noticed() -> None:
    long = " ".join(["word"] * (LONGEST + 1)) + "."
    modules = (
        f'"""{long}"""',
        f'def act():\n    """Act.\n\n    {long}\n    """',
        f"# Short.\n# {long}\nPLACE = 1",
    )
    for module in modules:
        found = [sentence for text in documentation(module) for sentence in sentences(text)]
        assert [words(sentence) > LONGEST for sentence in found].count(True) == 1
    example = f'"""Act.\n\n\\b\n{long}\n"""'
    assert [sentence for text in documentation(example) for sentence in sentences(text)] == ["Act."]


def test_a_long_sentence_is_noticed_wherever_it_stands() -> None:
    long, short = " ".join(["word"] * (LONGEST + 1)) + ".", " ".join(["word"] * LONGEST) + "."
    pages = (
        "{} Another.",
        "- {}\n- another",
        "# Title\n\n{}",
        "| a | {} |\n|---|---|",
        "> {}",
        "A [link]({}x).\n\n{}",
    )
    for page in pages:
        assert [words(sentence) > LONGEST for sentence in sentences(page.replace("{}", long))].count(
            True
        ) == 1
        sound = page.replace("{}", short)
        assert not [sentence for sentence in sentences(sound) if words(sentence) > LONGEST]
    assert list(sentences(f"```\n{long}\n```")) == []


def test_the_glossary_tells_the_words_of_the_field() -> None:
    page = (ROOT / "docs" / GLOSSARY).read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ") and "---" not in line]
    told = " ".join(row[0] for row in rows)
    assert [term for term in TERMS if term not in told] == []
    assert all(len(row) == 3 and all(cell.strip("| ") for cell in row) for row in rows)


@pytest.mark.parametrize(
    "page", ["README.md", "docs/README.md", "docs/architecture.md", "docs/tutorial/first-hour.md"]
)
def test_who_begins_to_read_finds_the_glossary(page: str) -> None:
    assert f"{GLOSSARY})" in (ROOT / page).read_text()


def test_the_index_names_every_document() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")} - {"README.md"}
    assert [page for page in sorted(pages) if f"]({page})" not in index] == []


def test_the_readme_can_be_read_to_its_end() -> None:
    page = (ROOT / "README.md").read_text()
    assert len(page.splitlines()) <= LONGEST_README
    assert "](docs/flow.svg)" in page
    assert "| I am a … | go to … |" in page


def test_the_picture_is_read_in_dark_and_by_ear() -> None:
    picture = (ROOT / "docs" / "flow.svg").read_text()
    assert "prefers-color-scheme: dark" in picture
    assert "<title" in picture
    assert len(picture) < 5000
