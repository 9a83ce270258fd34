"""With the database alone: what a worker would take up within a second stays as it is."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from tests.releases.making.installation import TREE, Installation


@contextmanager
def database(here: Installation) -> Iterator[str]:
    """The PostgreSQL of the state folder by itself; where it listens."""
    from api.embedded.postgres import EmbeddedPostgres

    cluster = EmbeddedPostgres(here.state / "postgres")
    process = subprocess.Popen(cluster.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    cluster.wait_ready()
    yield cluster.conninfo
    process.terminate()
    process.wait(timeout=60)


@contextmanager
def signer(here: Installation, ahead: float) -> Iterator[None]:
    """The signer by itself, by a clock so far ahead."""
    words = [*here.at_another_time(ahead), "signer"]
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(words, cwd=TREE, env=here.environment(), stdout=nowhere, stderr=nowhere)
    time.sleep(5)
    yield
    process.terminate()
    process.wait(timeout=60)


def sign_ahead(here: Installation, seconds: float) -> None:
    """CRLs of a clock that jumped ahead; two administrators void them, and one asks for that again."""
    with signer(here, seconds):
        here.later(seconds, "jobs", "run", "crl")
    for who in ("admin_a", "admin_b", "admin_a"):
        here.sceau("clock", "reset", "--reason", "time server", "--as", who)


def revoke(here: Installation, serial: str) -> None:
    """By one delta, which no complete CRL has followed."""
    here.sceau("revoke", serial, "--reason", "superseded", "--comment", "kept", "--as", "registrar_a")
    with signer(here, 0):
        here.sceau("jobs", "run", "crl")


def note_expiry(here: Installation) -> None:
    """Notices of each step, by clocks so far ahead; no mail server takes them."""
    ends = json.loads(here.sceau("expiring", "--within", "400", "--json"))
    until = [datetime.fromisoformat(one["not_after"]) for one in ends["items"]]
    first = min(end for end in until if end - datetime.now(UTC) > timedelta(days=61))
    for days in (60, 30, 7):
        ahead = first - timedelta(days=days, hours=-1) - datetime.now(UTC)
        here.later(
            ahead.total_seconds(), "jobs", "run", "expiry-notices", smtp_host="127.0.0.1", smtp_port="9",
            smtp_from="notices@sceau.invalid",
        )  # fmt: skip


def leave_for_the_worker(here: Installation, serials: list[str]) -> None:
    """A revocation of many that has just begun, a trust list that is due, lines that wait for the log."""
    listed = here.state / "serials"
    listed.write_text("\n".join(serials) + "\n")
    said = here.sceau(
        "revoke-many", "plan", "--serials", listed, "--reason", "superseded", "--comment", "kept", "--apply",
        "--as", "admin_a", "--json",
    )  # fmt: skip
    plan = json.loads(said)
    here.sceau(
        "revoke-many", "approve", str(plan["id"]), "--digest", plan["digest"], "--comment", "kept",
        "--as", "admin_a",
    )  # fmt: skip
    for act in ("activate", "retire"):
        here.sceau("ca", act, "persons-1")


def dump(where: str) -> str:
    from api.embedded.postgres import BINARIES

    words = ["--no-owner", "--no-privileges", "--inserts", "--rows-per-insert=200", where]
    return subprocess.run([BINARIES / "pg_dump", *words], capture_output=True, text=True, check=True).stdout
