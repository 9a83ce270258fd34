"""The signer's own memory of powers: what took one away stands, whatever the database says later."""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine, text

from directory.base.audit import Actor, Event, record
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from pki.acts.act import ActKind
from pki.powers import followed as module
from pki.powers.change import change_powers
from pki.powers.followed import Followed
from pki.powers.needs import Role
from pki.powers.state import PowerLine
from pki.tlog import sequencer, store
from pki.tlog.checkpoint import AuditKey
from tests.persons import (
    ANCHORS,
    ANNE,
    AT,
    BRUNO,
    CHLOE,
    DAVID,
    RECOVERY,
    Person,
    add,
    end,
    freeze,
    grant,
    revoke,
    unfreeze,
)
from tests.persons import (
    line as line_of,
)


@dataclass(frozen=True)
class Record:
    """The database, the log's key, and where the signer keeps what it followed."""

    engine: Engine
    key: AuditKey
    kept: Path

    def followed(self) -> Followed:
        return Followed(self.engine, ANCHORS, self.kept, self.key.public_key())

    def queue(self, *lines: PowerLine) -> None:
        """Without asking whether they have any force: what a stolen connection can write."""
        with transaction(self.engine) as connection:
            for line in lines:
                detail = {"signed": [signed.decode() for signed in line.signed], "shown": dict(line.shown)}
                record(
                    connection,
                    now=line.at,
                    actor=Actor("x"),
                    event=Event.POWER_CHANGED,
                    subject=f"installation:{line.shown.get('installation')}",
                    detail=detail,
                )

    def number(self) -> None:
        with transaction(self.engine) as connection:
            sequencer.sequence(connection, self.key, now=AT)

    def tell(self, *lines: PowerLine) -> None:
        self.queue(*lines)
        self.number()

    def attack(self, *statements: str) -> None:
        with self.engine.begin() as connection:
            for table in ("audit_entry", "audit_checkpoint"):
                connection.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
            for statement in statements:
                connection.execute(text(statement))


@pytest.fixture
def told(engine: Engine, tmp_path: Path) -> Record:
    return Record(engine, AuditKey(Ed25519PrivateKey.generate()), tmp_path / "ca" / "powers.json")


def rewritten(powers: Followed) -> None:
    with pytest.raises(Refusal) as refusal:
        powers.current()
    assert (refusal.value.code, refusal.value.kind) == ("log-rewritten", Kind.UNAVAILABLE)


def test_powers_are_those_of_the_anchors_and_the_lines(told: Record) -> None:
    powers = told.followed()
    assert powers.current().administrators() == {ANNE.name, BRUNO.name}
    told.tell(add(CHLOE, ANNE, BRUNO), grant(CHLOE, Role.REGISTRAR, ANNE, BRUNO, authority="CNOM"))
    assert powers.current().holds(CHLOE.name, Role.REGISTRAR, "CNOM")
    told.tell(end(CHLOE, Role.REGISTRAR, ANNE, authority="CNOM"))
    assert not powers.current().holds(CHLOE.name, Role.REGISTRAR, "CNOM")


def test_what_gives_waits_for_its_number_and_what_takes_does_not(told: Record) -> None:
    powers = told.followed()
    told.tell(add(CHLOE, ANNE, BRUNO))
    told.queue(grant(CHLOE, Role.ADMINISTRATOR, ANNE, BRUNO))
    assert not powers.current().holds(CHLOE.name, Role.ADMINISTRATOR)
    told.queue(revoke(CHLOE, CHLOE), freeze(BRUNO))
    assert powers.current().frozen
    assert powers.current().credentials()[CHLOE.credential].tenure.until
    told.number()
    assert powers.current().frozen
    assert not powers.current().holds(CHLOE.name, Role.ADMINISTRATOR)
    told.queue(unfreeze(ANNE, BRUNO))
    assert powers.current().frozen
    told.number()
    assert not powers.current().frozen


