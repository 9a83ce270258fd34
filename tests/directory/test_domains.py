"""Two spellings are one domain only where RFC 5891 and RFC 1034 say so, whatever characters they hold."""

import unicodedata
from contextlib import suppress

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from directory.base.errors import Refusal
from directory.identifiers import parse_address, parse_domain

TRUSTED = "medecin.mssante.invalid"
# What IDNA 2003, UTS 46 or a change of case turns into letters of the trusted name, or into nothing.
LOOKALIKES = (
    "ß\u017fς\u0131\u0130\u212a\u212b\u2126\u00ad\u200b\u200c\u200d\u2060\ufe0f\ufeff\u034f"
    "\u3002\uff0e\uff61\uff4d\uff45\uff44\uff43\uff49\uff4eⓜⓢªº²ﬁﬆ℡\u0345"
    "\u217f\u217e\u217d\u2170\U0001d426\U0001d42céÉ\u0301\u0307"
)


def by_ascii_case_nfc_final_dot_and_a_label(spelling: str) -> str:
    """What may make no difference, written without the library that is looked at."""
    letters = unicodedata.normalize("NFC", spelling)
    lowered = "".join(letter.lower() if letter.isascii() else letter for letter in letters)
    labels = lowered.removesuffix(".").split(".")
    return ".".join(
        label if label.isascii() else "xn--" + label.encode("punycode").decode() for label in labels
    )


@st.composite
def disguised(draw: st.DrawFn) -> str:
    """The trusted name with some places replaced, and some letters put between."""
    letters = list(TRUSTED)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(letters) - 1))
        new = draw(st.sampled_from(LOOKALIKES) | st.characters())
        letters[at : at + draw(st.integers(0, 2))] = [new]
    return "".join(letters)


@settings(max_examples=1000)
@given(disguised())
def test_no_disguise_becomes_the_trusted_domain(spelling: str) -> None:
    assume(spelling == spelling.strip())
    with suppress(Refusal):
        if parse_domain(spelling) == TRUSTED:
            assert by_ascii_case_nfc_final_dot_and_a_label(spelling) == TRUSTED
            assert spelling.isascii()


@settings(max_examples=500)
@given(disguised() | st.text(max_size=40))
def test_what_is_read_is_its_own_form_and_says_no_other_name(spelling: str) -> None:
    assume(spelling == spelling.strip())
    with suppress(Refusal):
        name = parse_domain(spelling)
        assert name == by_ascii_case_nfc_final_dot_and_a_label(spelling)
        assert parse_domain(name) == name
        assert parse_address(f"x@{spelling}") == f"x@{name}"
