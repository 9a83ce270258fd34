"""Which lines of a file say something that was not known: all are hashed as bytes, few are read.

The first pass looks at a whole file without decoding it. It sees header, ends of lines, cells of the last
line, and a hash of each run of lines that speak of one key. The database compares these with what the record
rests on (`register_known`), and a second pass reads the lines of `touched` keys alone. All of it is a hint:
rows read are compared by content afterwards, and a key read for nothing comes out unchanged. Nobody is taken
for gone but a person without a line in the file.
"""

from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from hashlib import blake2b
from itertools import chain

from sqlalchemy import Connection, text

from directory.sync.formats.cells import plain
from directory.sync.formats.files import OPEN_END, Member, Remark, decoded, refused
from directory.sync.formats.layout import Column, match
from directory.sync.formats.staging import BATCH, Staging

# To be raised whenever the same line would be read otherwise than before: every hash becomes unknown.
READING = 4
# Above this share of lines to read, picking them out saves nothing.
MOST_PICKED = 0.3

TABLES = """
CREATE TEMP TABLE scanned (key text, digest uuid, member smallint, line integer, lines integer);
CREATE TEMP TABLE touched (key text PRIMARY KEY);
"""
_COPY = "COPY scanned FROM STDIN"

# What the record holds must still be what the known lines made of it: other hands change it as well.
_TOUCHED = """
    INSERT INTO touched
    SELECT DISTINCT coalesce(s.key, r.key)
    FROM scanned s FULL JOIN (
        SELECT p.key, k.digest
        FROM present p LEFT JOIN (SELECT * FROM register_known WHERE register = :register) k
            ON k.key = p.key AND k.row_hash = p.row_hash AND p.departed_at IS NULL
    ) r ON r.digest = s.digest AND r.key = s.key
    WHERE s.digest IS NULL OR r.digest IS NULL
"""
_PICKED = """
    SELECT s.member, s.line, s.lines FROM scanned s JOIN touched t ON t.key = s.key
    ORDER BY s.member, s.line
"""
_IS_KNOWN = "SELECT EXISTS (SELECT FROM register_known WHERE register = :register)"
_FORGET = "DELETE FROM register_known WHERE register = :register"
_FORGET_TOUCHED = """
    DELETE FROM register_known k USING touched t WHERE k.register = :register AND k.key = t.key
"""
# A key with a row that was not taken is read again each night, so that it is told each night.
_REMEMBER = """
    INSERT INTO register_known (register, key, digest, row_hash)
    SELECT DISTINCT CAST(:register AS text), s.key, s.digest, w.row_hash
    FROM scanned s JOIN wanted w ON w.key = s.key
    JOIN (SELECT key, sum(lines) AS lines FROM scanned GROUP BY key) whole
        ON whole.key = w.key AND whole.lines = w.lines
    WHERE NOT EXISTS (SELECT FROM spared x WHERE x.key = s.key)
"""


@dataclass(frozen=True)
class Keyed:
    """How the lines of a register's members say whom they speak of.

    `roles` in the order they are scanned; `column` holds the key. `spelled` turns its cell into the record's
    spelling, in characters that COPY takes as they are. The rows of one key must all be spelled as that key;
    '' says that a cell names nothing, and such a line is always read. Cells under `private` headings are not
    hashed: a hash that is kept tells them to whoever tries all birthdays.
    """

    roles: tuple[str, ...]
    column: Column
    spelled: Callable[[str], str]
    private: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Picked(Member):
    """A member of which only the header and some runs of lines are read."""

    runs: "array[int]"  # first line, number of lines, first line, …

    def numbered(self) -> Iterator[tuple[int, list[str]]]:
        """The header, then the runs; one that lies in two blocks comes in two parts."""
        begin, place = 1, 0
        for chunk in self.chunks():
            end = begin + chunk.count(b"\n") + 1
            lines = chunk.split(b"\n") if begin == 1 or self._wanted(place, end) else []
            if begin == 1:
                yield 1, decoded(lines[:1])
            while self._wanted(place, end):
                first, after = self.runs[place], self.runs[place] + self.runs[place + 1]
                start = max(first, begin)
                yield start, decoded(lines[start - begin : after - begin])
                if after > end:
                    break
                place += 2
            begin = end

    def _wanted(self, place: int, end: int) -> bool:
        return place < len(self.runs) and self.runs[place] < end


def _picked(member: Member, runs: "array[int]") -> _Picked:
    return _Picked(**{name.name: getattr(member, name.name) for name in fields(Member)}, runs=runs)


