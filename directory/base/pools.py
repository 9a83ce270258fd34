"""Threads that work for whoever asked: what they do counts as done in his context.

A job is known to get on by what is done in its context (`api/process/work.py`); a bare pool starts from an
empty one.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Pool(ThreadPoolExecutor):
    """A pool of threads, each of whose tasks runs in the context of who submitted it."""

    def submit(
        self, fn: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
        """As the base class; `map` comes by here too."""
        return super().submit(partial(copy_context().run, fn, *args, **kwargs))
