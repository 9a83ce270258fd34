"""The audit log: gapless numbers, signed heads, and every rewrite a superuser can make is found."""

import json
import re
import subprocess
from base64 import b64decode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import Connection, Engine, text

from directory.base.audit import Actor, Event, record
from directory.base.db import transaction
from directory.base.errors import Refusal
from pki.tlog import sequencer
from pki.tlog.checkpoint import append_checkpoint_file, key_id, open_note, read_notes, verifier
from pki.tlog.merkle import append, leaf_hash, root_of
from pki.tlog.sequencer import AuditKey, line_bytes, publish_heads, sequence, size
from pki.tlog.store import Line
from pki.tlog.verifier import verify


@dataclass(frozen=True)
class Log:
    """A log of 10 lines in 4 heads (3, 6, 9, 10), all of them in the file too."""

    engine: Engine
    key: AuditKey
    file: Path

    def queue(self, count: int, now: datetime) -> None:
        with transaction(self.engine) as connection:
            for number in range(count):
                record(
                    connection, now=now, actor=Actor("token:1"), event=Event.CRL_PUBLISHED,
                    subject=f"persons-1/{number}", detail={"number": number, "ñ": [1.5, None, "é\u2028"]},
                )  # fmt: skip

    def number(self, now: datetime) -> int:
        with transaction(self.engine) as connection:
            done = sequence(connection, self.key, now=now, checkpoint_file=self.file)
        publish_heads(self.engine, self.file)
        return done

    def findings(self, *, with_file: bool = True) -> list[str]:
        with transaction(self.engine, read_only=True) as connection:
            return verify(connection, self.key.public_key(), self.file if with_file else None)

    def attack(self, *statements: str, **values: object) -> None:
        """What the owner of the database can do: triggers are no hindrance to them."""
        with self.engine.begin() as connection:
            for table in ("audit_entry", "audit_checkpoint", "certificate", "revocation", "reservation"):
                connection.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
            for statement in statements:
                connection.execute(text(statement), values)


@pytest.fixture
def log(engine: Engine, tmp_path: Path, now: datetime) -> Log:
    made = Log(engine, AuditKey(Ed25519PrivateKey.generate()), tmp_path / "heads")
    for count in (3, 3, 3, 1):
        made.queue(count, now)
        made.number(now)
    return made


def test_lines_are_numbered_without_gaps_in_the_order_they_were_queued(log: Log) -> None:
    with log.engine.connect() as connection:
        rows = connection.execute(text("SELECT index, subject FROM audit_entry ORDER BY index")).all()
        waiting = connection.execute(text("SELECT count(*) FROM audit_pending")).scalar_one()
    numbers = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert [tuple(row) for row in rows] == [(i, f"persons-1/{n}") for i, n in enumerate(numbers)]
    assert waiting == 0


def test_an_untouched_log_has_nothing_wrong_with_it(log: Log) -> None:
    assert log.findings() == []
    assert log.findings(with_file=False) == []


def test_nothing_waiting_means_no_new_head(log: Log, now: datetime) -> None:
    assert log.number(now) == 0
    assert len(read_notes(log.file)[0]) == 4


def test_a_line_rolled_back_leaves_no_gap(log: Log, now: datetime) -> None:
    with log.engine.connect() as connection:
        record(connection, now=now, actor=Actor("x"), event=Event.CRL_PUBLISHED, subject="never")
        connection.rollback()
    log.queue(1, now)
    assert log.number(now) == 1
    assert log.findings() == []


def test_a_line_that_commits_late_is_numbered_next_time(log: Log, now: datetime) -> None:
    with log.engine.connect() as slow, slow.begin():
        record(slow, now=now, actor=Actor("x"), event=Event.CRL_PUBLISHED, subject="late")
        log.queue(2, now)
        assert log.number(now) == 2
    assert log.number(now) == 1
    assert log.findings() == []


