"""Every command of the README and of the tutorials, pasted as it stands, on a demo."""

import subprocess
from pathlib import Path

from tests.stories.installation.conftest import MANY_SEARCHES, Installation
from tests.stories.installation.pages import ROOT, blocks, paste, shape

TUTORIAL, ROLES = (ROOT / "docs" / "tutorial" / name for name in ("first-hour.md", "roles.md"))


def test_every_command_of_the_readme_works_when_pasted(installation: Installation, tmp_path: Path) -> None:
    said = "".join(paste(installation, [*blocks(ROOT / "README.md"), *blocks(ROLES)], tmp_path))
    assert '"verdict":"allowed"' in said.replace(": ", ":")
    assert "certificate.pem: OK" in said
    assert "certificate.pem: good" in said
    assert "every checkpoint agrees" in said
    assert "planned" in said
    assert "applied" in said


def test_each_step_of_the_first_hour_prints_what_it_shows(installation: Installation, tmp_path: Path) -> None:
    """But for numbers, names and instants. When this fails: read what changed, and show that."""
    found = blocks(TUTORIAL)
    printed = paste(installation, found, tmp_path)
    shown = [(block, output) for block, output in zip(found, printed, strict=True) if block.shown is not None]
    assert len(shown) > 10
    for block, output in shown:
        assert shape(output) == shape(block.shown or ""), block.commands


def test_a_step_that_prints_something_else_is_noticed() -> None:
    assert shape("var/hour/doctor.pem: good") != shape("var/hour/doctor.pem: revoked")
    assert shape("a b@c.test 12") == shape("a d@e.test  13")


def test_the_five_commands_of_a_first_run_work_when_pasted(installation: Installation) -> None:
    told = installation.sceau("up", "--detach", env=MANY_SEARCHES).stderr
    # As the tutorial shows it.
    told_of = [line for line in told.splitlines() if line.startswith(("web ", "LDAPS ", "LDAP "))]
    assert len(told_of) == 3
    assert {*shape("\n".join(told_of))} <= {*shape(TUTORIAL.read_text())}
    commands = [line.strip() for line in told.partition("can be pasted):")[2].split("\n") if line.strip()]
    assert len(commands) == 5
    for command in commands:
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip(), command
