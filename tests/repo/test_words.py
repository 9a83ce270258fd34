"""What the repository may contain.

One reader of the environment, one of the clock, no open notes, no foreign addresses.
"""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def tracked(*suffixes: str) -> list[Path]:
    names = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    return [ROOT / name for name in names if name.endswith(suffixes) and (ROOT / name).is_file()]


def holding(pattern: str, *suffixes: str, but: tuple[str, ...] = ()) -> list[str]:
    expression = re.compile(pattern)
    return [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked(*suffixes)
        if str(path.relative_to(ROOT)) not in but and "tests/repo" not in str(path)
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if expression.search(line)
    ]


def in_packages(pattern: str, *but: str) -> list[str]:
    found = holding(pattern, ".py", but=but)
    return [place for place in found if place.startswith(("directory/", "pki/", "api/"))]


def test_the_environment_is_read_in_one_file() -> None:
    assert in_packages(r"os\.environ|os\.getenv", "api/settings.py") == []


def test_the_clock_is_read_in_one_file() -> None:
    assert in_packages(r"datetime\.(now|utcnow|today)\(|date\.today\(", "directory/base/clock.py") == []


def test_nothing_is_left_open_in_code() -> None:
    words = "T[O]DO|F[I]XME|X[X]X|raise N[o]tImplementedError"
    assert holding(rf"\b({words})\b", ".py", ".sh", ".toml") == []


def test_no_registry_host_and_no_path_of_one_machine() -> None:
    hosts = r"pypi\.org|pythonhosted\.org|deb\.debian\.org|registry\.npmjs\.org"
    paths = r"(?<![\w.])/(work|root|farm)/|/tmp/bash.jobs"
    assert (
        holding(
            f"{hosts}|{paths}", ".py", ".sh", ".md", ".toml", ".lock", ".json", ".ldif", ".service", ".conf"
        )
        == []
    )


def test_locks_pin_by_hash_and_name_no_address() -> None:
    for path in tracked(".lock"):
        words = path.read_text()
        assert "://" not in words
        pinned = re.findall(r"^[a-z0-9][^\n]*==", words, re.MULTILINE)
        assert len(pinned) > 20
        assert all("--hash=sha256:" in block for block in re.split(r"\n(?=[a-z0-9])", words) if "==" in block)


@pytest.mark.parametrize("package", ["directory", "pki", "api"])
def test_every_module_opens_with_what_it_is_for(package: str) -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in (ROOT / package).rglob("*.py")
        if not path.read_text().lstrip().startswith('"""')
    ]
    assert silent == []


def test_no_file_has_a_name_that_says_nothing() -> None:
    forbidden = {"utils", "helpers", "common", "manager", "service", "misc"}
    assert [path for path in tracked(".py") if path.stem in forbidden] == []