def test_many_sequencers_at_once_number_each_line_once(log: Log, now: datetime) -> None:
    log.queue(40, now)

    def run(_: int) -> int:
        with transaction(log.engine) as connection:
            return sequence(connection, log.key, now=now)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(run, range(8))) == 40
    publish_heads(log.engine, log.file)
    assert log.findings() == []


def test_what_is_hashed_can_be_rebuilt_by_anyone() -> None:
    line = Line(datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "a", "e", "s", {"b": 1, "a": "é"})
    assert line_bytes(7, line).decode() == (
        '{"actor":"a","at":"2026-01-02T03:04:05.000006Z","detail":{"a":"é","b":1},"event":"e","index":7,"subject":"s"}'
    )


def test_a_head_is_a_checkpoint_whose_signature_openssl_accepts(log: Log, tmp_path: Path) -> None:
    note = read_notes(log.file)[0][-1]
    origin, length, root, empty, signature = note.rstrip("\n").split("\n")
    assert (origin, length, empty) == ("sceau/audit", "10", "")
    assert len(b64decode(root)) == 32
    signed = b64decode(re.fullmatch(r"— sceau/audit (\S+)", signature)[1])  # type: ignore[index]
    assert signed[:4] == key_id(log.key.public_key())
    key, text_, mark = tmp_path / "key.pem", tmp_path / "text", tmp_path / "mark"
    key.write_bytes(log.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    text_.write_text(f"{origin}\n{length}\n{root}\n")
    mark.write_bytes(signed[4:])
    command = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        key,
        "-rawin",
        "-in",
        text_,
        "-sigfile",
        mark,
    ]
    assert (
        subprocess.run(command, check=False, capture_output=True).stdout
        == b"Signature Verified Successfully\n"
    )


def test_the_verifier_line_holds_the_key_in_the_form_of_signed_notes(log: Log) -> None:
    origin, identifier, encoded = verifier(log.key.public_key()).split("+", 2)
    raw = b64decode(encoded)
    assert (origin, len(raw), raw[:1]) == ("sceau/audit", 33, b"\x01")
    assert identifier == sha256(b"sceau/audit\n" + raw).hexdigest()[:8]


COLUMNS = {
    "index": "UPDATE audit_entry SET index = 100 WHERE index = 4",
    "at": "UPDATE audit_entry SET at = at + interval '1 microsecond' WHERE index = 4",
    "actor": "UPDATE audit_entry SET actor = 'token:2' WHERE index = 4",
    "event": "UPDATE audit_entry SET event = 'ldap.rebuilt' WHERE index = 4",
    "subject": "UPDATE audit_entry SET subject = 'persons-1/9' WHERE index = 4",
    "detail": "UPDATE audit_entry SET detail = detail || '{\"number\": 2}' WHERE index = 4",
    "leaf_hash": "UPDATE audit_entry SET leaf_hash = sha256('x') WHERE index = 4",
}
ROWS = {
    "first removed": "DELETE FROM audit_entry WHERE index = 0",
    "middle removed": "DELETE FROM audit_entry WHERE index = 4",
    "last removed": "DELETE FROM audit_entry WHERE index = 9",
    "middle removed and the rest moved up": """
        WITH gone AS (DELETE FROM audit_entry WHERE index >= 4 RETURNING *)
        INSERT INTO audit_entry SELECT index - 1, at, actor, event, subject, detail, leaf_hash FROM gone
        WHERE index > 4""",
    "two swapped": """UPDATE audit_entry SET index = 100 WHERE index = 4;
        UPDATE audit_entry SET index = 4 WHERE index = 5;
        UPDATE audit_entry SET index = 5 WHERE index = 100""",
    "one added": """INSERT INTO audit_entry
        SELECT 10, at, actor, event, subject, detail, leaf_hash FROM audit_entry WHERE index = 9""",
    "head's root": "UPDATE audit_checkpoint SET root = sha256('x') WHERE size = 6",
    "head's frontier": "UPDATE audit_checkpoint SET frontier = ARRAY[root] WHERE size = 6",
    "head's size": "UPDATE audit_checkpoint SET size = 7 WHERE size = 6",
    "head's note": "UPDATE audit_checkpoint SET note = replace(note, E'\\n6\\n', E'\\n7\\n') WHERE size = 6",
    "note of another head": """UPDATE audit_checkpoint
        SET note = (SELECT note FROM audit_checkpoint WHERE size = 3) WHERE size = 6""",
}
REWRITES = COLUMNS | ROWS


