"""One establishment, told alike whichever edition of FINESS it was read from.

The first night of another edition must change nobody: the hash is over what all editions say. The category's
label is not in it, since its code says the same and the JSON edition has no labels.
"""

import re
from dataclasses import astuple, dataclass
from datetime import date
from hashlib import blake2b

from directory.base.errors import Refusal
from directory.identifiers import parse_finess
from directory.sync.formats.departments import OVERSEAS, department_of
from directory.sync.formats.files import refused
from directory.sync.formats.layout import fault
from directory.sync.formats.staging import NULL

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Establishment:
    """The cells of `staged`, in its order, but for line and hash; days are ISO, '' when there is none."""

    finess: str
    legal_finess: str
    siret: str
    name: str
    long_name: str
    category_code: str
    category_label: str
    street: str
    postal_line: str
    commune: str
    department: str
    telephone: str
    opened_on: str = ""
    closed_on: str = ""

    def row(self, number: int) -> tuple[str, ...]:
        """What is staged; Refusal with the reason of its rejection when it cannot be."""
        cells = astuple(self)
        joined = "|".join(cells)
        if reason := fault(joined) or ("control-character" if _SURROGATE.search(joined) else ""):
            raise refused(reason, "This establishment holds characters that no register has.")
        finess = parse_finess(self.finess)
        if not self.name:
            raise refused("no-name", "This establishment has no name.")
        shown = (*cells[1:-2], _day(self.opened_on), _day(self.closed_on))
        told = (*shown[:5], *shown[6:])
        digest = blake2b("|".join(told).encode(), digest_size=16).hexdigest()
        return (str(number), finess, digest, *shown)


def spoken_of(finess: str, name: str, siret: str) -> tuple[str, ...]:
    """Which establishment a row may speak of that cannot be taken: the one of its number, or else those of
    its SIRET or name.
    """
    try:
        return (parse_finess(finess),)
    except Refusal:
        return tuple(f"{what} {told}" for what, told in (("siret", siret), ("name", name)) if told)


def _day(cell: str) -> str:
    """An ISO day as COPY takes it; many establishments have no opening day."""
    if not cell:
        return NULL
    try:
        return date.fromisoformat(cell).isoformat()
    except ValueError as error:
        raise refused("bad-date", "The day of opening or closing is no day.") from error


def insee(department: str, commune: str) -> tuple[str, str]:
    """Department and commune by INSEE, from FINESS's department (two characters) and three digits."""
    if department not in OVERSEAS:
        whole = f"{department}{commune}" if commune else ""
        return department_of(whole, "", told=department), whole
    known = OVERSEAS[department]
    # 971 and 05 make 97105, which FINESS cuts as 9A and 105; what is not cut so is not known.
    return known, f"{known[:2]}{commune}" if commune.startswith(known[2]) else ""
