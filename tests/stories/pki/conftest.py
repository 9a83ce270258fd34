"""The fixtures of `tests/pki`, for stories that go through several of its wings."""

from tests.pki.conftest import *  # noqa: F403 - fixtures are found by name
