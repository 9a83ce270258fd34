"""FINESS, the register of establishments, in its two editions.

The CSV (cs1100502, frozen in May 2026) has one `structureet` row for an establishment and no headings. Its
first line says which edition it is and of which day. `geolocalisation` rows of its sister are counted and
ignored. The daily JSON is read by `finess_json.py`.
"""

import csv
import re
from collections.abc import Mapping
from datetime import date, datetime

from directory.base.errors import Refusal
from directory.feed.changes import Entity
from directory.sync.formats import finess_json
from directory.sync.formats.cells import code, is_plain, plain
from directory.sync.formats.establishment import Establishment, insee, spoken_of
from directory.sync.formats.files import FRANCE, OPEN_END, Member, Remark, refused
from directory.sync.formats.layout import fault
from directory.sync.formats.register import Reading, Register
from directory.sync.formats.staging import Staging

CELLS = 32
ROLES = {"structures": re.compile(r"(?i)(etalab[-_])?cs110050[27][-_].*\.csv|finess-structures-.*\.json")}
_HEADER = re.compile(r"finess;etalab;(\d{1,6});(20\d{2}-\d{2}-\d{2});?")
_FINESS_PLACE, _NAME_PLACE, _SIRET_PLACE = 1, 3, 22

# geolocalisation;number;x;y;source;day
_LEAST_SEPARATORS = 5

TABLES = """
CREATE TEMP TABLE staged (
    line integer, finess text, digest uuid, legal_finess text, siret text, name text, long_name text,
    category_code text, category_label text, street text, postal_line text, commune text, department text,
    telephone text, opened_on date, closed_on date
);
CREATE TEMP VIEW present AS SELECT finess AS key, row_hash, departed_at FROM organisation;
"""
COPY = "COPY staged FROM STDIN"


def read(members: Mapping[str, Member], staging: Staging, *, strict: bool) -> Reading:
    """Stage the establishments; Refusal `missing-header`, `no-rows` or `truncated` for what is no whole
    edition.
    """
    del strict  # about numbers of persons
    member = members["structures"]
    begins = next(member.blocks())
    member.check_encoding(begins)
    if begins.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        return finess_json.read(member, staging)
    return _read_csv(member, staging)


def _read_csv(member: Member, staging: Staging) -> Reading:
    edition: re.Match[str] | None = None
    number, whole = 0, True
    open_ends: list[Remark] = []
    for batch in member.lines(staging.recode, lambda: open_ends.append(OPEN_END)):
        for line in batch:
            number += 1
            if edition is None:
                edition = _edition(member.name, line)
            elif line.startswith("geolocalisation;"):
                staging.ignored += 1
                whole = line.count(";") >= _LEAST_SEPARATORS
            else:
                whole = _read_row(staging, number, line)
    if edition is None or not staging.lines:
        raise refused("no-rows", f"{member.name} holds no establishment.")
    if not whole:
        raise refused("truncated", f"{member.name}: the last line is not whole; the file was cut.")
    begun = datetime.fromisoformat(edition[2]).replace(tzinfo=FRANCE)
    return Reading(f"finess-{edition[1]}", begun, remarks=tuple(open_ends))


def _edition(name: str, line: str) -> re.Match[str]:
    """The first line, `finess;etalab;111;2026-05-12`: edition and day."""
    match = _HEADER.fullmatch(line)
    try:
        date.fromisoformat(match[2] if match else "")
    except ValueError as error:
        raise refused("missing-header", f"{name} does not begin as an edition of FINESS does.") from error
    assert match is not None
    return match


def _read_row(staging: Staging, number: int, line: str) -> bool:
    """Stage or reject one row; whether it had all its cells."""
    reason = fault(line)
    cells = line.split(";") if reason or '"' not in line else next(csv.reader([line], delimiter=";"))
    if reason or '"' in line or not is_plain(line, ";"):
        cells = [plain(cell) for cell in cells]
    whole = len(cells) == CELLS or (len(cells) == CELLS + 1 and not plain(cells[-1]))
    reason = reason or ("" if whole else "wrong-cell-count")
    if reason or cells[0] != "structureet":
        detail = f"{cells[0][:40]}: {len(cells)} cells of {CELLS}"
        staging.reject(number, reason or "unknown-row-type", detail, line, spared=tuple(map(code, cells)))
        return whole
    try:
        staging.stage(_establishment(number, cells))
    except Refusal as refusal:
        site, name, siret = code(cells[_FINESS_PLACE]), cells[_NAME_PLACE], code(cells[_SIRET_PLACE])
        staging.reject(number, refusal.code, refusal.text, line, spared=spoken_of(site, name, siret))
    return whole