def test_who_was_given_powers_keeps_what_he_was_given(told: Record) -> None:
    powers = told.followed()
    before = powers.current()
    told.tell(freeze(ANNE))
    assert powers.current().frozen
    assert not before.frozen


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (lambda: grant(CHLOE, Role.ADMINISTRATOR, ANNE), "too-few-persons"),
        (lambda: revoke(ANNE, BRUNO), "too-few-administrators"),
        (lambda: end(BRUNO, Role.ADMINISTRATOR, ANNE), "too-few-administrators"),
        (lambda: replace(freeze(ANNE), at=AT.replace(hour=23)), "expired"),
        (lambda: PowerLine(AT, (), {}), "too-few-persons"),
    ],
)
def test_a_line_without_force_changes_nothing_and_says_why(
    told: Record, line: Callable[[], PowerLine], code: str
) -> None:
    powers = told.followed()
    told.tell(freeze(ANNE), unfreeze(ANNE, BRUNO))
    told.queue(line())
    assert powers.current().administrators() == {ANNE.name, BRUNO.name}
    told.number()
    assert powers.current().administrators() == {ANNE.name, BRUNO.name}
    assert not powers.current().frozen
    assert powers.without_force() == {2: code}
    assert told.followed().without_force() == {2: code}


def test_an_act_is_not_used_twice(told: Record) -> None:
    powers, frozen = told.followed(), freeze(ANNE)
    told.tell(frozen, unfreeze(ANNE, BRUNO))
    told.queue(frozen)
    assert not powers.current().frozen
    told.number()
    assert not powers.current().frozen
    assert powers.without_force() == {2: "used-before"}


@pytest.mark.parametrize(
    "detail", ["{}", '{"signed": "x", "shown": {}}', '{"signed": ["é"], "shown": {}}', "[1]"]
)
def test_a_line_in_no_form_is_passed_over(told: Record, detail: str) -> None:
    powers = told.followed()
    with told.engine.begin() as connection:
        statement = (
            "INSERT INTO audit_pending (at, actor, event, subject, detail)"
            " VALUES (now(), 'x', 'power.changed', 'x', CAST(:detail AS jsonb))"
        )
        connection.execute(text(statement), {"detail": detail})
    assert powers.current().administrators() == {ANNE.name, BRUNO.name}
    told.number()
    powers.current()
    assert powers.without_force() == {0: "no-act"}


