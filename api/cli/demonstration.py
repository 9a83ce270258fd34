"""The way to the demo, which lies beside the product in `scripts/demo.py`, and is loaded when a command asks.

No package imports it, so nothing that serves can come to rest on invented people.
"""

import importlib.util
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Protocol, cast

import click

from api.wiring import Container

PROGRAM = Path(__file__).resolve().parents[2] / "scripts" / "demo.py"


class Demonstration(Protocol):
    """What commands ask of the demo."""

    SETTINGS: dict[str, Any]

    def load(self, container: Container, show: Callable[[str, int], None]) -> None:
        """Fill an installation with the demo, or finish what an earlier try left undone."""

    def uncertified(self, container: Container, authority: str, count: int) -> list[tuple[str, str]]:
        """National id and address of people of this authority whom one may enrol."""

    def addresses_to_try(self, container: Container) -> list[str]:
        """One certified address of each operator."""


@cache
def demonstration() -> Demonstration:
    """The demo of this repository; a usage error where it is not installed with the rest."""
    spec = importlib.util.spec_from_file_location("sceau_demo", PROGRAM) if PROGRAM.exists() else None
    if spec is None or spec.loader is None:
        raise click.UsageError(f"The demo is not installed here: there is no {PROGRAM}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return cast("Demonstration", module)
