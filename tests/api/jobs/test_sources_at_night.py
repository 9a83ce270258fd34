"""At night each source is asked once; a busy one is asked again after 1, 2, 4 and 8 minutes, then no more."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from api.jobs.registers import resume_runs, take_late_registers, take_registers
from api.wiring import Container
from directory.base.errors import Refusal
from directory.sync.sources.origins import load_origins
from tests.api.jobs.test_nightly import applied, make
from tests.directory.sync.sources import Authority, Server, authority, serving, status, whole

REGISTERS = {"rpps", "finess", "mailboxes", "trusted-domains"}
NAME = "PS_LibreAcces_202608300200.zip"


@dataclass
class Clock:
    """A clock that the test sets."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **by: float) -> None:
        self.now += timedelta(**by)


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    (tmp_path / "ca").mkdir()
    return authority(tmp_path / "ca")


@pytest.fixture
def server(ca: Authority) -> Iterator[Server]:
    yield from serving(ca)


@pytest.fixture
def archive(tmp_path: Path) -> bytes:
    make(tmp_path / "made", "2026-08-30")
    return (tmp_path / "made" / NAME).read_bytes()


@pytest.fixture
def clock(now: datetime) -> Clock:
    return Clock(now)


@pytest.fixture
def night(container: Container, server: Server, clock: Clock, tmp_path: Path) -> Container:
    """A container with one source, on the test's server and clock."""
    (tmp_path / "sources.toml").write_text(
        f'hosts = ["localhost"]\n[sources.rpps-public]\nregister = "rpps"\nfiles = "PS_LibreAcces_*.zip"\n'
        f'url = "https://localhost:{server.port}/PS_LibreAcces"\ntrust_anchor = "ca/ca.pem"\n'
        "allow_private = true\n"
    )
    settings = replace(container.settings, sources_file=str(tmp_path / "sources.toml"))
    return replace(container, settings=settings, clock=clock)


def state(engine: Engine) -> tuple[int, bool, str | None]:
    """Attempts, whether another is due some time, and why."""
    query = "SELECT attempts, next_attempt_at IS NOT NULL, reason FROM source_state"
    with engine.connect() as connection:
        return tuple(connection.execute(text(query)).one())


def test_a_new_file_is_fetched_and_applied_and_the_next_night_asks_only_for_its_name(
    night: Container, server: Server, engine: Engine, archive: bytes, clock: Clock
) -> None:
    server.answers = [whole(NAME, archive), whole(NAME, archive)]
    assert take_registers(night).startswith(f"rpps-public: {NAME}; rpps: applied")
    assert applied(engine) == {"rpps": [NAME]}
    clock.forward(days=1)
    server.answers = [whole(NAME, archive)]
    assert take_registers(night) == ""
    assert server.methods == ["HEAD", "GET", "HEAD"]


def test_a_busy_source_is_asked_again_when_it_may_be(
    night: Container, server: Server, engine: Engine, archive: bytes, clock: Clock
) -> None:
    server.answers = [status(429)]
    assert take_registers(night) == ""
    assert state(engine) == (1, True, "source-busy")
    clock.forward(seconds=59)
    assert take_late_registers(night) == ""
    assert len(server.asked) == 1
    clock.forward(seconds=1)
    server.answers = [status(503, Retry_After="300")]
    assert take_late_registers(night) == ""
    clock.forward(seconds=299)
    assert take_late_registers(night) == ""
    assert len(server.asked) == 2
    clock.forward(seconds=1)
    server.answers = [whole(NAME, archive), whole(NAME, archive)]
    assert "rpps: applied" in take_late_registers(night)
    assert state(engine) == (0, False, None)


def test_a_source_that_stays_away_is_given_up_until_the_next_night(
    night: Container, server: Server, engine: Engine, clock: Clock
) -> None:
    server.answers = [status(502)] * 5
    take_registers(night)
    for minutes in (1, 2, 4):
        clock.forward(minutes=minutes)
        assert take_late_registers(night) == ""
    clock.forward(minutes=8)
    with pytest.raises(Refusal, match=r"^rpps-public: rpps-public: the server answered 502"):
        take_late_registers(night)
    assert state(engine) == (5, False, "source-answered")
    clock.forward(hours=10)
    assert take_late_registers(night) == ""
    assert len(server.asked) == 5
    server.answers = [status(429)]
    assert take_registers(night) == ""


