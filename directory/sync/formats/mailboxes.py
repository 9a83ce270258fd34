"""The mailboxes of MSSanté as published every night (Extraction_Correspondance_MSSante).

The address is the only key, and a few addresses stand on several lines. Lines of one holder are one mailbox
attached to several structures. Lines of different holders contradict each other, and no such line may move a
mailbox.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from hashlib import blake2b

from directory.base.errors import Refusal
from directory.feed.changes import Entity
from directory.identifiers import parse_address, parse_national_id, read_finess, read_place
from directory.model import MailboxKind
from directory.sync.formats.cells import spaced
from directory.sync.formats.files import Member, refused
from directory.sync.formats.layout import Column, Layout, rows
from directory.sync.formats.register import Reading, Register
from directory.sync.formats.scan import Keyed
from directory.sync.formats.staging import NULL, Staging

COLUMNS = (
    Column("kind", ("Type de BAL",), code=True),
    Column("address", ("Adresse BAL",), exact=True),
    Column("id_type", ("Type Identifiant PP", "Type d'identifiant PP")),
    Column("id_number", ("Identifiant PP",), code=True),
    Column("holder", ("Identification nationale PP",), code=True),
    Column("structure_type", ("Type identifiant structure",)),
    Column("structure_id", ("Identification Structure",), code=True),
    Column("service", ("Service de rattachement",)),
    Column("paperless", ("Dématérialisation",), optional=True),
    Column("structure_name", ("Raison Sociale structure BAL",)),
)
ROLES = {
    "mailboxes": re.compile(
        r"(?i)Extraction_Correspondance_MSSante.*\.(txt|csv)|annuaire-sante-extraction-des-bal-mssante.*\.txt"
    )
}
_KINDS = {kind.value for kind in MailboxKind}
_OF_STRUCTURES = {MailboxKind.ORGANISATION.value, MailboxKind.APPLICATION.value}
# TRE_G07.
_FINESS, _SIRET = "1", "3"
# FINESS numbers begin with a department: another word of nine characters is none where nothing says so.
_TELLS_ITS_TYPE = re.compile(r"[0-9][0-9A-Z][0-9]{7}|[0-9]{14}")
_LENGTH_OF_SIRET = 14
# An address that could only be read as itself; of any other the reader is asked.
_PLAIN = re.compile(r"[a-z0-9._-]+@[a-z0-9.-]+(?<!\.)")
# The register's own spelling is not documented; sources disagree. Anything else reads as "not said".
_PAPERLESS = {
    "O": "t", "OUI": "t", "TRUE": "t", "1": "t",
    "N": "f", "NON": "f", "FALSE": "f", "0": "f",
}  # fmt: skip

TABLES = """
CREATE TEMP TABLE staged (
    line integer, address text, digest uuid, owner text, kind text, holder text, structure_type text,
    structure_id text, structure_name text, service text, paperless boolean
);
CREATE TEMP VIEW present AS SELECT address AS key, row_hash, departed_at FROM mailbox;
"""
COPY = "COPY staged FROM STDIN"


def read(members: Mapping[str, Member], staging: Staging, *, strict: bool) -> Reading:
    """Stage the mailboxes."""
    layouts: list[Layout] = []

    @lru_cache(maxsize=64)
    def person(national_id: str) -> str:
        return parse_national_id(national_id, strict=strict)

    known = rows(
        members["mailboxes"],
        staging,
        COLUMNS,
        register="mailboxes",
        key="address",
        spared=_anybody,
        on_layout=layouts.append,
    )
    for number, line, cells in known:
        try:
            holder = person(cells[4]) if cells[4] else ""
            staging.stage(mailbox_row(number, cells, holder))
        except Refusal as refusal:
            detail = f"{cells[1]}: {refusal.text}"
            staging.reject(number, refusal.code, detail, line, spared=_spoken_of(cells))
    return Reading(layouts[0].name)


def _address(cell: str) -> str:
    """The record's spelling of an address; '' for what no mailbox is called."""
    try:
        return parse_address(cell)
    except Refusal:
        return ""


