"""What the record wants to stand in LDAP: for some keys of the feed, or for all of them page by page.

The only place of this package with queries. Certificates, CAs and CRLs come from the callables handed in,
since the directory does not know them as more than bytes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, text

from directory.base.db import transaction
from directory.feed.changes import Entity, place_of_crl
from directory.ldap.entry import (
    AuthorityEntry,
    CrlEntry,
    Entry,
    Key,
    authority_entry,
    crl_entry,
    dn_of,
    mailbox_entry,
    organisation_entry,
)
from directory.store import mailbox_facts, organisations

# The live certificates of each address, in DER: unexpired, unrevoked, not on hold; to encrypt with first.
CertificatesOf = Callable[[Connection, Sequence[str]], dict[str, list[bytes]]]
AuthoritiesOf = Callable[[Connection], Sequence[AuthorityEntry]]
# The CRLs in force: of these `CA/shard` keys (unknown ones are left out), or of all shards for None.
CrlsOf = Callable[[Connection, Sequence[str] | None], Sequence[CrlEntry]]

_MAILBOXES = text(
    "SELECT address FROM mailbox WHERE departed_at IS NULL AND listed AND address > :after"
    " ORDER BY address LIMIT :limit"
)
_ORGANISATIONS = text(
    "SELECT finess FROM organisation WHERE departed_at IS NULL AND finess > :after"
    " ORDER BY finess LIMIT :limit"
)
_MAILBOXES_OF = text(
    "SELECT address FROM mailbox WHERE departed_at IS NULL AND listed"
    " AND address = ANY(CAST(:words AS text[]))"
)
_ORGANISATIONS_OF = text(
    "SELECT finess FROM organisation WHERE departed_at IS NULL AND finess = ANY(CAST(:words AS text[]))"
)
_MORE = text("SELECT true FROM mailbox WHERE departed_at IS NULL AND listed OFFSET :count LIMIT 1")
_VERSION = text("SELECT CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text)")


@dataclass(frozen=True)
class Target:
    """One name in the tree and what should stand there (None: nothing). No `key`: it is not ours."""

    key: Key | None
    dn: str
    entry: Entry | None


@dataclass(frozen=True)
class DesiredEntries:
    """Targets as the record had them in one snapshot, and the number that entries written from it carry.

    `version` is the snapshot's first unassigned transaction number: a later snapshot never has a lower one.
    """

    targets: tuple[Target, ...]
    version: int


@dataclass(frozen=True)
class Record:
    """How to read, from one connection, all that LDAP shows below `suffix`."""

    suffix: str
    certificates_of: CertificatesOf
    authorities_of: AuthoritiesOf
    crls_of: CrlsOf

    def wanted(self, connection: Connection, keys: Sequence[Key], now: datetime) -> DesiredEntries:
        """The targets of `keys`, in their order, without practitioners: they have no entry of their own."""
        entries = self._entries(connection, keys, now)
        targets = tuple(
            Target(key, dn_of(key, self.suffix), entries.get(key))
            for key in keys
            if key[0] is not Entity.PRACTITIONER
        )
        return DesiredEntries(targets, int(connection.execute(_VERSION).scalar_one()))

    def all_keys(self, engine: Engine, page: int = 500) -> Iterator[list[Key]]:
        """Every key that may have an entry, CAs before their CRLs; a short transaction for each page."""
        with transaction(engine, read_only=True) as connection:
            yield self.pki_keys(connection)
        for entity in (Entity.ORGANISATION, Entity.MAILBOX):
            after = ""
            while True:
                with transaction(engine, read_only=True) as connection:
                    keys = keys_after(connection, entity, after, page)
                if not keys:
                    break
                yield keys
                after = keys[-1][1]

    def pki_keys(self, connection: Connection) -> list[Key]:
        """The keys of all CAs, then of all CRLs in force."""
        authorities = [(Entity.AUTHORITY, authority.id) for authority in self.authorities_of(connection)]
        crls = [
            (Entity.CRL, place_of_crl(crl.authority_id, crl.shard)) for crl in self.crls_of(connection, None)
        ]
        return [*authorities, *crls]

    def _entries(self, connection: Connection, keys: Sequence[Key], now: datetime) -> dict[Key, Entry | None]:
        words = {entity: [word for kind, word in keys if kind is entity] for entity in Entity}
        entries: dict[Key, Entry | None] = {}
        if addresses := words[Entity.MAILBOX]:
            certificates = self.certificates_of(connection, addresses)
            for address, facts in mailbox_facts(connection, addresses).items():
                held = certificates.get(address, ())
                entries[Entity.MAILBOX, address] = mailbox_entry(facts, held, self.suffix, now)
        if numbers := words[Entity.ORGANISATION]:
            for finess, organisation in organisations(connection, numbers).items():
                entries[Entity.ORGANISATION, finess] = organisation_entry(organisation, self.suffix, now)
        if words[Entity.AUTHORITY]:
            for authority in self.authorities_of(connection):
                entries[Entity.AUTHORITY, authority.id] = authority_entry(authority, self.suffix)
        if shards := words[Entity.CRL]:
            for crl in self.crls_of(connection, shards):
                entries[Entity.CRL, place_of_crl(crl.authority_id, crl.shard)] = crl_entry(crl, self.suffix)
        return entries


def keys_after(connection: Connection, entity: Entity, after: str, limit: int) -> list[Key]:
    """The next `limit` keys of mailboxes or organisations that may show, after the key `after`."""
    query = _MAILBOXES if entity is Entity.MAILBOX else _ORGANISATIONS
    words = connection.execute(query, {"after": after, "limit": limit}).scalars()
    return [(entity, word) for word in words]


def may_stand(connection: Connection, keys: Sequence[Key]) -> set[Key]:
    """Those of these mailboxes and organisations that `keys_after` would give."""
    known: set[Key] = set()
    for entity, query in ((Entity.MAILBOX, _MAILBOXES_OF), (Entity.ORGANISATION, _ORGANISATIONS_OF)):
        words = [word for kind, word in keys if kind is entity]
        if words:
            known |= {(entity, word) for word in connection.execute(query, {"words": words}).scalars()}
    return known


def more_mailboxes_than(connection: Connection, count: int) -> bool:
    """Whether more mailboxes than `count` may show, as far as a key tells."""
    return bool(connection.execute(_MORE, {"count": count}).scalar())
