"""Those who ask together: answers of one statement are all made before the first is handed over."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime

import pytest
from sqlalchemy import create_engine

from api.process.gathering import Finding, Gathering, Question
from pki.verdict.memory import Memory


class Found(Gathering):
    """One whose record finds nobody, once it may look."""

    def __init__(self, around: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        super().__init__(create_engine("sqlite://"), Memory(), lambda: datetime.now(UTC), around)
        self.may_look = threading.Event()
        self.looks: list[int] = []

    def _found(self, questions: Sequence[Question]) -> Sequence[Finding | None]:
        assert self.may_look.wait(10)
        self.looks.append(len(questions))
        return [None] * len(questions)


def asked(said: list[str], name: str, over: threading.Semaphore, *, breaks: str = "") -> Question:
    def told(_: Finding | None) -> Callable[[], None]:
        said.append(f"told {name}")
        if breaks == "told":
            over.release()
            raise ValueError(name)
        return hand_over

    def hand_over() -> None:
        said.append(f"handed {name}")
        over.release()
        if breaks == "handed":
            raise ValueError(name)

    return Question((f"{name}@one.example",), "sceau_nobody", told)


def test_all_are_answered_before_the_first_is_handed_over() -> None:
    gathering, said, over = Found(), [], threading.Semaphore(0)
    for name in ("a", "b", "c"):
        gathering.ask(asked(said, name, over))
    gathering.may_look.set()
    gathering.start()
    assert all(over.acquire(timeout=10) for _ in range(3))
    assert said == ["told a", "told b", "told c", "handed a", "handed b", "handed c"]
    assert gathering.looks == [3]


def test_one_answer_that_fails_keeps_no_other_back() -> None:
    gathering, said, over = Found(), [], threading.Semaphore(0)
    gathering.ask(asked(said, "a", over, breaks="told"))
    gathering.ask(asked(said, "b", over, breaks="handed"))
    gathering.ask(asked(said, "c", over))
    gathering.may_look.set()
    gathering.start()
    assert all(over.acquire(timeout=10) for _ in range(3))
    gathering.ask(asked(said, "d", over))
    assert over.acquire(timeout=10)
    assert said == ["told a", "told b", "told c", "handed b", "handed c", "told d", "handed d"]


@contextmanager
def breaks_at_its_end() -> Iterator[None]:
    yield
    raise ValueError


@contextmanager
def breaks_at_its_beginning() -> Iterator[None]:
    raise ValueError
    yield


@pytest.mark.parametrize("around", [breaks_at_its_end, breaks_at_its_beginning])
def test_what_is_around_answers_keeps_none_back(around: Callable[[], AbstractContextManager[None]]) -> None:
    gathering, said, over = Found(around), [], threading.Semaphore(0)
    gathering.may_look.set()
    gathering.start()
    for name in ("a", "b"):
        gathering.ask(asked(said, name, over))
        assert over.acquire(timeout=10)
    assert said == ["told a", "handed a", "told b", "handed b"]