def _establishment(number: int, cells: list[str]) -> tuple[str, ...]:
    (_, site, legal, name, long_name, _complement, _delivery, street_number, street_type, street, repetition,
     place, commune, department, _, postal_line, telephone, _fax, category, category_label, _, _, siret, _, _,
     _, _, _, opened_on) = cells[:29]  # fmt: skip
    line = " ".join(part for part in (street_number, repetition, street_type, street) if part) or place
    department, commune = insee(code(department), code(commune))
    return Establishment(code(site), code(legal), code(siret), name, long_name, code(category),
                         category_label, line, postal_line, commune, department, telephone,
                         opened_on).row(number)  # fmt: skip


# Two different rows for one number: the first is taken if the number is new, and a known establishment is
# left alone.
SETTLE = (
    "CREATE INDEX ON staged (finess, line)",
    "ANALYZE staged",
    """
    WITH other AS (
        DELETE FROM staged s USING staged f
        WHERE f.finess = s.finess AND f.digest <> s.digest AND f.line < s.line
        AND NOT EXISTS (SELECT FROM staged e WHERE e.finess = f.finess AND e.line < f.line)
        RETURNING s.*
    ), told AS (INSERT INTO spared SELECT finess FROM other)
    INSERT INTO rejected
    SELECT line, 'number-claimed-twice', finess, concat_ws('|', finess, name, postal_line) FROM other
    """,
    # The JSON edition does not name its categories: the record knows most names from the edition before.
    """
    UPDATE staged s SET category_label = known.label
    FROM (SELECT category_code, max(category_label) AS label FROM organisation
          WHERE category_label <> '' GROUP BY category_code) known
    WHERE s.category_label = '' AND s.category_code = known.category_code
    """,
)
WANTED = """
    CREATE TEMP TABLE wanted AS
    SELECT finess AS key, count(*) AS lines, uuid_send(max(digest::text)::uuid) AS row_hash
    FROM staged GROUP BY finess
"""
TOLD = """
    CREATE TEMP VIEW told AS
    SELECT DISTINCT ON (s.finess) s.finess AS key, s.*, p.act
    FROM staged s JOIN planned p ON p.key = s.finess WHERE p.act IN ('create', 'change')
"""
APPLY = (
    """
    CREATE TEMP VIEW named AS
    SELECT t.key, t.legal_finess, t.siret, t.category_code, t.category_label, t.commune, t.department,
           t.opened_on, uuid_send(t.digest) AS row_hash, t.act,
           coalesce(c.name, t.name) AS name, coalesce(c.long_name, t.long_name) AS long_name,
           coalesce(c.street, t.street) AS street, coalesce(c.postal_line, t.postal_line) AS postal_line,
           coalesce(c.telephone, t.telephone) AS telephone,
           coalesce(CAST(c.closed_on AS date), t.closed_on) AS closed_on
    FROM told t LEFT JOIN corrected c ON c.key = t.key
    """,
    """
    INSERT INTO organisation (finess, legal_finess, siret, name, long_name, category_code, category_label,
                              street, postal_line, commune, department, telephone, opened_on, closed_on,
                              row_hash, sys_from)
    SELECT key, legal_finess, siret, name, long_name, category_code, category_label, street, postal_line,
           commune, department, telephone, opened_on, closed_on, row_hash, :now
    FROM named WHERE act = 'create'
    """,
    """
    UPDATE organisation t
    SET legal_finess = n.legal_finess, siret = n.siret, name = n.name, long_name = n.long_name,
        category_code = n.category_code, category_label = n.category_label, street = n.street,
        postal_line = n.postal_line, commune = n.commune, department = n.department, telephone = n.telephone,
        opened_on = n.opened_on, closed_on = n.closed_on, row_hash = n.row_hash, departed_at = NULL
    FROM named n WHERE n.act = 'change' AND t.finess = n.key
    """,
    "UPDATE organisation t SET departed_at = :now FROM planned p WHERE p.key = t.finess AND p.act = 'remove'",
)

# Of a row whose number cannot be read, the establishment of that SIRET or name may not have gone.
UNCLEAR = """
    DELETE FROM planned p USING organisation o, spared s
    WHERE p.act = 'remove' AND o.finess = p.key
    AND (o.siret <> '' AND s.key = 'siret ' || o.siret OR s.key = 'name ' || o.name)
"""

FINESS = Register(
    "finess", ROLES, TABLES, COPY, read, SETTLE, WANTED, APPLY, None, Entity.ORGANISATION, TOLD, UNCLEAR
)