@pytest.mark.parametrize("statement", REWRITES.values(), ids=REWRITES)
def test_every_rewrite_is_found_even_without_the_file(log: Log, statement: str) -> None:
    log.attack(*statement.split(";"))
    assert log.findings(with_file=False) != []
    assert log.findings() != []


@pytest.mark.parametrize("column", sorted(set(COLUMNS) - {"index", "leaf_hash"}))
def test_a_line_rewritten_with_its_hash_is_found_and_the_head_it_breaks_is_named(
    log: Log, column: str
) -> None:
    log.attack(COLUMNS[column])
    with log.engine.connect() as connection:
        row = connection.execute(text("SELECT * FROM audit_entry WHERE index = 4")).one()
    line = Line(row.at.astimezone(UTC), row.actor, row.event, row.subject, row.detail)
    log.attack(
        "UPDATE audit_entry SET leaf_hash = :hash WHERE index = 4", hash=leaf_hash(line_bytes(4, line))
    )
    assert "lines 3 to 5 are not those of the checkpoint in the file of 6" in log.findings()


def test_a_changed_line_is_named(log: Log) -> None:
    log.attack(COLUMNS["actor"])
    assert log.findings() == ["line 4 was changed"]


def test_an_added_line_is_named(log: Log) -> None:
    log.attack(ROWS["one added"])
    assert "lines 10 to 10 were added: no checkpoint covers them" in log.findings()


def test_a_tail_cut_off_together_with_its_heads_is_found_by_whoever_kept_a_head(log: Log) -> None:
    log.attack("DELETE FROM audit_entry WHERE index >= 6", "DELETE FROM audit_checkpoint WHERE size > 6")
    assert log.findings(with_file=False) == []
    assert "4 lines were removed: a checkpoint in the file was signed over 10" in log.findings()


def _rebuild(log: Log, key: AuditKey) -> None:
    """The whole history told again, one actor replaced, every hash and head made anew."""
    with log.engine.connect() as connection:
        rows = connection.execute(text("SELECT * FROM audit_entry ORDER BY index")).all()
    log.attack("DELETE FROM audit_entry", "DELETE FROM audit_checkpoint")
    frontier: tuple[bytes, ...] = ()
    for row in rows:
        line = Line(row.at.astimezone(UTC), "token:666", row.event, row.subject, row.detail)
        leaf = leaf_hash(line_bytes(row.index, line))
        frontier = append(frontier, row.index, leaf)
        log.attack(
            "INSERT INTO audit_entry"
            " VALUES (:i, :at, 'token:666', :event, :subject, CAST(:detail AS jsonb), :leaf)",
            i=row.index, at=row.at, event=row.event, subject=row.subject, leaf=leaf,
            detail=json.dumps(row.detail),
        )  # fmt: skip
        if row.index + 1 in {3, 6, 9, 10}:
            head = key.sign(row.index + 1, root_of(frontier))
            log.attack(
                "INSERT INTO audit_checkpoint VALUES (:size, :root, :frontier, :note, now())",
                size=head.size, root=head.root, frontier=list(frontier), note=head.note,
            )  # fmt: skip


def test_a_history_rebuilt_under_another_key_is_found(log: Log) -> None:
    _rebuild(log, AuditKey(Ed25519PrivateKey.generate()))
    assert sum("is not ours" in finding for finding in log.findings(with_file=False)) == 4


def test_a_history_rebuilt_with_the_stolen_key_is_found_by_whoever_kept_a_head(log: Log) -> None:
    _rebuild(log, log.key)
    assert log.findings(with_file=False) == []
    assert "lines 0 to 2 are not those of the checkpoint in the file of 3" in log.findings()


