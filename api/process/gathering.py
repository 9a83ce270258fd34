"""Those who ask for one verdict at the same time, asked of the record in one statement.

While one statement is under way the next questions gather. Under load a question costs a share of a round
trip; alone it waits for nobody. For a tenth of a second a statement vouches for what is remembered, unless
this host commits anything. So what was changed here counts at once, and what was changed elsewhere soon. What
an answer says, and to whom, is for who asks.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from queue import SimpleQueue
from typing import NamedTuple

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from directory.access import Token, hashed
from directory.base import commits
from directory.store import sources
from pki.verdict.memory import Mark, Memory
from pki.verdict.model import Side
from pki.verdict.present import Head, head_of, look, plan_once

_LOG = logging.getLogger("sceau.gathering")
# So many in one statement: who comes behind them waits some thousandths of a second.
_TOGETHER = 64
# Where several asked together, their next questions come within so long of one another.
_NEXT_SECONDS = 0.0002
# Dates of registers are read again after so long: registers are taken in by night.
_SOURCES_SECONDS = 1.0
# For so long a look at the record vouches for what is remembered, while nobody of this host commits.
VOUCHED_SECONDS = 0.1
# From then on the next look is taken while the last one still counts: nobody waits for it.
_RENEWED_SECONDS = 0.05
# Of those answered without a look, so many are looked up by the next one.
_ASKERS = 64


class Finding(NamedTuple):
    """What one look found: who asks, None when nobody who lives; the sides asked for; dates of registers."""

    token: Token | None
    sides: Sequence[Side]
    sources: Mapping[str, datetime | None]


class Question(NamedTuple):
    """One or two canonical addresses, asked by who showed `secret`.

    `told` is called once, on the thread of the gathering: with None where the record did not answer. What it
    gives back hands the answer over. That is called when all of one statement were told: what is handed over
    wakes other threads, and these would take turns with the one that answers.
    """

    addresses: tuple[str, ...]
    secret: str
    told: Callable[[Finding | None], Callable[[], None] | None]


class _Vouched(NamedTuple):
    """The last look, of which the memory keeps `mark`.

    `now` is the database's clock, `asked_at` and `told_at` are two of this machine's. `commits` stood in the
    file of this host before the look. `tokens` are of those who may ask, by their secrets.
    """

    mark: Mark
    now: datetime
    asked_at: float
    told_at: datetime
    commits: bytes
    tokens: Mapping[str, Token]
    sources: Mapping[str, datetime | None]


class Gathering:
    """Asks for all threads of a process, on a connection of its own, once `start()`ed."""

    def __init__(
        self,
        engine: Engine,
        memory: Memory,
        clock: Callable[[], datetime],
        around: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """`around` is what the answers of one statement are told within."""
        self._around = around
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._memory, self._clock = memory, clock
        # None is a look for its own sake.
        self._waiting: SimpleQueue[Question | None] = SimpleQueue()
        self._renewing = False
        self._link: Connection | None = None
        self._vouched: _Vouched | None = None
        self._answered: set[str] = set()
        self._sources: tuple[float, Mapping[str, datetime | None]] = (float("-inf"), {})

    def start(self) -> "Gathering":
        """Begin to ask; once in each process."""
        threading.Thread(target=self._serve, name="gathering", daemon=True).start()
        return self

    def ask(self, question: Question) -> None:
        """Have it asked with the next ones; returns at once."""
        self._waiting.put(question)

    def at_once(self, addresses: Sequence[str], secret: str) -> Finding | None:
        """What is remembered of these canonical addresses and of who shows `secret`, on any thread.

        None where the record must be asked: the last look is too old, or something was committed here since.
        """
        vouched = self._vouched
        token = None if vouched is None else vouched.tokens.get(secret)
        if vouched is None or token is None or vouched.commits != commits.last():
            return None
        # A machine that was held still meanwhile tells so by one of its clocks at least.
        age = max(_awake_or_not() - vouched.asked_at, (self._clock() - vouched.told_at).total_seconds())
        now = vouched.now + timedelta(seconds=age)
        if not 0 <= age < VOUCHED_SECONDS or token.expires_at <= now:
            return None
        if age > _RENEWED_SECONDS and not self._renewing:
            self._renewing = True
            self._waiting.put(None)
        sides = [self._memory.get(address, now, vouched.mark, whole=True) for address in addresses]
        if len(self._answered) < _ASKERS:
            self._answered.add(secret)
        known = [side for side in sides if side is not None]
        return Finding(token, known, vouched.sources) if len(known) == len(sides) else None

    def _serve(self) -> None:
        asked_together = 0
        while True:
            waiting = [self._waiting.get()]
            if asked_together > 1 and self._waiting.qsize() < _TOGETHER:
                time.sleep(_NEXT_SECONDS)
            while len(waiting) < _TOGETHER and not self._waiting.empty():
                waiting.append(self._waiting.get())
            questions = [question for question in waiting if question is not None]
            asked_together = len(questions)
            found = self._found(questions)
            for hand_over in self._told(questions, found):
                self._hand(hand_over)

    def _found(self, questions: Sequence[Question]) -> Sequence[Finding | None]:
        try:
            if self._link is None:
                self._link = self._engine.connect()
                plan_once(self._link)
            return self._look(self._link, questions)
        except SQLAlchemyError:
            _LOG.exception("the record did not answer those who asked together")
        except Exception:  # noqa: BLE001 - who asked is answered otherwise
            _LOG.exception("those who asked together could not be answered")
        self._part()
        self._let_go()
        return [None] * len(questions)

    def _let_go(self) -> None:
        """Answer those who came meanwhile as well: in turn, each would wait for the same silence."""
        while not self._waiting.empty():
            if (question := self._waiting.get()) is not None:
                self._hand(self._tell(question, None))

    def _told(
        self, questions: Sequence[Question], found: Sequence[Finding | None]
    ) -> list[Callable[[], None] | None]:
        ready = []
        try:
            with self._around():
                for question, finding in zip(questions, found, strict=True):
                    ready.append(self._tell(question, finding))
        except Exception:  # noqa: BLE001 - the thread serves others still
            _LOG.exception("what is around answers failed")
        return ready + [self._tell(question, None) for question in questions[len(ready) :]]

    def _tell(self, question: Question, finding: Finding | None) -> Callable[[], None] | None:
        try:
            return question.told(finding)
        except Exception:  # noqa: BLE001 - the thread serves others still
            _LOG.exception("an answer could not be told")
            return None

    def _hand(self, hand_over: Callable[[], None] | None) -> None:
        try:
            if hand_over is not None:
                hand_over()
        except Exception:  # noqa: BLE001 - the thread serves others still
            _LOG.exception("an answer could not be handed over")

    def remembers(self, address: str) -> bool:
        """Whether this is the canonical address of a mailbox that is remembered."""
        return self._memory.holds(address)

    def _part(self) -> None:
        self._vouched = None
        link, self._link = self._link, None
        try:
            if link is not None:
                link.invalidate()
                link.close()
        except Exception:  # noqa: BLE001 - this thread is the only one that asks
            _LOG.warning("a connection could not be closed", exc_info=True)

    def _look(self, link: Connection, questions: Sequence[Question]) -> list[Finding | None]:
        self._renewing = False
        # Before the record is asked: what is committed from here on may not be in what it answers.
        committed, asked_at, told_at = commits.here(), _awake_or_not(), self._clock()
        wanted = {address for question in questions for address in question.addresses}
        answered, self._answered = self._answered, set()
        secrets = {question.secret for question in questions} | answered
        if all(self._memory.holds(address, whole=True) for address in wanted):
            sides, head, mark = self._remembered(link, wanted, secrets)
        else:
            sides, head, mark = self._read(link, wanted, secrets)
        found = [sides] * len(questions)
        if wanted - sides.keys():
            # Something changed meanwhile, or holds no more: both sides of a question at one instant.
            whole = [sides.keys() >= set(question.addresses) for question in questions]
            again = {
                a for q, is_whole in zip(questions, whole, strict=True) if not is_whole for a in q.addresses
            }
            fresh, head, mark = self._read(link, again, secrets)
            found = [sides if is_whole else fresh for is_whole in whole]
        dates = self._dates(link)
        digests = {secret: hashed(secret) for secret in secrets}
        askers = {s: head.tokens[digest] for s, digest in digests.items() if digest in head.tokens}
        self._vouched = None
        if committed:
            self._vouched = _Vouched(mark, head.now, asked_at, told_at, committed, askers, dates)
        return [
            Finding(askers.get(q.secret), [of_it[address] for address in q.addresses], dates)
            for q, of_it in zip(questions, found, strict=True)
        ]

    def _remembered(
        self, link: Connection, wanted: set[str], secrets: set[str]
    ) -> tuple[dict[str, Side], Head, Mark]:
        """From memory, of which the record is asked what changed."""
        mark = self._memory.begin()
        head = head_of(link, seen=mark.seen, secrets=secrets, now=self._clock())
        mark = self._memory.hear(mark, head)
        sides = {address: self._memory.get(address, head.now, mark, whole=True) for address in wanted}
        return {address: side for address, side in sides.items() if side is not None}, head, mark

    def _read(
        self, link: Connection, wanted: set[str], secrets: set[str]
    ) -> tuple[dict[str, Side], Head, Mark]:
        mark = self._memory.begin()
        head, facts = look(link, sorted(wanted), seen=mark.seen, secrets=secrets, now=self._clock())
        mark = self._memory.hear(mark, head)
        self._memory.keep(facts.items(), mark)
        return {address: fact.side for address, fact in facts.items()}, head, mark

    def _dates(self, link: Connection) -> Mapping[str, datetime | None]:
        read_at, dates = self._sources
        asked_at = time.monotonic()
        if asked_at - read_at > _SOURCES_SECONDS:
            dates = sources(link)
            self._sources = asked_at, dates
        return dates


def _awake_or_not() -> float:
    """Seconds, those in which this machine slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
