"""Who follows the log reads it once, then what is new, and takes no other history for it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine, text

from directory.base.audit import Actor, Event, record_all
from directory.base.db import transaction
from directory.base.errors import Refusal
from pki.tlog import follower, sequencer, store
from pki.tlog.checkpoint import AuditKey
from pki.tlog.follower import Position
from pki.tlog.merkle import Frontier, append, leaf_hash, root_of
from pki.tlog.sequencer import line_bytes
from pki.tlog.store import Checkpoint, Line

KIND = Event.POWER_CHANGED
ADDED = (
    "INSERT INTO audit_entry SELECT 9, at, actor, event, subject, detail, leaf_hash FROM audit_entry LIMIT 1"
)


@dataclass(frozen=True)
class Log:
    """A log of 9 lines in heads of 3, 6 and 9; every third line is of the kind that is followed."""

    engine: Engine
    key: AuditKey
    now: datetime

    def queue(self, count: int, event: Event = Event.CRL_PUBLISHED) -> None:
        lines = [
            (f"persons-1/{number}", {"number": number, "ñ": [1.5, None, "é\u2028"]})
            for number in range(count)
        ]
        with transaction(self.engine) as connection:
            record_all(connection, now=self.now, actor=Actor("token:1"), event=event, lines=lines)

    def number(self) -> None:
        with transaction(self.engine) as connection:
            sequencer.sequence(connection, self.key, now=self.now)

    def follow(self, position: Position = Position(), *, signed: bool = True) -> tuple[Position, list[int]]:  # noqa: B008 - frozen
        found: list[int] = []
        with transaction(self.engine, read_only=True) as connection:
            end = follower.look(connection, position, KIND)
            key = self.key.public_key() if signed else None
            reached = position
            for reached, lines in follower.follow(connection, position, end, KIND, key):  # noqa: B007 - the last
                found += [index for index, _ in lines]
        return reached, found

    def attack(self, *statements: str, **values: object) -> None:
        with self.engine.begin() as connection:
            for table in ("audit_entry", "audit_checkpoint"):
                connection.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
            for statement in statements:
                connection.execute(text(statement), values)

    def told_anew(self, lines: Sequence[Line], sizes: Sequence[int]) -> None:
        """The whole history again, by who owns the database and has the log's own key."""
        self.attack("DELETE FROM audit_entry", "DELETE FROM audit_checkpoint")
        frontier: Frontier = ()
        with transaction(self.engine) as connection:
            for begins, ends in pairwise((0, *sizes)):
                frontier = _stored(connection, begins, lines[begins:ends], frontier)
                head = self.key.sign(ends, root_of(frontier))
                store.store_checkpoint(connection, Checkpoint(ends, head.root, frontier, head.note), self.now)

    def lines(self) -> list[Line]:
        with transaction(self.engine, read_only=True) as connection:
            return [line for _, line in store.numbered(connection)]


def _stored(connection, begins: int, lines: Sequence[Line], frontier: Frontier) -> Frontier:  # type: ignore[no-untyped-def]
    hashed = []
    for index, line in enumerate(lines, begins):
        leaf = leaf_hash(line_bytes(index, line))
        frontier = append(frontier, index, leaf)
        hashed.append(Line(line.at, line.actor, line.event, line.subject, line.detail, leaf))
    store.store_lines(connection, begins, hashed)
    return frontier


@pytest.fixture
def log(engine: Engine, now: datetime) -> Log:
    made = Log(engine, AuditKey(Ed25519PrivateKey.generate()), now)
    for _ in range(3):
        made.queue(2)
        made.queue(1, KIND)
        made.number()
    return made


def refused(log: Log, position: Position, *, signed: bool = False) -> str:
    with pytest.raises(Refusal) as refusal:
        log.follow(position, signed=signed)
    assert refusal.value.code == "log-rewritten"
    return refusal.value.text


def test_an_empty_log_leads_nowhere(engine: Engine, now: datetime) -> None:
    log = Log(engine, AuditKey(Ed25519PrivateKey.generate()), now)
    assert log.follow() == (Position(), [])


def test_what_was_followed_is_not_read_again(log: Log) -> None:
    position, found = log.follow()
    assert (position.size, found) == (9, [2, 5, 8])
    assert log.follow(position) == (position, [])
    log.queue(1, KIND)
    log.number()
    later, new = log.follow(position)
    assert (later.size, new) == (10, [9])
    assert log.follow()[0] == later


