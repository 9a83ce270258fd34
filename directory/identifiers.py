"""The numbers and addresses of the national registers, each with its check.

Pure text in, canonical text out; a value that comes out of here cannot be malformed. Whether it is
*attributed* to anyone is for the record to say.
"""

import re
import string
import unicodedata

import idna

from directory.base.errors import Kind, Refusal

# Twice a digit, its own digits added (9 -> 18 -> 1 + 8).
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_VALUE = {digit: int(digit) for digit in "0123456789"}
_TWICE = {digit: _DOUBLED[int(digit)] for digit in "0123456789"}

_ADELI = re.compile(r"[0-9][0-9A-B][0-9]{7}")
_FINESS = re.compile(r"[0-9A-Z]{9}")
# TRE_G07: 1 says that a FINESS number follows.
_WITH_TYPE = re.compile(r"1[0-9A-Z]{9}")
_SIRET = re.compile(r"[0-9]{14}")
_LOCAL_NUMBER = re.compile(r"[0-9A-Z]{1,10}")
# Text processors put hyphens, dashes and the minus sign for each other; Corsica's groups end with a letter.
_BETWEEN_GROUPS = re.compile(r"(?:(?<=[0-9])|(?<=2[ABab]))[-\u2010-\u2014\u2212](?=[0-9])")
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
# RFC 5321 4.1.2 Dot-string; quoted strings are legal there and nowhere in messaging in health.
_LOCAL_PART = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_LONGEST_LOCAL_PART = 64
_LONGEST_DOMAIN = 253
_A_LABEL = "xn--"
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
# La Poste numbers its own establishments: the digits add up to a multiple of five instead of passing Luhn.
_LA_POSTE = "356000000"


def luhn_ok(digits: str) -> bool:
    """Whether the last digit is the Luhn key of those before it (ISO/IEC 7812-1 annex B); False for
    non-digits.
    """
    if not (digits.isascii() and digits.isdigit()):
        return False
    backwards = digits[::-1]
    return (
        sum(map(_VALUE.__getitem__, backwards[::2])) + sum(map(_TWICE.__getitem__, backwards[1::2]))
    ) % 10 == 0


def luhn_key(digits: str) -> str:
    """The digit that makes `digits` pass Luhn once it is appended."""
    return next(key for key in "0123456789" if luhn_ok(digits + key))


def parse_rpps(text: str, *, strict: bool = True) -> str:
    """Eleven digits; Luhn unless `strict` is off, since the registry's own test people fail it
    (registers.md).
    """
    if len(text) != 11 or not (text.isascii() and text.isdigit()):  # noqa: PLR2004 - RPPS
        raise Refusal(Kind.MALFORMED, "malformed-rpps", "An RPPS number has eleven digits.", value=text[:40])
    if strict and not luhn_ok(text):
        raise Refusal(
            Kind.MALFORMED, "rpps-check-digit", "This RPPS number fails its check digit.", value=text
        )
    return text


def parse_adeli(text: str, *, strict: bool = True) -> str:
    """Nine characters, the first two a department (2A and 2B have letters, and no key anybody publishes)."""
    if not _ADELI.fullmatch(text):
        raise Refusal(
            Kind.MALFORMED, "malformed-adeli", "An ADELI number has nine characters.", value=text[:40]
        )
    if strict and text.isdigit() and not luhn_ok(text):
        raise Refusal(
            Kind.MALFORMED, "adeli-check-digit", "This ADELI number fails its check digit.", value=text
        )
    return text


def parse_finess(text: str) -> str:
    """Nine characters; Luhn over all nine when all are digits (no rule is published for Corsica and
    overseas).
    """
    text = _upper(text)
    if not _FINESS.fullmatch(text):
        raise Refusal(
            Kind.MALFORMED, "malformed-finess", "A FINESS number has nine characters.", value=text[:40]
        )
    if text.isdigit() and not luhn_ok(text):
        raise Refusal(
            Kind.MALFORMED, "finess-check-digit", "This FINESS number fails its check digit.", value=text
        )
    return text


def parse_siret(text: str) -> str:
    """Fourteen digits that pass Luhn, as the SIREN within them does; La Poste's establishments have their own
    rule.
    """
    text = text.replace(" ", "")
    if not _SIRET.fullmatch(text):
        raise Refusal(
            Kind.MALFORMED, "malformed-siret", "A SIRET number has fourteen digits.", value=text[:40]
        )
    by_sum = text.startswith(_LA_POSTE) and sum(map(int, text)) % 5 == 0
    if not by_sum and not (luhn_ok(text) and luhn_ok(text[:9])):
        raise Refusal(
            Kind.MALFORMED, "siret-check-digit", "This SIRET number fails its check digit.", value=text
        )
    return text


