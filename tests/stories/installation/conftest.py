"""One whole installation for the tests that judge from outside: `sceau up --demo`, real ports, real fsync."""

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import psycopg
import pytest
import requests

from api.embedded.postgres import EmbeddedPostgres
from tests.api.signing import request_for
from tests.ports import free_port

SCEAU = str(Path(sys.executable).with_name("sceau"))


# One token asks for all tests of an hour.
MANY_SEARCHES = {**os.environ, "SCEAU_READING_SEARCHES_HOUR": "1000000"}


def run(*command: str, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **more)
    assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done


def within(seconds: float, what: Callable[[], bool]) -> float:
    """How long it took until `what()` was true; fails when it is not within `seconds`."""
    started = time.monotonic()
    while not what():
        assert time.monotonic() - started < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return time.monotonic() - started


@dataclass(frozen=True)
class Installation:
    state: Path
    ports: tuple[int, int, int]

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def ldap(self) -> str:
        return f"ldap://127.0.0.1:{self.ports[1]}"

    @property
    def ldaps(self) -> str:
        return f"ldaps://127.0.0.1:{self.ports[2]}"

    def ports_open(self) -> bool:
        """Whether the record and the web part may be asked."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.ports[0])) == 0

    @property
    def credentials(self) -> dict[str, str]:
        return dict(json.loads((self.state / "demo-credentials.json").read_text()))

    def sceau(self, *words: str, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
        return run(SCEAU, *words, "--state", str(self.state), check=check, **more)

    def ask(self, *words: str) -> dict[str, Any]:
        """A command's JSON, whatever its exit code."""
        return dict(json.loads(self.sceau(*words, "--json", check=False).stdout))

    @property
    def listeners(self) -> tuple[str, ...]:
        web, ldap, ldaps = map(str, self.ports)
        return ("--port", web, "--ldap-port", ldap, "--ldaps-port", ldaps)

    def up(self) -> None:
        self.sceau("up", "--demo", "--detach", *self.listeners, env=MANY_SEARCHES)

    def start(self) -> subprocess.Popen[bytes]:
        """`sceau up` in the foreground, as a process to be killed."""
        command = [SCEAU, "up", "--demo", "--state", str(self.state), *self.listeners]
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=MANY_SEARCHES
        )

    def get(self, path: str, who: str = "operator", **parameters: str) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.credentials[who]}"}
        return requests.get(self.web + path, params=parameters, headers=headers, timeout=10)

    def post(self, path: str, who: str, body: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.credentials[who]}"}
        return requests.post(self.web + path, json=body, headers=headers, timeout=30)

    @property
    def ldapsearch(self) -> tuple[str, ...]:
        """ldapsearch over LDAPS, bound with the operator's token."""
        tokens = self.ask("token", "list")["tokens"]
        number = next(
            token["id"] for token in tokens if (token["name"], token["revoked_at"]) == ("operator", None)
        )
        return (
            "ldapsearch", "-LLL", "-x", "-o", "ldif-wrap=no", "-o", "TLS_REQCERT=never", "-H", self.ldaps,
            "-D", f"cn={number},ou=tokens,o=sceau,c=fr", "-w", self.credentials["operator"],
            "-b", "o=sceau,c=fr",
        )  # fmt: skip

    def search(self, *words: str) -> str:
        return run(
            "ldapsearch", "-LLL", "-x", "-o", "ldif-wrap=no", "-H", self.ldap, "-b", "o=sceau,c=fr", *words
        ).stdout

    def certified(self) -> list[tuple[str, str, str]]:
        """Address, serial and national id of each live certificate of a doctor."""
        query = """
            SELECT c.mailbox, c.serial, c.practitioner FROM certificate c
            JOIN mailbox m ON m.address = c.mailbox
            JOIN profession p ON p.national_id = c.practitioner AND p.code = '10'
            JOIN practitioner n ON n.national_id = c.practitioner AND n.departed_at IS NULL
            WHERE m.kind = 'PER' AND NOT EXISTS (SELECT 1 FROM revocation r WHERE r.serial = c.serial)
            ORDER BY c.mailbox
        """
        with psycopg.connect(EmbeddedPostgres(self.state / "postgres").conninfo) as link:
            return [(str(a), str(s), str(n)) for a, s, n in link.execute(query)]

    def certify(self) -> None:
        """Enrol one more doctor by two registrars, and certify a key of theirs."""
        query = """
            SELECT m.address, m.holder FROM mailbox m
            JOIN profession p ON p.national_id = m.holder AND p.code = '10'
            JOIN practice r ON r.national_id = m.holder
            JOIN practitioner n ON n.national_id = m.holder AND n.departed_at IS NULL
            WHERE m.kind = 'PER' AND m.departed_at IS NULL AND m.listed
            AND NOT EXISTS (SELECT FROM enrolment e WHERE e.practitioner = m.holder)
            ORDER BY m.address LIMIT 1
        """
        with psycopg.connect(EmbeddedPostgres(self.state / "postgres").conninfo) as link:
            ((address, national_id),) = link.execute(query).fetchall()
        checked = {"method": "in-person", "document": "CPS", "checked_on": str(datetime.now(UTC).date())}
        asked = {"practitioner": national_id, "mailbox": address, "identity_check": checked}
        enrolment = self.post("/v1/enrolments", "registrar_a", asked).json()["id"]
        assert self.post(f"/v1/enrolments/{enrolment}/approval", "registrar_b", None).status_code == 200
        issued = self.post(f"/v1/enrolments/{enrolment}/certificates", "registrar_a", {"csr": request_for()})
        assert issued.status_code == 201, issued.text


