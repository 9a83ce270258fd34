"""Expected refusals: what went wrong in kind, a stable code, and a sentence that may be shown to anyone.

Knows no HTTP status: `api/http/problems.py` holds the one table from kinds to statuses. Any other exception
than a `Refusal` is a bug, and its text is never shown.
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any


class Kind(Enum):
    """Why an act was refused, in terms that hold for LDAP, HTTP and the command line alike."""

    MALFORMED = "malformed"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not-found"
    GONE = "gone"
    CONFLICT = "conflict"
    UNACCEPTABLE = "unacceptable"
    TOO_LARGE = "too-large"
    TOO_LONG = "too-long"
    UNSUPPORTED = "unsupported"
    TOO_SLOW = "too-slow"
    TOO_MANY = "too-many"
    UNAVAILABLE = "unavailable"


class Refusal(Exception):  # noqa: N818 - a refusal is an answer, not an error of the program
    """An expected 'no'.

    `code` is a stable kebab-case word that clients may test for. `text` is a sentence for a person; `details`
    are public facts that help to mend the request.
    """

    details: Mapping[str, Any]

    def __init__(self, kind: Kind, code: str, text: str, **details: Any) -> None:
        super().__init__(text)
        self.kind = kind
        self.code = code
        self.text = text
        self.details = MappingProxyType(details)
