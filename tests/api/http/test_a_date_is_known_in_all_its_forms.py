"""HTTP-date has three forms (RFC 9110 5.6.7), and each of them is the same instant."""

import pytest

from api.http.dates import is_same_date

OURS = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize("sent", [OURS, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"])
def test_the_three_forms_of_the_specification_are_one_date(sent: str) -> None:
    assert is_same_date(sent, OURS)


@pytest.mark.parametrize(
    "sent",
    [
        None, "", "yesterday", "Sunday, 06-Nov-94 08:49:38 GMT", "Sun Nov  6 08:49:36 1994",
        "Sun Nov 16 08:49:37 1994", "Sun, 06 Nov 2094 08:49:37 GMT", "Monday, 06-Nov-94 08:49:37 GMT",
    ],
)  # fmt: skip
def test_another_date_and_what_is_none_are_not_ours(sent: str | None) -> None:
    assert not is_same_date(sent, OURS)
    assert not is_same_date(sent, "")
