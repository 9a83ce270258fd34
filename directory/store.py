"""What the record knows: of an address, a person, an establishment, now or as of an instant.

SQL only; whether what it finds is good or bad is for `directory.rules`. Private data is held back from all
that is read (`directory/privacy.py`), so that no channel has it. One statement per question, whatever the
number of addresses: each part is an index probe, so that 1 and 10,000 take the same road.

The past is asked with the same statements over `<table>_at(:at)`. The present is what is recorded as begun
and not yet ended. A fact that had begun when it was recorded is compared with no clock: a reader woken by the
feed may have a slower one. A measure with dates is compared with the database's clock as it reads, not as the
transaction began. A reader woken by its beginning may have begun before.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any, cast

import orjson
from sqlalchemy import Connection, TextClause, text

from directory import identifiers, privacy
from directory.base.locks import lock_all_until_commit, lock_key_sql, try_lock_until_commit
from directory.base.prepared_statement import Statement
from directory.distinguished_names import Spellings
from directory.feed.changes import Entity
from directory.model import Mailbox, MailboxFacts, MailboxKind, Organisation, Practice, Practitioner, Trust

REGISTERS = ("rpps", "finess", "mailboxes", "trusted-domains")

# A measure follows its person to the number that took the place of his: leaving ADELI lifts nothing. The
# numbers stand in an array so that each is a probe of an index, however many measures there are.
MEASURES = """(SELECT json_build_array(
         json_agg(DISTINCT x.kind) FILTER (WHERE x.starts_at <= coalesce(
             CAST(:at AS timestamptz), greatest(x.recorded_at, clock_timestamp()))),
         -- The next instant at which one of them begins or ends; of the past nothing is yet to come.
         min(CASE WHEN x.starts_at > greatest(x.recorded_at, clock_timestamp()) THEN x.starts_at
                  ELSE x.ends_at END) FILTER (WHERE CAST(:at AS timestamptz) IS NULL))
     FROM {measure} x WHERE x.national_id = ANY(ARRAY(
         SELECT p.national_id
         UNION ALL SELECT u.national_id FROM {succession} u WHERE u.successor = p.national_id))
     AND (x.ends_at IS NULL
          OR x.ends_at > greatest(x.starts_at, coalesce(CAST(:at AS timestamptz), clock_timestamp()))))"""

PERSON = (
    """json_build_array(p.national_id, p.title, p.family_name, p.given_name, p.departed_at,
    (SELECT json_agg(json_build_array(x.code, x.category) ORDER BY x.code, x.category)
     FROM {profession} x WHERE x.national_id = p.national_id),
    (SELECT json_agg(DISTINCT x.skill_code) FROM {skill} x WHERE x.national_id = p.national_id),
    (SELECT json_agg(json_build_array(x.profession_code, x.category, x.mode, x.sector, x.structure_id,
                                      x.finess, x.structure_name, x.street, x.postal_code, x.town,
                                      x.department, x.registered_by) ORDER BY x.digest)
     FROM {practice} x WHERE x.national_id = p.national_id),
    """  # noqa: S608 - constants of this module
    + MEASURES
    + ")"
)

ESTABLISHMENT = """json_build_array(o.finess, o.name, o.long_name, o.category_code, o.category_label,
    o.street, o.postal_line, o.department, o.closed_on, o.departed_at)"""

TRUSTS = """(SELECT json_agg(json_build_array(y.certificate_dn, y.name,
        x.suspended_at <= coalesce(CAST(:at AS timestamptz), 'infinity'),
        y.suspended_at <= coalesce(CAST(:at AS timestamptz), 'infinity')) ORDER BY y.certificate_dn)
    FROM {trusted_domain} x JOIN {operator} y ON y.id = x.operator_id
    WHERE x.name = split_part(asked.address, '@', 2) AND x.departed_at IS NULL)"""

# The owner of a mailbox's number: a place, or else the legal entity of several, of which an open one speaks
# for it. Or it is a SIRET. Each is looked for when the one before found nothing (COALESCE).
_AN_OPEN_ONE_FIRST = "ORDER BY o.departed_at IS NOT NULL, o.closed_on DESC NULLS FIRST, o.finess LIMIT 1"


def structure_sql(told: str) -> str:
    """An expression: what is `told` of the establishment that the mailbox `m` bears the number of."""
    return f"""coalesce(
    (SELECT {told} FROM {{organisation}} o WHERE m.finess <> '' AND o.finess = m.finess),
    (SELECT {told} FROM {{organisation}} o
     WHERE m.finess <> '' AND o.legal_finess = m.finess AND o.legal_finess <> '' {_AN_OPEN_ONE_FIRST}),
    (SELECT {told} FROM {{organisation}} o
     WHERE m.structure_type = '3' AND o.siret = m.structure_id AND o.siret <> '' {_AN_OPEN_ONE_FIRST}))"""  # noqa: S608 - constants of our own


# The array stands in a subquery so that the planner cannot count it. It then keeps one prepared plan for any
# number of addresses, where it would plan each question anew. That was most of what a question about the past
# took.
FACTS = f"""SELECT asked.address, CAST(json_build_array({TRUSTS},
    (SELECT json_build_array(m.kind, m.holder, m.structure_type, m.structure_id, m.structure_name, m.service,
                             m.listed, m.departed_at,
        (SELECT {PERSON} FROM {{practitioner}} p WHERE p.national_id = m.holder),
        {structure_sql(ESTABLISHMENT)})
     FROM {{mailbox}} m WHERE m.address = asked.address)) AS text)
FROM unnest((SELECT CAST(:addresses AS text[]))) AS asked (address)"""  # noqa: S608 - constants of this module

# Beside a person himself, for whoever looks at him; no verdict rests on it.
OTHER_NAMES = """(SELECT json_agg(DISTINCT jsonb_build_array(x.family_name, x.given_name))
    FROM {professional_name} x WHERE x.national_id = p.national_id)"""

PEOPLE = f"""SELECT CAST({PERSON} AS text), CAST({OTHER_NAMES} AS text) FROM {{practitioner}} p
WHERE p.national_id = ANY(CAST(:national_ids AS text[]))"""  # noqa: S608 - same

ESTABLISHMENTS = f"""SELECT CAST({ESTABLISHMENT} AS text) FROM {{organisation}} o
WHERE o.finess = ANY(CAST(:finess AS text[]))"""  # noqa: S608 - same

SOURCES = """SELECT asked.register, last.generated_at
FROM unnest(CAST(:registers AS text[])) AS asked (register)
LEFT JOIN LATERAL (
    SELECT generated_at FROM register_run r WHERE r.register = asked.register AND r.state = 'applied'
    AND NOT r.increment AND (CAST(:at AS timestamptz) IS NULL OR r.finished_at <= CAST(:at AS timestamptz))
    ORDER BY r.finished_at DESC LIMIT 1) AS last ON true"""

TABLES = (
    "mailbox", "practitioner", "profession", "skill", "practice", "measure", "organisation", "trusted_domain",
    "operator", "succession", "professional_name",
)  # fmt: skip


_MAY_SHOW = MappingProxyType(
    {
        Entity.MAILBOX: text(
            "SELECT address FROM mailbox WHERE departed_at IS NULL AND listed AND address > :after"
            " ORDER BY address LIMIT :limit"
        ),
        Entity.ORGANISATION: text(
            "SELECT finess FROM organisation WHERE departed_at IS NULL AND finess > :after"
            " ORDER BY finess LIMIT :limit"
        ),
        Entity.PRACTITIONER: text(
            "SELECT national_id FROM practitioner WHERE departed_at IS NULL AND national_id > :after"
            " ORDER BY national_id LIMIT :limit"
        ),
    }
)


def present_and_past(template: str, tables: Sequence[str] = TABLES) -> Mapping[bool, TextClause]:
    """The statement over the tables (False) and over the tables as they stood at :at (True)."""
    past = {table: f"{table}_at(CAST(:at AS timestamptz))" for table in tables}
    present = {table: table for table in tables}
    return MappingProxyType({False: text(template.format(**present)), True: text(template.format(**past))})


_FACTS = {is_past: Statement(query) for is_past, query in present_and_past(FACTS).items()}
# For who asks of one address and of something else at once: `asking_of`, then `facts_told`.
PRESENT_FACTS = _FACTS[False]
# A certificate asks of its mailbox four times within a second, and hardly anything has changed meanwhile.
_ASKED_AGAIN = 1024
_PEOPLE = present_and_past(PEOPLE)
_ESTABLISHMENTS = present_and_past(ESTABLISHMENTS)
_SOURCES = text(SOURCES)
_NUMBERS = text("""
    SELECT successor FROM succession
    WHERE national_id = ANY(CAST(:national_ids AS text[])) AND successor IS NOT NULL
    UNION ALL SELECT national_id FROM succession WHERE successor = ANY(CAST(:national_ids AS text[]))
""")
_OF_PLACES = """
    FROM unnest(CAST(:finess AS text[])) AS asked (finess) LEFT JOIN organisation o USING (finess)
    CROSS JOIN LATERAL (
        SELECT m.address, '' AS entity, '' AS siret FROM mailbox m
        WHERE m.finess = asked.finess AND m.finess <> '' AND m.holder IS NULL AND m.departed_at IS NULL
        UNION ALL
        SELECT m.address, o.legal_finess, '' FROM mailbox m
        WHERE m.finess = o.legal_finess AND m.finess <> '' AND m.holder IS NULL AND m.departed_at IS NULL
        AND NOT EXISTS (SELECT FROM organisation x WHERE x.finess = m.finess)
        UNION ALL
        SELECT m.address, '', o.siret FROM mailbox m
        WHERE m.structure_type = '3' AND m.structure_id = o.siret AND m.holder IS NULL
        AND m.departed_at IS NULL) AS of_it"""
_ADDRESSES_AT = text(
    f"SELECT asked.finess, array_agg(of_it.address ORDER BY of_it.address) {_OF_PLACES} GROUP BY asked.finess"
)
_NUMBERS_OF_PLACE = text("SELECT legal_finess, siret FROM organisation WHERE finess = :finess")
_ADDRESSES_RESTING_ON = text(f"""
    SELECT of_it.address {_OF_PLACES} WHERE NOT EXISTS (
        SELECT FROM organisation x
        WHERE (x.legal_finess = of_it.entity AND of_it.entity <> '' AND x.legal_finess <> ''
            OR x.siret = of_it.siret AND of_it.siret <> '' AND x.siret <> '')
        AND x.finess <> asked.finess AND x.departed_at IS NULL AND x.closed_on IS NULL)
""")  # noqa: S608 - constants of this module
_SUCCESSORS = text("SELECT national_id, successor FROM succession WHERE national_id = ANY(:national_ids)")


def person_lock_sql(national_id: str) -> str:
    """The key of the lock that `lock_person` takes, for a number that is an SQL expression."""
    whole = f"(SELECT successor FROM succession WHERE national_id = {national_id})"  # noqa: S608 - of modules
    return lock_key_sql(f"'person:' || coalesce({whole}, CAST({national_id} AS text))")


_LOCK_PERSON = Statement(f"""
    WITH held AS MATERIALIZED (SELECT pg_advisory_xact_lock({person_lock_sql(":national_id")}))
    SELECT clock_timestamp() FROM held
""")  # noqa: S608 - an expression of our own


# Whoever serves a domain comes first: of two spellings of one name, that is the operator.
OPERATORS = """SELECT o.certificate_dn, EXISTS (
    SELECT FROM trusted_domain d WHERE d.operator_id = o.id AND d.departed_at IS NULL) AS serves
FROM operator o ORDER BY serves DESC, o.id"""


def operators_by_name(rows: Iterable[Sequence[Any]]) -> Spellings:
    """The operators of the record by the names of their certificates, from the rows of OPERATORS."""
    operators = [(name, serves) for name, serves in rows]
    return Spellings((name for name, _ in operators), [name for name, serves in operators if serves])


def mailbox_facts(
    connection: Connection, addresses: Sequence[str], at: datetime | None = None
) -> dict[str, MailboxFacts]:
    """All that the directory knows about each address, under the spelling it was asked by.

    `at` None is the present. A malformed address gets facts that say so; nothing is raised for it.
    `answerable` is left empty: who answers for an organisation's mailbox is known to `pki`.
    """
    canonical = {asked: identifiers.address_or_none(asked) for asked in addresses}
    wanted = list({address for address in canonical.values() if address is not None})
    rows = _FACTS[at is not None].rows(connection, {"addresses": wanted, "at": at}) if wanted else ()
    facts = {address: _facts(address, known) for address, known in rows}
    return {
        asked: MailboxFacts(asked, well_formed=False) if address is None else facts[address]
        for asked, address in canonical.items()
    }


def asking_of(address: str) -> dict[str, Any]:
    """What `PRESENT_FACTS` is asked with for one address; it gives one row."""
    return {"addresses": [identifiers.address_or_none(address) or ""], "at": None}


def facts_told(address: str, row: Sequence[Any]) -> MailboxFacts:
    """As `mailbox_facts` gives them, from the row of `PRESENT_FACTS`."""
    canonical, known = row
    return _facts(canonical, known) if canonical else MailboxFacts(address, well_formed=False)


def practitioners(
    connection: Connection, national_ids: Sequence[str], at: datetime | None = None
) -> dict[str, Practitioner]:
    """The people with these national ids, departed ones included; unknown ids are absent from the answer."""
    asked = {"national_ids": list(set(national_ids)), "at": at}
    rows = connection.execute(_PEOPLE[at is not None], asked)
    people = [_practitioner(orjson.loads(person), orjson.loads(names or "[]")) for person, names in rows]
    return {person.national_id: person for person in people}


def organisations(
    connection: Connection, finess: Sequence[str], at: datetime | None = None
) -> dict[str, Organisation]:
    """The establishments with these FINESS numbers, departed ones included; unknown numbers are absent."""
    asked = {"finess": list(set(finess)), "at": at}
    rows = connection.execute(_ESTABLISHMENTS[at is not None], asked).scalars()
    return {place.finess: place for place in (_organisation(orjson.loads(row)) for row in rows)}


def numbers_of(connection: Connection, national_ids: Collection[str]) -> frozenset[str]:
    """These national ids, with the numbers that took their places and those whose places they took.

    Nothing replaces a number that replaced another, so that one step either way finds all.
    """
    rows = connection.execute(_NUMBERS, {"national_ids": list(national_ids)}).scalars()
    return frozenset((*national_ids, *rows))


def successors(connection: Connection, national_ids: Collection[str]) -> dict[str, str]:
    """The number that replaced each of these national ids; those that nothing replaced are absent."""
    rows = connection.execute(_SUCCESSORS, {"national_ids": list(national_ids)})
    return {national_id: successor for national_id, successor in rows if successor is not None}


def lock_person(connection: Connection, national_id: str) -> datetime:
    """Make whoever enrols, certifies, suspends or restores this person wait until the transaction ends.

    What the database's clock said once the lock was held.

    Numbers linked to one another share one lock: under whichever he is called, he is one person.

    Not the row: a register being taken in holds the rows it changes until it commits, and a strike-off waits
    for no register. What a register changes meanwhile is told by the feed.
    """
    ((held_at,),) = _LOCK_PERSON.rows(connection, {"national_id": national_id})
    return cast("datetime", held_at)


def lock_people(connection: Connection, national_ids: Collection[str]) -> None:
    """As `lock_person` for each, in one order for all who lock several."""
    lock_all_until_commit(connection, _person_locks(connection, national_ids).values())


def lock_people_if_free(connection: Connection, national_ids: Collection[str]) -> set[str]:
    """As `lock_people`, without waiting: for who holds something that others wait for. Gives those held."""
    names = _person_locks(connection, national_ids)
    held = {name for name in sorted(set(names.values())) if try_lock_until_commit(connection, name)}
    return {national_id for national_id, name in names.items() if name in held}


def _person_locks(connection: Connection, national_ids: Collection[str]) -> dict[str, str]:
    replaced = successors(connection, national_ids)
    return {national_id: f"person:{replaced.get(national_id, national_id)}" for national_id in national_ids}


def addresses_of(connection: Connection, national_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The addresses of the open mailboxes each person holds today, sorted; () for who holds none."""
    held: dict[str, tuple[str, ...]] = dict.fromkeys(national_ids, ())
    rows = connection.execute(
        text(
            "SELECT holder, array_agg(address ORDER BY address) FROM mailbox"
            " WHERE holder = ANY(CAST(:holders AS text[])) AND departed_at IS NULL GROUP BY holder"
        ),
        {"holders": list(held)},
    )
    return held | {holder: tuple(addresses) for holder, addresses in rows}


def addresses_at(connection: Connection, finess: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The addresses of the establishments' own open mailboxes, sorted; people's who work there are theirs.

    Those under the number of its legal entity and under its SIRET are an establishment's own too.
    """
    held: dict[str, tuple[str, ...]] = dict.fromkeys(finess, ())
    rows = connection.execute(_ADDRESSES_AT, {"finess": list(held)})
    return held | {number: tuple(addresses) for number, addresses in rows}


def addresses_resting_on(connection: Connection, finess: str) -> list[str]:
    """Those of `addresses_at` that close with the establishment: no place under their number stays open.

    A place that has a closing day, however late, does not stay. Who closes another of them waits until this
    transaction ends: each would count on the other's place.
    """
    numbers = connection.execute(_NUMBERS_OF_PLACE, {"finess": finess}).one_or_none() or ()
    lock_all_until_commit(connection, [f"places-under:{number}" for number in numbers if number])
    return list(connection.execute(_ADDRESSES_RESTING_ON, {"finess": [finess]}).scalars())


def keys_that_may_show(connection: Connection, entity: Entity, after: str, limit: int) -> list[str]:
    """The next `limit` keys after `after` that a reader may find something under, in the database's order.

    Whether he does is for `directory.rules`. KeyError for CAs and CRLs: the directory does not know them.
    """
    return list(connection.execute(_MAY_SHOW[entity], {"after": after, "limit": limit}).scalars())


def sources(connection: Connection, at: datetime | None = None) -> dict[str, datetime | None]:
    """When each national register in force at `at` had been generated; None for one not applied by then."""
    rows = connection.execute(_SOURCES, {"registers": list(REGISTERS), "at": at})
    return {register: generated_at for register, generated_at in rows}  # noqa: C416 - dict() of rows is untyped


def records_begin(connection: Connection) -> datetime | None:
    """When the first register was applied: of no earlier instant does the record know anything."""
    first = text("SELECT min(finished_at) FROM register_run WHERE state = 'applied'")
    begins: datetime | None = connection.execute(first).scalar_one()
    return begins


@lru_cache(_ASKED_AGAIN)
def _facts(address: str, known: str) -> MailboxFacts:
    """What PostgreSQL wrote of an address, read: the same text says the same."""
    trusts, mailbox = orjson.loads(known)
    trusted = tuple(Trust(dn, name, bool(d), bool(o)) for dn, name, d, o in trusts or ())
    if mailbox is None:
        return MailboxFacts(address, well_formed=True, trusts=trusted)
    kind, holder, scheme, structure, name, service, listed, departed, person, place = mailbox
    return MailboxFacts(
        address,
        well_formed=True,
        trusts=trusted,
        mailbox=privacy.of_mailbox(
            Mailbox(
                address,
                MailboxKind(kind),
                holder,
                scheme,
                structure,
                name,
                service,
                listed,
                _instant(departed),
            )
        ),
        holder=None if person is None else _practitioner(person),
        organisation=None if place is None else _organisation(place),
    )


def _practitioner(row: list[Any], other_names: Iterable[Sequence[str]] = ()) -> Practitioner:
    national_id, title, family_name, given_name, departed_at, professions, skills, practices, against = row
    measures, changes_at = against
    person = Practitioner(
        national_id,
        title,
        family_name,
        given_name,
        tuple((code, category) for code, category in professions or ()),
        tuple(skills or ()),
        tuple(Practice(*columns) for columns in practices or ()),
        suspended="suspended" in (measures or ()),
        struck_off="struck-off" in (measures or ()),
        departed_at=_instant(departed_at),
        other_names=tuple((family, given) for family, given in other_names),
        changes_at=_instant(changes_at),
    )
    return privacy.of_person(person)


def _organisation(row: list[Any]) -> Organisation:
    finess, name, long_name, code, label, street, postal_line, department, closed_on, departed_at = row
    closed = None if closed_on is None else date.fromisoformat(closed_on)
    departed = _instant(departed_at)
    place = Organisation(
        finess, name, long_name, code, label, street, postal_line, department, closed, departed
    )
    return privacy.of_place(place)


def _instant(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)
