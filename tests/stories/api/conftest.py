"""The fixtures of `tests/api`, for stories that go through several of its wings."""

from tests.api.conftest import *  # noqa: F403 - fixtures are found by name
