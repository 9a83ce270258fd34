"""One HTTP operation as a value: what it takes, gives, refuses, who may call it, which transaction it runs
in.

From the same value come the route, the check of the caller and the OpenAPI document, so that they cannot
disagree.
"""

import functools
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from http import HTTPStatus
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson
from flask import Request, Response, request
from flask_smorest import Blueprint
from marshmallow import RAISE, Schema, ValidationError, missing
from sqlalchemy import Connection
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from api.auth.bearer import admitted, admitted_for_act, presented_secret
from api.front.roads import (
    LARGEST_DOCUMENT,
    ORDINARY,
    RESPOND_ASYNC,
    Road,
    on_road,
    prefers_async,
    too_large,
)
from api.http import freshness, prices
from api.http import idempotency as idempotent_requests
from api.http.idempotency import asked_of
from api.http.media_types import NDJSON
from api.http.prices import Price
from api.http.problems import MEDIA_TYPE
from api.wiring import Container
from api.words.problems import CATALOGUE
from directory import withdrawal_limits
from directory.access import Role, Token
from directory.base.db import asking, transaction
from directory.base.errors import Kind, Refusal
from directory.base.json_text import RepeatedKeyError, read_json
from directory.reading_quotas import CODE as READING_QUOTA_REACHED
from pki.record import idempotency
from pki.record.idempotency import IdempotencyClaim, KeptAnswer

View = Callable[..., Any]
Form = Callable[[Container, Any], bytes]
# Line ends and commas of a document that are not between its values.
_BESIDES = 1_000
_LINES_AT_ONCE = 10_000
# A body of 32 MiB is read in two seconds.
_PATIENCE_SECONDS = 5.0
PREFER_DOCUMENTED = {
    "in": "header",
    "name": "Prefer",
    "required": False,
    "description": "`respond-async` : la réponse vient plus tard, dans un fichier (202) —"
    " `respond-async`: the answer comes later, in a file (202; RFC 7240)",
    "schema": {"type": "string"},
    "example": RESPOND_ASYNC,
}
LATER_DOCUMENTED: Mapping[str, Mapping[str, Any]] = {
    "Location": {
        "description": "Où voir l'avancement — Where its progress is told",
        "schema": {"type": "string"},
        "required": True,
    },
    "Preference-Applied": {
        "description": "Ce qui a été suivi de `Prefer` (RFC 7240) — What was followed of `Prefer`",
        "schema": {"type": "string"},
        "example": RESPOND_ASYNC,
        "required": True,
    },
}
# RFC 9110's words. Python's own became these with 3.13; the description must not depend on who serves it.
PHRASES = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}


class Opens(Enum):
    """The transaction a view runs in; the caller's token is looked up in the same one."""

    SNAPSHOT = "snapshot"
    WRITE = "write"
    # The use case has several transactions of its own (reserve, sign, store); the token is checked before.
    NONE = "none"


@dataclass(frozen=True)
class Call:
    """Who asks, when, and what the view may use."""

    container: Container
    now: datetime
    token: Token
    # For acts of several transactions: called in the last one with the coming answer. So a repeated request
    # finds it even if this process dies before it answers.
    keep: Callable[[Connection, Any], None] | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Transacted(Call):
    """A call inside the one transaction of its request."""

    connection: Connection


@dataclass(frozen=True)
class Operation:
    """A view with all that is known about it. `french` is its title and explanation; the docstring is the
    English.
    """

    view: View
    method: str
    rule: str
    roles: frozenset[Role]
    opens: Opens
    french: str
    answer: type[Schema] | Mapping[str, Any]
    media: str
    status: int
    body: type[Schema] | None
    query: type[Schema] | None
    problems: tuple[str, ...]
    parameters: Mapping[str, Mapping[str, Any]]
    idempotent: bool = False
    while_behind: bool = False
    forms: Mapping[str, Form] = field(default_factory=dict)
    streams: tuple[str, ...] = ()
    road: Road = ORDINARY
    price: Price | None = None
    deferred: "Operation | None" = None
    beforehand: Callable[[Call], None] | None = None

    @property
    def gives_trust(self) -> bool:
        """Whether it acts, and takes no trust away: what it has signed, the signer refuses by itself."""
        return self.opens is Opens.WRITE and self.method != "GET" and not self.while_behind


