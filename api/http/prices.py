"""What an operation counts as reading: its price, declared with it, and the headers that say what is left.

`RateLimit` and `RateLimit-Policy` are those of draft-ietf-httpapi-ratelimit-headers-10: the first gives the
policy with the least left, the second all that count the request. Who counts is `api/process/readers.py`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask import Response, g

from api.front.views import source_of_request
from api.process.readers import QuotaStanding, Readers
from directory.access import Token
from directory.reading_quotas import HOUR, Reached, Reading, ReadingQuotas, policy_of, scopes_of

HEADER, POLICY_HEADER = "RateLimit", "RateLimit-Policy"
_HOUR = int(HOUR.total_seconds())


@dataclass(frozen=True)
class Price:
    """What is counted, and how much of it one request asks for, by its query or body as loaded."""

    reading: Reading
    number: Callable[[Mapping[str, Any]], int] = lambda _: 1


SEARCH = Price(Reading.SEARCHES)
BY_NUMBER = Price(Reading.NUMBERS)
ONE_ADDRESS = Price(Reading.ADDRESSES)
ALL_ADDRESSES = Price(Reading.ADDRESSES, lambda asked: len(asked["addresses"]))
PAGE_OF_THE_FEED = Price(Reading.FEEDS)
DOWNLOAD = Price(Reading.DOWNLOADS)

DOCUMENTED: Mapping[str, Mapping[str, Any]] = {
    POLICY_HEADER: {
        "description": "Quotas par heure qui comptent cette demande — Hourly quotas that count this request"
        " (draft-ietf-httpapi-ratelimit-headers)",
        "schema": {"type": "string"},
        "example": '"searches-operator";q=1000;w=3600, "searches-source";q=5000;w=3600',
        "required": True,
    },
    HEADER: {
        "description": "Le quota dont il reste le moins, et les secondes jusqu'à ce qu'il en revienne — The"
        " quota with the least left, and the seconds until more of it comes back",
        "schema": {"type": "string"},
        "example": '"searches-operator";r=997;t=3540',
        "required": True,
    },
}
RETRY_DOCUMENTED: Mapping[str, Any] = {
    "description": "Secondes d'attente — Seconds to wait",
    "schema": {"type": "integer"},
    "example": 3540,
}


def priced(view: Callable[..., Any], price: Price) -> Callable[..., Any]:
    """The view, which is not called where the quota of who asks has too little left.

    What was asked is counted whatever the answer: who guesses is told `unknown` most of the time.
    """

    @functools.wraps(view)
    def counted(call: Any, *loaded: Mapping[str, Any], **path: Any) -> Any:
        asked = {name: value for part in loaded for name, value in part.items()}
        _charge(call.container.readers, call.token, price.reading, price.number(asked), call.now)
        return view(call, *loaded, **path)

    return counted


def charge(call: Any, price: Price, asked: Mapping[str, Any]) -> None:
    """Count what is asked, where a view has more to refuse before; refuses as `priced`."""
    _charge(call.container.readers, call.token, price.reading, price.number(asked), call.now)


def mark(response: Response) -> Response:
    """Put the headers on the answer of an operation with a price, once it is known who asks."""
    if "rate_limit" in g:
        response.headers[POLICY_HEADER], response.headers[HEADER] = g.rate_limit
    return response


def spent(readers: Readers, token: Token, source: str, reading: Reading) -> tuple[str, str] | None:
    """Both headers' values, one read counted; None where that takes the record, or is refused."""
    scopes, policies = _counted(token, source, reading, readers.quotas)
    done = readers.spend(scopes, reading)
    return None if done is None else (policies, _least(done))


def _charge(readers: Readers, token: Token, reading: Reading, number: int, now: datetime) -> None:
    scopes, policies = _counted(token, source_of_request(), reading, readers.quotas)
    done = readers.charge(token, scopes, reading, number)
    if isinstance(done, Reached):
        refusal = done.refusal(now)
        seconds = refusal.details.get("retry_after", _HOUR)
        g.rate_limit = policies, f'"{_name(reading, done.scope)}";r={done.left};t={seconds}'
        raise refusal
    g.rate_limit = policies, _least(done)


@functools.lru_cache(4096)
def _counted(
    token: Token, source: str, reading: Reading, quotas: ReadingQuotas
) -> tuple[tuple[str, ...], str]:
    """Under which scopes it is counted, and the header that names their quotas."""
    scopes = scopes_of(token, source, quotas)
    return scopes, ", ".join(_policy(reading, scope, quotas.of(reading, scope)) for scope in scopes)


def _least(done: Sequence[QuotaStanding]) -> str:
    least = min(done, key=lambda standing: (standing.left, standing.limit))
    return f'"{_name(least.reading, least.scope)}";r={least.left};t={least.resets_in}'


def _policy(reading: Reading, scope: str, limit: int) -> str:
    # The draft's own unit is a request.
    unit = ';qu="addresses"' if reading is Reading.ADDRESSES else ""
    return f'"{_name(reading, scope)}";q={limit};w={_HOUR}{unit}'


def _name(reading: Reading, scope: str) -> str:
    return f"{reading.value}-{policy_of(scope)}"
