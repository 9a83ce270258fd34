"""Distinguished names are compared by what they say: RFC 4514 as it is written and as people write it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from directory.base.errors import Refusal
from directory.distinguished_names import Spellings, attributes, comparable

NAME = "CN=mss.exemple.invalid,OU=399900001100018,O=OPERATEUR FICTIF,ST=Doubs (25),C=FR"
SAME = {
    "spaces after the commas": NAME.replace(",", ", "),
    "types in lower case": NAME.replace("CN=", "cn=").replace("O=", "o="),
    "values in another case": NAME.replace("FICTIF", "Fictif"),
    "from the country down": ",".join(reversed(NAME.split(","))),
    "another order": ",".join(sorted(NAME.split(","))),
    "one relative name of two attributes": NAME.replace(",OU=", "+OU="),
    "the same, the other way round": "OU=399900001100018+CN=mss.exemple.invalid," + NAME.split(",", 2)[2],
    "a value in quotes": NAME.replace("OPERATEUR FICTIF", '"OPERATEUR FICTIF"'),
    "semicolons": NAME.replace(",", ";"),
    "two spaces in a value": NAME.replace("R F", "R  F"),
    "an escaped letter": NAME.replace("FICTIF", r"FICT\49F"),
    "types by number": NAME.replace("CN=", "2.5.4.3=").replace("O=", "OID.2.5.4.10="),
    "another name of a type": NAME.replace("ST=", "S="),
}
OTHER = {
    "another unit": NAME.replace("018,", "026,"),
    "another type": NAME.replace("OU=", "CN="),
    "one attribute fewer": NAME.rpartition(",")[0],
    "one attribute twice": f"{NAME},C=FR",
    "a comma that belongs to a value": NAME.replace("FICTIF,ST=", r"FICTIF\,ST="),
}


@pytest.mark.parametrize("written", SAME.values(), ids=SAME)
def test_another_way_to_write_a_name_is_the_same_name(written: str) -> None:
    assert comparable(written) == comparable(NAME)
    assert Spellings([NAME]).find(written) == NAME


@pytest.mark.parametrize("written", OTHER.values(), ids=OTHER)
def test_another_name_is_another(written: str) -> None:
    assert comparable(written) != comparable(NAME)
    assert Spellings([NAME]).find(written) is None


def test_values_are_read_without_their_escapes() -> None:
    assert attributes(r"CN=a,O=CHU\, BESAN\C3\87ON,C=FR")[1] == ("O", "CHU, BESANÇON")
    # Written by hand: no type follows, so that the comma is the name's.
    assert attributes("CN=a,O=SOCIETE, S.A.,C=FR")[1] == ("O", "SOCIETE, S.A.")


@pytest.mark.parametrize("text", ["", "OPERATEUR FICTIF", "=x", "CN", "CN=a,,"])
def test_what_is_no_name_is_refused_or_the_same_as_itself(text: str) -> None:
    if not text.startswith("CN=a"):
        with pytest.raises(Refusal):
            attributes(text)
    assert Spellings([text]).find(text) == text


def test_of_two_spellings_in_use_each_is_itself() -> None:
    other = SAME["spaces after the commas"]
    assert Spellings([NAME, other], [NAME, other]).find(other) == other
    assert Spellings([NAME, other], [NAME]).find(other) == NAME


@given(st.text(max_size=60))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    try:
        assert comparable(text) == comparable(text)
    except Refusal:
        assert Spellings([]).keep(text) == text
