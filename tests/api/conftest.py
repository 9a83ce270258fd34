"""The whole application in process, on a fresh database: a container, a client, callers of every role,
and the command.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine
from werkzeug.test import TestResponse

from api.app import create_app
from api.cli import output
from api.cli.main import main
from api.embedded.postgres import EmbeddedPostgres
from api.installation import status as condition
from api.jobs import ocsp, registers
from api.settings import Settings, load_settings, save_settings
from api.wiring import Container, build
from directory.base.clock import utc_now
from directory.base.db import connect_engine
from pki.model import CrlForm, RevocationReason
from pki.signing.file import FileKeys
from pki.signing.inprocess import InProcessSigner
from pki.signing.journal import Journal
from tests import made_once
from tests.api.commands import Sceau
from tests.api.signing import signer_in
from tests.conftest import fresh_database
from tests.factories import seed_token
from tests.restored import Clock, Machine


@dataclass(frozen=True)
class Caller:
    """Someone with a token (or with none, when it is empty)."""

    client: FlaskClient
    token: str = ""

    def get(self, path: str, **query: Any) -> TestResponse:
        return self.client.get(path, query_string=query, headers=self.headers)

    def post(self, path: str, body: Any = None) -> TestResponse:
        return self.client.post(path, json=body, headers=self.headers)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


class AbsentSigner:
    """Stands where no test of this folder signs anything: every call is a mistake of the test."""


@pytest.fixture(autouse=True)
def came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropped files lay there all along: the disk's clock is not the one of the tests."""
    monkeypatch.setattr(registers, "arrived_at", lambda _: datetime.min.replace(tzinfo=UTC))


@pytest.fixture
def container(engine: Engine, now: datetime, tmp_path: Path) -> Container:
    settings = Settings(state=tmp_path, public_url="https://sceau.example")
    return Container(settings=settings, engine=engine, signer=AbsentSigner(), clock=lambda: now)  # type: ignore[arg-type]


@pytest.fixture
def issuing(engine: Engine, now: datetime, tmp_path: Path) -> Iterator[Container]:
    """A container with a real signer and the passphrase of the web part's keys: it issues and signs."""
    settings = Settings(state=tmp_path, public_url="https://sceau.example")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "web.passphrase").write_text("for a test")
    with signer_in(tmp_path, engine, now, settings.base_url) as signer:
        yield Container(settings=settings, engine=engine, signer=signer, clock=lambda: now)


@pytest.fixture
def app(container: Container) -> Flask:
    return create_app(container)


@pytest.fixture
def anybody(app: Flask) -> Caller:
    return Caller(app.test_client())


@pytest.fixture
def caller(app: Flask, engine: Engine) -> Callable[..., Caller]:
    """`caller("operator")`, `caller("registrar", name="b", authority="CNOM")`: someone with a live token."""

    def made(role: str, *, name: str = "", authority: str = "CNOM") -> Caller:
        seed_token(engine, name or role, role=role, authority=authority)
        return Caller(app.test_client(), f"sceau_{name or role}")

    return made


@pytest.fixture
def operator(caller: Callable[..., Caller]) -> Caller:
    return caller("operator")


@pytest.fixture
def state(tmp_path: Path, database_url: str) -> Path:
    _settle(tmp_path / "var", database_url)
    return tmp_path / "var"


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Commands leave connections to their process's end: here they are closed, and a signer may be given."""
    instead: dict[str, Any] = {}
    made: list[Container] = []

    def building(settings: Settings, **more: Any) -> Container:
        container = build(settings, **more)
        made.append(Container(**{**vars(container), **instead}))
        return made[-1]

    for module in (output, condition):
        monkeypatch.setattr(module, "build", building)
    yield instead
    for container in made:
        container.engine.dispose()


@pytest.fixture
def sceau(state: Path, built: dict[str, Any]) -> Sceau:
    del built

    def run(*words: str, token: str | None = None) -> Result:
        return CliRunner().invoke(main, [*words, "--state", str(state)], env={"SCEAU_TOKEN": token})

    return run


@pytest.fixture
def crl_form() -> CrlForm:
    """That of the CAs of `machine`; a test may say another."""
    return CrlForm.NATIONAL


# The tools that judge know no other day than today, and no answer of the future.
_DAWN = utc_now().replace(microsecond=0) - timedelta(minutes=15)


@dataclass(frozen=True)
class Start:
    """A machine as it was at an instant, to go on from: its database, its files, and what was issued."""

    database: str
    files: Path
    now: datetime
    ticks: float
    people: int
    issued: dict[str, Any]


Starts = Callable[[str, CrlForm], Start]
_STARTS: dict[Path, Starts] = {}


