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
from directory.identifiers import parse_domain
from directory.sync.layout import fault
from directory.sync.register import Reading, Register
from directory.sync.source import Member, refused
from directory.sync.staging import NULL, Staging

# 8,655 entries make 6 MB and 70,000 elements, four levels deep.
LARGEST = 64 << 20
MOST_ELEMENTS = 1_000_000
DEEPEST = 8
_YEARS = range(1970, 2200)
ROLES = {"list": re.compile(r"(?i)listeblanche.*\.xml")}
# One attribute of an RFC 4514 name: a comma may stand in a value behind a backslash.
_ORGANISATION = re.compile(r"(?:^|[,+])\s*O\s*=\s*((?:\\.|[^,+\\])+)", re.IGNORECASE)
_ESCAPED = re.compile(r"\\([,+\"\\<>;=# ])")

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
    try:
        for name, element in _elements(member):
            if name == "DateDeGeneration":
                generated_at = _instant(element.text or "")
            else:
                _read_entry(staging, staging.lines + 1, element)
    except DefusedXmlException as error:
        raise refused(
            "foreign-member", f"{member.name} declares entities, which no white list does."
        ) from error
    except (ParseError, LookupError, ValueError) as error:
        # Of an encoding that it does not know, or does not like, the parser says so in these ways.
        raise refused("truncated", f"{member.name} is not whole XML: {error}.") from error
    if not staging.lines:
        raise refused("no-rows", f"{member.name} holds no domain.")
    return Reading("trusted-domains-xml", generated_at)


def _elements(member: Member) -> Iterator[tuple[str, Element]]:
    """The whole `Domaine` and `DateDeGeneration` elements, by local name, forgotten once they are read."""
    depth = seen = 0
    for event, element in iterparse(io.BytesIO(_text(member)), events=("start", "end"), forbid_dtd=True):
        depth += 1 if event == "start" else -1
        seen += event == "start"
        if depth > DEEPEST or seen > MOST_ELEMENTS:
            raise refused("too-large", f"{member.name} is deeper or longer than any white list.")
        name = element.tag.rpartition("}")[2]
        if event == "end" and name in ("Domaine", "DateDeGeneration"):
            yield name, element
            element.clear()


def _text(member: Member) -> bytes:
    gathered = bytearray()
    for block in member.blocks():
        gathered += block
        if len(gathered) > LARGEST:
            raise refused("too-large", f"{member.name} is larger than {LARGEST >> 20} MB.")
    return bytes(gathered)


def _read_entry(staging: Staging, number: int, element: Element) -> None:
    given = {child.tag.rpartition("}")[2]: (child.text or "").strip() for child in element}
    line = "|".join(given.get(name, "") for name in ("Nom", "DNCertificatOperateur", "DateMAJ"))
    domain = given.get("Nom", "")
    try:
        if reason := fault("|".join(given.values())):
            raise refused(reason, "This entry is longer than any, or holds characters that no register has.")
        domain = parse_domain(domain)
        certificate_dn, operator = _operator(given.get("DNCertificatOperateur", ""))
        updated = _instant(given["DateMAJ"]).isoformat() if given.get("DateMAJ") else NULL
    except Refusal as refusal:
        spared = f"{domain} {given.get('DNCertificatOperateur', '')}"
        staging.reject(number, refusal.code, refusal.text, line, spared=spared)
        return
    shown = (operator, given.get("Description", ""), updated)
    digest = blake2b("|".join(shown).encode(), digest_size=16).hexdigest()
    staging.stage((str(number), domain, certificate_dn, digest, *shown))


def _operator(certificate_dn: str) -> tuple[str, str]:
    """The operator's certificate name, and the organisation within it."""
    found = _ORGANISATION.search(certificate_dn)
    if not found:
        raise refused("malformed-operator", "The operator's certificate name has no organisation.")
    return certificate_dn, _ESCAPED.sub(r"\1", found[1]).strip()


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

TRUSTED_DOMAINS = Register("trusted-domains", ROLES, TABLES, COPY, read, (), WANTED, APPLY)
