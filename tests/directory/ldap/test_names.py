"""No value can break out of a distinguished name, and one name compares equal in all its spellings."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ldap3.utils.dn import parse_dn

from directory.ldap.names import join, split

# Everything PostgreSQL can hold; characters that lower() folds to others are no part of what is shown here.
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)


@given(WORDS)
@example("a+b=c,d")
@example('";\\<>#')
@example(" lead and trail ")
@example("#hash")
@example("\\")
@example(" ")
@example("Zoé, née D'Été")
def test_a_name_reads_back_as_what_was_written(value: str) -> None:
    assert split(join("mail", value, "ou=mailboxes", "o=sceau,c=fr")) == (
        ("mail", value.lower()),
        ("ou", "mailboxes"),
        ("o", "sceau"),
        ("c", "fr"),
    )


@given(st.text(st.characters(min_codepoint=33, max_codepoint=0x24F), min_size=1, max_size=30))
@example("a+b=c,d")
@example('x";\\<>#')
@example("#hash")
def test_another_parser_reads_the_same_name(value: str) -> None:
    parts = parse_dn(join("mail", value, "o=sceau"), escape=False)
    assert [attribute for attribute, _, _ in parts] == ["mail", "o"]
    assert [separator for _, _, separator in parts] == [",", ""]


@pytest.mark.parametrize(
    "spelling",
    [
        r"mail=a\+b@one.example,ou=Mailboxes,o=sceau,c=fr",
        r"mail=a\2Bb@one.example,ou=mailboxes,O=Sceau,C=FR",
        r"MAIL=A\2bB@one.example, ou=mailboxes, o=sceau, c=fr",
    ],
)
def test_spellings_of_one_name_compare_equal(spelling: str) -> None:
    assert split(spelling) == (("mail", "a+b@one.example"), ("ou", "mailboxes"), ("o", "sceau"), ("c", "fr"))


def test_what_is_no_name_is_refused() -> None:
    with pytest.raises(ValueError, match="not a distinguished name"):
        split("mailboxes")