@pytest.fixture(scope="session")
def starts(postgres: EmbeddedPostgres, memory: Path) -> Starts:
    """`starts("fresh", form)`, and `starts("lost", form)` with a backup put back; made once in a process."""

    # Of the process and not of the fixture: stories have a fixture of their own of the same machines.
    if memory in _STARTS:
        return _STARTS[memory]

    @cache
    def made(what: str, crl_form: CrlForm) -> Start:
        files = memory / f"{what}-{crl_form.value}"
        with fresh_database(postgres) as url:
            _settle(files, url)
            begin = made("fresh", crl_form) if what == "lost" else None
            with _running(load_settings(files), connect_engine(url), postgres, begin) as machine:
                if begin is None:
                    _found(machine, crl_form)
                issued = _lose(machine) if what == "lost" else {}
                name = machine.back_up(f"_{what}")
            return Start(name, files, machine.clock.now, machine.ticks, machine.people, issued)

    _STARTS[memory] = made
    return made


@pytest.fixture
def start(request: pytest.FixtureRequest, crl_form: CrlForm, starts: Starts) -> Start:
    """That of the test's machine."""
    return starts("lost" if "lost" in request.fixturenames else "fresh", crl_form)


@pytest.fixture
def machine(
    state: Path, postgres: EmbeddedPostgres, built: dict[str, Any], start: Start
) -> Iterator[Machine]:
    """CAs, responders, first CRLs and a signed head; commands act on the same parts."""
    settings = load_settings(state)
    with _running(settings, connect_engine(settings.database_url), postgres, start) as made:
        container = made.container
        built |= {"signer": container.signer, "clock": made.clock, "engine": container.engine}
        yield made


@pytest.fixture
def lost(start: Start) -> dict[str, Any]:
    """Certificates by what became of them; the record is of before, but for the one revoked by then."""
    return dict(start.issued)


def _settle(folder: Path, url: str) -> None:
    save_settings(folder, {"database_url": url, "public_url": "https://sceau.example"})
    (folder / "secrets").mkdir()
    (folder / "secrets" / "web.passphrase").write_text("for a test")


@contextmanager
def _running(
    settings: Settings, engine: Engine, postgres: EmbeddedPostgres, start: Start | None
) -> Iterator[Machine]:
    if start is not None:
        # The settings alone are its own: they name its database.
        shutil.copytree(start.files, settings.state, dirs_exist_ok=True, ignore=lambda *_: ["settings.toml"])
    keys, journal = FileKeys(settings.ca_keys, b"of a test"), Journal(settings.ca_keys / "journal.jsonl")
    clock = Clock(_DAWN if start is None else start.now)
    # A watch of its own for each call, as if seconds had passed.
    signer: Any = _Fresh(engine, keys, journal, clock, settings.kept)
    made = Machine(Container(settings=settings, engine=engine, signer=signer, clock=clock), postgres, clock)
    if start is not None:
        made.people, made.ticks = start.people, start.ticks
        made.put_back(start.database)
    yield made
    journal.close()
    engine.dispose()


def _found(machine: Machine, crl_form: CrlForm) -> None:
    container = machine.container
    keys, settings = FileKeys(container.settings.ca_keys, b"of a test"), container.settings
    made_once.establish(
        container.engine, keys, base_url=settings.base_url, now=machine.clock.now, crl_form=crl_form
    )
    ocsp.renew_responders(container)
    machine.run_jobs()


class _Fresh:
    """The signer as it is after some seconds: it looks anew at each question."""

    def __init__(self, *parts: Any) -> None:
        self._parts = parts

    def __getattr__(self, name: str) -> Any:
        *parts, kept = self._parts
        return getattr(InProcessSigner(*parts, kept=kept), name)


def _lose(machine: Machine) -> dict[str, Any]:
    made: dict[str, Any] = {
        name: machine.issue() for name in ("revoked before", "revoked", "held", "released", "good")
    }
    machine.revoke(made["revoked before"], RevocationReason.SUPERSEDED)
    machine.revoke(made["released"], RevocationReason.CERTIFICATE_HOLD)
    machine.run_jobs()
    copy = machine.back_up()
    machine.later(minutes=3)
    machine.revoke(made["revoked"], RevocationReason.KEY_COMPROMISE)
    machine.later(minutes=1)
    machine.revoke(made["held"], RevocationReason.CERTIFICATE_HOLD)
    machine.release(made["released"])
    made["issued"] = machine.issue()
    made["issued and revoked"] = machine.issue()
    machine.revoke(made["issued and revoked"], RevocationReason.CESSATION_OF_OPERATION)
    machine.run_jobs()
    made["events"] = machine.events()
    made["numbers"] = machine.numbers()
    machine.put_back(copy)
    machine.later(seconds=10)
    return made
