"""A run in a process of its own that dies at a named place."""

from pathlib import Path

from directory.base import failpoints
from directory.base.audit import Actor
from directory.base.db import connect_engine
from directory.sync.formats import staging
from directory.sync.runs.run import run_register
from tests.conftest import NOON


def take_and_die(url: str, file: str, spec: str) -> None:
    # Several batches of a small file, so that there is a place between two of them.
    staging.BATCH = 100
    failpoints.arm(spec)
    run_register(
        connect_engine(url),
        register="rpps",
        path=Path(file),
        now=NOON,
        actor=Actor("test:someone"),
        apply=True,
    )
