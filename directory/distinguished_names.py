"""Distinguished names as text (RFC 4514), compared by what they say (RFC 5280 7.1), however it is written.

The names here are written by hand, by many hands. They have a space after the comma, are in lower case, from
the country down or from the common name up. Pure; names within certificates are for `pki`.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache

from directory.base.errors import Kind, Refusal

# RFC 4514 3, and other spellings that are in use. They have spaces around separators, `;` for `,`, a value in
# quotes, and separators without a backslash that no type follows.
_TYPE = r"\s*(?:OID\.)?(?:[A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)*)\s*="
_QUOTED = r"""(?:\\.|[^"\\])*"""
_BARE = rf"(?:\\.|[^\\,;+]|[,;+](?!{_TYPE}))*"
_ATTRIBUTE = re.compile(
    rf"""({_TYPE})\s*(?:"({_QUOTED})"|({_BARE}))\s*([,;+]|\Z)""", re.DOTALL | re.IGNORECASE
)
_PAIRS = re.compile(rb"\\([0-9A-Fa-f]{2})|\\(.)", re.DOTALL)
_KNOWN_AS = {
    "COMMONNAME": "CN", "2.5.4.3": "CN", "SURNAME": "SN", "2.5.4.4": "SN", "2.5.4.5": "SERIALNUMBER",
    "COUNTRYNAME": "C", "2.5.4.6": "C", "LOCALITYNAME": "L", "2.5.4.7": "L",
    "STATEORPROVINCENAME": "ST", "S": "ST", "2.5.4.8": "ST", "STREETADDRESS": "STREET", "2.5.4.9": "STREET",
    "ORGANIZATIONNAME": "O", "2.5.4.10": "O", "ORGANIZATIONALUNITNAME": "OU", "2.5.4.11": "OU",
    "2.5.4.97": "ORGANIZATIONIDENTIFIER", "0.9.2342.19200300.100.1.25": "DC", "DOMAINCOMPONENT": "DC",
    "0.9.2342.19200300.100.1.1": "UID", "USERID": "UID",
    "E": "EMAILADDRESS", "EMAIL": "EMAILADDRESS", "1.2.840.113549.1.9.1": "EMAILADDRESS",
}  # fmt: skip

Attributes = tuple[tuple[str, str], ...]


# A list of thousands of domains names a few operators, over and over.
@lru_cache(maxsize=4096)
def attributes(name: str) -> Attributes:
    """Types and values as they are written, escapes resolved; Refusal MALFORMED `malformed-name`."""
    return tuple(_parsed(name))


@lru_cache(maxsize=4096)
def comparable(name: str) -> Attributes:
    """What two spellings of one name have in common; Refusal MALFORMED `malformed-name`.

    The order of attributes does not count, not even that of the relative names: both directions are in use.
    """
    return tuple(sorted((kind, _prepared(value)) for kind, value in attributes(name)))


class Spellings:
    """Names already known, found by any spelling.

    The first of two spellings of one name stands for both, but where both are `in_use`: then each is itself.
    """

    def __init__(self, names: Iterable[str], in_use: Collection[str] = ()) -> None:
        self._in_use = frozenset(in_use)
        self._spelt: dict[Attributes, str] = {}
        for name in names:
            self._spelt.setdefault(_or_itself(name), name)

    def find(self, name: str) -> str | None:
        """The known spelling of this name; None when it is not known."""
        return name if name in self._in_use else self._spelt.get(_or_itself(name))

    def keep(self, name: str) -> str:
        """The known spelling of this name, which is this one when there was none."""
        return name if name in self._in_use else self._spelt.setdefault(_or_itself(name), name)


def _or_itself(name: str) -> Attributes:
    """What is no name is the same as itself alone."""
    try:
        return comparable(name)
    except Refusal:
        return (("", name),)


def _parsed(name: str) -> Iterator[tuple[str, str]]:
    place, separator = 0, ","
    while separator:
        match = _ATTRIBUTE.match(name, place)
        if match is None:
            raise Refusal(Kind.MALFORMED, "malformed-name", "This is no distinguished name.", value=name[:80])
        told, quoted, bare, separator = match.groups()
        kind = told.strip(" \t\r\n=").upper().removeprefix("OID.")
        yield _KNOWN_AS.get(kind, kind), _unescaped(bare if quoted is None else quoted)
        place = match.end()


def _unescaped(value: str) -> str:
    """RFC 4514 3: a backslash before the character itself, or before two hexadecimal digits of its UTF-8."""
    whole = _PAIRS.sub(lambda pair: bytes.fromhex(pair[1].decode()) if pair[1] else pair[2], value.encode())
    return " ".join(whole.decode(errors="replace").split())


def _prepared(value: str) -> str:
    """RFC 4518 2: compatible letters and letter case do not count, nor how many spaces there are."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", value).casefold()).split())
