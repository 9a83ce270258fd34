"""Every command of the README, pasted as it stands, on a demo: only where it lies and listens is another."""

import os
import re
import subprocess
from pathlib import Path

from tests.interop.conftest import MANY_SEARCHES, Installation

ROOT = Path(__file__).resolve().parents[2]
# What makes, stops or measures an installation is run by whoever releases, not inside another one.
APART = ("scripts/quickstart.sh", "scripts/test.sh", "sceau down")


def blocks() -> list[str]:
    found = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return [block for block in found if not any(word in block for word in APART)]


def test_every_command_of_the_readme_works_when_pasted(installation: Installation, tmp_path: Path) -> None:
    script = "set -euo pipefail\n" + "\n".join(blocks())
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
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    said = done.stdout
    assert '"verdict":"allowed"' in said.replace(": ", ":")
    assert "certificate.pem: OK" in said
    assert "certificate.pem: good" in said
    assert "certificate-revoked" in said
    assert "every signed head agrees" in said
    assert "planned" in said
    assert "applied" in said


def test_the_five_commands_of_a_first_run_work_when_pasted(installation: Installation) -> None:
    told = installation.sceau("up", "--detach", env=MANY_SEARCHES).stderr
    commands = [line.strip() for line in told.partition("can be pasted):")[2].split("\n") if line.strip()]
    assert len(commands) == 5
    for command in commands:
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip(), command
