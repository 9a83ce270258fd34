"""The white list of MSSanté (listeblanchemssante.xml): which operator may serve which domain.

An operator is its certificate's name; the same domain may stand under several. Contacts of persons are not
kept.
"""

import io
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import iterparse

from directory.base.errors import Refusal
from directory.distinguished_names import Spellings, attributes
from directory.identifiers import parse_domain
from directory.store import OPERATORS, operators_by_name
from directory.sync.formats.cells import plain, spaced
from directory.sync.formats.files import Member, Remark, refused
from directory.sync.formats.layout import fault
from directory.sync.formats.register import Reading, Register
from directory.sync.formats.staging import NULL, Staging

# 8,655 entries make 6 MB and 70,000 elements, four levels deep.
LARGEST = 64 << 20
MOST_ELEMENTS = 1_000_000
DEEPEST = 8
_YEARS = range(1970, 2200)
_USED = ("DNCertificatOperateur", "Description", "DateMAJ")
# "no element found": the text ends where something is still open.
_ENDS_EARLY = 3
_LIST_ENDS = re.compile(rb"</(?:[A-Za-z_][\w.-]*:)?ListeDomaines\s*>\s*\Z")
NO_CLOSING_TAG = Remark("no-closing-tag", "The list ends without its closing tag; its domains are all there.")
ROLES = {"list": re.compile(r"(?i)listeblanche.*\.xml")}

TABLES = """
CREATE TEMP TABLE staged (
    line integer, name text, certificate_dn text, digest uuid, operator text, description text,
    updated_at timestamptz
);
CREATE TEMP VIEW present AS
    SELECT d.name || ' ' || o.certificate_dn AS key, d.row_hash, d.departed_at
    FROM trusted_domain d JOIN operator o ON o.id = d.operator_id;
"""
COPY = "COPY staged FROM STDIN"


def read(members: Mapping[str, Member], staging: Staging, *, strict: bool) -> Reading:
    """Stage the entries; a "line" of this register is the ordinal number of an entry."""
    del strict  # about numbers of persons
    member = members["list"]
    generated_at: datetime | None = None
    operators = operators_by_name(staging.ask(OPERATORS))
    remarks: list[Remark] = []
    try:
        for name, element in _elements(member, remarks):
            if name == "DateDeGeneration":
                generated_at = _instant(element.text or "")
            else:
                _read_entry(staging, staging.lines + 1, element, operators)
    except DefusedXmlException as error:
        raise refused(
            "foreign-member", f"{member.name} declares entities, which no white list does."
        ) from error
    except (ParseError, LookupError, ValueError) as error:
        # Of an encoding that it does not know, or does not like, the parser says so in these ways.
        raise refused("truncated", f"{member.name} is not whole XML: {error}.") from error
    if not staging.lines:
        raise refused("no-rows", f"{member.name} holds no domain.")
    return Reading("trusted-domains-xml", generated_at, remarks=tuple(remarks))


def _elements(member: Member, remarks: list[Remark]) -> Iterator[tuple[str, Element]]:
    """The whole `Domaine` and `DateDeGeneration` elements, by local name, forgotten once they are read.

    The published list lacks the closing tag of its root: it is whole when its list of domains is closed.
    """
    depth = seen = 0
    closed = False
    text = _text(member)
    try:
        for event, element in iterparse(io.BytesIO(text), events=("start", "end"), forbid_dtd=True):
            depth += 1 if event == "start" else -1
            seen += event == "start"
            if depth > DEEPEST or seen > MOST_ELEMENTS:
                raise refused("too-large", f"{member.name} is deeper or longer than any white list.")
            name = element.tag.rpartition("}")[2]
            closed = event == "end" and depth == 1 and name == "ListeDomaines"
            if event == "end" and name in ("Domaine", "DateDeGeneration"):
                yield name, element
                element.clear()
    except ParseError as error:
        if not (closed and error.code == _ENDS_EARLY and _LIST_ENDS.search(text)):
            raise
        remarks.append(NO_CLOSING_TAG)


def _text(member: Member) -> bytes:
    gathered = bytearray()
    for block in member.blocks():
        gathered += block
        if len(gathered) > LARGEST:
            raise refused("too-large", f"{member.name} is larger than {LARGEST >> 20} MB.")
    return bytes(gathered)


