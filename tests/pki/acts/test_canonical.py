"""RFC 8785 as everybody writes it: ECMAScript's own serialiser is the judge."""

import json
import shutil
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from pki.acts.canonical import canonical, read_canonical

LARGEST = (1 << 53) - 1
TEXTS = some.text(some.characters(codec="utf-8"))
VALUES = some.recursive(
    some.none() | some.booleans() | some.integers(-LARGEST, LARGEST) | TEXTS,
    lambda inner: some.lists(inner) | some.dictionaries(TEXTS, inner),
    max_leaves=20,
)
# What RFC 8785 rests on (3.2.2 and 3.2.3), by the reader of JSON that it was written after.
BY_ECMASCRIPT = """
const told = JSON.parse(require("fs").readFileSync(0, "utf8"));
const inOrder = value => value === null || typeof value !== "object" ? JSON.stringify(value)
  : Array.isArray(value) ? "[" + value.map(inOrder).join(",") + "]"
  : "{" + Object.keys(value).sort().map(
      name => JSON.stringify(name) + ":" + inOrder(value[name])).join(",") + "}";
process.stdout.write(JSON.stringify(told.map(inOrder)));
"""


def test_the_order_and_escapes_of_the_rfc() -> None:
    value = {
        "\u20ac": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One", "\U0001f600": "Emoji: Grinning Face", "\u0080": "Control",
        "\u00f6": "Latin Small Letter O With Diaeresis",
    }  # fmt: skip
    names = list(json.loads(canonical(value)))
    assert names == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    assert canonical('\u20ac$\u000f\nA\'B"\\\\"/') == '"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'.encode()


@given(VALUES)
def test_a_value_has_one_text(value: Any) -> None:
    text = canonical(value)
    assert read_canonical(text) == value
    assert canonical(read_canonical(text)) == text


def test_ecmascript_writes_the_same() -> None:
    assert shutil.which("node")
    values: list[Any] = []

    @given(some.lists(VALUES, min_size=1, max_size=30))
    def collect(found: list[Any]) -> None:
        values.extend(found)

    collect()
    done = subprocess.run(
        ["node", "-e", BY_ECMASCRIPT], input=json.dumps(values), capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [canonical(value).decode() for value in values]


@pytest.mark.parametrize(
    "value",
    [1.5, float("nan"), LARGEST + 1, -LARGEST - 1, {1: "a"}, "\ud800", {"\ud800": 1}, b"a", {"a": {2}}],
)
def test_what_has_no_text_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical(value)


@pytest.mark.parametrize(
    "text",
    [
        b'{"b":1,"a":2}',
        b'{"a": 1}',
        b'{"a":1}\n',
        b'"\\u0041"',
        b'{"a":1,"a":1}',
        b"1.0",
        b"01",
        b"",
        b"\xff",
    ],
)
def test_another_text_of_a_value_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_canonical(text)
