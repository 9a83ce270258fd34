"""Columns by name and rows by cells: the pipe-separated tables of the registers, whatever generation they are
of.

A column is found by its heading with accents, case and punctuation folded, never by its place. Headings drift
and columns are added (52 became 56). Knows nothing of what a cell means.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import itemgetter

from directory.sync.formats.cells import are_codes, code, is_plain, plain, spaced
from directory.sync.formats.files import LONGEST_LINE, Member, refused
from directory.sync.formats.staging import Staging

# An address: 64 characters, the @ and a domain of 253.
LONGEST_KEY = 320
_FOLDED_AWAY = re.compile(r"[^a-z0-9]+")
# C0 but the tab, C1, and the two separators PostgreSQL's COPY or a terminal would take for an end of line.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True)
class Column:
    """A field we read and the headings it is known under; one that is `optional` reads as '' where it is
    missing. One that holds a `code` is read as `cells.code` does, an `exact` one as `cells.spaced`.
    """

    field: str
    headings: tuple[str, ...]
    optional: bool = False
    code: bool = False
    exact: bool = False


@dataclass(frozen=True)
class Layout:
    """Where the columns stand in one file. `cells` picks them, in the order asked, from a split line and one
    ''. `private` are the places of what is not ours to keep.
    """

    name: str
    width: int
    key_place: int
    cells: Callable[[list[str]], tuple[str, ...]]
    private: frozenset[int] = frozenset()

    def key(self, line: str) -> str:
        """What a line that cannot be read says its key is, '' when even that is missing."""
        return plain(self.cell(line))[:LONGEST_KEY]

    def cell(self, line: str) -> str:
        """The cell where the key stands, as it stands; '' when the line does not reach that far."""
        cells = line.split("|", self.key_place + 1)
        return cells[self.key_place] if len(cells) > self.key_place else ""

    def public(self, line: bytes) -> bytes:
        """The line without its private cells."""
        return b"|".join(cell for place, cell in enumerate(line.split(b"|")) if place not in self.private)


def folded(heading: str) -> str:
    """A heading without accents, case, spaces and punctuation."""
    plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
    return _FOLDED_AWAY.sub("", plain.lower())


def match(
    register: str, header: str, columns: Sequence[Column], key: str, private: Sequence[str] = ()
) -> Layout:
    """The layout of a file with this header line. `key` names the field that rows are known by, `private` the
    headings of fields that are not ours to keep.

    Refusal `missing-column` or `ambiguous-column`, naming the heading.
    """
    headings = [folded(cell) for cell in header.removesuffix("|").split("|")]
    places = {column.field: _place(headings, column) for column in columns}
    # A missing optional column reads the '' that stands after the last cell.
    pick = itemgetter(*(len(headings) if place is None else place for place in places.values()))
    key_place = places[key]
    assert key_place is not None, "a key column is never optional"
    hidden = {folded(heading) for heading in private}
    hidden_places = frozenset(place for place, heading in enumerate(headings) if heading in hidden)
    return Layout(f"{register}-{len(headings)}", len(headings), key_place, pick, hidden_places)


def _place(headings: list[str], column: Column) -> int | None:
    """Where the first of the column's headings that the file has stands; the order of headings is their
    preference.
    """
    for heading in map(folded, column.headings):
        if headings.count(heading) > 1:
            raise refused("ambiguous-column", f"The column {column.headings[0]!r} appears more than once.")
        if heading in headings:
            return headings.index(heading)
    if column.optional:
        return None
    raise refused("missing-column", f"The column {column.headings[0]!r} is missing.")


def rows(
    member: Member,
    staging: Staging,
    columns: Sequence[Column],
    *,
    register: str,
    key: str,
    prefix: str = "",
    private: Sequence[str] = (),
    spared: Callable[[str, str], tuple[str, ...]],
    on_layout: Callable[[Layout], None] | None = None,
) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Each readable row: its line number, the line, the cells of `columns`, normalised. Unreadable ones go to
    `staging.reject`.

    `prefix` marks the reasons of a secondary file. `spared` tells, of the cell where the key should stand and
    of the line, whom an unreadable row may speak of. Nobody is then taken for absent. Whether the file is
    whole was seen before (`scan.py`); Refusal when a column is missing.
    """
    layout: Layout | None = None
    normal = normaliser(columns)
    for first, batch in member.numbered():
        for number, line in enumerate(batch, first):
            if layout is None:
                layout = match(register, line, columns, key, private)
                staging.discreet = bool(layout.private)
                if on_layout:
                    on_layout(layout)
                continue
            cells = line.split("|")
            if len(cells) == layout.width:
                cells.append("")
            whole = len(cells) == layout.width + 1 and not plain(cells[-1])
            if reason := fault(line) or ("" if whole else "wrong-cell-count"):
                detail = f"{member.name}: {len(cells)} cells of {layout.width}"
                named = spared(layout.key(line), line)
                staging.reject(number, prefix + reason, detail, line, spared=named)
                continue
            yield number, line, normal(line, layout.cells(cells))


def normaliser(columns: Sequence[Column]) -> Callable[[str, tuple[str, ...]], tuple[str, ...]]:
    """What makes the cells of `columns`, picked from a line, such as they are compared.

    Looked at cell by cell only where the line, or its codes together, are not so already.
    """
    are = tuple(code if column.code else spaced if column.exact else plain for column in columns)
    coded = [column.code for column in columns]

    def normal(line: str, cells: tuple[str, ...]) -> tuple[str, ...]:
        if is_plain(line, "|") and are_codes("|".join(compress(cells, coded))):
            return cells
        return tuple(normalised(cell) for normalised, cell in zip(are, cells, strict=True))

    return normal


def fault(line: str) -> str:
    """Why no line like this may be taken, whatever its columns; '' when it may."""
    if len(line) > LONGEST_LINE:
        return "line-too-long"
    if not line.isprintable() and _CONTROL.search(line):
        return "control-character"
    return ""