def test_portions_end_where_a_head_is(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = log.follow()
    for portion in (1, 3, 4, 7):
        monkeypatch.setattr(follower, "PORTION", portion)
        assert log.follow() == whole


def test_lines_that_wait_are_told_in_their_order(log: Log, engine: Engine) -> None:
    log.queue(2, KIND)
    log.queue(1)
    with engine.connect() as connection:
        end = follower.look(connection, log.follow()[0], KIND)
    assert [line.subject for line in end.waiting] == ["persons-1/0", "persons-1/1"]
    assert {(line.at, line.actor, line.event) for line in end.waiting} == {(log.now, "token:1", KIND.value)}


@pytest.mark.parametrize(
    "statement",
    [
        ADDED,
        "UPDATE audit_entry SET subject = 'x' WHERE index = 4",
        "UPDATE audit_entry SET at = at + interval '1 microsecond' WHERE index = 4",
        "UPDATE audit_entry SET detail = '{}' WHERE index = 4",
        "UPDATE audit_entry SET leaf_hash = sha256('x') WHERE index = 4",
        "DELETE FROM audit_entry WHERE index = 4",
        "DELETE FROM audit_entry WHERE index = 8",
        "DELETE FROM audit_checkpoint WHERE size = 9",
        "UPDATE audit_checkpoint SET root = sha256('x') WHERE size = 6",
        "UPDATE audit_checkpoint SET root = sha256('x') WHERE size = 9",
        "UPDATE audit_checkpoint SET note = replace(note, 'audit', 'audit/20260901T120000Z') WHERE size = 6",
    ],
)
def test_a_log_that_does_not_fit_is_not_followed(log: Log, statement: str) -> None:
    log.attack(statement)
    refused(log, Position())


def test_a_head_is_signed_by_the_logs_own_key(log: Log) -> None:
    log.attack("UPDATE audit_checkpoint SET note = replace(note, '— sceau/audit ', '— sceau/audit AAAA')")
    assert "not signed" in refused(log, Position(), signed=True)
    assert log.follow(signed=False)[0].size == 9


def test_a_line_dropped_and_all_signed_again_is_noticed(log: Log) -> None:
    """By who holds the log's own key too; and only by who followed it before, or keeps an older head."""
    position, _ = log.follow()
    kept = log.lines()
    others = [line for index, line in enumerate(kept) if index != 2]
    for lines, sizes in (
        (others, (8,)), (others, (5, 8)), ([*others, kept[0]], (9,)), ([*others, *kept], (9, 17)),
        (kept[:3], (3,)),
    ):  # fmt: skip
        log.told_anew(lines, sizes)
        assert log.follow()[0].size == sizes[-1]
        refused(log, position)


def test_the_log_of_another_installation_is_another_log(log: Log) -> None:
    position, _ = log.follow()
    others = [Line(log.now, "token:2", line.event, line.subject, line.detail) for line in log.lines()]
    log.told_anew(others, (3, 6, 9))
    refused(log, position)


def test_the_same_history_under_other_heads_goes_on(log: Log) -> None:
    """Fewer heads over the same lines rewrite nothing, as long as one is where we stopped."""
    position, _ = log.follow()
    log.told_anew([*log.lines(), log.lines()[2]], (9, 10))
    assert log.follow(position)[1] == [9]


def test_an_accepted_restore_loses_nothing_to_who_had_not_come_further(
    log: Log, tmp_path, actor: Actor
) -> None:  # type: ignore[no-untyped-def]
    position, _ = log.follow()
    log.queue(3)
    log.number()
    further, _ = log.follow(position)
    sequencer.publish_heads(log.engine, tmp_path / "heads")
    log.attack("DELETE FROM audit_entry WHERE index > 8", "DELETE FROM audit_checkpoint WHERE size > 9")
    with transaction(log.engine) as connection:
        origin = sequencer.begin_anew(
            connection, log.key, now=log.now, actor=actor, reason="disk lost",
            checkpoint_file=tmp_path / "heads", detail={},
        )  # fmt: skip
    log.queue(4, KIND)
    log.number()
    later, found = log.follow(position)
    assert (later.size, later.origin, found) == (14, origin, [10, 11, 12, 13])
    assert log.follow()[0] == later
    refused(log, further)


def test_ten_thousand_lines_are_followed_within_a_second(log: Log) -> None:
    position, _ = log.follow()
    log.queue(10_000)
    log.number()
    began = time.monotonic()
    later, _ = log.follow(position)
    assert later.size == 10_009
    assert time.monotonic() - began < 1
