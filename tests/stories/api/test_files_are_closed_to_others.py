"""What we write is for our account; what is dropped for us is a file, and no way to another one."""

import os
import stat
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from api.embedded.slapd import EmbeddedSlapd
from api.jobs import registers as registers_job
from api.jobs.exports import write
from api.jobs.registers import dropped, resume_runs, take_registers
from api.settings import Settings
from api.wiring import Container
from directory.base import failpoints
from directory.base.durable_files import close_to_others
from directory.base.errors import Refusal
from directory.sync.runs.bounds import load_bounds
from directory.sync.runs.run import run_register
from tests.directory.sync.files import FINESS, TRUSTED, VECTORS
from tests.directory.sync.test_the_file_of_a_held_run_is_kept import NEEDS_ONE
from tests.factories import seed_practitioner


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_what_an_earlier_release_left_open_is_closed_and_no_link_is_followed(tmp_path: Path) -> None:
    state, outside = tmp_path / "state", tmp_path / "outside"
    (state / "exports" / "20260901T120000Z").mkdir(parents=True)
    manifest = state / "exports" / "20260901T120000Z" / "manifest.json"
    for path in (manifest, outside, state / "program"):
        path.write_text("")
    for path, given in ((state, 0o755), (state / "exports", 0o777), (manifest, 0o644), (outside, 0o644)):
        path.chmod(given)
    (state / "program").chmod(0o700)
    (state / "link").symlink_to(outside)
    close_to_others(state)
    assert [mode(path) for path in (state, state / "exports", manifest)] == [0o750, 0o750, 0o640]
    assert (mode(outside), mode(state / "program")) == (0o644, 0o700)


@pytest.mark.parametrize("kind", ["link", "pipe", "second name", "folder"])
def test_what_only_looks_like_a_dropped_file_is_refused(kind: str, tmp_path: Path) -> None:
    folder, secret = tmp_path / "registers", tmp_path / "secret"
    folder.mkdir()
    secret.write_text("a|b\n")
    path = folder / "PS_LibreAcces_Personne_activite_202609010112.txt"
    make = {
        "link": lambda: path.symlink_to(secret),
        "pipe": lambda: os.mkfifo(path),
        "second name": lambda: path.hardlink_to(secret),
        "folder": path.mkdir,
    }
    make[kind]()
    with pytest.raises(Refusal, match="not taken in") as refused, dropped(path):
        pass
    assert refused.value.code == "no-such-file"


