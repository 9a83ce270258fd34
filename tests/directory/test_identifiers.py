"""Numbers of the registers, as confirmed on published ones, and what must never pass for one."""

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from directory import identifiers
from directory.base.errors import Kind, Refusal
from directory.rules import search_form

DIGITS = st.text("0123456789", min_size=1, max_size=20)


@given(DIGITS)
def test_exactly_one_key_makes_a_number_pass(body: str) -> None:
    passing = [key for key in "0123456789" if identifiers.luhn_ok(body + key)]
    assert passing == [identifiers.luhn_key(body)]


@given(st.text("0123456789", min_size=8, max_size=8), st.integers(0, 10), st.integers(1, 9))
def test_one_wrong_digit_is_always_noticed(body: str, place: int, step: int) -> None:
    number = identifiers.luhn_key("10" + body)
    whole = "10" + body + number
    wrong = whole[:place] + str((int(whole[place]) + step) % 10) + whole[place + 1 :]
    with pytest.raises(Refusal) as caught:
        identifiers.parse_rpps(wrong)
    assert caught.value.code == "rpps-check-digit"


@given(DIGITS, st.data())
def test_a_swap_of_neighbours_is_noticed_but_for_zero_and_nine(body: str, data: st.DataObject) -> None:
    whole = body + identifiers.luhn_key(body)
    place = data.draw(st.integers(0, len(whole) - 2))
    pair = whole[place : place + 2]
    assume(pair[0] != pair[1] and set(pair) != {"0", "9"})
    assert not identifiers.luhn_ok(whole[:place] + pair[::-1] + whole[place + 2 :])


@given(st.text(max_size=30))
def test_nothing_but_canonical_text_comes_out_and_nothing_but_refusals_are_raised(text: str) -> None:
    parsers = (
        identifiers.parse_national_id, identifiers.parse_finess, identifiers.parse_siret,
        identifiers.parse_address, identifiers.parse_domain,
    )  # fmt: skip
    for parse in parsers:
        try:
            canonical = parse(text)
        except Refusal as refusal:
            assert refusal.kind is Kind.MALFORMED  # noqa: PT017 - any other exception fails the test too
        else:
            assert canonical.isascii()
            assert parse(canonical) == canonical


@pytest.mark.parametrize(
    "number", ["810100271385", "810107592585", "810099000019", "0012800736", "0010000206"]
)
def test_numbers_of_the_register_pass(number: str) -> None:
    assert identifiers.parse_national_id(number) == number


@pytest.mark.parametrize("number", ["810003461033", "810102727017", "810107582544"])
def test_published_test_numbers_pass_only_where_the_setting_says_so(number: str) -> None:
    assert identifiers.parse_national_id(number, strict=False) == number
    with pytest.raises(Refusal, match="check digit"):
        identifiers.parse_national_id(number)


@pytest.mark.parametrize(
    "text", ["", "8", "81009900001", "8100990000190", "910099000019", "8100990000l9", "8" + "\u0661" * 11]
)
def test_what_is_no_national_identifier_is_refused(text: str) -> None:
    with pytest.raises(Refusal):
        identifiers.parse_national_id(text)


@pytest.mark.parametrize("dash", ["-", "\u2010", "\u2011", "\u2012", "\u2013", "\u2014", "\u2212", " - "])
def test_dashes_between_groups_of_a_number_are_read_over(dash: str) -> None:
    assert identifiers.read_national_id(dash.join(("8", "10099", "000019"))) == "810099000019"
    assert identifiers.read_national_id(dash.join(("10", "099", "000019"))) == "810099000019"
    assert identifiers.read_finess(dash.join(("1", "750", "990012"))) == "750990012"
    assert identifiers.read_finess(dash.join(("2a", "000", "0012"))) == "2A0000012"
    assert identifiers.read_place(dash.join(("999", "000", "003", "00015"))) == "99900000300015"
    # A register that writes so has an error.
    with pytest.raises(Refusal):
        identifiers.parse_national_id(dash.join(("8", "10099000019")))


@pytest.mark.parametrize(
    "text", ["-810099000019", "8100990000-", "JEAN-PIERRE", "HOPITAL-9", "8--10099000019"]
)
def test_a_dash_that_parts_no_groups_makes_no_number(text: str) -> None:
    for read in (identifiers.read_national_id, identifiers.read_place):
        with pytest.raises(Refusal):
            read(text)


def test_people_known_by_their_employer_are_identifiers_too() -> None:
    assert identifiers.parse_national_id("3010000024/AB12") == "3010000024/AB12"
    with pytest.raises(Refusal):
        identifiers.parse_national_id("3010000025/AB12")


@pytest.mark.parametrize(
    "number",
    ["010000024", "010780054", "750712184", "750100125", "970102018", "250000700", "0B0152872", "2A0000154"],
)
def test_establishments_of_finess_pass_letters_without_a_key(number: str) -> None:
    assert identifiers.parse_finess(number.lower()) == number


@pytest.mark.parametrize("number", ["010000025", "01000002", "0100000244", "01000002é"])
def test_what_is_no_finess_number_is_refused(number: str) -> None:
    with pytest.raises(Refusal):
        identifiers.parse_finess(number)


