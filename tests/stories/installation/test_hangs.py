"""Each part is stopped (SIGSTOP) in turn: it is seen, ended and started again, and what waited follows."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from tests.stories.installation.conftest import Installation, another, within


@pytest.fixture(scope="module")
def hanging(passable: Path, stopped: Path) -> Iterator[Installation]:
    """An installation of its own: its parts are stopped one after the other."""
    with another(passable, stopped) as made:
        yield made


def ready(installation: Installation) -> int:
    """The status of /readyz; 0 when nobody answers."""
    try:
        return requests.get(f"{installation.web}/readyz", timeout=10).status_code
    except requests.RequestException:
        return 0


def part(installation: Installation, name: str) -> tuple[int, int]:
    known = installation.ask("status")["parts"][name]
    return int(known["pid"]), int(known["restarts"])


@pytest.mark.long
def test_a_worker_that_hangs_is_red_in_time_and_the_struck_off_leave_ldap(hanging: Installation) -> None:
    within(60, lambda: ready(hanging) == 200)
    address, serial, _ = hanging.certified()[0]
    assert f"mail: {address}" in hanging.search(f"(mail={address})", "mail", "userCertificate;binary")
    pid, restarts = part(hanging, "worker")
    os.kill(pid, signal.SIGSTOP)
    # The promise is 15 s; that it is kept is asked of the machine's clock, which a loaded machine may miss.
    within(30, lambda: ready(hanging) == 503)
    told = requests.get(f"{hanging.web}/readyz", timeout=10).json()["checks"]["worker"]
    assert told["state"] == "failed"
    body = {"reason": "superseded", "comment": "while the worker hangs"}
    assert hanging.post(f"/v1/certificates/{serial}/revocation", "registrar_a", body).status_code in (
        200,
        201,
    )
    within(90, lambda: part(hanging, "worker")[1] > restarts)
    within(60, lambda: "userCertificate" not in hanging.search(f"(mail={address})", "userCertificate;binary"))
    within(60, lambda: ready(hanging) == 200)
    assert not psutil.pid_exists(pid)


@pytest.mark.long
@pytest.mark.parametrize("name", ["ldap", "signer", "postgres"])
def test_a_part_that_hangs_is_ended_and_started_again(hanging: Installation, name: str) -> None:
    within(60, lambda: hanging.ask("status")["state"] == "ok")
    pid, restarts = part(hanging, name)
    os.kill(pid, signal.SIGSTOP)
    within(150, lambda: not psutil.pid_exists(pid))
    within(90, lambda: hanging.ask("status")["state"] == "ok")
    assert part(hanging, name)[1] == restarts + 1


@pytest.mark.long
def test_of_the_web_processes_the_one_that_hangs_is_ended(hanging: Installation) -> None:
    within(60, lambda: hanging.ask("status")["state"] == "ok")
    leader, restarts = part(hanging, "web")
    answering = set[int]()

    def seen() -> bool:
        answering.add(int(requests.get(f"{hanging.web}/healthz", timeout=10).json()["process"]))
        return len(answering) >= 2

    within(30, seen)
    # Long enough for the supervisor to have asked both.
    time.sleep(15)
    hung = min(answering)
    os.kill(hung, signal.SIGSTOP)
    within(90, lambda: not psutil.pid_exists(hung))
    within(60, lambda: hanging.ask("status")["state"] == "ok")
    assert part(hanging, "web") == (leader, restarts)
