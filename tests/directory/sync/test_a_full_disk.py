"""A disk that fills up in the middle of a night: the old day stands, the new one comes when there is room."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from api.embedded.postgres import EmbeddedPostgres
from directory.sync.runs.run import resume_run
from tests.conftest import NOON, migrate
from tests.directory.sync.test_a_run_cut_off_is_taken_up import SOMEONE, content, due, take
from tests.full_disk import fill, serving, small_disk


@pytest.fixture
def disk(passable: Path) -> Iterator[Path]:
    with small_disk(passable / "disk") as folder:
        yield folder


@pytest.fixture(scope="module")
def file(maker: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = maker.Plan(practitioners=8000, organisations=10, mailboxes=10, seed=5)
    made: Path = maker.make(tmp_path_factory.mktemp("day"), plan)["rpps"]
    return made


@pytest.mark.parametrize("left", [0, 4 << 20, 12 << 20])
def test_a_disk_that_fills_up_leaves_the_old_day_and_the_new_one_comes_when_there_is_room(
    left: int, disk: Path, file: Path
) -> None:
    cluster = EmbeddedPostgres(disk / "postgres")
    cluster.make()
    with serving(cluster) as engine:
        migrate(engine)
        fill(disk / "filler", left)
        # The server may end one session, or stop altogether to recover: both are its own business.
        with pytest.raises((DBAPIError, psycopg.Error)):
            take(engine, file)
        (disk / "filler").unlink()
    with serving(cluster) as engine:
        there = content(engine)
        assert [there[table] for table in ("practitioner", "practice", "register_known", "change")] == [
            []
        ] * 4
        interrupted = due(engine)
        for run_id in interrupted:
            assert resume_run(engine, run_id=run_id, now=NOON, actor=SOMEONE).state == "applied"
        if not interrupted:
            # So full that not even the run's beginning was written: the next look into the folder does it.
            assert take(engine, file).state == "applied"
        assert len(content(engine)["practitioner"]) == 8000