def _spelled(cell: str) -> str:
    return cell if _PLAIN.fullmatch(cell) else _address(spaced(cell))


def _anybody(key: str, line: str) -> tuple[str, ...]:
    """Whose a line may be of which the cells stand anywhere."""
    return tuple(_address(spaced(cell)) for cell in (key, *line.split("|")) if "@" in cell)


def _spoken_of(cells: tuple[str, ...]) -> tuple[str, ...]:
    """Which mailbox a row may speak of that cannot be taken: that of its address, or else those of its holder
    or structure.
    """
    if address := _address(cells[1]):
        return (address,)
    structure = cells[6]
    with suppress(Refusal):
        _, structure = structure_told(cells[5], structure)
    return tuple(f"of {named}" for named in (cells[4], structure) if named)


KEYED = Keyed(("mailboxes",), COLUMNS[1], _spelled)


def mailbox_row(number: int, cells: tuple[str, ...], holder: str) -> tuple[str, ...]:
    """What is staged of one line of a mailbox; cells of COLUMNS, Refusal with the reason of its rejection."""
    kind, address, id_type, id_number, _, structure_type, structure_id, service, paperless, name = cells
    address = parse_address(address)
    if kind not in _KINDS:
        raise refused("unknown-mailbox-kind", "This kind of mailbox is not known.")
    if holder != id_type + id_number:
        raise refused("identifier-disagrees", "The parts of the holder's identifier do not make the whole.")
    if kind == MailboxKind.PERSON.value and not holder:
        raise refused("no-holder", "A personal mailbox names no holder.")
    if kind in _OF_STRUCTURES and not structure_id:
        raise refused("no-structure", "A structure's mailbox names no structure.")
    structure_type, structure_id = structure_told(structure_type, structure_id)
    owner = owner_of(kind, holder, structure_type, structure_id)
    shown = (owner, kind, holder or NULL, structure_type, structure_id, name, service,
             _PAPERLESS.get(paperless.upper(), NULL))  # fmt: skip
    digest = blake2b("|".join(shown).encode(), digest_size=16).hexdigest()
    return (str(number), address, digest, *shown)


def structure_told(structure_type: str, number: str) -> tuple[str, str]:
    """The type and number of a structure in the record's spelling; Refusal for what is no FINESS number but
    said to be one.

    Without a type the number tells it, where it can be nothing else. Any other stays as it is: no rule is
    known for it, and it matches no place.
    """
    if structure_type == _FINESS:
        return structure_type, read_finess(number)
    if structure_type in ("", _SIRET):
        with suppress(Refusal):
            read = read_place(number)
            told = _SIRET if len(read) == _LENGTH_OF_SIRET else _FINESS
            if told == structure_type or (not structure_type and _TELLS_ITS_TYPE.fullmatch(read)):
                return told, read
    return structure_type, number


def owner_of(kind: str, holder: str, structure_type: str, structure_id: str) -> str:
    """Whose a mailbox is: a structure's may not pass to another structure by a second line either."""
    named = f"{kind}|{holder}"
    return f"{named}|{structure_type}{structure_id}" if kind in _OF_STRUCTURES else named