def operation(
    method: str,
    rule: str,
    *,
    roles: set[Role],
    opens: Opens,
    french: str,
    answer: type[Schema] | Mapping[str, Any],
    media: str = "application/json",
    status: int = 200,
    body: type[Schema] | None = None,
    query: type[Schema] | None = None,
    problems: tuple[str, ...] = (),
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    idempotent: bool = False,
    while_behind: bool = False,
    forms: Mapping[str, Form] = MappingProxyType({}),
    streams: tuple[str, ...] = (),
    road: Road = ORDINARY,
    price: Price | None = None,
    deferred: Operation | None = None,
    beforehand: Callable[[Call], None] | None = None,
) -> Callable[[View], Operation]:
    """Declare a view: it receives the call, then the loaded body or query if any, then path values.

    What is answered otherwise than in JSON the view makes itself; `answer` then only describes it.
    `idempotent` lets callers send an `Idempotency-Key`: the view needs nothing for it where it opens WRITE.
    Where it opens NONE it hands its answer to `call.keep(connection, answer)` in its last transaction. It
    must itself survive being asked again after a crash in between. Never for answers that hold a secret: they
    are kept in the database for a day. `while_behind` is for what takes trust away, and for what shows none:
    it goes on over a restored record, all else is refused `record-behind`. `forms` are other media types that
    `Accept` may ask for, each made from the JSON of the answer. `streams` are those that the view makes
    itself, while they are sent. `road` says which threads serve it, and how large its body may be. `price` is
    what it counts as reading; without one it is not counted.
    `deferred` is asked instead where the client prefers `respond-async` (RFC 7240), one at a time in a
    process. `beforehand` is called once it is known who asks, before a large body is read.
    """

    def declare(view: View) -> Operation:
        return Operation(
            view,
            method,
            rule,
            frozenset(roles),
            opens,
            french,
            answer,
            media,
            status,
            body,
            query,
            (*problems, *idempotent_requests.PROBLEMS) if idempotent else problems,
            parameters or {},
            idempotent,
            while_behind,
            forms,
            streams,
            road,
            price,
            deferred,
            beforehand,
        )

    return declare


class JsonParser(FlaskParser):
    """Reads bodies with orjson: fast, and it refuses the lone surrogates that no database text can hold."""

    # Silence about a misspelt parameter is how a search comes back with everybody.
    DEFAULT_UNKNOWN_BY_LOCATION = {"json": None, "query": RAISE, "path": RAISE}  # noqa: RUF012 - so named by webargs

    def load_json(self, req: Request, schema: Schema) -> Any:
        """The body; one value a line where the schema says of which of its lists such lines are."""
        if getattr(schema, "may_be_absent", False) and not req.get_data(cache=True):
            # Whoever has nothing to say sends no body, as before there was anything to say.
            return missing
        lines_of: str | None = getattr(schema, "lines_of", None)
        if lines_of is None:
            return super().load_json(req, schema)
        body = req.get_data(cache=True)
        _refuse_too_many(body, schema.most_lines)  # type: ignore[attr-defined] # beside `lines_of`
        if req.mimetype == NDJSON:
            return {lines_of: _read_lines(body)}
        if len(body) > LARGEST_DOCUMENT:
            raise too_large(LARGEST_DOCUMENT, lines=True)
        return super().load_json(req, schema)

    def load_querystring(self, req: Request, schema: Schema) -> Any:
        """The parameters; one given twice is refused, or one of both values would be dropped in silence.

        So are octets that are no UTF-8: replaced, they would ask another question.
        """
        try:
            unquote_to_bytes(req.query_string).decode()
        except UnicodeDecodeError as error:
            text = "The query is not in UTF-8: its octets cannot be read as text."
            raise Refusal(Kind.MALFORMED, "malformed-request", text) from error
        repeated = [name for name, values in req.args.lists() if len(values) > 1]
        if repeated:
            raise ValidationError({name: ["This parameter is given more than once."] for name in repeated})
        return super().load_querystring(req, schema)

    def _raw_load_json(self, req: Request) -> Any:
        if not req.is_json:
            raise UnsupportedMediaType("The body must be application/json.")
        body = req.get_data(cache=True)
        # Of a body sent in chunks, werkzeug hands over what fits the limit and says nothing of the rest.
        if req.content_length is None and len(body) >= (req.max_content_length or math.inf):
            raise RequestEntityTooLarge
        try:
            return read_json(body) if body else missing
        except RepeatedKeyError as error:
            text = f"The name {error.key!r} stands twice in one object: which of the two is meant?"
            raise Refusal(Kind.MALFORMED, "repeated-key", text, key=error.key) from error
        except ValueError as error:
            raise BadRequest from error