def parse_national_id(text: str, *, strict: bool = True) -> str:
    """A person's national identifier (TRE_G08): one type digit, then the number.

    8 + RPPS, 0 + ADELI, 3 + FINESS + `/` + local number, 5 + SIRET + `/` + local number. `strict` turns the
    check digits of persons on; those of structures are always checked. Refusal MALFORMED otherwise.
    """
    text = _upper(text)
    kind, number = text[:1], text[1:]
    if kind == "8":
        return kind + parse_rpps(number, strict=strict)
    if kind == "0":
        return kind + parse_adeli(number, strict=strict)
    if kind in ("3", "5"):
        structure, _, local = number.partition("/")
        (parse_finess if kind == "3" else parse_siret)(structure)
        if _LOCAL_NUMBER.fullmatch(local):
            return text
    raise Refusal(
        Kind.MALFORMED,
        "malformed-national-id",
        "This is not a national identifier of a person.",
        value=text[:40],
    )


def read_national_id(text: str, *, strict: bool = True) -> str:
    """As `parse_national_id`, as people write it: in groups, and the eleven digits of RPPS without their 8.

    Only for what people ask: a register that writes so has an error.
    """
    together = _together(text)
    if len(together) == 11 and together.isascii() and together.isdigit():  # noqa: PLR2004 - RPPS
        return f"8{parse_rpps(together, strict=strict)}"
    try:
        return parse_national_id(together, strict=strict)
    except Refusal as refusal:
        if refusal.code != "malformed-national-id":
            raise
        sentence = f"{refusal.text} It has the digit of its type first: 8 before the eleven digits of RPPS."
        raise Refusal(refusal.kind, refusal.code, sentence, **refusal.details) from refusal


def _together(text: str) -> str:
    return _BETWEEN_GROUPS.sub("", "".join(text.split()))


def read_place(text: str) -> str:
    """The FINESS number or SIRET of a place, or the FINESS number of its legal entity, as people write it.

    Refusal MALFORMED, `malformed-finess` for what is neither.
    """
    together = _together(text)
    return parse_siret(together) if _SIRET.fullmatch(together) else read_finess(together)


def read_finess(text: str) -> str:
    """As `parse_finess`, as people write it: in groups, or with the 1 of TRE_G07 before it."""
    together = _upper(_together(text))
    return parse_finess(together[1:] if _WITH_TYPE.fullmatch(together) else together)


def parse_domain(text: str) -> str:
    """A domain in its one canonical form: lower case, two labels at least, all A-labels, without final dot.

    IDNA 2008 without any mapping (RFC 5891): only the case of ASCII letters and the composition of letters
    (NFC) make no difference. Whatever else would be turned into another name is refused, as MALFORMED.
    """
    return _domain(text.strip())


def parse_address(text: str) -> str:
    """A mailbox address in its one canonical form: lower case, the domain as A-labels; Refusal MALFORMED
    otherwise.

    The whole address is folded to lower case. No operator of the trust space tells local parts apart by case,
    and two records for one mailbox would be worse.
    """
    local, at, domain = text.strip().rpartition("@")
    # Lower case would turn the Kelvin sign into a plain k: two spellings of somebody else's address.
    local = local.lower() if local.isascii() else ""
    if not at or len(local) > _LONGEST_LOCAL_PART or not _LOCAL_PART.fullmatch(local):
        raise _malformed_address(text)
    try:
        return f"{local}@{_domain(domain)}"
    except Refusal as refusal:
        raise _malformed_address(text) from refusal


def address_or_none(text: str) -> str | None:
    """The same; None for what is no address."""
    try:
        return parse_address(text)
    except Refusal:
        return None


def _domain(text: str) -> str:
    try:
        # RFC 1034 3.1: the final dot says that the name is whole; it names nothing else.
        labels = [_label(label) for label in _composed(text).translate(_LOWER).removesuffix(".").split(".")]
    except ValueError as error:
        raise _malformed_domain(text) from error
    name = ".".join(labels)
    if len(labels) < 2 or len(name) > _LONGEST_DOMAIN:  # noqa: PLR2004 - no top-level domain has mailboxes
        raise _malformed_domain(text)
    return name


def _composed(text: str) -> str:
    """NFC (RFC 5891 5.2); ValueError where it would put one letter for another, as k for the Kelvin sign."""
    if text.isascii():
        return text
    if any(unicodedata.normalize("NFC", letter) != letter for letter in text):
        raise ValueError("a letter that NFC replaces by another")
    return unicodedata.normalize("NFC", text)


def _label(label: str) -> str:
    """The label as DNS has it; ValueError when it is none."""
    # Not `idna.encode`: it takes other characters for dots (U+3002 and its like).
    if not label.isascii() or label.startswith(_A_LABEL):
        label = idna.alabel(label).decode("ascii")
    if not _LABEL.fullmatch(label):
        raise ValueError("not a label of letters, digits and hyphens")
    return label


def _upper(text: str) -> str:
    """Upper case for ASCII only: of other letters it makes look-alikes (dotless i becomes I)."""
    return text.strip().upper() if text.isascii() else text


def _malformed_domain(text: str) -> Refusal:
    # As Python writes it: line ends, invisible letters and lone surrogates are seen, not sent.
    shown = ascii(text[:80])
    words = f"{shown} is not a domain name."
    if "*" in text:
        words = f"{shown} has a wildcard, which is refused: name each host in full."
    return Refusal(Kind.MALFORMED, "malformed-domain", words, value=text[:80])


def _malformed_address(text: str) -> Refusal:
    return Refusal(Kind.MALFORMED, "malformed-address", "This is not a mailbox address.", value=text[:80])
