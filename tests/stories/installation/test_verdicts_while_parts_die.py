"""Verdicts asked all the time while parts are killed and cut off: none is older than its question.

An answer may fail to come. Whoever asked after a revocation was acknowledged is never told `allowed`.
"""

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psutil
import psycopg
import requests

from api.embedded.postgres import EmbeddedPostgres
from tests.stories.installation.conftest import Installation, within

ASKING = 3
CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"


@dataclass
class Asked:
    """What was answered `allowed`: about whom, and when it was asked."""

    addresses: list[str]
    allowed: list[tuple[str, float]] = field(default_factory=list)
    others: int = 0


@contextmanager
def asking(installation: Installation, addresses: list[str]) -> Iterator[Asked]:
    asked, ended = Asked(addresses), threading.Event()
    headers = {"Authorization": f"Bearer {installation.credentials['operator']}"}

    def ask(number: int) -> None:
        chosen, session = random.Random(number), requests.Session()
        while not ended.is_set():
            address, began = chosen.choice(addresses), time.monotonic()
            with suppress(requests.RequestException):
                answer = session.get(
                    f"{installation.web}/v1/recipients/{address}", headers=headers, timeout=20
                )
                if answer.status_code == 200 and answer.json()["verdict"] == "allowed":
                    asked.allowed.append((address, began))
                    continue
            asked.others += 1
            time.sleep(0.01)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(ASKING)]
    for thread in threads:
        thread.start()
    try:
        yield asked
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def process_of(installation: Installation, part: str) -> psutil.Process:
    return psutil.Process(int(installation.ask("status")["parts"][part]["pid"]))


def kill_one_web_process(installation: Installation) -> None:
    children = process_of(installation, "web").children()
    children[0].kill()


def kill_the_worker(installation: Installation) -> None:
    process_of(installation, "worker").kill()


def cut_all_connections(installation: Installation) -> None:
    record = EmbeddedPostgres(installation.state / "postgres")
    with psycopg.connect(record.conninfo, autocommit=True) as link:
        for _ in range(20):
            link.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            )
            time.sleep(0.05)


def stop_the_record_for_a_while(installation: Installation) -> None:
    record = process_of(installation, "postgres")
    stopped = [record, *record.children(recursive=True)]
    for process in stopped:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGSTOP)
    time.sleep(3)
    for process in stopped:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGCONT)


def kill_the_record(installation: Installation) -> None:
    os.kill(process_of(installation, "postgres").pid, signal.SIGKILL)


def revoke(installation: Installation, serial: str) -> None:
    """Until it is acknowledged: parts are dying."""

    def acknowledged() -> bool:
        with suppress(requests.RequestException):
            told = {"reason": "superseded", "comment": "while parts die"}
            answer = installation.post(f"/v1/certificates/{serial}/revocation", "registrar_a", told)
            # Done before its answer was lost.
            return answer.status_code in {200, 201, 409}
        return False

    within(60, acknowledged)


def test_nobody_asked_after_a_revocation_is_allowed(copied: Installation) -> None:
    known = copied.certified()[:10]
    acknowledged: dict[str, float] = {}
    acts = (
        kill_one_web_process,
        kill_the_worker,
        cut_all_connections,
        stop_the_record_for_a_while,
        kill_the_record,
    )
    with asking(copied, [address for address, _, _ in known]) as asked:
        for act, (before, after) in zip(acts, zip(known[::2], known[1::2], strict=True), strict=True):
            time.sleep(0.5)
            revoke(copied, before[1])
            acknowledged[before[0]] = time.monotonic()
            act(copied)
            revoke(copied, after[1])
            acknowledged[after[0]] = time.monotonic()
        time.sleep(1)
    assert len(asked.allowed) > 100
    late = [address for address, began in asked.allowed if began >= acknowledged.get(address, float("inf"))]
    assert late == []
