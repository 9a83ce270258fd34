"""What anyone outside may hold of a key of the feed: the one form of it, in the feed, in exports, in copies.

What shows is decided by `directory.rules`; here it gets its members. Unlisted, departed and never known look
the same: nothing. Measures against a person are not told: his mailboxes vanish, and verdicts say why.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from directory import privacy
from directory.corrections import marks
from directory.feed.changes import Entity
from directory.model import MailboxFacts, Organisation, Practitioner
from directory.red_list import opaque_key, secret_of_keys
from directory.rules import FRANCE, is_open, visible
from directory.store import mailbox_facts, organisations, practitioners
from pki.model import Purpose
from pki.publication import store as published

Key = tuple[Entity, str]
Value = Mapping[str, Any]
# CRLs are fetched where certificates say, and are no part of the directory.
ENTITIES = (Entity.MAILBOX, Entity.ORGANISATION, Entity.PRACTITIONER, Entity.AUTHORITY)


def public_values(connection: Connection, keys: Iterable[Key], now: datetime) -> dict[Key, Value]:
    """What shows at `now` under each of these keys; a key is absent when nothing does."""
    words: dict[Entity, list[str]] = {entity: [] for entity in Entity}
    for entity, word in keys:
        words[entity].append(word)
    public: dict[Key, Value] = {}
    for entity, values in (
        (Entity.MAILBOX, _mailboxes(connection, words[Entity.MAILBOX], now)),
        (Entity.ORGANISATION, _organisations(connection, words[Entity.ORGANISATION], now)),
        (Entity.PRACTITIONER, _practitioners(connection, words[Entity.PRACTITIONER])),
        (Entity.AUTHORITY, _authorities(connection, words[Entity.AUTHORITY])),
    ):
        public |= {(entity, word): value for word, value in values.items()}
    for entity in (Entity.MAILBOX, Entity.ORGANISATION, Entity.PRACTITIONER):
        shown = [word for word in words[entity] if (entity, word) in public]
        marked = marks(connection, entity, shown)
        for word in shown:
            public[entity, word] = {
                **public[entity, word], "corrected": [mark.field for mark in marked.get(word, ())],
            }  # fmt: skip
    return public


def _mailboxes(connection: Connection, addresses: Sequence[str], now: datetime) -> dict[str, Value]:
    if not addresses:
        return {}
    shown = {
        address: facts
        for address, facts in mailbox_facts(connection, addresses).items()
        if visible(facts, now)
    }
    certificates = published.live_with_purposes(connection, list(shown), now)
    secret = secret_of_keys(connection)
    return {
        address: _mailbox(facts, certificates.get(address, ())) | {"opaque_key": opaque_key(secret, address)}
        for address, facts in shown.items()
    }


def _mailbox(facts: MailboxFacts, certificates: Sequence[tuple[bytes, frozenset[Purpose]]]) -> dict[str, Any]:
    mailbox = facts.mailbox
    if mailbox is None:
        raise ValueError("nothing shows of a mailbox that is not registered")
    return {
        "address": mailbox.address,
        "kind": mailbox.kind.value,
        "holder": mailbox.holder,
        "structure_type": mailbox.structure_type,
        "structure_id": mailbox.structure_id,
        "structure_name": mailbox.structure_name,
        "service": mailbox.service,
        "certificates": [base64.b64encode(der).decode() for der, _ in certificates],
        # Beside them and not within: copies that know of no purposes go on reading what they read.
        "certificate_purposes": [sorted(purpose.value for purpose in serves) for _, serves in certificates],
    }


def _organisations(connection: Connection, numbers: Sequence[str], now: datetime) -> dict[str, Value]:
    day = now.astimezone(FRANCE).date()
    places = organisations(connection, numbers) if numbers else {}
    return {finess: _organisation(place) for finess, place in places.items() if is_open(place, day)}


def _organisation(place: Organisation) -> Value:
    return {name: value for name, value in vars(place).items() if name not in ("departed_at", "withheld")}


def _practitioners(connection: Connection, numbers: Sequence[str]) -> dict[str, Value]:
    people = practitioners(connection, numbers) if numbers else {}
    return {
        number: _practitioner(person)
        for number, person in people.items()
        if person.departed_at is None and privacy.is_shown(person)
    }


def _practitioner(person: Practitioner) -> Value:
    return {
        "national_id": person.national_id,
        "title": person.title,
        "family_name": person.family_name,
        "given_name": person.given_name,
        "professions": [{"code": code, "category": category} for code, category in person.professions],
        "skills": person.skills,
        "practices": [vars(practice) for practice in person.practices],
    }


def _authorities(connection: Connection, names: Sequence[str]) -> dict[str, Value]:
    if not names:
        return {}
    return {
        name: {"id": name, "certificate": base64.b64encode(der).decode()}
        for name, der in published.authorities(connection)
        if name in names
    }
