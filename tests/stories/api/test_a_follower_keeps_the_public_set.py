"""The reference follower over real HTTP: whatever happens, its copy ends as what the record shows."""

import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection, Engine, text
from werkzeug.serving import make_server

from api.app import create_app
from api.jobs import exports
from api.wiring import Container
from directory.base.db import transaction
from directory.feed.changes import Entity
from directory.rules import FRANCE, is_open, visible
from directory.store import mailbox_facts, organisations, practitioners
from pki.publication import export_folder
from pki.publication import store as published
from pki.publication.values import public_values
from pki.record import authorities
from tests.api.certificates import certify, take_back
from tests.factories import rpps, seed_organisation, seed_practitioner, seed_token
from tests.repo.test_documents import program

ROOT = Path(__file__).resolve().parents[3]
PEOPLE = 12
FORGET = (
    "DELETE FROM mailbox WHERE address = :address"
    " AND NOT EXISTS (SELECT FROM certificate WHERE mailbox = :address)"
)
REMEMBER = (
    "INSERT INTO mailbox (address, kind, holder, row_hash) VALUES (:address, 'PER', :id, '')"
    " ON CONFLICT DO NOTHING"
)
PRACTISE = (
    "INSERT INTO practice (national_id, digest, profession_code, category)"
    " VALUES (:id, decode(md5(random()::text), 'hex'), '10', 'C')"
)
LEARN = (
    "INSERT INTO skill (national_id, profession_code, category, skill_type, skill_code)"
    " VALUES (:id, '10', 'C', 'S', md5(random()::text))"
)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return program("follow")


@pytest.fixture
def container(issuing: Container) -> Container:
    return issuing


