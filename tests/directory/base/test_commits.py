"""Who commits on this host is heard by all its processes; who only reads is not."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from directory.base import commits
from directory.base.commits import Commits
from directory.base.db import asking, transaction
from tests.conftest import ROOT

WRITE = text("INSERT INTO beat (who, number, at) VALUES (:who, 1, now())")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "run" / "commits"
    commits.tell_at(path)
    yield path
    commits.tell_nowhere()


def test_a_commit_leaves_what_no_other_left(engine: Engine, file: Path) -> None:
    heard = Commits(file)
    seen = {heard.last()}
    for number in range(20):
        with transaction(engine) as connection:
            connection.execute(WRITE, {"who": f"one {number}"})
        seen.add(heard.last())
    with engine.begin() as connection:
        connection.execute(WRITE, {"who": "another way"})
    assert len(seen | {heard.last()}) == 22
    assert b"" not in seen


def test_who_reads_or_fails_leaves_nothing(engine: Engine, file: Path) -> None:
    before = commits.last()
    with transaction(engine, read_only=True) as connection:
        connection.execute(text("SELECT 1"))
    with asking(engine) as connection:
        connection.execute(text("SELECT 1"))
    with transaction(engine) as connection:
        connection.execute(WRITE, {"who": "one"})
        told_before_the_commit = commits.last()
    assert told_before_the_commit == before
    before = commits.last()
    with pytest.raises(IntegrityError), transaction(engine) as connection:
        connection.execute(WRITE, {"who": "one"})
    assert commits.last() == before
    assert file.stat().st_size == 8


def test_other_processes_hear_of_it(file: Path) -> None:
    before = commits.last()
    program = (
        "import sys; from pathlib import Path; from directory.base import commits;"
        "commits.tell_at(Path(sys.argv[1])); commits.committed()"
    )
    subprocess.run([sys.executable, "-c", program, str(file)], cwd=ROOT, check=True)
    assert commits.last() not in {before, b""}


def test_a_file_that_cannot_be_had_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "folder", tmp_path / "link"):
        commits.tell_at(path)
        commits.committed()
        assert commits.last() == b""


def test_a_file_cut_short_says_nothing_until_the_next_commit(file: Path) -> None:
    os.truncate(file, 3)
    assert commits.last() == b""
    commits.committed()
    assert len(commits.last()) == 8


def test_a_file_that_was_removed_or_put_back_is_found_again(file: Path) -> None:
    file.unlink()
    assert commits.here() != b""
    other = Commits(file)
    before = commits.here()
    other.tell()
    assert commits.last() == other.last() != before
    file.unlink()
    commits.committed()
    assert Commits(file).last() == commits.last()


@pytest.mark.usefixtures("file")
def test_a_commit_that_cannot_be_told_leaves_nothing_to_go_by(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    assert commits.last()
    monkeypatch.setattr("os.pwrite", full)
    commits.committed()
    assert commits.last() == b""
    monkeypatch.undo()
    commits.committed()
    assert commits.last()


@pytest.mark.usefixtures("file")
def test_a_commit_whose_answer_is_lost_is_told(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    before = commits.last()
    commit = psycopg.Connection.commit

    def lost(link: psycopg.Connection) -> None:
        commit(link)
        raise OSError("lost")

    with engine.connect() as connection:
        connection.begin()
        connection.execute(WRITE, {"who": "one"})
        monkeypatch.setattr(psycopg.Connection, "commit", lost)
        with pytest.raises(OSError, match="lost"):
            connection.commit()
        monkeypatch.undo()
    assert commits.last() != before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file away")
def test_a_command_of_root_leaves_it_to_the_account_of_the_folder(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    Commits(tmp_path / "commits")
    assert (tmp_path / "commits").stat().st_uid == 12345
