"""The one text of a JSON value (RFC 8785), so that whoever hashes or signs it has the same octets.

Numbers are whole, and no larger than every reader keeps exactly (RFC 7493 2.2): an act measures nothing.
"""

from typing import Any

import orjson

from directory.base.json_text import read_json

_LARGEST = (1 << 53) - 1


def canonical(value: Any) -> bytes:
    """The text in UTF-8; ValueError for what has none: fractions, other keys than texts, lone surrogates."""
    try:
        return orjson.dumps(_ordered(value))
    except orjson.JSONEncodeError as error:
        raise ValueError(f"no JSON value: {error}") from error


def read_canonical(text: bytes) -> Any:
    """The value whose one text this is; ValueError for every other text, of the same value too."""
    value = read_json(text)
    if canonical(value) != text:
        raise ValueError("this is not the canonical text of its value (RFC 8785)")
    return value


def _ordered(value: Any) -> Any:
    """The same value, names in the order of their UTF-16 code units (RFC 8785 3.2.3)."""
    match value:
        case dict():
            # A name that is no text would be written as one, and be another value when read.
            return {name: _ordered(value[name]) for name in sorted(value, key=_code_units)}
        case list() | tuple():
            return [_ordered(element) for element in value]
        case None | bool() | str():
            return value
        case int() if -_LARGEST <= value <= _LARGEST:
            return value
        case _:
            raise ValueError(f"{type(value).__name__} has no place in a canonical text, or is too large")


def _code_units(name: Any) -> bytes:
    if not isinstance(name, str):
        # ValueError, as for every other value without a text.
        raise ValueError("names in a JSON object are texts")  # noqa: TRY004
    return name.encode("utf-16-be")
