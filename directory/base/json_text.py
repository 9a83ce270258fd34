"""Reading JSON that somebody else wrote: strictly, and no name twice in one object, at any depth.

Readers differ in which of two equal names counts (RFC 8259 4): what one checked, another would act on.
"""

import json
from typing import Any

import orjson

_MARK = b"\xef\xbb\xbf"


class RepeatedKeyError(ValueError):
    """A name stands twice in one object; `key` is the name."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the name {key!r} stands twice in one object")
        self.key = key


def read_json(text: bytes) -> Any:
    """The value, a byte order mark before it ignored (RFC 8259 8.1); ValueError for what is no JSON."""
    text = text.removeprefix(_MARK)
    value = orjson.loads(text)
    try:
        # Only names are of interest: the numbers were read above, exactly.
        json.loads(text, object_pairs_hook=_once, parse_int=_unread, parse_float=_unread)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value


def _once(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise RepeatedKeyError(key)
        seen.add(key)


def _unread(_: str) -> None:
    return None
