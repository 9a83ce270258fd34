"""Asks the FHIR API of the Annuaire Santé, as fast as it allows and no faster, and believes nothing it says.

Every page comes by the rules of `https.py` for addresses and TLS; the key goes to the host that was named and
nowhere else. What resources mean is for `directory/sync/formats/fhir.py`; what is asked, for
`fhir_increment.py`. One attempt: a Refusal of kind UNAVAILABLE may pass by itself.
"""

import http.client
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import orjson

from directory.base.errors import Kind, Refusal
from directory.sync.sources.https import BLOCK, Asking, Origin, retry_after

CALLS_PER_SECOND = 17
# The server itself gives up after 30 s.
READ_SECONDS = 30.0
PAGE_SIZE = 200
LARGEST_PAGE = 64 << 20
# Two million people at 200 a page, twice over.
MOST_PAGES = 20_000
PAUSES = (1.0, 2.0, 4.0, 8.0)
LONGEST_PAUSE = 60.0
MOST_EMPTY_PAGES = 3
_SHOWN = 200
_KEY_REFUSED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}

Resource = Mapping[str, Any]


@dataclass(frozen=True)
class Api:
    """Where the API answers (`origin.url`, without a slash at its end), and the file that holds our key."""

    origin: Origin
    key_file: Path

    def key(self) -> str:
        """Our key; Refusal UNACCEPTABLE `bad-source` when there is none that a header could carry."""
        try:
            key = self.key_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise self._bad("cannot be read") from error
        if not (key and key.isascii() and key.isprintable()):
            raise self._bad("holds no key")
        return key

    def _bad(self, how: str) -> Refusal:
        text = f"{self.origin.name}: the file of the key {how}."
        return Refusal(Kind.UNACCEPTABLE, "bad-source", text)


@dataclass
class Pace:
    """At most so many calls within any second of the server's, however long each was on its way.

    A call that was answered had arrived: a second after its answer is more than one after its arrival.
    """

    per_second: int = CALLS_PER_SECOND
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _answered: deque[float] = field(default_factory=deque)

    @contextmanager
    def call(self) -> Iterator[None]:
        """One call, once it may begin; one at a time."""
        if len(self._answered) >= self.per_second:
            rest = self._answered.popleft() + 1 - self.clock()
            if rest > 0:
                self.sleep(rest)
        try:
            yield
        finally:
            self._answered.append(self.clock())


