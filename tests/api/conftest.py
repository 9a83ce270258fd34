"""The whole application in process, on a fresh database: a container, a client, callers of every role,
and the command.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine
from werkzeug.test import TestResponse

from api import condition
from api.app import create_app
from api.cli import output
from api.cli.main import main
from api.settings import Settings, save_settings
from api.wiring import Container, build
from tests.api.commands import Sceau
from tests.api.signing import signer_in
from tests.factories import seed_token


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

    def building(settings: Settings) -> Container:
        container = build(settings)
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
    return lambda *words: CliRunner().invoke(main, [*words, "--state", str(state)])
