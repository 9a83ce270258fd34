"""The commands of a page, pasted on a running demo: only where it lies and listens is another."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.stories.installation.conftest import Installation

ROOT = Path(__file__).resolve().parents[3]
# What makes, stops or measures an installation is run by whoever releases, not inside another one.
APART = ("scripts/quickstart.sh", "scripts/test.sh", "sceau down")
_BLOCK = re.compile(r"```sh\n(.*?)```(?:\s*```text\n(.*?)```)?", re.DOTALL)
_NEXT = "---- the next block ----"
# What differs from one installation to another, in this order.
_SHAPES = (
    (r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<id>"),
    (r"[\w.+-]+@[\w.-]+\w", "<address>"),
    (r"\b[0-9a-fA-F]{40}\b", "<serial>"),
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?)?Z?", "<instant>"),
    (r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4} GMT", "<instant>"),
    (r"\b8\d{11}\b", "<person>"),
    (r"\S+/(?=(?:hour|try)/)", "var/"),
    (r"\bCN ?= ?<address>", "CN=<address>"),
    (r"\b[A-ZÀ-Ý' -]+, [A-ZÀ-Ý' -]+(?=, <person>)", "<name>"),
    (r"\d+(?:\.\d+)? (?:ms|s|min|h|d|days?)\b", "<span>"),
    # By night the demo's files are of a day that has hardly begun.
    (r"<span> ago|in <span>", "<age>"),
    (r"\b\d[\d,]*\b", "<number>"),
    (r"[ \t]+", " "),
    (r" ?= ?", "="),
    (r"\b(SN|GN|CN)=(?!Sceau)[^,\n]+", r"\1=<name>"),
    (r" $", ""),
)


@dataclass(frozen=True)
class Block:
    """Commands of a page, and what the page shows of their output; None where it shows nothing."""

    commands: str
    shown: str | None


def blocks(page: Path) -> list[Block]:
    """All blocks that are run inside an installation, in order."""
    found = [Block(*words) for words in _BLOCK.findall(page.read_text())]
    return [block for block in found if not any(word in block.commands for word in APART)]


def paste(installation: Installation, found: list[Block], folder: Path) -> list[str]:
    """What each block prints, in one shell that ends at the first command that fails."""
    script = "set -euo pipefail\n" + f"\necho '{_NEXT}'\n".join(block.commands for block in found)
    for said, here in (
        ("127.0.0.1:8080", f"127.0.0.1:{installation.ports[0]}"),
        ("127.0.0.1:3389", f"127.0.0.1:{installation.ports[1]}"),
        ('"var/', f'"{installation.state}/'),
        (".venv/bin/", f"{ROOT}/.venv/bin/"),
        ("scripts/", f"{ROOT}/scripts/"),
    ):
        script = script.replace(said, here)
    environment = {**os.environ, "SCEAU_STATE": str(installation.state)}
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout.split(f"{_NEXT}\n")


def shape(output: str) -> list[str]:
    """The lines of an output without what differs: numbers, names, instants, widths of columns."""
    for pattern, word in _SHAPES:
        output = re.sub(pattern, word, output, flags=re.MULTILINE)
    return output.strip().splitlines()