def test_lines_without_force_fill_no_memory(told: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WITHOUT_FORCE", 2)
    powers = told.followed()
    told.tell(*[PowerLine(AT, (), {"n": number}) for number in range(5)])
    powers.current()
    assert list(powers.without_force()) == [3, 4]


def test_what_was_followed_is_kept_beside_the_journal(told: Record) -> None:
    told.tell(add(CHLOE, ANNE, BRUNO), freeze(ANNE))
    assert told.followed().current().frozen
    assert stat.S_IMODE(told.kept.stat().st_mode) == 0o600
    assert orjson.loads(told.kept.read_bytes())["size"] == 2
    for _ in range(2):
        again = told.followed()
        assert again.current().frozen
        holders = [credential.person for credential in again.current().credentials().values()]
        assert holders == [ANNE.name, BRUNO.name, CHLOE.name]
        # Lost, it is derived anew from the whole log.
        told.kept.unlink()


def test_a_withdrawal_that_was_followed_stands(told: Record) -> None:
    """The database is put back, or edited, or cut: nothing is signed from it until somebody looked."""
    told.tell(add(CHLOE, ANNE, BRUNO), grant(CHLOE, Role.ADMINISTRATOR, ANNE, BRUNO))
    powers = told.followed()
    powers.current()
    told.tell(revoke(ANNE, BRUNO))
    assert powers.current().administrators() == {BRUNO.name, CHLOE.name}
    told.attack("DELETE FROM audit_entry WHERE index = 2", "DELETE FROM audit_checkpoint WHERE size = 3")
    for one in (powers, told.followed()):
        rewritten(one)
    told.tell(grant(DAVID, Role.AUDITOR, BRUNO, CHLOE))
    for one in (powers, told.followed()):
        rewritten(one)


def test_a_withdrawal_that_waited_and_is_gone_is_noticed(told: Record) -> None:
    powers = told.followed()
    told.queue(freeze(ANNE))
    assert powers.current().frozen
    told.attack("DELETE FROM audit_pending")
    for one in (powers, told.followed()):
        rewritten(one)


def accept(size: int, root: bytes, *by: Person) -> PowerLine:
    shown = {"installation": ANCHORS.installation, "size": size, "root": root.hex()}
    return line_of(ActKind.RESTORE_ACCEPT, shown, *by)


def test_two_persons_accept_a_restored_log_and_what_was_followed_stays(told: Record) -> None:
    told.tell(add(CHLOE, ANNE, BRUNO), grant(CHLOE, Role.ADMINISTRATOR, ANNE, BRUNO))
    powers, lost = told.followed(), revoke(ANNE, BRUNO)
    powers.current()
    told.tell(lost)
    powers.current()
    told.queue(freeze(BRUNO))
    assert powers.current().frozen
    told.attack(
        "DELETE FROM audit_entry WHERE index = 2", "DELETE FROM audit_checkpoint WHERE size = 3",
        "DELETE FROM audit_pending",
    )  # fmt: skip
    told.tell(PowerLine(AT, (), {}))
    with told.engine.connect() as connection:
        head = store.last_checkpoint(connection)
    # By one; by one whose credential the lost line revoked; over a head that is not there.
    for by, size in (((BRUNO,), head.size), ((ANNE, BRUNO), head.size), ((BRUNO, CHLOE), 2)):
        told.tell(accept(size, head.root, *by))
        for one in (powers, told.followed()):
            rewritten(one)
    told.tell(accept(head.size, head.root, BRUNO, CHLOE))
    for one in (powers, told.followed()):
        assert one.current().administrators() == {BRUNO.name, CHLOE.name}
        assert one.current().frozen
    # Given back in the log that goes on, it has no second effect; the same acceptance serves once.
    told.tell(lost, unfreeze(BRUNO, CHLOE))
    assert powers.current().administrators() == {BRUNO.name, CHLOE.name}
    assert not powers.current().frozen
    told.attack("DELETE FROM audit_entry WHERE index > 6", "DELETE FROM audit_checkpoint WHERE size > 7")
    rewritten(powers)


def test_a_log_that_begins_anew_after_a_restore_is_accepted_by_two(told: Record, tmp_path: Path) -> None:
    """As `sceau restore accept` leaves it: under another origin, from where the backup ends."""
    told.tell(freeze(ANNE))
    powers = told.followed()
    powers.current()
    told.tell(unfreeze(ANNE, BRUNO), revoke(CHLOE, ANNE))
    told.tell(add(CHLOE, ANNE, BRUNO))
    assert not powers.current().frozen
    sequencer.publish_heads(told.engine, tmp_path / "heads")
    told.attack("DELETE FROM audit_entry WHERE index > 0", "DELETE FROM audit_checkpoint WHERE size > 1")
    rewritten(powers)
    with transaction(told.engine) as connection:
        origin = sequencer.begin_anew(
            connection, told.key, now=AT, actor=Actor("x"), reason="disk lost",
            checkpoint_file=tmp_path / "heads", detail={},
        )  # fmt: skip
        head = store.last_checkpoint(connection)
    rewritten(powers)
    shown = {"installation": ANCHORS.installation, "size": head.size, "root": head.root.hex()}
    signed = tuple(person.signs(ActKind.RESTORE_ACCEPT, shown) for person in (ANNE, BRUNO))
    with transaction(told.engine) as connection:
        change_powers(
            connection, now=AT, powers=powers.remembered(), kind=ActKind.RESTORE_ACCEPT, signed=signed,
            shown=shown, actor=Actor("x"),
        )  # fmt: skip
    rewritten(powers)
    told.number()
    for one in (powers, told.followed()):
        assert not one.current().frozen
        assert CHLOE.credential in one.current().credentials()
    assert orjson.loads(told.kept.read_bytes())["origin"] == origin
    # Whoever has nothing to remember takes the log that is left.
    assert Followed(told.engine, ANCHORS).current().frozen


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can give a file away")
def test_what_a_command_of_root_writes_belongs_to_the_service(told: Record) -> None:
    told.kept.parent.mkdir()
    os.chown(told.kept.parent, 65534, 65534)
    told.tell(freeze(ANNE))
    assert told.followed().current().frozen
    status = told.kept.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (65534, 65534, 0o600)


def test_an_edited_file_is_noticed(told: Record) -> None:
    told.tell(add(CHLOE, ANNE, BRUNO))
    told.followed().current()
    kept = orjson.loads(told.kept.read_bytes())
    kept["lines"][0]["shown"]["person"] = DAVID.name
    for content in (orjson.dumps(kept), b"", b"{}", orjson.dumps({**kept, "size": "x"})):
        told.kept.write_bytes(content)
        with pytest.raises(Refusal) as refusal:
            told.followed()
        assert refusal.value.code == "powers-damaged"


def test_other_anchors_are_noticed(told: Record) -> None:
    told.tell(add(CHLOE, ANNE, BRUNO))
    told.followed().current()
    others = replace(
        ANCHORS, administrators={ANNE.name: ANNE.key.public_key(), CHLOE.name: CHLOE.key.public_key()}
    )
    with pytest.raises(Refusal) as refusal:
        Followed(told.engine, others, told.kept)
    assert refusal.value.code == "anchors-changed"


def test_a_crash_while_writing_leaves_what_was_there(told: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    powers = told.followed()
    told.tell(add(CHLOE, ANNE, BRUNO))
    powers.current()
    told.tell(freeze(ANNE))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "replacing", full)
    with pytest.raises(OSError, match="space"):
        powers.current()
    monkeypatch.undo()
    assert powers.current().frozen
    assert told.followed().current().frozen


def test_a_change_handed_in_is_queued_or_refused_with_its_reason(told: Record) -> None:
    powers = told.followed()

    def hand_in(line: PowerLine, act: ActKind) -> None:
        with transaction(told.engine) as connection:
            change_powers(
                connection, now=AT, powers=powers.current(), kind=act, signed=line.signed, shown=line.shown,
                actor=Actor("x"),
            )  # fmt: skip

    hand_in(add(CHLOE, ANNE, BRUNO), ActKind.CREDENTIAL_ADD)
    told.number()
    gives, takes = ActKind.ROLE_GRANT, ActKind.CREDENTIAL_REVOKE
    for line, act, kind, code in (
        (grant(CHLOE, Role.ADMINISTRATOR, ANNE), gives, Kind.FORBIDDEN, "too-few-persons"),
        (grant(CHLOE, Role.ADMINISTRATOR, ANNE, DAVID), gives, Kind.FORBIDDEN, "credential-unknown"),
        (revoke(ANNE, BRUNO), takes, Kind.CONFLICT, "too-few-administrators"),
        (freeze(CHLOE), ActKind.FREEZE, Kind.FORBIDDEN, "too-few-persons"),
        (PowerLine(AT, (b"x.y.z",), {}), gives, Kind.UNACCEPTABLE, "no-act"),
        (add(RECOVERY[0], ANNE, BRUNO), ActKind.CREDENTIAL_ADD, Kind.CONFLICT, "key-known"),
        (freeze(ANNE), ActKind.UNFREEZE, Kind.UNACCEPTABLE, "no-agreement"),
    ):
        with pytest.raises(Refusal) as refusal:
            hand_in(line, act)
        assert (refusal.value.kind, refusal.value.code) == (kind, code)
    hand_in(freeze(ANNE), ActKind.FREEZE)
    assert powers.current().frozen
    told.number()
    with told.engine.connect() as connection:
        rows = connection.execute(text("SELECT subject, event FROM audit_entry ORDER BY index")).all()
    assert [tuple(row) for row in rows] == [
        (CHLOE.name, "power.changed"), (f"installation:{ANCHORS.installation}", "power.changed"),
    ]  # fmt: skip
