"""One administrator stops every signature that gives trust, at once; two let it go on; lists go on."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine

from directory.base.audit import Actor
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from pki.acts.act import ActKind
from pki.powers.anchors import Anchors
from pki.powers.change import change_powers
from pki.powers.followed import Followed
from pki.powers.state import PowerLine, Powers
from pki.signing import process
from pki.signing.inprocess import InProcessSigner
from pki.signing.journal import Journal
from pki.signing.process import POWERS, powers_of
from pki.tlog import sequencer
from pki.tlog.checkpoint import AuditKey
from tests.persons import (
    ANCHORS,
    ANNE,
    BRUNO,
    CHLOE,
    DAVID,
    freeze,
    registrars,
    sign_enrolment,
    unfreeze,
)
from tests.pki.conftest import Enrolled, Established, Issue

Tell = Callable[[ActKind, PowerLine], None]
Number = Callable[[], None]


@dataclass(frozen=True)
class Frozen:
    """A signer that follows powers, and what a web process does meanwhile."""

    signer: InProcessSigner
    tell: Tell
    number: Number


@pytest.fixture
def frozen(engine: Engine, authority: Established, tmp_path: Path, now: datetime) -> Iterator[Frozen]:
    followed, of_the_web = Followed(engine, ANCHORS, tmp_path / "own" / POWERS), Followed(engine, ANCHORS)
    journal, key = Journal(tmp_path / "own" / "journal.jsonl"), AuditKey(Ed25519PrivateKey.generate())

    def tell(kind: ActKind, line: PowerLine) -> None:
        with transaction(engine) as connection:
            change_powers(
                connection, now=line.at, powers=of_the_web.current(), kind=kind, signed=line.signed,
                shown=line.shown, actor=Actor("x"),
            )  # fmt: skip

    def number() -> None:
        with transaction(engine) as connection:
            sequencer.sequence(connection, key, now=now)

    for kind, line in registrars(CHLOE, DAVID):
        tell(kind, line)
        number()
    signer = InProcessSigner(engine, authority.keys, journal, clock=lambda: now, powers=followed.current)
    yield Frozen(signer, tell, number)
    journal.close()


def test_a_freeze_stops_the_signer_at_once_and_two_lift_it(
    frozen: Frozen, issue: Issue, engine: Engine, enrolled: Enrolled
) -> None:
    with transaction(engine) as connection:
        sign_enrolment(connection, ActKind.ENROLMENT_REQUEST, enrolled.id, CHLOE)
        sign_enrolment(connection, ActKind.ENROLMENT_APPROVE, enrolled.id, DAVID)
    frozen.tell(ActKind.FREEZE, freeze(ANNE))
    for numbered in (False, True):
        if numbered:
            frozen.number()
        with pytest.raises(Refusal) as refusal:
            issue(signer=frozen.signer)
        assert (refusal.value.kind, refusal.value.code) == (Kind.CONFLICT, "frozen")
    with pytest.raises(Refusal) as refusal:
        frozen.tell(ActKind.UNFREEZE, unfreeze(BRUNO))
    assert refusal.value.code == "too-few-persons"
    frozen.tell(ActKind.UNFREEZE, unfreeze(ANNE, BRUNO))
    with pytest.raises(Refusal):
        issue(signer=frozen.signer)
    frozen.number()
    issued = issue(signer=frozen.signer)
    # What was signed is handed out again: it gives no trust anew.
    frozen.tell(ActKind.FREEZE, freeze(BRUNO))
    assert frozen.signer.sign_certificate(issued.serial) == issued.der


def test_a_long_log_keeps_nobody_waiting_for_a_list(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchors, may_end, current = tmp_path / "anchors.json", threading.Event(), Followed.current
    anchors.write_bytes(ANCHORS.text())

    def slow(followed: Followed) -> Powers:
        may_end.wait(30)
        return current(followed)

    monkeypatch.setattr(Followed, "current", slow)
    monkeypatch.setattr(process, "FIRST_SECONDS", 0.01)
    powers = powers_of(engine, anchors, tmp_path / "ca")
    assert powers is not None
    with pytest.raises(Refusal) as refusal:
        powers()
    assert (refusal.value.kind, refusal.value.code) == (Kind.UNAVAILABLE, "log-not-followed")
    may_end.set()
    monkeypatch.setattr(process, "FIRST_SECONDS", 30)
    assert powers().administrators() == {ANNE.name, BRUNO.name}


def test_a_signer_goes_by_the_anchors_it_once_had(engine: Engine, tmp_path: Path) -> None:
    """Whoever removes the file, or puts another, gets no signer that asks for nobody's signature."""
    anchors, folder = tmp_path / "anchors.json", tmp_path / "ca"
    assert powers_of(engine, anchors, folder) is None
    anchors.write_bytes(ANCHORS.text())
    powers = powers_of(engine, anchors, folder)
    assert powers is not None
    assert powers().administrators() == {ANNE.name, BRUNO.name}
    anchors.unlink()
    keys = {person.name: person.key.public_key() for person in (ANNE, CHLOE)}
    others = Anchors(ANCHORS.installation, keys, ANCHORS.recovery)
    for content, code in (
        (None, "anchors-missing"),
        (others.text(), "anchors-changed"),
        (b"{}", "bad-anchors"),
    ):
        if content is not None:
            anchors.write_bytes(content)
        with pytest.raises(Refusal) as refusal:
            powers_of(engine, anchors, folder)
        assert (refusal.value.kind, refusal.value.code) == (Kind.UNAVAILABLE, code)
