"""A run in a process of its own that dies at a named place: `dying.py URL REGISTER FILE SPEC BATCH`."""

import sys
from pathlib import Path

from directory.base import failpoints
from directory.base.audit import Actor
from directory.base.db import connect_engine
from directory.sync import staging
from directory.sync.run import run_register
from tests.conftest import NOON

if __name__ == "__main__":
    url, register, file, spec, batch = sys.argv[1:]
    # Several batches of a small file, so that there is a place between two of them.
    staging.BATCH = int(batch)
    failpoints.arm(spec)
    report = run_register(
        connect_engine(url),
        register=register,
        path=Path(file),
        now=NOON,
        actor=Actor("test:someone"),
        apply=True,
    )
    sys.stdout.write(report.state)
