"""Where a test stands: beside what it asks, or among the stories."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What the product's packages do not have: stories, the repository itself, records of releases.
BESIDE = frozenset({"stories", "repo", "releases", "golden"})


def test_each_folder_of_tests_has_the_package_whose_tests_it_holds() -> None:
    holding = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    mirrored = {folder for folder in holding if folder.parts and folder.parts[0] not in BESIDE}
    assert len(mirrored) > len(BESIDE)
    assert [folder for folder in sorted(mirrored) if not (ROOT / folder / "__init__.py").exists()] == []
