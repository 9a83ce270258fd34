"""The `sceau` command in process: how a test calls it and reads its answer (fixture: conftest)."""

import json
from collections.abc import Callable
from typing import Any

from click.testing import Result

Sceau = Callable[..., Result]


def told(result: Result) -> dict[str, Any]:
    """The one JSON object on standard output."""
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


def token(sceau: Sceau, name: str, role: str = "registrar", authority: str = "CNOM") -> str:
    made = sceau("token", "create", name, "--role", role, "--authority", authority, "--json")
    assert made.exit_code == 0, made.stderr
    return str(told(made)["secret"])
