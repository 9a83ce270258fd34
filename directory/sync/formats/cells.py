"""One cell of a register as it is compared and kept: its white space, its accents, the letters of a code.

Every reader (columns, FINESS, white list, FHIR) takes its cells through here before anything is compared, so
that two spellings of one thing are one. What a cell means is for the reader.
"""

import re
import unicodedata

# Seen on no screen; a cell of nothing else says nothing.
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")
# What sources write where a nomenclature has no code to give.
_NO_CODE = frozenset(("0", "-", "."))


def plain(cell: str) -> str:
    """NFC, every white space a plain one, runs of it one, none at the ends, nothing invisible."""
    if cell.isascii():
        return " ".join(cell.split())
    return " ".join(unicodedata.normalize("NFC", _INVISIBLE.sub("", cell)).split())


def spaced(cell: str) -> str:
    """The white space of `plain` alone: for addresses and domains, whose letters are judged one by one. What
    NFC or a reader's eye would take for another letter names something else there.
    """
    return " ".join(cell.split())


def code(cell: str) -> str:
    """A code, in upper case, '' for what stands where a nomenclature has none to give.

    No nomenclature here tells two codes apart by case (TRE_G09 says so), and none has 0, - or a dot. Upper
    case for ASCII only: of other letters it makes look-alikes.
    """
    text = plain(cell)
    if text in _NO_CODE:
        return ""
    return text.upper() if text.isascii() else text


def is_plain(line: str, separator: str) -> bool:
    """Whether every cell of a line between separators is plain as it stands. Nearly all are, and looking at
    the line is quicker than at fifty cells.
    """
    # No white space is printable but the plain one, and nothing invisible is.
    return (
        line.isprintable()
        and "  " not in line
        and f" {separator}" not in line
        and f"{separator} " not in line
        and not line.startswith(" ")
        and not line.endswith(" ")
        and unicodedata.is_normalized("NFC", line)
    )


def are_codes(joined: str) -> bool:
    """Whether codes joined with `|` are all written as `code` writes them, their white space aside."""
    between = f"|{joined}|"
    return joined == joined.upper() and not ("|0|" in between or "|-|" in between or "|.|" in between)
