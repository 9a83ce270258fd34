"""Files and folders that stay: who owns what a command of root makes."""

import os
from pathlib import Path

import pytest

from directory.base.durable_files import make_private

SERVICE = 65534


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_root_makes_belongs_to_whom_the_folder_above_belongs(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, SERVICE, SERVICE)
    make_private(state / "kept" / "run-1")
    made = [(state / name).stat() for name in ("kept", "kept/run-1")]
    assert [(one.st_uid, one.st_mode & 0o777) for one in made] == [(SERVICE, 0o700)] * 2


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    make_private(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o750