def test_a_server_that_asks_for_too_much_patience_is_asked_within_the_hour(
    night: Container, server: Server, engine: Engine, clock: Clock
) -> None:
    server.answers = [status(429, Retry_After="999999999999")]
    take_registers(night)
    clock.forward(hours=1)
    server.answers = [status(429)]
    take_late_registers(night)
    assert state(engine)[0] == 2


def test_what_needs_a_person_is_said_at_once_and_keeps_the_folder_from_nothing(
    night: Container, server: Server, engine: Engine, archive: bytes
) -> None:
    night.settings.registers.mkdir()
    (night.settings.registers / NAME).write_bytes(archive)
    server.answers = [status(302, Location="https://elsewhere.invalid/")]
    with pytest.raises(Refusal, match="elsewhere"):
        take_registers(night)
    assert applied(engine) == {"rpps": [NAME]}
    assert state(engine) == (1, False, "redirected-elsewhere")


def test_sources_that_cannot_be_read_keep_the_folder_from_nothing(
    night: Container, engine: Engine, archive: bytes
) -> None:
    night.settings.registers.mkdir()
    (night.settings.registers / NAME).write_bytes(archive)
    Path(night.settings.sources_file).write_text("hosts = [")
    with pytest.raises(Refusal, match=r"^sources_file: "):
        take_registers(night)
    assert applied(engine) == {"rpps": [NAME]}


def test_a_run_cut_off_is_taken_up_between_the_nights(
    night: Container, server: Server, engine: Engine, archive: bytes
) -> None:
    server.answers = [whole(NAME, archive), whole(NAME, archive)]
    take_registers(night)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE register_run SET state = 'interrupted', attempts = 1, kept_file = :file"),
            {"file": str(night.settings.registers / NAME)},
        )
    assert resume_runs(night).startswith("rpps: applied")
    assert resume_runs(night) == ""


def toml(hosts: str = '"a.invalid"', name: str = "a", **said: str) -> str:
    """One source, sound but for what is said otherwise."""
    sound = {"register": '"rpps"', "url": '"https://a.invalid/"', "files": '"*"'} | said
    lines = [f"hosts = [{hosts}]", f"[sources.{name}]", *(f"{key} = {value}" for key, value in sound.items())]
    return "\n".join(line for line in lines if not line.endswith(" = "))


BAD = {
    "no TOML": "hosts = [",
    "an unknown key": 'hosts = []\nhost = "x"',
    "no register": toml(register=""),
    "a register nobody knows": toml(register='"x"'),
    "a host that is not listed": toml(hosts=""),
    "a redirect that is not listed": toml(redirects_to='["b.invalid"]'),
    "plain http": toml(url='"http://a.invalid/"'),
    "a port that is none": toml(url='"https://a.invalid:99999/"'),
    "a number for a name": toml(files="3"),
    "a source that is a number": "hosts = []\nsources.a = 3",
    "a host that is a number": toml(hosts='"a.invalid", 3'),
    "hosts that are no list": 'hosts = "a.invalid"',
    "a redirect to a list": toml(redirects_to='[["a.invalid"]]'),
    "redirects that are a number": toml(redirects_to="3"),
    "a path that is none": toml(trust_anchor='"\\u0000"'),
    "a name that is a path": toml(name='"../a"'),
    "an unknown word": toml(verify="false"),
}


def test_a_sound_source_is_read(tmp_path: Path) -> None:
    (tmp_path / "sources.toml").write_text(toml(trust_anchor='"ca.pem"'))
    (origin,) = load_origins(tmp_path / "sources.toml", REGISTERS)
    assert (origin.name, origin.trust_anchor) == ("a", tmp_path / "ca.pem")


@pytest.mark.parametrize("case", BAD)
def test_sources_that_cannot_be_meant_are_refused(case: str, tmp_path: Path) -> None:
    (tmp_path / "sources.toml").write_text(BAD[case])
    with pytest.raises(Refusal) as refused:
        load_origins(tmp_path / "sources.toml", REGISTERS)
    assert refused.value.code == "bad-source"


def test_the_documented_example_of_sources_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "reference" / "registers.md").read_text()
    example = page.split("```toml\n")[1].split("```")[0]
    (tmp_path / "sources.toml").write_text(example)
    found = load_origins(tmp_path / "sources.toml", REGISTERS)
    assert {origin.register for origin in found} == REGISTERS