class Resource(Blueprint):  # type: ignore[misc] # flask-smorest is untyped
    """A blueprint that reads its arguments our way."""

    ARGUMENTS_PARSER = JsonParser()


def resource(name: str, description: str, container: Container, *operations: Operation) -> Resource:
    """A blueprint serving `operations` on what `container` holds."""
    made = Resource(name, __name__, description=description)
    for endpoint in operations:
        made.add_url_rule(
            endpoint.rule,
            _name(endpoint),
            _handler(made, container, endpoint),
            methods=[endpoint.method],
            **_path(endpoint),
        )
    return made


def _need_able(container: Container, endpoint: Operation) -> None:
    """Refuse `record-behind`, and `frozen` where it gives trust."""
    if not endpoint.while_behind:
        container.watch.need()
    if endpoint.gives_trust:
        container.need_thawed()


def _handler(blueprint: Resource, container: Container, endpoint: Operation) -> View:
    """The view behind its check of the caller, in its transaction, with its arguments loaded and answer
    dumped.
    """
    inner, lately = _with_schemas(blueprint, endpoint), freshness.Lately()

    def apart(**path: Any) -> Response:
        request.max_content_length = endpoint.road.largest
        secret = presented_secret()
        _need_able(container, endpoint)
        with asking(container.engine) as connection:
            token, now = _caller(container, endpoint, connection, secret, acts=endpoint.method != "GET")
            freshness.rest_on(lately.sources(connection))
        asked = asked_of(request, token.id) if endpoint.idempotent else None
        if asked is None:
            answered: Response = inner(Call(container, now, token), **path)
            return answered
        return _once(endpoint, asked, inner, Call(container, now, token), path)

    def within(**path: Any) -> Response:
        request.max_content_length = endpoint.road.largest
        secret = presented_secret()
        _need_able(container, endpoint)
        with (
            withdrawal_limits.audit_limit_refusals(container.engine, container.clock()),
            transaction(container.engine, read_only=endpoint.opens is Opens.SNAPSHOT) as connection,
        ):
            token, now = _caller(container, endpoint, connection, secret, acts=endpoint.opens is Opens.WRITE)
            with freshness.told(connection, lately if endpoint.opens is Opens.WRITE else None):
                asked = asked_of(request, token.id) if endpoint.idempotent else None
                kept = None if asked is None else idempotency.claim(connection, asked, now)
                if kept is not None:
                    return idempotent_requests.as_response(kept, endpoint.media)
                answered: Response = inner(Transacted(container, now, token, connection), **path)
                if asked is not None:
                    idempotency.keep(connection, asked, idempotent_requests.answer_of(answered))
        return answered

    view = apart if endpoint.opens is Opens.NONE else within
    later = None if endpoint.deferred is None else _later(blueprint, container, endpoint.deferred)

    def handler(**path: Any) -> Response:
        if later is not None and prefers_async(request.headers.get("Prefer", "")):
            deferred: Response = later(**path)
            return deferred
        return _as_accepted(endpoint, container, view(**path))

    handler.__doc__ = None
    # Where flask-smorest looks for what it documents.
    on_road(handler, endpoint.road)
    vars(handler)["_apidoc"] = {**vars(inner)["_apidoc"], "manual_doc": _documented(endpoint)}
    return handler


def _later(blueprint: Resource, container: Container, endpoint: Operation) -> View:
    """The view of who prefers to be answered later; its body may be so large that one is read at a time."""
    view, alone = _handler(blueprint, container, endpoint), threading.Lock()

    def later(**path: Any) -> Response:
        if not alone.acquire(timeout=_PATIENCE_SECONDS):
            text = "Another request to be answered later is being read by this process; nothing was done."
            raise Refusal(Kind.UNAVAILABLE, "process-full", text, retry_after=2)
        try:
            answered: Response = view(**path)
        finally:
            alone.release()
        answered.headers["Preference-Applied"] = RESPOND_ASYNC
        # From the body, which is also what is kept under an Idempotency-Key.
        answered.headers["Location"] = orjson.loads(answered.get_data())["location"]
        return answered

    return later


