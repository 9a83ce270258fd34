"""One administrator acts, and nothing over REST or from a terminal gives trust; what takes it goes on."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flask import Flask
from sqlalchemy import Engine

from api.wiring import Container
from directory.base.audit import Actor, Event, record
from directory.base.db import transaction
from pki.acts.act import ActKind
from pki.powers.change import change_powers
from pki.powers.state import PowerLine
from pki.tlog import sequencer
from pki.tlog.checkpoint import AuditKey
from tests.api.commands import Sceau
from tests.api.commands import token as make_token
from tests.api.conftest import Caller
from tests.factories import Seeded, seed_practitioner
from tests.persons import ANCHORS, ANNE, BRUNO, freeze, unfreeze

CHECKED = {"method": "in-person", "document": "carte nationale d'identité", "checked_on": "2026-09-01"}
NOBODY = "3f0c0000-0000-4000-8000-000000000000"
GIVING = (
    "/v1/enrolments", f"/v1/enrolments/{NOBODY}/approval", "/v1/enrolments/approvals",
    "/v1/certificates/0a/release", "/v1/certificates/0a/reason", "/v1/measures/1/lifting",
    "/v1/measures/1/shortening", "/v1/measures/1/annulment", "/v1/corrections",
    "/v1/corrections/1/withdrawal", "/v1/clock/resets",
)  # fmt: skip


@pytest.fixture
def someone(engine: Engine) -> Seeded:
    return seed_practitioner(engine)


def tell(container: Container, kind: ActKind, line: PowerLine) -> None:
    assert container.powers is not None
    with transaction(container.engine) as connection:
        change_powers(
            connection, now=line.at, powers=container.powers.current(), kind=kind, signed=line.signed,
            shown=line.shown, actor=Actor("x"),
        )  # fmt: skip


@pytest.mark.usefixtures("app")
def test_nothing_gives_trust_until_two_lift_it(
    container: Container, caller: Callable[..., Caller], someone: Seeded, tmp_path: Path
) -> None:
    (tmp_path / "anchors.json").write_bytes(ANCHORS.text())
    first, admin = caller("registrar", name="first"), caller("admin")
    asked = {"practitioner": someone.national_id, "mailbox": someone.mailbox, "identity_check": CHECKED}
    assert first.post("/v1/enrolments", asked).get_json()["code"] == "act-missing"
    tell(container, ActKind.FREEZE, freeze(ANNE))
    for path in GIVING:
        for who in (first, admin):
            answer = who.post(path, {})
            assert (answer.status_code, answer.get_json()["code"]) == (409, "frozen"), path
    # Reading and taking away go on.
    assert first.get(f"/v1/recipients/{someone.mailbox}").status_code == 200
    taken = first.post(
        f"/v1/practitioners/{someone.national_id}/measures", {"kind": "suspended", "reason": "Décision 117"}
    )
    assert taken.status_code == 201
    tell(container, ActKind.UNFREEZE, unfreeze(ANNE, BRUNO))
    assert first.post("/v1/enrolments", asked).get_json()["code"] == "frozen"
    with transaction(container.engine) as connection:
        sequencer.sequence(connection, AuditKey(Ed25519PrivateKey.generate()), now=container.clock())
    assert first.post("/v1/enrolments", asked).get_json()["code"] != "frozen"


def test_an_installation_without_anchors_cannot_be_frozen(container: Container, app: Flask) -> None:
    del app
    assert container.powers is None
    container.need_thawed()


def test_no_command_gives_trust(sceau: Sceau, state: Path, engine: Engine) -> None:
    (state / "anchors.json").write_bytes(ANCHORS.text())
    seeded, secret = seed_practitioner(engine), make_token(sceau, "first")
    # The lines of these persons are of another day; a queued one of theirs holds for whoever follows.
    line = freeze(ANNE)
    detail = {"signed": [text.decode() for text in line.signed], "shown": dict(line.shown)}
    with transaction(engine) as connection:
        record(
            connection, now=line.at, actor=Actor("x"), event=Event.POWER_CHANGED, subject="x", detail=detail
        )
    for words in (
        ("enrol", seeded.national_id, seeded.mailbox), ("enrol", "--approve", NOBODY),
        ("release", "0a", "--comment", "x"), ("restate", "0a", "--reason", "superseded", "--comment", "x"),
        ("measure", "lift", "1", "--reason", "x"), ("correct", "withdraw", "1"),
    ):  # fmt: skip
        done = sceau(*words, token=secret)
        assert done.exit_code == 1, done.output
        assert done.stderr.startswith("frozen:"), done.stderr
    taken = sceau("measure", "take", seeded.national_id, "--kind", "suspended", "--reason", "x", token=secret)
    assert taken.exit_code == 0, taken.stderr