def test_establishments_of_the_post_office_follow_its_own_rule() -> None:
    assert identifiers.parse_siret("356 000 000 00048") == "35600000000048"
    assert identifiers.parse_siret("35600000049837") == "35600000049837"
    with pytest.raises(Refusal):
        identifiers.parse_siret("35600000049838")


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("Dr.Alice@Medecin.MSSante.INVALID", "dr.alice@medecin.mssante.invalid"),
        (" a@b.invalid ", "a@b.invalid"),
        ("a@santé.invalid", "a@xn--sant-epa.invalid"),
        ("a@XN--SANT-EPA.invalid", "a@xn--sant-epa.invalid"),
        ("a@sante\u0301.invalid", "a@xn--sant-epa.invalid"),
        ("a@b.invalid.", "a@b.invalid"),
    ],
)
def test_an_address_has_one_form(given: str, canonical: str) -> None:
    assert identifiers.parse_address(given) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "", "a", "@b.invalid", "a@", "a@b", "a@b..invalid", "a@-b.invalid", "a@b_c.invalid", "a b@c.invalid",
        "a@b@c.invalid", '"a b"@c.invalid', ".a@b.invalid", "a.@b.invalid", "a..b@c.invalid",
        "a@[127.0.0.1]", "\N{KELVIN SIGN}@b.invalid", "é@b.invalid", "a\0@b.invalid", "a\n@b.invalid",
        "a" * 65 + "@b.invalid", "a@" + "b" * 64 + ".invalid", "a@" + "b.c" * 90 + ".invalid",
        "a@b.invalid..", "a@.", "a@ b.invalid", "a@b.invalid .", "a@b .invalid",
        "a@b.invalid\r\nBcc: c@d.invalid", "a@" + "é" * 70 + ".invalid",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(Refusal) as caught:
        identifiers.parse_address(text)
    assert caught.value.code == "malformed-address"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        # RFC 5892 2.6: letters of their own, which IDNA 2003 turned into ss, into a sigma, into nothing.
        ("mßante.invalid", "xn--mante-lqa.invalid"),
        ("σας.invalid", "xn--mxa8ab.invalid"),
        ("क्\u200dष.invalid", "xn--11b2ezcw70k.invalid"),
        # Not an i: only in Turkish, and in case folding.
        ("medec\u0131n.invalid", "xn--medecn-t9a.invalid"),
    ],
)
def test_a_letter_of_its_own_makes_another_domain(given: str, name: str) -> None:
    assert identifiers.parse_domain(given) == name
    assert identifiers.parse_domain(name) == name


@pytest.mark.parametrize(
    "text",
    [
        "ms\u017fante.invalid",  # long s
        "\uff4dssante.invalid",  # full width
        "mssante\u3002invalid", "mssante\uff0einvalid", "mssante\uff61invalid",  # other dots
        "mss\u00adante.invalid", "mss\u2060ante.invalid", "mss\ufeffante.invalid", "mss\u200bante.invalid",
        "mss\u200dante.invalid", "mss\u200cante.invalid", "mss\ufe0fante.invalid",
        "\N{KELVIN SIGN}ine.invalid", "\N{ANGSTROM SIGN}.invalid", "\N{OHM SIGN}.invalid",
        "MED\u0130CIN.invalid", "MÉDECIN.invalid", "ﬁlière.invalid", "m².invalid", "ⓜssante.invalid",
        "mssa\U0001d427te.invalid", "\u0301a.invalid", "a\u00b7b.invalid", "\ud800.invalid",
        # A-labels of what no U-label is, or written in a way of their own.
        "xn--mssante-.invalid", "xn--.invalid", "xn--mante-hna.invalid",
        "xn--9999999999999999.invalid", "xn--é.invalid", "xn--11b2ezcw70k9.invalid",
    ],
)  # fmt: skip
def test_what_older_rules_would_map_to_another_name_is_refused(text: str) -> None:
    with pytest.raises(Refusal) as caught:
        identifiers.parse_domain(text)
    assert caught.value.code == "malformed-domain"
    with pytest.raises(Refusal) as caught:
        identifiers.parse_address(f"x@{text}")
    assert caught.value.code == "malformed-address"


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("Échantillon-Démo Zoë", "ECHANTILLON DEMO ZOE"),
        ("d'Aubépine", "D AUBEPINE"),
        ("L\N{RIGHT SINGLE QUOTATION MARK}Hermitière", "L HERMITIERE"),
        ("Cœurdevey", "COEURDEVEY"),
        ("  Le  Goëllic ", "LE GOELLIC"),
        ('Martin "dit le brave"', "MARTIN DIT LE BRAVE"),
        ("", ""),
    ],
)
def test_names_are_searched_without_accents_hyphens_and_apostrophes(name: str, form: str) -> None:
    assert search_form(name) == form


@given(st.text(max_size=40))
def test_the_form_of_a_form_is_itself(name: str) -> None:
    assert search_form(search_form(name)) == search_form(name)


def test_no_other_module_turns_names_into_a_labels() -> None:
    """The codec of the standard library is IDNA 2003, which maps; one library, one place."""
    root = Path(__file__).resolve().parents[2]
    for wing in ("api", "directory", "pki"):
        for path in (root / wing).rglob("*.py"):
            told = path.read_text()
            assert 'encode("idna")' not in told, path
            assert path.name == "identifiers.py" or "import idna" not in told, path