def _caller(
    container: Container, endpoint: Operation, connection: Connection, secret: str, *, acts: bool
) -> tuple[Token, datetime]:
    """The token, with what it may take away as this installation is set, and the instant that counts."""
    now = container.clock()
    if acts:
        # An act is judged and dated by one clock, whichever machine it comes to.
        token, now = admitted_for_act(connection, secret, now, endpoint.roles)
    else:
        token = admitted(connection, secret, now, endpoint.roles)
    return replace(token, allowance=container.settings.allowance), now


def _with_schemas(blueprint: Resource, endpoint: Operation) -> View:
    """The view with its arguments loaded and its answer dumped."""
    inner = endpoint.view if endpoint.price is None else prices.priced(endpoint.view, endpoint.price)
    if endpoint.body:
        required = not getattr(endpoint.body, "may_be_absent", False)
        inner = blueprint.arguments(endpoint.body(), required=required)(inner)
    if endpoint.query:
        inner = blueprint.arguments(endpoint.query(), location="query")(inner)
    headers = {**freshness.DOCUMENTED, **(prices.DOCUMENTED if endpoint.price else {})}
    made: View = blueprint.response(
        endpoint.status, endpoint.answer, content_type=endpoint.media, headers=headers
    )(inner)
    if endpoint.deferred is not None:
        later = endpoint.deferred
        # What is answered from memory under a key counts nothing.
        perhaps = {name: {**facts, "required": False} for name, facts in prices.DOCUMENTED.items()}
        headers = {**headers, **perhaps, **LATER_DOCUMENTED}
        made = blueprint.alt_response(later.status, schema=later.answer, headers=headers)(made)
    return made if endpoint.beforehand is None else _after(endpoint.beforehand, made)


def _after(beforehand: Callable[[Call], None], view: View) -> View:
    @functools.wraps(view)
    def checked(call: Call, **path: Any) -> Any:
        beforehand(call)
        return view(call, **path)

    return checked


def _as_accepted(endpoint: Operation, container: Container, answered: Response) -> Response:
    """The answer in the form that `Accept` prefers (RFC 9110 12.5.1); JSON where it prefers none."""
    if not endpoint.forms:
        return answered
    answered.vary.add("Accept")
    media = request.accept_mimetypes.best_match([endpoint.media, *endpoint.forms], default=endpoint.media)
    if media in endpoint.forms:
        answered.set_data(endpoint.forms[media](container, orjson.loads(answered.get_data())))
        answered.content_type = media
    return answered


def _once(
    endpoint: Operation, asked: IdempotencyClaim, inner: View, call: Call, path: Mapping[str, Any]
) -> Response:
    """An act of several transactions under its key: claimed, done, kept; what was refused is let go."""
    container = call.container
    kept = idempotent_requests.claimed_patiently(container.engine, asked, container.present)
    if kept is not None:
        return idempotent_requests.as_response(kept, endpoint.media)

    def keep(connection: Connection, answer: Any) -> None:
        body = orjson.dumps(endpoint.answer().dump(answer), option=orjson.OPT_UTC_Z)  # type: ignore[operator] # a schema
        idempotency.keep(connection, asked, KeptAnswer(endpoint.status, body))

    try:
        answered: Response = inner(replace(call, keep=keep), **path)
    except Refusal:
        idempotent_requests.released(container.engine, asked)
        raise
    with transaction(container.engine) as connection:
        idempotency.keep(connection, asked, idempotent_requests.answer_of(answered))
    return answered


def _refuse_too_many(body: bytes, most: int) -> None:
    """Before it is parsed: eleven million values of one letter would take a gigabyte."""
    if body.count(b"\n") > most + _BESIDES or body.count(b",") > most + _BESIDES:
        text = f"This asks for more than {most:,} at once: send it in parts."
        raise Refusal(Kind.UNACCEPTABLE, "invalid-request", text)


