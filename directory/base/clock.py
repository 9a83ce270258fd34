"""The only place where the machine's clock is read.

Everything else takes `now` as an argument, so that a test or an auditor can ask about any instant.
"""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The present instant, aware, in UTC."""
    return datetime.now(UTC)