# Who was known by a number of ADELI that is gone is who succeeded to it, however long this list names the old
# one.
_SUCCEEDED = """
    UPDATE staged s
    SET holder = u.successor, digest = CAST(md5(s.digest || u.successor) AS uuid),
        owner = overlay(s.owner PLACING u.successor FROM length(s.kind) + 2 FOR length(s.holder))
    FROM succession u JOIN practitioner o ON o.national_id = u.national_id AND o.departed_at IS NOT NULL
    WHERE u.national_id = s.holder AND u.successor IS NOT NULL
"""
# An address two holders claim: the first line is taken if it is new, and a known mailbox is left as it
# stands.
SETTLE = (
    "CREATE INDEX ON staged (address, line)",
    "ANALYZE staged",
    _SUCCEEDED,
    """
    WITH first AS (
        SELECT DISTINCT ON (address) address, owner FROM staged ORDER BY address, line
    ), other AS (
        DELETE FROM staged s USING first f WHERE f.address = s.address AND f.owner <> s.owner RETURNING s.*
    ), told AS (INSERT INTO spared SELECT address FROM other)
    INSERT INTO rejected
    SELECT line, 'address-claimed-twice', address, concat_ws('|', kind, address, holder, structure_id)
    FROM other
    """,
)
WANTED = """
    CREATE TEMP TABLE wanted AS
    SELECT address AS key, count(*) AS lines,
           sha256(string_agg(DISTINCT uuid_send(digest), ''::bytea ORDER BY uuid_send(digest))) AS row_hash
    FROM staged GROUP BY address
"""
# Of several structures the first in order is shown on the mailbox, the others are attached.
TOLD = """
    CREATE TEMP VIEW told AS
    SELECT DISTINCT ON (s.address) s.address AS key, s.*, w.row_hash, p.act
    FROM staged s JOIN planned p ON p.key = s.address JOIN wanted w ON w.key = s.address
    WHERE p.act IN ('create', 'change')
    ORDER BY s.address, s.structure_type, s.structure_id, s.service, s.structure_name, s.paperless
"""
APPLY = (
    """
    CREATE TEMP VIEW named AS
    SELECT t.address, t.kind, t.holder, t.structure_type, t.structure_id, t.paperless, t.row_hash, t.act,
           coalesce(c.structure_name, t.structure_name) AS structure_name,
           coalesce(c.service, t.service) AS service
    FROM told t LEFT JOIN corrected c ON c.key = t.key
    """,
    """
    INSERT INTO mailbox (address, kind, holder, structure_type, structure_id, structure_name, service,
                         paperless, row_hash, sys_from)
    SELECT address, kind, holder, structure_type, structure_id, structure_name, service, paperless, row_hash,
           :now
    FROM named WHERE act = 'create'
    """,
    """
    UPDATE mailbox t
    SET kind = n.kind, holder = n.holder, structure_type = n.structure_type, structure_id = n.structure_id,
        structure_name = n.structure_name, service = n.service, paperless = n.paperless,
        row_hash = n.row_hash, departed_at = NULL
    FROM named n WHERE n.act = 'change' AND t.address = n.address
    """,
    "UPDATE mailbox t SET departed_at = :now FROM planned p WHERE p.key = t.address AND p.act = 'remove'",
    """
    DELETE FROM mailbox_attachment t USING planned p
    WHERE p.key = t.address AND p.act IN ('change', 'remove') AND NOT EXISTS (
        SELECT FROM staged s JOIN told n ON n.key = s.address
        WHERE p.act = 'change' AND s.address = t.address
        AND (s.structure_type, s.structure_id, s.service) = (t.structure_type, t.structure_id, t.service)
        AND (s.structure_type, s.structure_id, s.service) <> (n.structure_type, n.structure_id, n.service))
    """,
    """
    INSERT INTO mailbox_attachment (address, structure_type, structure_id, service, sys_from)
    SELECT DISTINCT s.address, s.structure_type, s.structure_id, s.service, CAST(:now AS timestamptz)
    FROM staged s JOIN told n ON n.key = s.address
    WHERE (s.structure_type, s.structure_id, s.service) <> (n.structure_type, n.structure_id, n.service)
    ON CONFLICT DO NOTHING
    """,
)

# Of a row whose address cannot be read, no mailbox of its holder or structure may have gone.
UNCLEAR = """
    DELETE FROM planned p USING mailbox m, spared s
    WHERE p.act = 'remove' AND m.address = p.key AND s.key IN ('of ' || m.holder, 'of ' || m.structure_id)
"""

MAILBOXES = Register(
    "mailboxes", ROLES, TABLES, COPY, read, SETTLE, WANTED, APPLY, KEYED, Entity.MAILBOX, TOLD, UNCLEAR
)
