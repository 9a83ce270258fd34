"""Distinguished names: written so that no character of a value can end it, compared whatever the spelling.

Pure; RFC 4514. Names are lists of one attribute and one value each, which is all our tree has.
"""

import re
from functools import lru_cache

Name = tuple[tuple[str, str], ...]

# RFC 4514 2.4; # and = need it in some places only, and some readers want it everywhere.
_SPECIAL = re.compile(r'([\\",+;<>=#])')
_ESCAPED = re.compile(rb"\\([0-9a-fA-F]{2}|.)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# A separator that is not itself escaped: an even number of backslashes before it.
_COMMA = re.compile(r"(?:[^\\,]|\\.)+", re.DOTALL)


def escape(value: str) -> str:
    """`value` as it may stand in a distinguished name."""
    escaped = _CONTROL.sub(lambda match: f"\\{ord(match[0]):02x}", _SPECIAL.sub(r"\\\1", value))
    if escaped[:1] == " ":
        escaped = "\\" + escaped
    if len(value) > 1 and value.endswith(" "):
        escaped = escaped[:-1] + "\\ "
    return escaped


def join(attribute: str, value: str, *parents: str) -> str:
    """The name of an entry: `join("mail", "a@b.example", "ou=mailboxes", "o=sceau,c=fr")`."""
    return ",".join((f"{attribute}={escape(value)}", *parents))


def parent(dn: str) -> str:
    """The name of the entry above, as it is written in `dn`; '' above the topmost."""
    first = _COMMA.match(dn)
    return "" if first is None else dn[first.end() + 1 :].lstrip(" ")


def split(dn: str) -> Name:
    """The parts of a distinguished name, lower case and unescaped: equal for all spellings of one name.

    ValueError when it is not a name, or one of its parts has several attributes (ours never have).
    """
    return tuple(_part(part) for part in _COMMA.findall(dn))


@lru_cache(maxsize=1024)
def _part(part: str) -> tuple[str, str]:
    attribute, equals, value = part.partition("=")
    if not equals:
        raise ValueError(f"not a distinguished name: {part!r}")
    trimmed = value.lstrip(" ")
    # A space at the end stays when it is escaped.
    bare = trimmed.rstrip(" ")
    if len(bare) < len(trimmed) and _ends_escaped(bare):
        bare += " "
    unescaped = _ESCAPED.sub(lambda match: _unescape(match[1]), bare.encode())
    return attribute.strip().lower(), unescaped.decode().lower()


def _ends_escaped(text: str) -> bool:
    return (len(text) - len(text.rstrip("\\"))) % 2 == 1


def _unescape(escaped: bytes) -> bytes:
    return bytes.fromhex(escaped.decode()) if len(escaped) == 2 else escaped  # noqa: PLR2004 - two hex digits