def _read_lines(body: bytes) -> list[Any]:
    """The values of NDJSON; one that spans lines has a line end in it, and is refused."""
    lines = body.strip().split(b"\n") if body.strip() else []
    values: list[Any] = []
    # Parsed in one go, a large body would keep every other thread waiting.
    for start in range(0, len(lines), _LINES_AT_ONCE):
        some = lines[start : start + _LINES_AT_ONCE]
        try:
            read = orjson.loads(b"[" + b",".join(some) + b"]")
        except ValueError as error:
            raise BadRequest from error
        if len(read) != len(some):
            raise BadRequest
        values += read
    return values


def _name(endpoint: Operation) -> str:
    return endpoint.view.__name__


def _path(endpoint: Operation) -> dict[str, Any]:
    described = [{"in": "path", "name": name, **facts} for name, facts in endpoint.parameters.items()]
    if endpoint.deferred is not None:
        described.append(PREFER_DOCUMENTED)
    if endpoint.idempotent or (endpoint.deferred is not None and endpoint.deferred.idempotent):
        described.append(idempotent_requests.DOCUMENTED)
    return {"parameters": described} if described else {}


def _documented(endpoint: Operation) -> dict[str, Any]:
    """What the OpenAPI document says of it beyond its schemas."""
    english = _told(endpoint.view.__doc__ or "")
    french = _told(endpoint.french)
    return {
        "operationId": _name(endpoint),
        "summary": f"{french[0]} — {english[0]}",
        "description": f"{french[1]}\n\n{english[1]}",
        "x-roles": sorted(role.value for role in endpoint.roles),
        "x-titles": {"fr": french[0], "en": english[0]},
        "security": [{"bearer": []}],
        "responses": {**_refusals(endpoint), **_forms(endpoint)},
        **_lines(endpoint),
    }


def _forms(endpoint: Operation) -> dict[int, Any]:
    """The other media types of the answer; its JSON is documented from the schema."""
    forms = (*endpoint.forms, *endpoint.streams)
    if not forms:
        return {}
    return {endpoint.status: {"content": {form: {"schema": {"type": "string"}} for form in forms}}}


def _lines(endpoint: Operation) -> dict[str, Any]:
    """The body of NDJSON that is read of who prefers to be answered later."""
    body = None if endpoint.deferred is None else endpoint.deferred.body
    if body is None or not hasattr(body, "lines_of"):
        return {}
    return {"requestBody": {"content": {NDJSON: {"schema": {"type": "string"}}}}}


def _told(text: str) -> tuple[str, str]:
    """The title and the explanation of a docstring, each on one line."""
    title, _, explanation = text.strip().partition("\n\n")
    return title.rstrip("."), " ".join(explanation.split())


_OF_EVERY_ROAD = (
    "no-token", "bad-token", "role-lacking", "database-unavailable", "internal-error", "share-used-up",
    "process-full",
)  # fmt: skip


def _refusals(endpoint: Operation) -> dict[int, Any]:
    codes = [*_OF_EVERY_ROAD, *endpoint.problems]
    if endpoint.deferred is not None:
        codes += endpoint.deferred.problems
    if not endpoint.while_behind:
        codes.append("record-behind")
    if endpoint.gives_trust:
        codes += ["frozen", "log-rewritten"]
    if endpoint.price:
        codes.append(READING_QUOTA_REACHED)
    if endpoint.body:
        codes += [
            "malformed-request", "repeated-key", "body-cut-short", "invalid-request", "body-too-large",
            "body-too-slow", "unsupported-media-type", "unknown-encoding",
        ]  # fmt: skip
    if endpoint.query:
        codes.append("invalid-request")
    if endpoint.parameters:
        # A path value with a line end, or no UUID, matches no route.
        codes.append("no-such-resource")
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(CATALOGUE[code].status, []).append(code)
    return {status: refusal_documented(status, codes) for status, codes in sorted(by_status.items())}


def refusal_documented(status: int, codes: list[str]) -> dict[str, Any]:
    """The OpenAPI response object of these problem codes, which share a status."""
    made: dict[str, Any] = {
        "description": f"{PHRASES.get(status, HTTPStatus(status).phrase)}: {', '.join(codes)}",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if status == HTTPStatus.UNAUTHORIZED:
        made["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}, "required": True}}
    if READING_QUOTA_REACHED in codes:
        # The front refuses with the same status before it is known who asks.
        perhaps = {name: {**facts, "required": False} for name, facts in prices.DOCUMENTED.items()}
        made["headers"] = {**perhaps, "Retry-After": prices.RETRY_DOCUMENTED}
    return made