def test_a_head_missing_from_the_record_is_found(log: Log) -> None:
    log.attack("DELETE FROM audit_checkpoint WHERE size = 6")
    assert log.findings() == ["the checkpoint of 6 lines in the file is not in the record"]


def test_a_forged_head_in_the_file_is_found(log: Log) -> None:
    stranger = AuditKey(Ed25519PrivateKey.generate())
    append_checkpoint_file(log.file, [stranger.sign(11, b"x" * 32).note])
    (finding,) = log.findings()
    assert "in the file is not ours" in finding


def test_something_else_in_the_file_is_found(log: Log) -> None:
    with log.file.open("ab") as file:
        file.write(b"\xff rubbish")
    assert log.findings() == ["the file of checkpoints holds something that is not a checkpoint"]


UNSIGNABLE: dict[str, Callable[[Log], None]] = {
    "a line added": lambda log: log.attack(ROWS["one added"]),
    "the last line removed": lambda log: log.attack(ROWS["last removed"]),
    "the head's root": lambda log: log.attack(
        "UPDATE audit_checkpoint SET root = sha256('x') WHERE size = 10"
    ),
    "the frontier": lambda log: log.attack(
        "UPDATE audit_checkpoint SET frontier = ARRAY[sha256('x'), sha256('y')] WHERE size = 10"
    ),
    "the note": lambda log: log.attack(
        "UPDATE audit_checkpoint SET note = replace(note, E'\\n10\\n', E'\\n11\\n') WHERE size = 10"
    ),
    "the tail and its heads": lambda log: log.attack(
        "DELETE FROM audit_entry WHERE index >= 6", "DELETE FROM audit_checkpoint WHERE size > 6"
    ),
    "everything": lambda log: log.attack("DELETE FROM audit_entry", "DELETE FROM audit_checkpoint"),
    "everything, by another key": lambda log: _rebuild(log, AuditKey(Ed25519PrivateKey.generate())),
    "everything, by the stolen key": lambda log: _rebuild(log, log.key),
}


@pytest.mark.parametrize("attack", UNSIGNABLE.values(), ids=UNSIGNABLE)
def test_no_head_is_signed_over_a_log_that_is_not_what_was_signed(
    log: Log, now: datetime, attack: Callable[[Log], None]
) -> None:
    attack(log)
    log.queue(1, now)
    with pytest.raises(Refusal) as refused:
        log.number(now)
    assert refused.value.code == "log-inconsistent"
    with log.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM audit_pending")).scalar_one() == 1


def begin_anew(log: Log, now: datetime) -> str:
    with transaction(log.engine) as connection:
        origin = sequencer.begin_anew(
            connection, log.key, now=now, actor=Actor("command:restore"), reason="disk lost",
            checkpoint_file=log.file, detail={},
        )  # fmt: skip
    publish_heads(log.engine, log.file)
    return origin


CUT = ("DELETE FROM audit_entry WHERE index >= 6", "DELETE FROM audit_checkpoint WHERE size > 6")


def test_a_log_that_lost_lines_goes_on_as_another_and_keeps_what_is_left(log: Log, now: datetime) -> None:
    log.attack(*CUT)
    old = read_notes(log.file)[0]
    origin = begin_anew(log, now)
    log.queue(2, now)
    assert log.number(now) == 2
    new = read_notes(log.file)[0]
    assert new[: len(old)] == old
    assert [open_note(note, log.key.public_key()).origin for note in new[len(old) :]] == [origin, origin]
    assert log.findings() == []
    # Who keeps a head that is no longer than the backup still holds the whole log by it.
    log.attack("UPDATE audit_entry SET actor = 'token:666' WHERE index = 2")
    assert log.findings() == ["line 2 was changed"]


def test_a_log_cut_again_behind_its_new_beginning_signs_nothing(log: Log, now: datetime) -> None:
    log.attack(*CUT)
    begin_anew(log, now)
    log.attack(*CUT)
    log.queue(1, now)
    with pytest.raises(Refusal, match="does not agree"):
        log.number(now)
    assert "the checkpoint of 7 lines in the file is of a log that the record does not know" in log.findings()


