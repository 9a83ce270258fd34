"""kill -9 of each part, then of all at once: it comes back by itself or by `up`, and nothing is lost."""

import os
import signal
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.ports import free_port
from tests.stories.installation.conftest import Installation, within


@pytest.fixture
def made(passable: Path) -> Installation:
    """A place for an installation, in a folder that the account `sceau` may enter."""
    ports = (free_port(), free_port(), free_port())
    return Installation(passable / f"killed-{ports[0]}", ports)


def green(installation: Installation) -> bool:
    return bool(installation.ask("status")["state"] == "ok")


def csr() -> str:
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = request.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def acknowledged(installation: Installation) -> list[tuple[str, str]]:
    """Revoke one certificate through REST and keep what was acknowledged: (serial, address)."""
    address, serial, _ = installation.certified()[0]
    answer = installation.post(
        f"/v1/certificates/{serial}/revocation",
        "registrar_a",
        {"reason": "superseded", "comment": "before the kill"},
    )
    assert answer.status_code in (200, 201), answer.text
    return [(serial, address)]


def nothing_lost(installation: Installation, kept: list[tuple[str, str]]) -> None:
    for _, address in kept:
        assert "certificate-revoked" in installation.get(f"/v1/recipients/{address}").json()["reasons"]
    within(60, lambda: installation.sceau("ldap", "reconcile", check=False).returncode == 0)
    assert installation.ask("audit", "verify")["findings"] == []


def test_each_part_killed_comes_back_and_nothing_acknowledged_is_lost(copied: Installation) -> None:
    kept: list[tuple[str, str]] = []
    for part in ("worker", "ldap", "signer", "web", "postgres"):
        pid = int(copied.ask("status")["parts"][part]["pid"])
        kept += acknowledged(copied)
        os.kill(pid, signal.SIGKILL)
        within(60, lambda: green(copied))
        assert copied.ask("status")["parts"][part]["restarts"] >= 1
    nothing_lost(copied, kept)


@pytest.mark.long
def test_everything_killed_at_once_is_taken_up_by_the_next_up(copied: Installation) -> None:
    status = copied.ask("status")
    kept = acknowledged(copied)
    for pid in [status["supervisor"], *(int(part["pid"]) for part in status["parts"].values())]:
        with_pid_gone(int(pid))
    copied.up()
    assert green(copied)
    nothing_lost(copied, kept)


def with_pid_gone(pid: int) -> None:
    if Path(f"/proc/{pid}").exists():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return


@pytest.mark.long
def test_a_first_run_killed_in_the_middle_of_its_load_is_finished_by_the_next(made: Installation) -> None:
    first = made.start()
    try:
        within(300, lambda: made.ports_open() and len(made.certified()) >= 5)
        kept = {serial for _, serial, _ in made.certified()}
        for pid in [first.pid, *(int(p["pid"]) for p in made.ask("status")["parts"].values() if "pid" in p)]:
            with_pid_gone(pid)
        first.wait()
        made.up()
        assert green(made)
        assert kept <= {serial for _, serial, _ in made.certified()}
        assert made.ask("status")["certificates"]["practitioner-smime"] >= 50
        nothing_lost(made, [])
    finally:
        first.kill()
        made.sceau("down", check=False)


@pytest.mark.long
def test_a_load_goes_on_by_itself_while_each_part_is_killed(made: Installation) -> None:
    first = made.start()
    try:
        within(300, lambda: made.ports_open() and len(made.certified()) >= 3)
        for part in ("signer", "worker", "ldap", "web", "postgres"):
            with_pid_gone(int(made.ask("status")["parts"][part]["pid"]))
        within(300, (made.state / "demo.json").exists)
        within(30, lambda: green(made))
        assert made.ask("status")["certificates"]["practitioner-smime"] >= 50
        nothing_lost(made, [])
    finally:
        made.sceau("down", check=False)
        first.wait(60)