@dataclass(frozen=True)
class Desk:
    """A service that answers, and an operator with a copy."""

    script: ModuleType
    container: Container
    service: Any
    path: Path
    token_file: Path
    ca: Path

    def export(self) -> None:
        assert exports.write(self.container) is not None

    def follow(self) -> None:
        with self.script.Copy(self.path) as copy:
            self.script.follow(self.service, copy, forever=False)

    @property
    def copy(self) -> dict[tuple[str, str], Any]:
        """What `--dump` prints."""
        told = subprocess.run(
            [sys.executable, str(ROOT / "scripts/follow.py"), str(self.path), "--dump"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        rows = [json.loads(line) for line in told.splitlines()]
        return {(row["entity"], row["key"]): row["value"] for row in rows}

    def command(self) -> list[str]:
        return [sys.executable, str(ROOT / "scripts/follow.py"), str(self.path), "--url", self.service.url,
                "--token-file", str(self.token_file), "--ca", str(self.ca)]  # fmt: skip


@pytest.fixture
def desk(container: Container, engine: Engine, script: ModuleType, tmp_path: Path) -> Iterator[Desk]:
    server = make_server("127.0.0.1", 0, create_app(container), threaded=True)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    seed_token(engine, "operator", role="operator")
    with transaction(engine) as connection:
        root = authorities.load_authority(connection, "root-1")
    assert root is not None
    ca = x509.load_der_x509_certificate(root.der)
    (tmp_path / "root.pem").write_bytes(ca.public_bytes(Encoding.PEM))
    (tmp_path / "token").write_text("sceau_operator\n")
    service = script.Service(f"http://127.0.0.1:{server.port}", "sceau_operator", ca)
    yield Desk(
        script, container, service, tmp_path / "copy.sqlite", tmp_path / "token", tmp_path / "root.pem"
    )
    server.shutdown()
    serving.join()
    server.server_close()


@pytest.fixture(autouse=True)
def of_that_day(script: ModuleType, now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    """The follower judges certificates by the day of the test's CA."""

    class Then(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return now.astimezone(tz)

    monkeypatch.setattr(script, "datetime", Then)


def expected(engine: Engine, now: datetime) -> dict[tuple[str, str], Any]:
    """What the record shows, each key of each table asked by itself, by the rules."""
    with transaction(engine, read_only=True) as connection:
        return _expected(connection, now)


def _expected(connection: Connection, now: datetime) -> dict[tuple[str, str], Any]:
    def every(query: str) -> list[str]:
        return list(connection.execute(text(query)).scalars())

    addresses = every("SELECT address FROM mailbox")
    facts = mailbox_facts(connection, addresses)
    places = organisations(connection, every("SELECT finess FROM organisation"))
    people = practitioners(connection, every("SELECT national_id FROM practitioner"))
    day = now.astimezone(FRANCE).date()
    keys = {(Entity.MAILBOX, one) for one in addresses if visible(facts[one], now)}
    keys |= {(Entity.ORGANISATION, one) for one, place in places.items() if is_open(place, day)}
    keys |= {(Entity.PRACTITIONER, one) for one, person in people.items() if person.departed_at is None}
    keys |= {(Entity.AUTHORITY, one) for one, _ in published.authorities(connection)}
    values = public_values(connection, sorted(keys, key=str), now)
    assert set(values) == keys
    return {
        (entity.value, value.get("opaque_key", key)): json.loads(json.dumps(value, default=str))
        for (entity, key), value in values.items()
    }


@dataclass
class Life:
    """Things that happen to a small country, by chance; some of them commit late."""

    engine: Engine
    now: datetime
    chance: random.Random
    serial: int = 0

    def __post_init__(self) -> None:
        self.people = [
            seed_practitioner(self.engine, n, address=f"{n}@d{n % 3}.example", finess="750990012")
            for n in range(1, PEOPLE + 1)
        ]
        self.certified: list[str] = []
        seed_organisation(self.engine)

    def happen(self, connection: Connection) -> None:
        someone = self.chance.choice(self.people)
        flag = self.chance.choice(["NULL", "now()"])
        statement = self.chance.choice(
            [
                f"UPDATE practitioner SET departed_at = {flag} WHERE national_id = :id",
                "UPDATE practitioner SET given_name = given_name || 'x' WHERE national_id = :id",
                f"UPDATE mailbox SET listed = {flag} IS NULL WHERE address = :address",
                f"UPDATE mailbox SET departed_at = {flag} WHERE address = :address",
                FORGET,
                REMEMBER,
                f"UPDATE trusted_domain SET suspended_at = {flag} WHERE name = split_part(:address, '@', 2)",
                f"UPDATE operator SET suspended_at = {flag}",
                "DELETE FROM practice WHERE national_id = :id",
                PRACTISE,
                LEARN,
                f"UPDATE organisation SET departed_at = {flag}",
                f"UPDATE organisation SET closed_on = {flag}::date",
            ]
        )
        connection.execute(text(statement), {"id": someone.national_id, "address": someone.mailbox})

    def act(self) -> None:
        if self.chance.random() < 0.2:
            self.certificate()
            return
        with self.engine.begin() as connection:
            for _ in range(self.chance.randint(1, 4)):
                self.happen(connection)

    def certificate(self) -> None:
        if self.certified and self.chance.random() < 0.5:
            take_back(self.engine, self.certified.pop(), self.now)
            return
        with self.engine.connect() as connection:
            query = "SELECT address FROM mailbox WHERE holder IS NOT NULL ORDER BY address"
            addresses = connection.execute(text(query)).scalars().all()
        if addresses:
            self.serial += 1
            address = self.chance.choice(addresses)
            self.certified.append(
                certify(self.engine, address, self.now - timedelta(days=1), number=self.serial)
            )


@pytest.mark.parametrize("seed", range(4))
def test_after_whatever_happened_the_copy_is_what_the_record_shows(
    seed: int, desk: Desk, engine: Engine, now: datetime
) -> None:
    life = Life(engine, now, random.Random(seed))
    desk.export()
    for round_ in range(6):
        for _ in range(life.chance.randint(0, 12)):
            life.act()
        # Someone else's transaction stays open over the follower's pages, and commits or not.
        with engine.connect() as late, late.begin() as act:
            late.execute(
                text("UPDATE practitioner SET title = 'PR' WHERE national_id = :id"), {"id": rpps(1 + round_)}
            )
            desk.follow()
            if life.chance.random() < 0.3:
                act.rollback()
        desk.follow()
        assert desk.copy == expected(engine, now), f"round {round_}"


class Killed(BaseException):
    """Stands for a process that ends here."""


def test_killed_at_any_line_it_catches_up(
    desk: Desk, engine: Engine, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = Life(engine, now, random.Random(99))
    desk.export()
    desk.follow()
    monkeypatch.setattr(desk.script, "LINES_A_COMMIT", 2)
    original: Callable[..., None] = desk.script.Copy.apply
    for last in range(9):
        for _ in range(8):
            life.act()

        def apply(copy: Any, line: Any, left: list[int] = [last]) -> None:  # noqa: B006 - counts down over one run
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            original(copy, line)

        with monkeypatch.context() as deadly:
            deadly.setattr(desk.script.Copy, "apply", apply)
            with suppress(Killed):
                desk.follow()
        desk.follow()
        assert desk.copy == expected(engine, now)


def test_killed_while_it_begins_it_has_its_old_copy_whole_and_begins_again(
    desk: Desk, engine: Engine, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = Life(engine, now, random.Random(5))
    desk.export()
    desk.follow()
    before = desk.copy
    life.act()
    later = replace(desk.container, clock=lambda: now + timedelta(seconds=1))
    assert exports.write(later) is not None
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM change"))
    original = desk.script.records

    def dies(path: Path) -> Iterator[Any]:
        for number, one in enumerate(original(path)):
            if number == 3:
                raise Killed
            yield one

    with monkeypatch.context() as deadly:
        deadly.setattr(desk.script, "records", dies)
        with pytest.raises(Killed):
            desk.follow()
    assert desk.copy == before
    desk.follow()
    assert desk.copy == expected(engine, now)


def test_who_comes_too_late_begins_again_from_the_newest_export(
    desk: Desk, engine: Engine, now: datetime
) -> None:
    life = Life(engine, now, random.Random(7))
    desk.export()
    desk.follow()
    for _ in range(20):
        life.act()
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM change"))
    assert exports.write(replace(desk.container, clock=lambda: now + timedelta(seconds=1))) is not None
    life.act()
    desk.follow()
    assert desk.copy == expected(engine, now)
    assert not desk.path.with_name("copy.sqlite.files").exists(), "it leaves no files behind"


def test_a_manifest_or_a_file_that_was_touched_is_not_believed(
    desk: Desk, engine: Engine, now: datetime
) -> None:
    Life(engine, now, random.Random(1))
    desk.export()
    (export,) = export_folder.all_exports(desk.container.settings.exports)
    signed = (export.folder / "manifest.jws").read_text()
    head, body, signature = signed.split(".")
    for forged in (
        f"{head}.{body[:-4]}AAAA.{signature}",
        f"{head}.{body}.{'A' * 86}",
        f"{head}.{body}",
        "x.y.z",
    ):
        (export.folder / "manifest.jws").write_text(forged)
        with pytest.raises(desk.script.WrongError):
            desk.follow()
    (export.folder / "manifest.jws").write_text(signed)
    mailboxes = export.folder / "mailboxes.ndjson.gz"
    content = mailboxes.read_bytes()
    mailboxes.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(desk.script.WrongError, match="not the file"):
        desk.follow()
    assert desk.copy == {}
    mailboxes.write_bytes(content)
    desk.follow()
    assert desk.copy == expected(engine, now)


def test_a_download_that_was_cut_goes_on_where_it_ended(desk: Desk, engine: Engine, now: datetime) -> None:
    Life(engine, now, random.Random(1))
    desk.export()
    (export,) = export_folder.all_exports(desk.container.settings.exports)
    part = desk.path.with_name("copy.sqlite.files") / export.stamp / "mailboxes.ndjson.gz"
    part.parent.mkdir(parents=True)
    part.write_bytes((export.folder / "mailboxes.ndjson.gz").read_bytes()[:50])
    desk.follow()
    assert desk.copy == expected(engine, now)


def test_ordinary_mistakes_are_said_in_one_line(desk: Desk) -> None:
    def told() -> str:
        done = subprocess.run(desk.command(), capture_output=True, text=True, check=False)
        assert done.returncode == 1
        return done.stderr

    good = desk.token_file.read_text()
    desk.token_file.write_text("sceau_nobody")
    assert told().startswith("refused: HTTP Error 401")
    desk.token_file.unlink()
    assert told().startswith("not done: [Errno 2]")
    desk.token_file.write_text(good)
    desk.ca.write_text("no certificate")
    assert told().startswith("not done: ")
    dump = [*desk.command()[:2], str(desk.path.with_name("none.sqlite")), "--dump"]
    done = subprocess.run(dump, capture_output=True, text=True, check=False)
    assert (done.returncode, "no copy" in done.stderr) == (1, True)
    assert not desk.path.with_name("none.sqlite").exists()