def test_no_head_of_the_old_origin_is_taken_for_one_of_the_log_that_goes_on(log: Log, now: datetime) -> None:
    log.attack(*CUT)
    begin_anew(log, now)
    with log.engine.connect() as connection:
        last = sequencer.store.last_checkpoint(connection)
    append_checkpoint_file(log.file, [log.key.sign(last.size, last.root).note])
    assert [finding for finding in log.findings() if "does not know" in finding]


def test_a_beginning_that_waits_among_the_acts_is_not_numbered(log: Log, now: datetime) -> None:
    """Whoever writes into the queue could otherwise have the log own to a loss that nobody declared."""
    with transaction(log.engine) as connection:
        record(
            connection, now=now, actor=Actor("x"), event=Event.RECORD_ACCEPTED, subject="record",
            detail={"origin": "sceau/audit", "lost_head": ""},
        )  # fmt: skip
    with pytest.raises(Refusal, match="only `sceau restore accept`"):
        log.number(now)


CERTIFICATE = """INSERT INTO certificate (serial, authority_id, profile, shard, subject, spki_sha256, der,
    sha256, not_before, not_after, issued_at)
    VALUES (:s, 'x', 'x', 0, 'x', sha256('k'), '', sha256('d'), now(), now() + interval '1 day', now())"""
RESERVATION = """INSERT INTO reservation (serial, authority_id, profile, shard, spki_sha256, tbs,
    tbs_sha256, lints, requested_by, reserved_at)
    VALUES (:s, 'x', 'x', 0, sha256('k'), '', sha256(''), '[]', 'x', now())"""
REVOCATION = """INSERT INTO revocation (serial, authority_id, shard, action, reason, actor, revoked_at,
    not_after, entry) VALUES (:s, 'x', 0, 'revoke', 'superseded', 'x', now(), now(), '')"""


def _issue_and_revoke(connection: Connection, serial: str) -> None:
    for statement in (RESERVATION, CERTIFICATE, REVOCATION):
        connection.execute(text(statement), {"s": serial})


def test_an_act_without_its_line_is_found_and_a_waiting_line_counts(log: Log, now: datetime) -> None:
    serial = "0" * 39 + "1"
    with transaction(log.engine) as connection:
        _issue_and_revoke(connection, serial)
    untold = [f"certificate {serial}: 1 in the record, 0 in the log"]
    untold.append(f"revocation of {serial}: 1 in the record, 0 in the log")
    assert log.findings() == untold
    with transaction(log.engine) as connection:
        for event in (Event.CERTIFICATE_ISSUED, Event.CERTIFICATE_REVOKED):
            record(connection, now=now, actor=Actor("x"), event=event, subject=serial)
    assert log.findings() == []
    log.number(now)
    assert log.findings() == []


def test_a_hold_and_its_release_are_acts_with_lines_of_their_own(log: Log, now: datetime) -> None:
    serial = "0" * 39 + "2"
    insert = (
        "INSERT INTO revocation (serial, authority_id, shard, action, reason, actor, revoked_at, not_after,"
        " entry) VALUES (:s, 'x', 0, :action, 'certificateHold', 'x', now(), now(), :entry)"
    )
    acts = [("hold", Event.CERTIFICATE_HELD, b""), ("release", Event.CERTIFICATE_RELEASED, None)]
    with transaction(log.engine) as connection:
        connection.execute(text(RESERVATION), {"s": serial})
        for action, _, entry in acts * 2:
            connection.execute(text(insert), {"s": serial, "action": action, "entry": entry})
        for _, event, _ in acts:
            record(connection, now=now, actor=Actor("x"), event=event, subject=serial)
    assert log.findings() == [
        f"hold on {serial}: 2 in the record, 1 in the log",
        f"release of {serial}: 2 in the record, 1 in the log",
    ]  # fmt: skip


