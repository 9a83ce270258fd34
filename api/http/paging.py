"""Pages of lists and of searches: what asks for one, where it ends, how many there are in all.

The cursor that leads from page to page of a search is bound to the question it belongs to.
"""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import orjson
from marshmallow import fields, validate

from api.http.freshness import rest_on
from api.http.operation import Transacted
from api.http.schemas import LARGEST_ID, Department, Line, Pattern, Shape
from directory.base.errors import Kind, Refusal
from directory.search import MOST_COUNTED, START, Index, Position, Question, find, total
from directory.store import sources

MOST_ON_A_PAGE = 100
# Room for the longest names there are.
LONGEST_CURSOR = 1000
AFTER = {"description": "`next` de la page d'avant — `next` of the page before"}
Item = TypeVar("Item")


class PageQuery(Shape):
    """How many on a page."""

    limit = fields.Integer(load_default=20, validate=validate.Range(1, MOST_ON_A_PAGE))


class NumberedQuery(PageQuery):
    """A page of what has numbers, which lead from page to page."""

    after = fields.Integer(validate=validate.Range(1, LARGEST_ID), metadata=AFTER)


class TotalAnswer(Shape):
    """How many match."""

    count = fields.Integer(required=True, metadata={"example": 214})
    more = fields.Boolean(
        required=True,
        metadata={"description": "Plus que `count`, sans compter plus loin — More than `count`, uncounted"},
    )


class SearchQuery(PageQuery):
    """What every search takes beside its own criteria."""

    department = Department(
        validate=Pattern(
            r"(0[1-9]|[1-8][0-9]|9[0-5]|2[AB]|9[78][0-9])",
            error="The code of a department is expected, as in 01, 2A or 974.",
            as_sent=r"\s*(0?[1-9]|[1-8][0-9]|9[0-5]|2[ABab]|9[78][0-9]|9[A-FJa-fj])\s*",
        ),
        metadata={"description": "Code du département — Code of the department", "example": "75"},
    )
    town = Line(
        60,
        metadata={
            "description": "Début du nom de la commune — Beginning of the town's name",
            "example": "saint-etienne",
        },
    )
    after = fields.String(validate=validate.Length(1, LONGEST_CURSOR), metadata=AFTER)
    total = fields.Boolean(
        load_default=False,
        metadata={
            "description": f"Compter, jusqu'à {MOST_COUNTED} — Count them, up to {MOST_COUNTED}",
        },
    )


def cut(items: Sequence[Item], limit: int) -> tuple[Sequence[Item], Item | None]:
    """The page of what was found, and its last where more follow: `items` were asked for `limit` and one."""
    page = items[:limit]
    return page, page[-1] if len(items) > limit else None


def page_of(
    call: Transacted,
    index: Index,
    question: Question,
    asked: Mapping[str, Any],
    given: Callable[[Transacted, Sequence[str]], list[dict[str, Any]]],
) -> dict[str, Any]:
    """A page as it is answered: `given` makes of keys what is shown, in their order."""
    after = read(question, asked.get("after"))
    page = find(call.connection, index, question, after=after, limit=asked["limit"])
    generated = sources(call.connection)
    rest_on(generated)
    return {
        "items": given(call, page.keys),
        "next": written(question, page.last),
        "total": total(call.connection, index, question) if asked["total"] else None,
        "sources": generated,
    }


def written(question: Question, last: Position | None) -> str | None:
    """The cursor after `last`; None when nothing follows. It gives no right, so it is not signed."""
    if last is None:
        return None
    parts = orjson.dumps([question.digest, last.sort_name, last.key])
    return base64.urlsafe_b64encode(parts).decode().rstrip("=")


def read(question: Question, cursor: str | None) -> Position:
    """Where to go on; Refusal MALFORMED `bad-cursor` for one that this question did not give."""
    if cursor is None:
        return START
    try:
        parts = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError) as error:
        raise _strange() from error
    match parts:
        case [question.digest, str() as sort_name, str() as key] if f"{sort_name}{key}".isprintable():
            return Position(sort_name, key)
    raise _strange()


def _strange() -> Refusal:
    return Refusal(Kind.MALFORMED, "bad-cursor", "This cursor was not given by a search for the same.")