def test_a_dropped_file_is_taken(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("a|b\n")
    with dropped(tmp_path / "file.txt") as file:
        assert file.content.read_text() == "a|b\n"


def runs(engine: Engine) -> list[tuple[str, str, bytes]]:
    query = "SELECT file_name, state, file_sha256 FROM register_run ORDER BY id"
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


@pytest.fixture
def true(container: Container, tmp_path: Path) -> Path:
    """A register that can be read, and that nobody dropped."""
    container.settings.registers.mkdir()
    path = tmp_path / "elsewhere.xml"
    path.write_bytes((VECTORS / TRUSTED).read_bytes().replace(b"exemple.mssante", b"other.mssante"))
    return path


def test_a_link_to_a_true_register_is_told_and_not_taken_at_night(
    container: Container, engine: Engine, true: Path
) -> None:
    path = container.settings.registers / TRUSTED
    path.symlink_to(true)
    assert night(container) == f"trusted-domains: {TRUSTED} is a symbolic link: not taken in."
    assert runs(engine) == []
    # The file of another day has its turn all the same.
    (path.parent / "listeblanchemssante-2.xml").write_bytes((VECTORS / TRUSTED).read_bytes())
    assert f"{TRUSTED} is a symbolic link" in night(container)
    assert [run[:2] for run in runs(engine)] == [("listeblanchemssante-2.xml", "applied")]


def test_a_file_that_is_held_is_left_alone_the_next_night(container: Container, engine: Engine) -> None:
    path = container.settings.registers / TRUSTED
    path.parent.mkdir()
    path.write_bytes((VECTORS / TRUSTED).read_bytes())
    known = load_bounds()
    bounds = {**known, "trusted-domains": replace(known["trusted-domains"], bounds=(NEEDS_ONE,))}
    report = run_register(
        engine, register="trusted-domains", path=path, now=container.clock(),
        actor=registers_job.NIGHT, apply=True,
        kept=container.settings.kept_files, bounds=bounds,
    )  # fmt: skip
    assert report.state == "held"
    assert take_registers(container) == ""


@pytest.mark.parametrize("by", ["link", "file", "pipe", "nothing"])
def test_what_takes_the_place_of_a_file_that_was_looked_at_is_not_read(
    by: str, container: Container, engine: Engine, true: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = container.settings.registers / TRUSTED
    given = (VECTORS / TRUSTED).read_bytes()
    path.write_bytes(given)
    put = {
        "link": lambda: path.symlink_to(true),
        "file": lambda: path.write_bytes(true.read_bytes()),
        "pipe": lambda: os.mkfifo(path),
        "nothing": lambda: None,
    }
    look = registers_job.check_dropped

    def exchanged(*asked: object) -> None:
        look(*asked)  # type: ignore[arg-type]
        path.unlink()
        put[by]()

    monkeypatch.setattr(registers_job, "check_dropped", exchanged)
    take_registers(container)
    assert runs(engine) == [(TRUSTED, "applied", sha256(given).digest())]
    with engine.connect() as connection:
        found = connection.execute(text("SELECT name FROM trusted_domain")).scalars().all()
    assert found == ["exemple.mssante.invalid"]


def test_a_disk_or_a_file_that_fails_ends_the_night_for_its_register_alone(
    container: Container, engine: Engine, request: pytest.FixtureRequest
) -> None:
    """As when its dropper forbids reading it after the look, which holds for every account but root."""
    folder = container.settings.registers
    folder.mkdir()
    for name in (FINESS, TRUSTED):
        (folder / name).write_bytes((VECTORS / name).read_bytes())
    request.addfinalizer(lambda: failpoints.arm(""))
    failpoints.arm("sync.verify=enospc")
    assert night(container) == f"finess: {FINESS}: No space left on device"
    assert [run[:2] for run in runs(engine)] == [(FINESS, "running"), (TRUSTED, "applied")]
    # What was cut off is taken up again; failing again, it is told.
    failpoints.arm("sync.verify=enospc")
    with pytest.raises(Refusal, match=r"^run 1: No space left on device$"):
        resume_runs(container)


def test_what_leads_to_no_file_is_passed_over(container: Container, engine: Engine) -> None:
    folder = container.settings.registers
    folder.mkdir()
    (folder / "PS_LibreAcces_202608300200.zip").symlink_to("x" * 300)
    (folder / "stray").symlink_to("x" * 300)
    (folder / "PS_LibreAcces_202608300201.zip").symlink_to("nothing")
    os.mkfifo(folder / "PS_LibreAcces_202608300202.zip")
    (folder / TRUSTED).write_bytes((VECTORS / TRUSTED).read_bytes())
    told = take_registers(container)
    assert told.startswith("trusted-domains: applied")
    assert "; " not in told
    assert [run[:2] for run in runs(engine)] == [(TRUSTED, "applied")]


def test_a_name_that_is_no_text_ends_no_night(container: Container, engine: Engine) -> None:
    folder = container.settings.registers
    folder.mkdir()
    (folder / os.fsdecode(b"etalab-cs1100502-\xff.csv")).write_bytes((VECTORS / FINESS).read_bytes())
    (folder / TRUSTED).write_bytes((VECTORS / TRUSTED).read_bytes())
    told = take_registers(container)
    assert told.startswith("trusted-domains: applied")
    assert told.isprintable()
    assert "is no register's file" in told
    assert [run[:2] for run in runs(engine)] == [(TRUSTED, "applied")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_strangers_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("a|b\n")
    os.chown(tmp_path / "file.txt", 65534, 65534)
    said = r"another account, nobody: .*Name nobody in `drop_accounts`"
    with pytest.raises(Refusal, match=said), dropped(tmp_path / "file.txt"):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
@pytest.mark.parametrize("named", ["nobody", "backup, nobody", "65534"])
def test_a_file_of_an_account_that_may_drop_is_taken_at_night(
    container: Container, tmp_path: Path, named: str
) -> None:
    folder = tmp_path / "registers"
    folder.mkdir()
    path = folder / "listeblanchemssante.xml"
    path.write_text("no white list\n")
    os.chown(path, 65534, 65534)
    settings = replace(container.settings, drop_folder=str(folder))
    assert "another account, nobody" in night(replace(container, settings=settings))
    assert "account" not in night(replace(container, settings=replace(settings, drop_accounts=named)))


def night(container: Container) -> str:
    """What the night refuses."""
    with pytest.raises(Refusal) as refused:
        take_registers(container)
    return refused.value.text


@pytest.mark.parametrize("named", ["no-such-account", "nobody;backup", "\N{SUPERSCRIPT TWO}"])
def test_an_account_that_is_none_is_refused_as_a_setting(named: str) -> None:
    with pytest.raises(Refusal, match="drop_accounts") as refused:
        Settings(drop_accounts=named)
    assert refused.value.code == "bad-setting"


def test_an_export_is_closed_to_others_whatever_the_umask(
    issuing: Container, engine: Engine, request: pytest.FixtureRequest
) -> None:
    seed_practitioner(engine)
    before = os.umask(0)
    request.addfinalizer(lambda: os.umask(before))
    made = write(issuing)
    assert made is not None
    assert {mode(path) for path in made.folder.iterdir()} == {0o640}
    assert [mode(path) for path in (made.folder, made.folder.parent)] == [0o750, 0o750]


def test_what_configures_slapd_is_closed_to_others(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    before = os.umask(0o022)
    request.addfinalizer(lambda: os.umask(before))
    slapd = EmbeddedSlapd(tmp_path / "ldap")
    slapd.make()
    found = [path for path in slapd.folder.rglob("*") if mode(path) & 0o007]
    assert [path for path in found if path.parent.stat().st_mode & 0o007] == []
    assert mode(slapd.folder / "config.ldif") == 0o600