class Scan:
    """One file's pass over its bytes; fills the temporary tables `scanned` and `touched`."""

    def __init__(self, connection: Connection, staging: Staging, register: str, keyed: Keyed) -> None:
        self._connection = connection
        self._staging = staging
        self._register = {"register": register}
        self._keyed = keyed
        self.lines = 0
        self.picked: int | None = None
        self.remarks: list[Remark] = []
        with connection.begin():
            staging.execute(TABLES)

    def read(self, members: Mapping[str, Member], *, strict: bool) -> None:
        """Hash every line; Refusal `missing-column`, `no-rows` or `truncated` for what is no whole file."""
        for number, role in enumerate(self._keyed.roles):
            if role in members:
                self._read_member(number, members[role], f"{READING}|{strict}|{number}|")

    def _read_member(self, number: int, member: Member, seed: str) -> None:
        open_ends: list[None] = []
        batches = self._batches(member, lambda: open_ends.append(None))
        header, *lines = next(batches, [b""])
        text_header = decoded([header])[0]
        column, private = self._keyed.column, self._keyed.private
        layout = match(column.field, text_header, (column,), column.field, private)
        seeded = blake2b(digest_size=16, key=blake2b(f"{seed}{text_header}".encode()).digest())
        spelled, seen, last = self._keyed.spelled, 0, b""
        rows: list[str] = []
        for key, first, group in _groups(chain([lines], batches), layout.key_place):
            digest = seeded.copy()
            digest.update(b"\n".join(map(layout.public, group) if layout.private else group))
            cell = key.decode() if key.isascii() else layout.cell(decoded(group)[0])
            rows.append(f"{spelled(cell)}\t{digest.hexdigest()}\t{number}\t{first}\t{len(group)}\n")
            seen, last = seen + len(group), group[-1]
            if len(rows) >= BATCH:
                self._staging.hand_over((_COPY, rows))
                rows = []
        self._staging.hand_over((_COPY, rows))
        self._staging.wait()
        # Without its end, only the separator that ends each line, where one does, tells that it is whole.
        closed = bool(open_ends) and text_header.endswith("|")
        _check_end(member, layout.width, seen, last, closed=closed)
        if open_ends:
            self.remarks.append(OPEN_END)
        self.lines += seen

    def _batches(self, member: Member, on_open_end: Callable[[], None]) -> Iterator[list[bytes]]:
        """The lines a block at a time; those that are no UTF-8 are counted, since not all will be decoded."""
        for chunk in member.chunks(on_open_end):
            lines = chunk.split(b"\n")
            if not chunk.isascii():
                decoded(lines, self._staging.recode)
            yield lines

    def compare(self) -> "Mapping[int, array[int]] | None":
        """The runs of lines to read, by the number of the role; None when all are to be read."""
        with self._connection.begin():
            self._connection.execute(text("ANALYZE scanned"))
            known = self._connection.execute(text(_IS_KNOWN), self._register).scalar_one()
            if not known:
                return None
            self._connection.execute(text(_TOUCHED), self._register)
            self._connection.execute(text("ANALYZE touched"))
            rows = self._connection.execute(text(_PICKED))
            runs: dict[int, array[int]] = {number: array("q") for number in range(len(self._keyed.roles))}
            picked = 0
            for member, line, lines in rows:
                picked += lines
                runs[member].extend((line, lines))
        if picked > self.lines * MOST_PICKED:
            return None
        self.picked = picked
        return runs

    def pick(self, members: Mapping[str, Member], runs: "Mapping[int, array[int]]") -> dict[str, Member]:
        """The members, of which those scanned give the header and these runs alone."""
        numbers = {role: number for number, role in enumerate(self._keyed.roles)}
        return {
            role: _picked(member, runs[numbers[role]]) if role in numbers else member
            for role, member in members.items()
        }

    def remember(self) -> None:
        """What this file said of the keys that were read; in the transaction that brings the record there."""
        forget = _FORGET if self.picked is None else _FORGET_TOUCHED
        self._connection.execute(text(forget), self._register)
        self._connection.execute(text(_REMEMBER), self._register)


def _groups(batches: Iterator[list[bytes]], place: int) -> Iterator[tuple[bytes, int, list[bytes]]]:
    """Runs of lines with one key: its cell, the number of the first line (the header was 1), the lines."""
    key, first, after = b"", 2, 2
    group: list[bytes] = []
    for lines in batches:
        for number, line in enumerate(lines, after):
            try:
                cell = line.split(b"|", place + 1)[place]
            except IndexError:
                cell = b""
            # What letters beyond ASCII mean is decided line by line.
            if group and (cell != key or not cell.isascii()):
                yield key, first, group
                group = []
            if not group:
                key, first = cell, number
            group.append(line)
        after += len(lines)
    if group:
        yield key, first, group


def _check_end(member: Member, width: int, seen: int, last: bytes, *, closed: bool) -> None:
    """Refuse a file without rows, or whose last line lacks cells; `closed`: it must end with a separator."""
    if not seen:
        raise refused("no-rows", f"{member.name} holds no row.")
    cells = decoded([last])[0].split("|")
    if not (len(cells) == width + 1 and not plain(cells[-1])) and (closed or len(cells) != width):
        raise refused("truncated", f"{member.name}: the last line is not whole; the file was cut.")