def test_what_ended_and_was_given_back_is_told_both_times(log: Log, now: datetime) -> None:
    """Of an enrolment without an end in the record: an end alone is one too many, so is a return alone."""
    ended, restored = Event.ENROLMENT_ENDED, Event.ENROLMENT_RESTORED
    told = {"ended": [ended], "back": [ended, restored], "came from nowhere": [restored]}
    told["twice, back once"] = [ended, restored, ended]
    with transaction(log.engine) as connection:
        for subject, events in told.items():
            for event in events:
                record(connection, now=now, actor=Actor("x"), event=event, subject=subject)
    found = [
        "ended enrolment came from nowhere: 0 in the record, -1 in the log",
        "ended enrolment ended: 0 in the record, 1 in the log",
        "ended enrolment twice, back once: 0 in the record, 1 in the log",
    ]
    assert log.findings() == found
    log.number(now)
    assert log.findings() == found


def test_a_certificate_exchanged_for_another_is_found(log: Log, now: datetime) -> None:
    serial, told = "0" * 39 + "3", {"sha256": sha256(b"").hexdigest()}
    with transaction(log.engine) as connection:
        for statement in (RESERVATION, CERTIFICATE):
            connection.execute(text(statement), {"s": serial})
        issued = Event.CERTIFICATE_ISSUED
        record(connection, now=now, actor=Actor("x"), event=issued, subject=serial, detail=told)
    log.number(now)
    assert log.findings() == []
    log.attack("UPDATE certificate SET der = 'another'")
    assert log.findings() == [f"certificate {serial}: its bytes are not those the log tells of"]


def test_a_line_whose_act_was_removed_is_found(log: Log, now: datetime) -> None:
    serial = "0" * 39 + "1"
    with transaction(log.engine) as connection:
        _issue_and_revoke(connection, serial)
        for event in (Event.CERTIFICATE_ISSUED, Event.CERTIFICATE_REVOKED):
            record(connection, now=now, actor=Actor("x"), event=event, subject=serial)
    log.number(now)
    log.attack("DELETE FROM revocation")
    assert log.findings() == [f"revocation of {serial}: 0 in the record, 1 in the log"]


def test_the_file_is_brought_up_to_date_after_an_outage_and_a_torn_write(log: Log, now: datetime) -> None:
    log.file.write_text(log.file.read_text()[:-40])
    with transaction(log.engine) as connection:
        log_size = size(connection)
    log.queue(1, now)
    assert log.number(now) == 1
    notes, rest = read_notes(log.file)
    assert ([note.split("\n")[1] for note in notes], rest, log_size) == (["3", "6", "9", "10", "11"], "", 10)
    assert log.findings() == []
    assert publish_heads(log.engine, log.file) == 0


def test_a_damaged_file_is_never_taken_for_an_empty_one(log: Log, now: datetime) -> None:
    log.file.write_bytes(b"\0" * 10_000)
    log.queue(1, now)
    with pytest.raises(Refusal) as refused:
        log.number(now)
    assert refused.value.code == "checkpoint-file-damaged"


def test_the_key_is_made_once_kept_encrypted_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "audit" / "key.pem"
    with ThreadPoolExecutor(4) as pool:
        keys = list(pool.map(lambda _: sequencer.ensure_key(path, b"passphrase"), range(4)))
    assert len({verifier(key.public_key()) for key in keys}) == 1
    assert path.stat().st_mode & 0o777 == 0o600
    assert b"ENCRYPTED" in path.read_bytes()
    assert [file.name for file in path.parent.iterdir()] == ["key.pem"]
    with pytest.raises(Refusal) as refused:
        sequencer.ensure_key(path, b"another")
    assert refused.value.code == "audit-key-unreadable"


NOT_HEADS = ("", "sceau/audit\n", "other\n1\nx\n", f"sceau/audit\n01\n{'A' * 43}=\n\n— sceau/audit x\n")


@pytest.mark.parametrize("note", NOT_HEADS)
def test_what_is_not_a_head_is_refused(log: Log, note: str) -> None:
    with pytest.raises(Refusal) as refused:
        open_note(note, log.key.public_key())
    assert refused.value.code == "bad-head"
