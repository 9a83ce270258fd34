"""Those who ask for one verdict at the same time, asked of the record in one statement.

While one statement is under way the next questions gather. Under load a question costs a share of a round
trip; alone it waits for nobody. What an answer says, and to whom, is for who asks.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from queue import SimpleQueue

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from directory.access import Token, hashed
from directory.store import sources
from pki.verdict.memory import Memory
from pki.verdict.model import Side
from pki.verdict.present import look, look_for_bytes, plan_once, with_bytes

_LOG = logging.getLogger("sceau.gathering")
# So many in one statement: who comes behind them waits some thousandths of a second.
_TOGETHER = 64
# Dates of registers are read again after so long: registers are taken in by night.
_SOURCES_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found: who asks, None when nobody who lives; the sides asked for; dates of registers."""

    token: Token | None
    sides: Sequence[Side]
    sources: Mapping[str, datetime | None]


@dataclass(frozen=True, slots=True)
class Question:
    """One or two canonical addresses, asked by who showed `secret`.

    `told` is called once, on the thread of the gathering: with None where the record did not answer.
    """

    addresses: tuple[str, ...]
    secret: str
    told: Callable[[Finding | None], None]


class Gathering:
    """Asks for all threads of a process, on a connection of its own, once `start()`ed."""

    def __init__(self, engine: Engine, memory: Memory, clock: Callable[[], datetime]) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._memory, self._clock = memory, clock
        self._waiting: SimpleQueue[Question] = SimpleQueue()
        self._link: Connection | None = None
        self._sources: tuple[float, Mapping[str, datetime | None]] = (float("-inf"), {})

    def start(self) -> "Gathering":
        """Begin to ask; once in each process."""
        threading.Thread(target=self._serve, name="gathering", daemon=True).start()
        return self

    def ask(self, question: Question) -> None:
        """Have it asked with the next ones; returns at once."""
        self._waiting.put(question)

    def _serve(self) -> None:
        while True:
            questions = [self._waiting.get()]
            while len(questions) < _TOGETHER and not self._waiting.empty():
                questions.append(self._waiting.get())
            for question, finding in zip(questions, self._found(questions), strict=True):
                self._tell(question, finding)

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
            self._tell(self._waiting.get(), None)

    def _tell(self, question: Question, finding: Finding | None) -> None:
        try:
            question.told(finding)
        except Exception:  # noqa: BLE001 - the thread serves others still
            _LOG.exception("an answer could not be told")

    def _part(self) -> None:
        link, self._link = self._link, None
        try:
            if link is not None:
                link.invalidate()
                link.close()
        except Exception:  # noqa: BLE001 - this thread is the only one that asks
            _LOG.warning("a connection could not be closed", exc_info=True)

    def _look(self, link: Connection, questions: Sequence[Question]) -> list[Finding | None]:
        wanted = {address for question in questions for address in question.addresses}
        if all(map(self._memory.holds, wanted)):
            sides, tokens = self._remembered(link, wanted, questions)
        else:
            sides, tokens = self._read(link, wanted, questions)
        found = [sides] * len(questions)
        if wanted - sides.keys():
            # Something changed meanwhile, or holds no more: both sides of a question at one instant.
            whole = [sides.keys() >= set(question.addresses) for question in questions]
            again = {
                a for q, is_whole in zip(questions, whole, strict=True) if not is_whole for a in q.addresses
            }
            fresh, tokens = self._read(link, again, questions)
            found = [sides if is_whole else fresh for is_whole in whole]
        dates = self._dates(link)
        return [
            Finding(tokens.get(hashed(q.secret)), [of_it[address] for address in q.addresses], dates)
            for q, of_it in zip(questions, found, strict=True)
        ]

    def _remembered(
        self, link: Connection, wanted: set[str], questions: Sequence[Question]
    ) -> tuple[dict[str, Side], Mapping[str, Token]]:
        """From memory, of which the record is asked what changed; certificates' bytes are read."""
        mark = self._memory.begin()
        recipients = {question.addresses[0] for question in questions}
        serials = [serial for address in recipients for serial in self._memory.serials(address)]
        secrets = {question.secret for question in questions}
        head, octets = look_for_bytes(link, serials, seen=mark.seen, secrets=secrets, now=self._clock())
        mark = self._memory.hear(mark, head)
        sides = {}
        for address in wanted:
            side = self._memory.get(address, head.now, mark)
            # Another thread may have read a certificate since that was not asked for here.
            with suppress(KeyError):
                if side is not None:
                    sides[address] = with_bytes(side, octets) if address in recipients else side
        return sides, head.tokens

    def _read(
        self, link: Connection, wanted: set[str], questions: Sequence[Question]
    ) -> tuple[dict[str, Side], Mapping[str, Token]]:
        mark = self._memory.begin()
        secrets = {question.secret for question in questions}
        head, facts = look(link, sorted(wanted), seen=mark.seen, secrets=secrets, now=self._clock())
        mark = self._memory.hear(mark, head)
        self._memory.keep(facts.items(), mark)
        return {address: fact.side for address, fact in facts.items()}, head.tokens

    def _dates(self, link: Connection) -> Mapping[str, datetime | None]:
        read_at, dates = self._sources
        asked_at = time.monotonic()
        if asked_at - read_at > _SOURCES_SECONDS:
            dates = sources(link)
            self._sources = asked_at, dates
        return dates
