"""A country's first day: the worker loads the whole tree instead of writing it entry by entry."""

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import Engine, text

from api.cli.main import main as sceau
from api.embedded.slapd import EmbeddedSlapd
from api.installation.supervisor import paused_marker
from api.jobs import ldap as ldap_job
from api.settings import Settings
from api.wiring import Container
from directory.base.db import transaction
from directory.feed.readers import lag_seconds
from directory.ldap.client import LdapClient
from directory.ldap.entry import MAILBOXES
from directory.ldap.plan import Delete, Modify
from directory.ldap.publish import BATCH, CONSUMER
from pki.signing.client import SignerClient
from tests.directory.ldap.conftest import SUFFIX
from tests.factories import seed_practitioner

MANY = """INSERT INTO mailbox (address, kind, holder, row_hash)
          SELECT 'm' || n || '@one.example', 'PER', :holder, '' FROM generate_series(1, :many) AS n"""


class Keeper:
    """What the supervisor does for slapd: starts it again when it ended, unless somebody holds it back."""

    def __init__(self, state: Path, slapd: EmbeddedSlapd) -> None:
        self.state, self.slapd, self.starts = state, slapd, 0
        self.stop = threading.Event()
        (state / "run").mkdir()
        self._start()
        slapd.wait_ready()
        self._thread = threading.Thread(target=self._keep)
        self._thread.start()

    def end(self) -> None:
        self.stop.set()
        self._thread.join()
        self.process.terminate()
        self.process.wait()

    def _start(self) -> None:
        self.process = subprocess.Popen(self.slapd.command())
        self.starts += 1
        part = {"pid": self.process.pid, "restarts": 0}
        (self.state / "run" / "parts.json").write_text(json.dumps({"parts": {"ldap": part}}))

    def _keep(self) -> None:
        while not self.stop.is_set():
            if self.process.poll() is not None and not paused_marker(self.state, "ldap").exists():
                self._start()
            time.sleep(0.01)


@pytest.fixture
def keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keeper]:
    slapd = EmbeddedSlapd(tmp_path / "ldap", SUFFIX)
    slapd.make()
    monkeypatch.setattr(ldap_job, "slapd_of", lambda _: slapd)
    monkeypatch.setattr(ldap_job, "FILLS", BATCH)
    made = Keeper(tmp_path, slapd)
    yield made
    made.end()


@pytest.fixture
def container(engine: Engine, keeper: Keeper, now: datetime) -> Iterator[Container]:
    made = Container(Settings(state=keeper.state), engine, SignerClient(keeper.state / "none"), lambda: now)
    yield made
    for lane in ldap_job.publisher_of(made)._lanes:
        assert isinstance(lane, LdapClient)
        lane.close()


def test_the_worker_loads_a_country_whole_and_follows_it_from_there(
    engine: Engine, keeper: Keeper, container: Container, now: datetime
) -> None:
    person = seed_practitioner(engine)
    with engine.begin() as connection:
        connection.execute(text(MANY), {"holder": person.national_id, "many": BATCH * 2})
    assert ldap_job.publish(container) == f"{4 + 1 + BATCH * 2} entries loaded"
    assert keeper.starts == 2
    with transaction(engine) as connection:
        told = connection.execute(
            text("SELECT actor, event FROM audit_pending ORDER BY id DESC LIMIT 1")
        ).one()
        assert tuple(told) == ("job:ldap-publication", "ldap.rebuilt")
        connection.execute(text("UPDATE mailbox SET listed = false WHERE address = 'm7@one.example'"))
    assert ldap_job.publish(container) == "1 entries written"
    publisher = ldap_job.publisher_of(container)
    assert publisher.client.read("mail=m7@one.example,ou=mailboxes,o=sceau,c=fr") is None
    assert ldap_job.reconcile(container) == ""
    with transaction(engine, read_only=True) as connection:
        assert lag_seconds(connection, CONSUMER, now) == 0.0
    assert keeper.starts == 2


def test_the_worker_loads_a_tree_of_a_former_form_anew(
    engine: Engine, keeper: Keeper, container: Container
) -> None:
    person = seed_practitioner(engine, given_name="Agnès")
    assert ldap_job.publish(container) == "1 entries written"
    publisher = ldap_job.publisher_of(container)
    top = publisher.client.read(SUFFIX)
    assert top is not None
    # As the release before noted it.
    (place,) = top.attributes["sceauPlace"]
    former = place.rpartition(b"/")[0]
    publisher.client.apply(Modify(SUFFIX, {"sceauPlace": ((place,), (former,))}))
    assert ldap_job.publish(container) == f"{4 + 1} entries loaded"
    assert keeper.starts == 2
    entry = publisher.client.read(f"mail={person.mailbox},{MAILBOXES},{SUFFIX}")
    assert entry is not None
    assert entry.attributes["givenName;lang-x-folded"] == (b"agnes",)
    assert ldap_job.publish(container) == ""


def test_a_comparison_that_leaves_off_says_what_to_do(
    engine: Engine, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [seed_practitioner(engine, number) for number in range(1, 4)]
    ldap_job.publish(container)
    publisher = ldap_job.publisher_of(container)
    for each in people:
        publisher.client.apply(Delete(f"mail={each.mailbox},{MAILBOXES},{SUFFIX}"))
    publisher.fills = len(people) - 1
    monkeypatch.setattr("api.cli.ldap.container", lambda *_, **__: container)
    done = CliRunner().invoke(sceau, ["ldap", "reconcile", "--apply"])
    assert done.exit_code == 1
    assert "sceau ldap rebuild" in done.output