def _read_entry(staging: Staging, number: int, element: Element, operators: Spellings) -> None:
    """Stage or reject one entry; only what is used of it is judged."""
    given = {child.tag.rpartition("}")[2]: child.text or "" for child in element}
    name = spaced(given.get("Nom", ""))
    dn, description, updated = (plain(given.get(used, "")) for used in _USED)
    line = f"{name}|{dn}|{updated}"
    try:
        if reason := fault(f"{line}|{description}"):
            raise refused(reason, "This entry is longer than any, or holds characters that no register has.")
        domain = parse_domain(name)
        certificate_dn, operator = _operator(dn, operators)
        changed = _instant(updated).isoformat() if updated else NULL
    except Refusal as refusal:
        spared = _spoken_of(name, operators.find(dn))
        staging.reject(number, refusal.code, refusal.text, line, spared=(spared,))
        return
    shown = (operator, description, changed)
    digest = blake2b("|".join(shown).encode(), digest_size=16).hexdigest()
    staging.stage((str(number), domain, certificate_dn, digest, *shown))


def _spoken_of(name: str, dn: str | None) -> str:
    """Whose right to which domain an entry may speak of that cannot be taken, as far as it tells."""
    try:
        return f"{parse_domain(name)} {dn or ''}"
    except Refusal:
        return f" {dn or ''}"


def _operator(dn: str, operators: Spellings) -> tuple[str, str]:
    """The operator's certificate name, as the record spells it, and the organisation within it."""
    if not _organisation(dn):
        raise refused("malformed-operator", "The operator's certificate name has no organisation.")
    spelt = operators.keep(dn)
    return spelt, _organisation(spelt)


def _organisation(dn: str) -> str:
    try:
        return next((value for kind, value in attributes(dn) if kind == "O"), "")
    except Refusal:
        return ""


def _instant(cell: str) -> datetime:
    try:
        instant = datetime.fromisoformat(cell.strip())
    except ValueError as error:
        raise refused("bad-date", "This is not an instant.") from error
    # PostgreSQL keeps instants of years that Python, shifted to another zone, cannot read back.
    if instant.year not in _YEARS:
        raise refused("bad-date", "No white list was made in that year.")
    # The official sample writes Z; an instant without a zone can only mean the same.
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


WANTED = """
    CREATE TEMP TABLE wanted AS
    SELECT name || ' ' || certificate_dn AS key, count(*) AS lines,
           sha256(string_agg(DISTINCT uuid_send(digest), ''::bytea ORDER BY uuid_send(digest))) AS row_hash
    FROM staged GROUP BY name, certificate_dn
"""
APPLY = (
    """
    INSERT INTO operator (certificate_dn, name, sys_from)
    SELECT DISTINCT certificate_dn, operator, CAST(:now AS timestamptz) FROM staged
    ON CONFLICT (certificate_dn) DO NOTHING
    """,
    # Of two entries for one operator and domain, the one changed last is shown.
    """
    CREATE TEMP VIEW named AS
    SELECT DISTINCT ON (s.name, o.id) s.*, o.id AS operator_id, w.row_hash, p.act
    FROM staged s JOIN operator o ON o.certificate_dn = s.certificate_dn
    JOIN planned p ON p.key = s.name || ' ' || s.certificate_dn JOIN wanted w ON w.key = p.key
    ORDER BY s.name, o.id, s.updated_at DESC NULLS LAST, s.description
    """,
    """
    INSERT INTO trusted_domain (name, operator_id, description, updated_at, row_hash, sys_from)
    SELECT name, operator_id, description, updated_at, row_hash, :now FROM named WHERE act = 'create'
    """,
    """
    UPDATE trusted_domain t
    SET description = n.description, updated_at = n.updated_at, row_hash = n.row_hash, departed_at = NULL
    FROM named n WHERE n.act = 'change' AND t.name = n.name AND t.operator_id = n.operator_id
    """,
    """
    UPDATE trusted_domain t SET departed_at = :now
    FROM operator o, planned p
    WHERE o.id = t.operator_id AND p.key = t.name || ' ' || o.certificate_dn AND p.act = 'remove'
    """,
)

# An entry that tells its domain, its operator or neither may be any right of that domain, of that operator,
# or any at all. None of them goes.
UNCLEAR = """
    DELETE FROM planned p USING trusted_domain d, operator o, spared s
    WHERE p.act = 'remove' AND o.id = d.operator_id AND p.key = d.name || ' ' || o.certificate_dn
    AND s.key IN (d.name || ' ', ' ' || o.certificate_dn, ' ')
"""

TRUSTED_DOMAINS = Register("trusted-domains", ROLES, TABLES, COPY, read, (), WANTED, APPLY, unclear=UNCLEAR)
