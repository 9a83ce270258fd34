"""The whole application in process, on a fresh database: a container, a client, callers of every role,
and the command.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine
from werkzeug.test import TestResponse

from api import condition, upkeep
from api.app import create_app
from api.cli import output
from api.cli.main import main
from api.embedded.postgres import EmbeddedPostgres
from api.settings import Settings, load_settings, save_settings
from api.wiring import Container, build
from directory.base.audit import Actor
from directory.base.clock import utc_now
from directory.base.db import connect_engine
from pki.ceremony.making import establish
from pki.model import CrlForm, RevocationReason
from pki.signing.file import FileKeys
from pki.signing.inprocess import InProcessSigner
from pki.signing.journal import Journal
from tests.api.commands import Sceau
from tests.api.signing import signer_in
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
    save_settings(tmp_path / "var", {"database_url": database_url, "public_url": "https://sceau.example"})
    (tmp_path / "var" / "secrets").mkdir()
    (tmp_path / "var" / "secrets" / "web.passphrase").write_text("for a test")
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


@pytest.fixture
def machine(
    state: Path, database_url: str, postgres: EmbeddedPostgres, built: dict[str, Any], crl_form: CrlForm
) -> Iterator[Machine]:
    """CAs, responders, first CRLs and a signed head; commands act on the same parts."""
    # The tools that judge know no other day than today, and no answer of the future.
    clock = Clock(utc_now().replace(microsecond=0) - timedelta(minutes=15))
    settings, engine = load_settings(state), connect_engine(database_url)
    keys = FileKeys(settings.ca_keys, b"of a test")
    establish(
        engine,
        keys,
        base_url=settings.base_url,
        now=clock.now,
        actor=Actor("test:ceremony"),
        crl_form=crl_form,
    )
    journal = Journal(settings.ca_keys / "journal.jsonl")
    # A watch of its own for each call, as if seconds had passed.
    signer = _Fresh(engine, keys, journal, clock, settings.kept)
    made = Machine(Container(settings=settings, engine=engine, signer=signer, clock=clock), postgres, clock)
    built |= {"signer": signer, "clock": clock, "engine": engine}
    upkeep.renew_responders(made.container)
    made.run_jobs()
    yield made
    journal.close()
    engine.dispose()


class _Fresh:
    """The signer as it is after some seconds: it looks anew at each question."""

    def __init__(self, *parts: Any) -> None:
        self._parts = parts

    def __getattr__(self, name: str) -> Any:
        *parts, kept = self._parts
        return getattr(InProcessSigner(*parts, kept=kept), name)


@pytest.fixture
def lost(machine: Machine) -> dict[str, Any]:
    """Certificates by what became of them; the record is of before, but for the one revoked by then."""
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
