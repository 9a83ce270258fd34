"""Who is told of what is held back: matters for registrars, once for all that shows, then with each change.

What must not be published is decided and held back in `directory/privacy.py`, at every read; nothing waits
for this. Here it is found, so that a person may correct it, or have the register correct it. Entries that
showed before anybody looked are written anew wherever they stand. A matter names the field and never the
value.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from sqlalchemy import Connection, Engine, text

from directory import privacy
from directory.attention import Concern, Matter, keep
from directory.base.audit import Actor
from directory.base.db import transaction
from directory.feed import readers as feed
from directory.feed.changes import START, Change, Entity
from directory.rules import registering_authorities
from directory.store import keys_that_may_show, mailbox_facts, organisations, practitioners
from pki.model import Serial
from pki.record import revocations

CONSUMER = "privacy-watch"
ACTOR = Actor("job:privacy-watch")
BATCH = 1000
_LOOKED_AT = (Entity.PRACTITIONER, Entity.ORGANISATION, Entity.MAILBOX)
_LIVE = text("""
    SELECT c.mailbox, c.serial, c.subject FROM certificate c
    WHERE c.mailbox = ANY(CAST(:addresses AS text[])) AND c.not_after > :now
    AND NOT EXISTS (SELECT FROM revocation r WHERE r.serial = c.serial AND r.action = 'revoke')
""")
_CERTIFIED = text(
    "SELECT serial FROM certificate WHERE mailbox = ANY(CAST(:addresses AS text[])) AND mailbox IS NOT NULL"
)
_UNLIST = text("UPDATE mailbox SET listed = false WHERE address = ANY(CAST(:addresses AS text[])) AND listed")
# A person and a place stand in the entries of their mailboxes too.
_REWRITE = text("""
    INSERT INTO change (entity, key, urgent)
    SELECT :entity, key, true FROM unnest(CAST(:keys AS text[])) AS key
    UNION ALL SELECT 'mailbox', address, true FROM mailbox
    WHERE :entity = 'practitioner' AND holder = ANY(CAST(:keys AS text[]))
    UNION ALL SELECT 'mailbox', address, true FROM mailbox
    WHERE :entity = 'organisation' AND finess = ANY(CAST(:keys AS text[])) AND finess <> ''
""")


def look_at_all(engine: Engine, now: datetime) -> int:
    """Look once at all that may show, page by page, and have what is held back written anew; how many.

    Cut short, it begins again: the place in the feed is kept at its end, and what is found twice is one.
    """
    with transaction(engine, read_only=True) as connection:
        place = feed.horizon(connection)
    count = sum(_look_through(engine, entity, now) for entity in _LOOKED_AT)
    with transaction(engine) as connection:
        feed.save_cursor(connection, CONSUMER, place, now)
    return count


def has_begun(connection: Connection) -> bool:
    """Whether all that shows was looked at once."""
    return feed.load_cursor(connection, CONSUMER) != START


def step(connection: Connection, now: datetime) -> int:
    """Look at the next changes of the feed, in one transaction with the place in it; how many there were."""
    start = feed.load_cursor(connection, CONSUMER)
    changes = feed.read_changes(connection, start, BATCH)
    for entity, keys in _by_entity(changes):
        look_at(connection, entity, keys, now)
    if changes:
        feed.save_cursor(connection, CONSUMER, changes[-1].cursor, now)
    return len(changes)


def look_at(connection: Connection, entity: Entity, keys: Sequence[str], now: datetime) -> list[Matter]:
    """See that of these keys those that have something held back are matters, and no others; which are."""
    matters = _matters(connection, entity, keys)
    among: list[str] = list(keys)
    if entity is Entity.MAILBOX:
        matters += _of_certificates(connection, keys, now)
        among += connection.execute(_CERTIFIED, {"addresses": list(keys)}).scalars()
    keep(connection, Concern.PRIVATE_DATA_HELD_BACK, matters, among=among, now=now, actor=ACTOR)
    if entity is Entity.MAILBOX:
        # Whoever holds a copy of it is told so as of any that is put on the red list, without its address.
        called = [matter.subject for matter in matters if "address" in matter.detail["fields"]]
        connection.execute(_UNLIST, {"addresses": called})
    return matters


def _look_through(engine: Engine, entity: Entity, now: datetime) -> int:
    after, count = "", 0
    while True:
        with transaction(engine) as connection:
            keys = keys_that_may_show(connection, entity, after, BATCH)
            if not keys:
                return count
            matters = look_at(connection, entity, keys, now)
            if matters:
                connection.execute(_REWRITE, {"entity": entity.value, "keys": sorted(_keys(matters))})
        count += len(matters)
        after = keys[-1]


def _keys(matters: Iterable[Matter]) -> set[str]:
    """Whose entries are written anew: a certificate stands in its mailbox's."""
    return {str(matter.detail.get("mailbox", matter.subject)) for matter in matters}


def _by_entity(changes: Sequence[Change]) -> Iterable[tuple[Entity, list[str]]]:
    for entity in _LOOKED_AT:
        keys = sorted({change.key for change in changes if change.entity is entity})
        if keys:
            yield entity, keys


def _matters(connection: Connection, entity: Entity, keys: Sequence[str]) -> list[Matter]:
    if entity is Entity.PRACTITIONER:
        people = practitioners(connection, keys)
        return [
            _matter(entity, key, person.withheld, registering_authorities(person))
            for key, person in people.items()
            if person.withheld and person.departed_at is None
        ]
    if entity is Entity.ORGANISATION:
        places = organisations(connection, keys)
        return [
            _matter(entity, key, place.withheld)
            for key, place in places.items()
            if place.withheld and place.departed_at is None
        ]
    facts = mailbox_facts(connection, keys)
    return [
        _matter(
            entity,
            fact.address,
            fact.mailbox.withheld,
            registering_authorities(fact.holder) if fact.holder else (),
        )
        for fact in facts.values()
        if fact.mailbox is not None and fact.mailbox.withheld and fact.mailbox.departed_at is None
    ]


def _of_certificates(connection: Connection, addresses: Sequence[str], now: datetime) -> list[Matter]:
    """Those that name what may not be published: shown no more, and another is to take their place."""
    rows = connection.execute(_LIVE, {"addresses": list(addresses), "now": now})
    named = [
        (Serial(serial), mailbox, secrets)
        for mailbox, serial, subject in rows
        if (secrets := privacy.secrets_in_subject(subject, mailbox))
    ]
    bodies = revocations.enrolled_by(connection, [serial for serial, _, _ in named]) if named else {}
    return [
        Matter(
            serial, bodies.get(serial, ()),
            {"entity": "certificate", "mailbox": mailbox,
             "fields": {"subject": sorted(secret.value for secret in secrets)}},
        )
        for serial, mailbox, secrets in named
    ]  # fmt: skip


def _matter(
    entity: Entity, key: str, withheld: privacy.Withheld, authorities: Collection[str] = ()
) -> Matter:
    fields: dict[str, list[str]] = {}
    for field, secret in withheld:
        fields.setdefault(field, []).append(secret)
    return Matter(key, sorted(authorities), {"entity": entity.value, "fields": fields})
