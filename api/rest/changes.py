"""The change feed as operators read it: a page of lines, or a wait for the next one.

Which changes come is `directory.feed.outside_cursor`'s; what shows of each key is
`pki.publication.values`'s, as in the exports.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from flask import Response
from marshmallow import fields, validate
from sqlalchemy import Connection

from api.front.roads import Road, Trade
from api.front.views import client_left, may_stay, source_of_request
from api.http import freshness
from api.http.media_types import NDJSON
from api.http.operation import Call, Opens, Resource, operation, resource
from api.http.prices import PAGE_OF_THE_FEED
from api.http.schemas import EXAMPLE_ADDRESS, Instant, Shape, rfc3339
from api.wiring import Container
from directory import privacy, red_list
from directory.access import Role
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.feed import outside_cursor
from directory.feed.changes import BEGINNING, Change, Entity, Place
from directory.store import sources
from pki.publication.export_folder import RETRY_SECONDS, served
from pki.publication.values import ENTITIES, Key, Value, public_values

MAY_COPY = {Role.OPERATOR, Role.AUDITOR}
MOST_ON_A_PAGE = 5_000
LONGEST_WAIT = 30
# What commits within a moment of one another comes in one page rather than in ten.
_GATHERING_SECONDS = 0.2
# For who found no seat: he asks again, at no more than this pace.
_RETRY_SECONDS = 5


class ChangeLine(Shape):
    """One line: a key whose public state may have changed; the last line tells how to go on."""

    cursor = fields.String(metadata={"description": "Reprise après cette ligne — To go on after this line"})
    at = Instant(metadata={"description": "Quand — When"})
    entity = fields.String(validate=validate.OneOf([entity.value for entity in ENTITIES]))
    key = fields.String(
        metadata={
            "example": EXAMPLE_ADDRESS,
            "description": "Avec `keys=opaque`, l'`opaque_key` d'une boîte — With `keys=opaque`, a mailbox's"
            " `opaque_key`",
        }
    )
    act = fields.String(validate=validate.OneOf(["put", "remove"]))
    value = fields.Dict(
        metadata={
            "description": "État public présent, comme dans l'export — Present public state, as exported"
        }
    )
    next = fields.String(
        metadata={"description": "Dernière ligne : le curseur suivant — Last line: the next cursor"}
    )
    more = fields.Boolean(
        metadata={"description": "Dernière ligne : la suite est déjà là — Last line: more is there already"}
    )
    sources = fields.Dict(keys=fields.String(), values=Instant(allow_none=True))


class ChangesQuery(Shape):
    """From where, how many, how long to wait for them."""

    cursor = fields.String(
        validate=validate.Length(1, outside_cursor.LONGEST_CURSOR),
        metadata={
            "description": "`next`, `cursor` d'une ligne ou d'un export — `next`, or a line's, or an export's"
        },
    )
    keys = fields.String(
        load_default="plain",
        validate=validate.OneOf(["plain", "opaque"]),
        metadata={
            "description": "`opaque` : les boîtes par leur `opaque_key` — `opaque`: mailboxes by `opaque_key`"
        },
    )
    limit = fields.Integer(load_default=1000, validate=validate.Range(1, MOST_ON_A_PAGE))
    wait = fields.Integer(
        load_default=0,
        validate=validate.Range(0, LONGEST_WAIT),
        metadata={
            "description": "Secondes d'attente s'il n'y a rien — Seconds to wait while there is nothing"
        },
    )


@dataclass(frozen=True)
class _Page:
    lines: bytes
    ending: bytes
    next: str
    more: bool


@operation(
    "GET",
    "/v1/changes",
    roles=MAY_COPY,
    opens=Opens.NONE,
    price=PAGE_OF_THE_FEED,
    french="""Suivre les changements.

    Une ligne JSON par clé dont l'état public a changé, retraits compris, puis une dernière ligne avec le
    curseur suivant. Partir d'un export ; un curseur trop ancien est refusé (410). Avec `wait`, la réponse
    attend le prochain changement.
    """,
    answer=ChangeLine,
    media=NDJSON,
    query=ChangesQuery,
    problems=("bad-cursor", "cursor-expired"),
    road=Road(Trade.STAY),
)
def changes(call: Call, asked: dict[str, Any]) -> Response:
    """Follow what changes.

    One line of JSON for each key whose public state changed, removals included, then a last line with the
    next cursor. Begin from an export; a cursor that is too old is refused (410). With `wait` the answer waits
    for the next change.
    """
    container, wait = call.container, asked["wait"]
    source = source_of_request()
    seated = wait > 0 and may_stay() and container.waiting.take(call.token.id, source)
    try:
        page = _awaited(container, asked, wait if seated else 0)
    finally:
        if seated:
            container.waiting.leave(call.token.id, source)
    answer = Response(page.lines + page.ending, mimetype=NDJSON)
    if wait and not seated and not page.lines:
        answer.headers["Retry-After"] = str(_RETRY_SECONDS)
    return answer


def feed_of_changes(container: Container) -> Resource:
    """The resource, served on `container`."""
    return resource("changes", "Fil des changements — Feed of changes", container, changes)


def _awaited(container: Container, asked: Mapping[str, Any], seconds: int) -> _Page:
    """The first page with a line, or the empty one that stands when the time is over.

    Nothing of the database is held while waiting: only a thread, and those who may are counted.
    """
    deadline, cursor, left = time.monotonic() + seconds, asked.get("cursor"), client_left()
    while True:
        rung = container.bell.rung
        with transaction(container.engine, read_only=True) as connection:
            page = _page(connection, cursor, asked, container)
        if page.lines or page.more or time.monotonic() >= deadline or left():
            return page
        cursor = page.next
        if container.bell.wait(rung, deadline - time.monotonic(), left):
            time.sleep(_GATHERING_SECONDS)


def _page(
    connection: Connection, cursor: str | None, asked: Mapping[str, Any], container: Container
) -> _Page:
    generated = sources(connection)
    freshness.rest_on(generated)
    origin = outside_cursor.origin(connection)
    try:
        place = BEGINNING if cursor is None else outside_cursor.place_of(origin, cursor)
        told = outside_cursor.tell(connection, place, asked["limit"])
        secret = _secret_of_keys(connection, place, opaque=asked["keys"] == "opaque")
    except Refusal as refusal:
        raise _with_a_way_on(connection, refusal, container) from refusal
    rows = _unless_unseen(connection, _last_of_each(told, place), None if cursor is None else place)
    values = public_values(connection, rows, container.clock())
    lines = b"".join(
        _line(row, outside_cursor.cursor_of(origin, after), values, secret)
        for key, (row, after) in rows.items()
        if key in values or not _is_secret(key, opaque=secret is not None)
    )
    following = outside_cursor.cursor_of(origin, told.next)
    ending = {
        "next": following,
        "more": told.more,
        "sources": {register: None if at is None else rfc3339(at) for register, at in generated.items()},
    }
    return _Page(lines, orjson.dumps(ending) + b"\n", following, told.more)


def _last_of_each(told: outside_cursor.OutsideChanges, place: Place) -> dict[Key, tuple[Change, Place]]:
    """For each key the last row of the page, and the place after it: who goes on from there meets no hole.

    What is told ahead comes first and leaves the reader where he was.
    """
    ahead = {(row.entity, row.key): (row, place) for row in told.ahead if row.entity in ENTITIES}
    rows: dict[Key, tuple[Change, Place]] = {}
    for row, after in told.changes:
        key = (row.entity, row.key)
        if row.entity in ENTITIES and key not in ahead:
            rows.pop(key, None)
            rows[key] = (row, after)
    return ahead | rows


def _secret_of_keys(connection: Connection, place: Place, *, opaque: bool) -> bytes | None:
    """What hides addresses; None for who reads them plain, and begins again where a mailbox was red-listed.

    To name what he has to remove would name it to all who never had it. Refusal: GONE `cursor-expired`.
    """
    if opaque:
        return red_list.secret_of_keys(connection)
    if red_list.grew_since(connection, place.seen):
        text = "A mailbox was put on the red list since this cursor. Ask with keys=opaque, or begin again."
        raise Refusal(Kind.GONE, "cursor-expired", text)
    return None


def _unless_unseen(
    connection: Connection, rows: dict[Key, tuple[Change, Place]], place: Place | None
) -> dict[Key, tuple[Change, Place]]:
    """Without the red-listed mailboxes that a reader at this place never held: their changes tell of them."""
    hidden = red_list.red_listed(connection, [key for entity, key in rows if entity is Entity.MAILBOX])
    unseen = {
        (Entity.MAILBOX, address) for address, xid in hidden.items() if place is None or xid in place.seen
    }
    return {key: row for key, row in rows.items() if key not in unseen}


def _is_secret(key: Key, *, opaque: bool) -> bool:
    """Whether to name what shows no more would tell what must not be published: an address, a number."""
    entity, word = key
    if entity is Entity.MAILBOX:
        return not opaque and bool(privacy.secrets_in_address(word))
    return entity is Entity.PRACTITIONER and bool(privacy.secrets_in_number(word))


def _line(row: Change, cursor: str, values: Mapping[Key, Value], secret: bytes | None) -> bytes:
    value = values.get((row.entity, row.key))
    key = row.key
    if secret is not None and row.entity is Entity.MAILBOX:
        key = red_list.opaque_key(secret, row.key)
    told = {"cursor": cursor, "at": row.at, "entity": row.entity.value, "key": key}
    told |= {"act": "remove"} if value is None else {"act": "put", "value": value}
    return orjson.dumps(told, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE)


def _with_a_way_on(connection: Connection, refusal: Refusal, container: Container) -> Refusal:
    """A refusal that names the export to begin from, when the cursor leads nowhere any more."""
    if refusal.kind is not Kind.GONE:
        return refusal
    newest = next(iter(served(connection, container.settings.exports)), None)
    if newest is None:
        details = {"export": None, "retry_after": RETRY_SECONDS}
        return Refusal(refusal.kind, refusal.code, refusal.text, **details)
    return Refusal(refusal.kind, refusal.code, refusal.text, export=f"/v1/exports/{newest.stamp}")
