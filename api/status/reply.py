"""What goes out over HTTP: bytes with the headers that say how long anyone may keep them.

Built once per answer, sent many times. Decides nothing about status.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from hashlib import sha256
from typing import Any

from api.http.dates import is_same_date

StartResponse = Callable[..., Any]
Environ = dict[str, Any]
WsgiApplication = Callable[[Environ, StartResponse], Iterable[bytes]]

# A wrong answer once stayed in a CDN for four days: whatever is said here is forgotten within a minute.
CACHEABLE = "public, no-transform, must-revalidate, max-age=60"
_NO_STORE = ("Cache-Control", "no-store")


@dataclass(frozen=True, slots=True)
class Reply:
    """A status line, headers and a body; `etag` is empty when it may not be revalidated.

    `modified` is its Last-Modified where no other body of the same address ever had the same.
    """

    status: str
    headers: list[tuple[str, str]]
    body: bytes
    etag: str = ""
    modified: str = ""

    def send(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request with it: in full, without body to HEAD, or 304 to who has it already."""
        if self._is_held(environ.get("HTTP_IF_NONE_MATCH"), environ.get("HTTP_IF_MODIFIED_SINCE")):
            start_response("304 Not Modified", self._unchanged())
            return ()
        start_response(self.status, self.headers)
        return () if environ["REQUEST_METHOD"] == "HEAD" else (self.body,)

    def given(self, tags: str | None, since: str | None) -> tuple[int, list[tuple[str, str]], bytes]:
        """Status, headers and body for a GET or POST with this `If-None-Match` and `If-Modified-Since`."""
        if self._is_held(tags, since):
            return 304, self._unchanged(), b""
        return int(self.status[:3]), self.headers, self.body

    def _unchanged(self) -> list[tuple[str, str]]:
        return [pair for pair in self.headers if pair[0] not in _OF_A_BODY]

    def _is_held(self, tags: str | None, since: str | None) -> bool:
        """RFC 9110 13.2.2: the date is asked only where no tag is; it must be ours, to the second.

        An earlier or later one tells nothing: what a CRL or an answer is dated by is not when it was made.
        """
        if tags is not None:
            return bool(self.etag) and _holds(tags, self.etag)
        return bool(self.modified) and is_same_date(since, self.modified)


_OF_A_BODY = ("Content-Type", "Content-Length")


def cacheable(
    media_type: str,
    body: bytes,
    modified: datetime,
    expires: datetime | None = None,
    *,
    dated_alone: bool = False,
) -> Reply:
    """A reply that any cache may keep for a minute; `expires` bounds those that know no max-age.

    `dated_alone` says that no other body of this address was modified in the same second.
    """
    etag = f'"{sha256(body).hexdigest()[:32]}"'
    headers = _plain(media_type, body)
    dated = format_datetime(modified, usegmt=True)
    headers += [("ETag", etag), ("Last-Modified", dated)]
    if expires is not None:
        headers.append(("Expires", format_datetime(expires, usegmt=True)))
    headers.append(("Cache-Control", CACHEABLE))
    return Reply("200 OK", headers, body, etag, dated if dated_alone else "")


def uncacheable(media_type: str, body: bytes) -> Reply:
    """A reply for this asker only: errors, answers to POST, answers with a nonce."""
    return Reply("200 OK", [*_plain(media_type, body), _NO_STORE], body)


def failure(status: str, *headers: tuple[str, str]) -> Reply:
    """A status line and the same words as body."""
    body = f"{status}\n".encode()
    return Reply(status, [*_plain("text/plain; charset=utf-8", body), _NO_STORE, *headers], body)


def _plain(media_type: str, body: bytes) -> list[tuple[str, str]]:
    return [
        ("Content-Type", media_type),
        ("Content-Length", str(len(body))),
        ("X-Content-Type-Options", "nosniff"),
    ]


def _holds(if_none_match: str, etag: str) -> bool:
    held = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in held or "*" in held
