"""Which part of the service asks, by who called: its statements run with that part's rights alone.

Tests arrange as the owner of the record. What a view, a job or the gate does in them is done as in an
installation where each part has a login of its own, so that a right that is lacking fails a test.
"""

import sys
from pathlib import Path
from types import FrameType
from typing import Any

from sqlalchemy import Engine, event

from directory.base.rights import PREFIX

ROOT = Path(__file__).resolve().parents[1]
# The innermost decides; a command on the host acts as the owner.
_PARTS = (
    ("tests/", ""),
    ("api/jobs/", "worker"),
    ("directory/sync/", "worker"),
    ("directory/ldap/publish", "worker"),
    ("api/ldap/gate.py", "gate"),
    ("pki/signing/inprocess.py", "signer"),
    ("api/cli/", ""),
    ("api/rest/", "web"),
    ("api/front/", "web"),
    ("api/pages/", "web"),
    ("api/health/", "web"),
    ("api/status/", "web"),
    ("api/http/", "web"),
    ("api/auth/", "web"),
)
_KNOWN: dict[str, str | None] = {}


def part_of(frame: FrameType | None) -> str:
    """The part that this call is made for, '' for the test itself and for commands."""
    while frame is not None:
        name = frame.f_code.co_filename
        if name not in _KNOWN:
            _KNOWN[name] = _part_of_file(name)
        # It numbers the log by a connection of its own, and verifies it by the worker's.
        part = "log" if frame.f_code.co_name == "sign_checkpoint" else _KNOWN[name]
        if part is not None:
            return part
        frame = frame.f_back
    return ""


def _part_of_file(name: str) -> str | None:
    try:
        path = str(Path(name).relative_to(ROOT))
    except ValueError:
        return None
    return next((part for prefix, part in _PARTS if path.startswith(prefix)), None)


def act_as_parts() -> None:
    """From now on, in this process, each connection that is taken out has the rights of who takes it."""

    @event.listens_for(Engine, "engine_connect")
    def take(connection: Any) -> None:
        part = part_of(sys._getframe(1))
        link = connection.connection.driver_connection
        _become(link, part)


def _become(link: Any, part: str) -> None:
    if getattr(link, "part", "") == part or link.pgconn.transaction_status != 0:
        return
    was, link.autocommit = link.autocommit, True
    link.execute(f"SET ROLE {PREFIX}{part}" if part else "RESET ROLE")
    link.autocommit = was
    link.part = part
