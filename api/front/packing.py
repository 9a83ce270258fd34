"""Content codings of an answer (RFC 9110 8.4.1): gzip and zstd (RFC 8878), of one body or of a stream.

What comes in is unpacked by `bodies.py`.
"""

import gzip
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from api.front.answers import Answer

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# Below this a packed answer is hardly shorter.
_WORTH_PACKING = 1024
# One pass at this level takes 10,000 verdicts to a tenth; the best level takes six times as long for a third
# less.
_GZIP_LEVEL = 1
_ZSTD_LEVEL = 1
_GZIP_WINDOW = 31
_PACKED = ("text/", "application/json", "application/problem+json", "application/x-ndjson", "image/svg+xml")
_MISSING_PERMISSION = "no-transform"
# Of an Accept-Encoding; browsers write some thirty characters.
_USUAL_LENGTH = 100
# In the order in which they are taken where a client takes both alike.
_CODINGS: Mapping[str, Callable[[bytes], bytes]] = {
    "zstd": lambda body: zstd.compress(body, _ZSTD_LEVEL),
    "gzip": lambda body: gzip.compress(body, _GZIP_LEVEL, mtime=0),
}
_ALSO_CALLED = {"x-gzip": "gzip"}


def packed(given: Answer, accepted: str) -> Answer:
    """The same answer in a coding that the client takes, where it is worth the while (RFC 9110 12.5.3)."""
    if given.stream is None and len(given.body) < _WORTH_PACKING:
        return given
    known = {name.lower(): value for name, value in given.headers}
    return _packed(given, accepted) if _may_pack(given, known) else given


def packed_json(given: Answer, accepted: str) -> Answer:
    """The same of a JSON document in memory, without a validator, a range or a coding of its own."""
    return given if len(given.body) < _WORTH_PACKING else _packed(given, accepted)


def _packed(given: Answer, accepted: str) -> Answer:
    headers = [*given.headers, ("Vary", "Accept-Encoding")]
    coding = preferred(accepted) if accepted else None
    if coding is None:
        return given._replace(headers=headers)
    headers = [pair for pair in headers if pair[0].lower() != "content-length"]
    headers.append(("Content-Encoding", coding))
    if given.stream is not None:
        return given._replace(headers=headers, stream=_in_pieces(given.stream, coding))
    body = _CODINGS[coding](given.body)
    headers.append(("Content-Length", str(len(body))))
    return given._replace(headers=headers, body=body)


def preferred(accepted: str) -> str | None:
    """The coding of ours that an Accept-Encoding likes best: named, or by `*`, and not refused."""
    # What strangers write at length is not kept.
    return _known_liking(accepted) if len(accepted) <= _USUAL_LENGTH else _liking(accepted)


def _liking(accepted: str) -> str | None:
    weights: dict[str, float] = {}
    for coding in accepted.lower().split(","):
        name, _, parameters = coding.partition(";")
        plain = name.strip()
        weights[_ALSO_CALLED.get(plain, plain)] = _weight(parameters)
    liked = {coding: weights.get(coding, weights.get("*", 0.0)) for coding in _CODINGS}
    best = max(liked, key=liked.__getitem__)
    return best if liked[best] > 0 else None


_known_liking = lru_cache(64)(_liking)


def _in_pieces(stream: Iterator[bytes], coding: str) -> Iterator[bytes]:
    if coding == "zstd":
        packing: Any = zstd.ZstdCompressor(_ZSTD_LEVEL)
    else:
        packing = zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_WINDOW)
    for piece in stream:
        if made := packing.compress(piece):
            yield made
    yield packing.flush()


def _may_pack(given: Answer, known: Mapping[str, str]) -> bool:
    return (
        known.get("content-type", "").startswith(_PACKED)
        # A strong ETag names these octets; what says its own encoding has one.
        and not {"etag", "content-encoding", "content-range"} & known.keys()
        and _MISSING_PERMISSION not in known.get("cache-control", "")
        and given.status != HTTPStatus.PARTIAL_CONTENT
    )


def _weight(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