class Client:
    """One attempt's conversation with the API."""

    def __init__(self, api: Api, pace: Pace | None = None) -> None:
        self._api = api
        self._key = api.key()
        self._pace = pace or Pace()
        self._asking = Asking(api.origin, READ_SECONDS)

    def search(self, kind: str, asked: Mapping[str, str]) -> Iterator[Resource]:
        """The resources of all pages, in their order; the server keeps one state for all of them.

        Refusal UNAVAILABLE as of `https.fetch`, or `page-expired`; UNACCEPTABLE `api-key-refused`,
        `api-refused`, `no-bundle`, `foreign-next`, `paging-loop`, `too-large`.
        """
        url: str | None = f"{self._api.origin.url}/{kind}?{urlencode({**asked, '_count': PAGE_SIZE})}"
        pages: set[str] = set()
        seen: set[tuple[object, object]] = set()
        empty = 0
        while url is not None:
            if url in pages or len(pages) >= MOST_PAGES or empty >= MOST_EMPTY_PAGES:
                raise self._refused("paging-loop", "the pages of one search do not come to an end")
            pages.add(url)
            bundle = self._page(url)
            resources = self._resources(bundle)
            fresh = [
                resource
                for resource in resources
                if (resource.get("resourceType"), resource.get("id")) not in seen
            ]
            if resources and not fresh:
                raise self._refused("paging-loop", "a page holds nothing but what pages before it held")
            empty = 0 if resources else empty + 1
            seen.update((resource.get("resourceType"), resource.get("id")) for resource in fresh)
            yield from fresh
            url = self._next(bundle, url)

    def _page(self, url: str) -> Resource:
        """One page, asked for again while the server is busy."""
        for pause in (*PAUSES, None):
            try:
                with self._pace.call():
                    return self._answered(url)
            except Refusal as refusal:
                if refusal.code != "source-busy" or pause is None:
                    raise
                self._pace.sleep(max(pause, min(refusal.details["retry_after"] or 0, LONGEST_PAUSE)))
        raise AssertionError("the last pause is None")

    def _answered(self, url: str) -> Resource:
        headers = {"ESANTE-API-KEY": self._key, "Accept": "application/fhir+json"}
        with self._asking.response("GET", headers, url) as response:
            page = _parsed(self._body(response))
            if response.status == HTTPStatus.OK:
                if page.get("resourceType") != "Bundle":
                    raise self._refused("no-bundle", "the answer to a search is no Bundle")
                return page
            raise self._unanswered(response, _outcome(page))

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        body = bytearray()
        try:
            while block := response.read1(BLOCK):
                body += block
                if len(body) > LARGEST_PAGE:
                    raise self._refused("too-large", f"a page is larger than {LARGEST_PAGE >> 20} MB")
        except (http.client.HTTPException, OSError) as error:
            raise self._unavailable("truncated-download", "an answer was cut") from error
        announced = response.headers.get("Content-Length", "")
        if announced.isdecimal() and int(announced) != len(body):
            raise self._unavailable("truncated-download", "an answer was cut")
        return bytes(body)

    def _unanswered(self, response: http.client.HTTPResponse, told: str) -> Refusal:
        status, said = response.status, f": {told}" if told else ""
        if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            text = f"{self._api.origin.name}: the server asks to come back later ({status}){said}."
            wait = retry_after(response.headers)
            return Refusal(Kind.UNAVAILABLE, "source-busy", text, retry_after=wait)
        if status in _KEY_REFUSED:
            return self._refused("api-key-refused", f"the server does not take our key ({status}){said}")
        if status == HTTPStatus.GONE:
            return self._unavailable("page-expired", f"the server forgot the search{said}")
        return self._refused("api-refused", f"the server answered {status}{said}")

    def _resources(self, bundle: Resource) -> list[Resource]:
        entries = bundle.get("entry", [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise self._refused("no-bundle", "the entries of a Bundle are none")
        # What the server says about the search itself is no answer to it.
        resources = [
            entry.get("resource")
            for entry in entries
            if not (isinstance(entry.get("search"), dict) and entry["search"].get("mode") == "outcome")
        ]
        if not all(
            isinstance(resource, dict) and isinstance(resource.get("id"), str) for resource in resources
        ):
            raise self._refused("no-bundle", "an entry of a Bundle holds no resource with an id")
        return [resource for resource in resources if isinstance(resource, dict)]

    def _next(self, bundle: Resource, url: str) -> str | None:
        """Where the next page is: opaque, but on the host that holds our key's trust."""
        links = bundle.get("link", [])
        if not isinstance(links, list):
            raise self._refused("no-bundle", "the links of a Bundle are none")
        urls = [
            link.get("url") for link in links if isinstance(link, dict) and link.get("relation") == "next"
        ]
        if not urls:
            return None
        try:
            there = urljoin(url, urls[0])
            stays = urlsplit(there)[:2] == urlsplit(self._api.origin.url)[:2]
        except (TypeError, ValueError, AttributeError):
            stays = False
        if not stays:
            raise self._refused("foreign-next", "the next page lies on another host")
        return str(there)

    def _refused(self, code: str, how: str) -> Refusal:
        return Refusal(Kind.UNACCEPTABLE, code, f"{self._api.origin.name}: {how}.")

    def _unavailable(self, code: str, how: str) -> Refusal:
        return Refusal(Kind.UNAVAILABLE, code, f"{self._api.origin.name}: {how}.")


def _parsed(body: bytes) -> Resource:
    """The JSON object of an answer; empty when it is none."""
    try:
        resource = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return resource if isinstance(resource, dict) else {}


def _outcome(page: Resource) -> str:
    """What an OperationOutcome says first, fit to be shown; '' when it is none."""
    issues = page.get("issue") if page.get("resourceType") == "OperationOutcome" else None
    issue = issues[0] if isinstance(issues, list) and issues and isinstance(issues[0], dict) else {}
    details = issue.get("details")
    told = issue.get("diagnostics") or (details.get("text") if isinstance(details, dict) else "")
    shown = "".join(letter for letter in str(told or issue.get("code", "")) if letter.isprintable())
    return shown[:_SHOWN].rstrip(".")
