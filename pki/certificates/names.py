"""Names as a certificate holds them: composed, of single spaces, within the lengths of RFC 5280. Pure."""

import unicodedata

# RFC 5280 appendix A.1, ub-common-name and ub-organization-name.
LONGEST_COMMON_NAME = 64


def person_name(given_name: str, family_name: str) -> str:
    """Given and family name as a common name: when too long, further given names go first.

    The surname and givenName attributes hold the whole in any case.
    """
    whole = plain(f"{given_name} {family_name}")
    if len(whole.encode()) > LONGEST_COMMON_NAME and given_name.strip():
        whole = plain(f"{given_name.split(maxsplit=1)[0]} {family_name}")
    return shortened(whole)


def shortened(text: str) -> str:
    """A name within the 64 octets that some count where the standard says characters."""
    return text.encode()[:LONGEST_COMMON_NAME].decode(errors="ignore").strip()


def plain(text: str) -> str:
    """A name as a certificate holds it: composed characters (NFC), single spaces, no control characters."""
    composed = unicodedata.normalize("NFC", text)
    if not composed.isprintable():
        composed = "".join(letter if letter.isprintable() else " " for letter in composed)
    return " ".join(composed.split())