@pytest.fixture(scope="package")
def installation(passable: Path, stopped: Path) -> Iterator[Installation]:
    """The one that most tests share, on the ports that its certificates name.

    Down with the last of them: an idle one takes time as well.
    """
    ports = tuple(json.loads((stopped / "ports.json").read_text()))
    with running(Installation(passable / "un état", ports), stopped) as made:
        yield made


@pytest.fixture(scope="session")
def stopped() -> Iterator[Path]:
    """The state folder of a demo, started once for all processes of a run, and stopped: a copy is quicker."""
    run_id = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    folder = Path(gettempdir()) / f"sceau-tests-{run_id}"
    folder.mkdir(mode=0o711, exist_ok=True)
    folder.chmod(0o711)
    made = Installation(folder / "stopped", (free_port(), free_port(), free_port()))
    with (folder / "users").open("w") as users:
        with alone(folder / "making"):
            fcntl.flock(users, fcntl.LOCK_SH)
            if not (folder / "made").exists():
                made.up()
                made.sceau("down")
                (made.state / "ports.json").write_text(json.dumps(made.ports))
                (folder / "made").touch()
        yield made.state
        with suppress(BlockingIOError):
            # Whoever is the last.
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def copied(passable: Path, stopped: Path) -> Iterator[Installation]:
    """A running installation of a test's own, to be killed, stopped or put back."""
    with another(passable, stopped) as made:
        yield made


@contextmanager
def another(passable: Path, stopped: Path) -> Iterator[Installation]:
    """A copy of `stopped` with ports of its own, running until the end of the block."""
    ports = (free_port(), free_port(), free_port())
    with running(Installation(passable / f"copy-{ports[0]}", ports), stopped) as made:
        yield made


@contextmanager
def running(made: Installation, stopped: Path) -> Iterator[Installation]:
    shutil.copytree(stopped, made.state, symlinks=True)
    keep_owners(stopped, made.state)
    made.up()
    try:
        yield made
    finally:
        made.sceau("down", check=False)
        shutil.rmtree(made.state)


def keep_owners(one: Path, other: Path) -> None:
    """Give each file of a copy the owner of the original: PostgreSQL runs under an account of its own."""
    for path in (one, *one.rglob("*")):
        known = path.lstat()
        os.chown(other / path.relative_to(one), known.st_uid, known.st_gid, follow_symlinks=False)


@pytest.fixture(scope="session")
def taken() -> set[str]:
    """Addresses that tests have spent (revoked, departed): each test takes its own."""
    return set()


@pytest.fixture
def person(installation: Installation, taken: set[str]) -> tuple[str, str, str]:
    """A certified doctor nobody else asks about, tests or commands to try: address, serial, national id."""
    kept = json.loads((installation.state / "demo.json").read_text())["addresses"]
    spent, certificate = {*taken, *kept}, "userCertificate;binary"
    found = next((one for one in installation.certified() if one[0] not in spent), None)
    if found is None:
        # The demo certifies a dozen.
        installation.certify()
        found = next(one for one in installation.certified() if one[0] not in spent)
        within(30, lambda: certificate in installation.search(f"(mail={found[0]})", certificate))
    taken.add(found[0])
    return found
