"""Anchors, acts and the log between real processes: what one person signs on a terminal stops them all."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from directory.base.errors import Refusal
from pki.model import Serial
from pki.signing.client import SignerClient
from tests.ports import free_port
from tests.stories.installation.conftest import SCEAU, Installation, run, within

PERSONS = ("admin_a", "admin_b", "recovery_1", "recovery_2", "recovery_3")


@pytest.fixture(scope="module")
def anchored(passable: Path) -> Iterator[Installation]:
    """An installation for trying, whose administrators' keys lie in its state folder."""
    made = Installation(passable / "anchored" / "state", (free_port(), free_port(), free_port()))
    persons = made.state / "persons"
    for name in PERSONS:
        run(SCEAU, "person", "key", name, "--folder", str(persons), "--plain")
    words = ["anchors", "make", str(made.state), "--demo"]
    for name in PERSONS[:2]:
        words += ["--administrator", f"{name}={persons / name}.public.pem"]
    for name in PERSONS[2:]:
        words += ["--recovery", f"{persons / name}.public.pem"]
    run(SCEAU, *words)
    try:
        made.sceau("up", "--detach", *made.listeners)
        yield made
    finally:
        made.sceau("down", check=False)


def of_the_signer(installation: Installation) -> str:
    with pytest.raises(Refusal) as refusal:
        SignerClient(installation.state / "run" / "signer.sock").sign_certificate(Serial("0a" * 16))
    return refusal.value.code


def test_one_stops_every_process_and_two_let_them_go_on(anchored: Installation) -> None:
    token = json.loads(
        anchored.sceau(
            "token", "create", "Anne", "--role", "registrar", "--authority", "CNOM", "--json"
        ).stdout
    )["secret"]

    def of_the_web() -> str:
        headers = {"Authorization": f"Bearer {token}"}
        asked = requests.post(f"{anchored.web}/v1/enrolments", json={}, headers=headers, timeout=10)
        return str(asked.json()["code"])

    assert of_the_signer(anchored) == "unknown-reservation"
    assert of_the_web() != "frozen"
    anchored.sceau("freeze", "--as", "admin_a")
    # Each web process may be asked; none has to be told.
    assert {of_the_signer(anchored), *(of_the_web() for _ in range(8))} == {"frozen"}
    told = anchored.ask("status")
    assert (told["state"], told["powers"]["state"], told["powers"]["administrators"]) == (
        "degraded",
        "frozen",
        2,
    )
    alone = anchored.sceau("unfreeze", "--as", "admin_b", check=False)
    assert (alone.returncode, alone.stderr.split(":")[0]) == (1, "too-few-persons")
    anchored.sceau("unfreeze", "--as", "admin_a", "--as", "admin_b")
    within(10, lambda: of_the_signer(anchored) != "frozen" and of_the_web() != "frozen")
    assert anchored.ask("status")["powers"]["state"] == "ok"
    # Each follower keeps what it followed for itself.
    for folder in ("ca", "floor"):
        kept = anchored.state / folder / "powers.json"
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert len(json.loads((anchored.state / "ca" / "powers.json").read_bytes())["lines"]) == 2
